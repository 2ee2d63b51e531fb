"""The loop's stages and their limits for pytest-benchmark: `make bench`. One call is a fixed piece of work."""

from collections.abc import Iterator
from dataclasses import replace

import pytest

from potstill.bench import Stage, stages
from potstill.cli.learn import demo_options
from potstill.distill.plan import plan


@pytest.fixture(scope="module")
def measured() -> Iterator[dict[str, Stage]]:
    with stages(plan(replace(demo_options(), hours=0.2, memory_hours=0.2))) as ready:
        yield ready


@pytest.mark.parametrize("stage", ["play", "label", "sample", "learn"])
@pytest.mark.parametrize("which", ["ours", "limit"])
def test_stage(benchmark, measured, stage, which):
    units = benchmark(getattr(measured[stage], which))
    benchmark.extra_info["units a call"] = f"{units} {measured[stage].unit}"
