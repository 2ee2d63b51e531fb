"""The benchmark measures what it says."""

import json
import time

import pytest
import torch

from potstill import bench
from potstill.cli.main import main
from potstill.distill.options import DistillOptions
from potstill.distill.plan import plan
from potstill.tasks import Envs


@pytest.fixture(autouse=True)
def short(monkeypatch):
    monkeypatch.setattr(bench, "SECONDS", 0.02)
    monkeypatch.setitem(bench.LOOP_HOURS, "cpu", 0.02)


def measure(teacher) -> dict[str, bench.Measured]:
    planned = plan(DistillOptions(("mlp:16", "mlp:8"), (teacher,), hours=0.02, updates=400, envs=20, threads=2))
    measuring = bench.bench(planned, 2)
    done = []
    while True:
        try:
            done.append(next(measuring))
        except StopIteration as end:
            assert [(each.done, each.total) for each in done] == [(number, 10) for number in range(1, 11)]
            return end.value


def test_json_has_every_stage_with_rate_limit_and_fraction(cartpole_file, capsys):
    flags = ["--teacher", str(cartpole_file), "--student", "mlp:8", "--hours", "0.02", "--rounds", "1", "--json"]
    threads = torch.get_num_threads()
    main(["bench", *flags])
    assert torch.get_num_threads() == threads, "the caller's are as they were"
    printed = json.loads(capsys.readouterr().out)
    for stage in ("play", "label", "sample", "learn", "loop"):
        figures = printed[stage]
        assert figures["rate"] > 0
        assert figures["fraction"] == pytest.approx(figures["rate"] / figures["limit"])


def test_a_stage_that_dawdles_is_further_from_its_limit_and_so_is_the_loop(cartpole_file, monkeypatch):
    before = {stage: figures.record() for stage, figures in measure(cartpole_file).items()}
    step = Envs.step
    monkeypatch.setattr(Envs, "step", lambda self, actions: (time.sleep(0.02), step(self, actions))[1])
    after = {stage: figures.record() for stage, figures in measure(cartpole_file).items()}
    for stage in ("play", "loop"):
        assert after[stage]["fraction"] < 0.5 * before[stage]["fraction"]


def test_the_loops_limit_is_the_sum_of_its_stages(cartpole_file):
    measured = measure(cartpole_file)
    steps, samples = 0.02 * 54_000, 0.02 * 400 * 256
    for number in range(2):
        limit = {stage: figures.limits[number] for stage, figures in measured.items()}
        seconds = steps / limit["play"] + steps / limit["label"] + samples / limit["learn"]
        assert limit["loop"] == pytest.approx(steps / seconds, rel=0.01)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--student"], "--student: name at least one network"),
        (["--student", "mlp:8", "--driver", "student"], "bench: the teacher plays throughout; leave out --driver"),
    ],
)
def test_what_cannot_be_measured_is_one_line(cartpole_file, capsys, flags, message):
    with pytest.raises(SystemExit, match="2"):
        main(["bench", "--teacher", str(cartpole_file), *flags])
    assert message in capsys.readouterr().err
