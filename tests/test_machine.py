"""What the machine is said to have."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from potstill.machine import cores, workers


@pytest.mark.parametrize(("limit", "threads"), [("max 100000", 4), ("200000 100000", 2), ("50000 100000", 1), ("?", 4)])
def test_a_containers_share_of_the_cores_is_respected(limit, threads, monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {0, 1, 2, 3}, raising=False)
    monkeypatch.setattr(Path, "read_text", lambda path: limit if path.name == "cpu.max" else "")
    assert cores() == threads
    assert cores(7) == 7, "what is asked for is done"


@pytest.mark.parametrize(
    "prepare",
    [
        "from potstill.machine import prepare_device; prepare_device('cpu')",
        # Which loads teachers: whatever computes before has threads that keep their ways.
        "from potstill.reproduce.options import ReproduceOptions; from potstill.reproduce.run import prepare;"
        " prepare('losses', ReproduceOptions(games=('Pong',), teachers=('zoo',)))",
    ],
)
def test_numbers_next_to_nothing_are_nothing_on_every_thread(prepare):
    code = f"{prepare}; import torch; torch.set_num_threads(2)"
    code += "; tiny = torch.full((4_000_000,), 1e-30) * 1e-10; print(tiny.view(torch.int32).count_nonzero().item())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout == "0\n", done.stderr


@pytest.mark.parametrize(("count", "threads", "inside"), [(2, 16, 8), (3, 16, 5), (3, 2, 1), (4, 4, 1)])
def test_workers_share_the_threads(count, threads, inside):
    with workers(count, threads) as pool:
        assert pool.submit(torch.get_num_threads).result() == inside
