"""What the machine is said to have."""

from pathlib import Path

import pytest

from potstill.machine import cores


@pytest.mark.parametrize(("limit", "threads"), [("max 100000", 4), ("200000 100000", 2), ("50000 100000", 1), ("?", 4)])
def test_a_containers_share_of_the_cores_is_respected(limit, threads, monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {0, 1, 2, 3}, raising=False)
    monkeypatch.setattr(Path, "read_text", lambda path: limit if path.name == "cpu.max" else "")
    assert cores() == threads
    assert cores(7) == 7, "what is asked for is done"
