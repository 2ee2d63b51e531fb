"""Each stage of the loop beside its own limit on this machine, measured in turns in one run.

A stage is the loop's own code. Its limit is the same work without what the loop adds: the library's
bare vector env, a network on a batch that lies ready, a plain copy.
"""

import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

import numpy as np
import torch

from potstill.distill.learning import REPORT_EVERY, learn, threads_inside, update, update_as_graph
from potstill.distill.loop import distill, label
from potstill.distill.plan import Plan, check_memory, check_students
from potstill.distill.schedule import rows_until, updates_until
from potstill.distill.state import State, new_state
from potstill.errors import PotstillError
from potstill.evaluate import play_threads
from potstill.machine import arithmetic_threads, workers
from potstill.progress import Progress
from potstill.tasks.envs import make_vector_env

SECONDS = 1.0
"""How long a stage, or its limit, is measured in one round, at least."""
ROWS = 20
"""Rows played in one call."""
LOOP_HOURS = {"cpu": 0.2, "cuda": 2.0}
"""Hours of play of the whole loop in one round. On a GPU its first updates, which are no graphs yet, must not count."""


@dataclass(frozen=True)
class Measured:
    """A stage's rate and its limit's, round by round, in `unit` a second."""

    unit: str
    rates: tuple[float, ...]
    limits: tuple[float, ...]

    def record(self) -> dict[str, Any]:
        """Medians over the rounds, and all of them, as JSON."""
        return {
            "rate": median(self.rates),
            "limit": median(self.limits),
            "fraction": median(rate / limit for rate, limit in zip(self.rates, self.limits, strict=True)),
            "unit": f"{self.unit}/s",
            "rates": self.rates,
            "limits": self.limits,
        }


@dataclass(frozen=True)
class Stage:
    """A stage and its limit: calls that do a piece of work and return how many units it was."""

    unit: str
    ours: Callable[[], int]
    limit: Callable[[], int]


def bench(plan: Plan, rounds: int) -> Generator[Progress, None, dict[str, Measured]]:
    """Measure play, label, sample, learn and the whole loop.

    Args:
        plan: a run; its hours and seed don't matter.
        rounds: every stage and limit is measured once a round, for a second at least.
    """
    hours = LOOP_HOURS[plan.options.device]
    options = replace(plan.options, hours=hours, memory_hours=hours)
    plan = replace(plan, options=options)
    check_memory(plan)
    steps = rows_until(hours, options) * options.envs
    samples = updates_until(hours, options) * options.batch
    rates: dict[str, list[tuple[float, float]]] = {}
    with stages(plan) as to_measure:
        total = rounds * (len(to_measure) + 1)
        for _ in range(rounds):
            limits: dict[str, float] = {}
            for name, stage in to_measure.items():
                limits[name] = _rate(stage.limit)
                rates.setdefault(name, []).append((_rate(stage.ours), limits[name]))
                yield Progress("measure", sum(map(len, rates.values())), total)
            serial = steps / limits["play"] + steps / limits["label"] + samples / limits["learn"]
            rates.setdefault("loop", []).append((steps / timed(plan)[0], steps / serial))
            yield Progress("measure", sum(map(len, rates.values())), total)
    units = {name: stage.unit for name, stage in to_measure.items()} | {"loop": "steps"}
    return {name: Measured(units[name], *zip(*pairs, strict=True)) for name, pairs in rates.items()}


@contextmanager
def stages(plan: Plan) -> Iterator[dict[str, Stage]]:
    """The stages of a plan's loop, ready to be called."""
    check_students(plan)
    options, [lesson, *more] = plan.options, plan.lessons
    task, teacher = lesson.task, lesson.labeller
    if more or teacher is None or lesson.recording:
        raise PotstillError("bench: one --teacher, and no --data")
    state = new_state(plan)
    envs, memory, rng = state.envs[0], state.memories[0], np.random.default_rng(0)
    teacher.to(options.device)
    if task.bounds is None:
        actions = rng.integers(0, task.num_actions, (ROWS, options.envs))
    else:
        actions = rng.uniform(*task.bounds, (ROWS, options.envs, task.num_actions)).astype(np.float32)
    bare = make_vector_env(task, options.envs, plan.threads)
    bare.reset(seed=0)
    no_labels = torch.zeros(options.envs, task.num_outputs)

    def play_ours() -> int:
        torch.set_num_threads(1)  # as the loop does
        for row in actions:
            memory.add(envs.observations, envs.age, no_labels)
            envs.step(row)
        return ROWS * options.envs

    def play_limit() -> int:
        for row in actions:
            bare.step(row)
        return ROWS * options.envs

    with (
        arithmetic_threads(1),
        closing(state),
        closing(bare),
        workers(plan.threads, plan.threads) as players,
        workers(len(state.students), plan.threads) as learners,
    ):
        while memory.rows < memory.capacity:
            play_ours()
        resident = torch.as_tensor(envs.observations).to(options.device)

        def label_ours() -> int:
            torch.set_num_threads(1)
            label(teacher, envs.observations, players, plan.threads)
            return options.envs

        def label_limit() -> int:
            torch.set_num_threads(play_threads(teacher, plan.threads))
            with torch.no_grad():
                teacher.network(resident).cpu()
            return options.envs

        def sample_ours() -> int:
            memory.sample(options.batch, rng)
            return options.batch

        batch, labels = memory.sample(options.batch, rng)
        copied = torch.empty_like(batch).flatten()
        played = memory.frames.flatten()
        played = played[: len(copied) * (len(played) // len(copied))].view(-1, len(copied))

        def sample_limit() -> int:
            copied.copy_(played[rng.integers(len(played))])
            return options.batch

        def learn_ours() -> int:
            state.updates = before = max(0, updates_until(1, options) - REPORT_EVERY)
            for _ in learn(plan, state, 1, learners):
                pass
            return (state.updates - before) * options.batch

        def learn_limit() -> int:
            torch.set_num_threads(threads_inside(state.students, plan.threads))
            step = update_as_graph if options.device == "cuda" else update
            for student in state.students:
                for _ in range(REPORT_EVERY):
                    step(plan, student, {0: (batch, labels)})
            if options.device == "cuda":
                torch.cuda.synchronize()
            return REPORT_EVERY * options.batch

        yield {
            "play": Stage("steps", play_ours, play_limit),
            "label": Stage("steps", label_ours, label_limit),
            "sample": Stage("samples", sample_ours, sample_limit),
            "learn": Stage("samples", learn_ours, learn_limit),
        }


def _rate(work: Callable[[], int]) -> float:
    work()
    done, start = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - start) < SECONDS:
        done += work()
    return done / elapsed


def timed(plan: Plan) -> tuple[float, State]:
    """A distillation of one task from its beginning to its end: seconds, and what became of it."""
    with closing(new_state(plan)) as state:
        start = time.perf_counter()
        for _ in distill(plan, state):
            pass
        return time.perf_counter() - start, state
