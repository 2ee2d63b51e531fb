"""What a run is planned with on this machine."""

from pathlib import Path

import pytest

from potstill import PotstillError
from potstill.distill import plan as planning
from potstill.distill.options import DistillOptions
from potstill.distill.plan import hours_that_fit
from potstill.distill.schedule import STEPS_PER_HOUR
from potstill.memory import step_bytes
from potstill.tasks import make_task

PONG = "ALE/Pong-v5"


@pytest.mark.parametrize(
    ("held", "tasks", "device", "threads", "besides", "hours"),
    [
        (6.2, 1, "cpu", 2, 0, 6.0),
        (6.2, 1, "cpu", 4, 0, 5.0),  # one is played while another is learnt
        (6.2, 1, "cuda", 2, 0, 5.0),
        (6.2, 1, "cpu", 2, 3.0, 3.0),
        (6.2, 2, "cpu", 2, 0, 3.0),  # of each
        (0.5, 1, "cpu", 2, 0, 1.0),  # the least: less is refused later, by name
        (40.0, 1, "cpu", 2, 0, 10.0),  # the paper's
    ],
)
def test_two_thirds_of_the_memory_hold_the_play_there_is(monkeypatch, held, tasks, device, threads, besides, hours):
    an_hour = STEPS_PER_HOUR * step_bytes(make_task(PONG))
    monkeypatch.setattr(planning, "memory_bytes", lambda of: round(held * an_hour * 3 / 2) if of == device else 0)
    assert hours_that_fit([PONG] * tasks, device, threads, besides) == hours


@pytest.mark.parametrize(
    ("gigabytes", "mend"),
    [(2.0, "add --memory-hours 3$"), (0.1, "an hour is the least; name --hours below 1, or fewer teachers$")],
)
def test_the_mend_of_too_little_memory_is_one_that_helps(monkeypatch, gigabytes, mend):
    monkeypatch.setattr(planning, "memory_bytes", lambda device: gigabytes * 2**30)
    planned = planning.plan(DistillOptions(("net3",), (Path("zoo:pong"),), hours=10.0))
    with pytest.raises(PotstillError, match=mend):
        planning.check_memory(planned)
