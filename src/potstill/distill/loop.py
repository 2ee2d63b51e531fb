"""The loop: the teacher plays and labels, the students learn.

Each hour of play (54,000 control steps) is followed by its updates, as in Rusu et al. 2016, section
3. Several students learn from the same minibatches. It is a generator: whoever drives it logs,
saves, shows progress and stops.
"""

import math
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
from torch import Tensor

from potstill.distill.options import STEPS_PER_HOUR, Options
from potstill.evaluate import play_threads
from potstill.losses import LOSSES
from potstill.memory import Replay
from potstill.networks import scale, standardise
from potstill.policy import Policy, choose
from potstill.tasks import Envs

REPORT_EVERY = 50
"""Updates between two progress records."""
TINY = 20_000
"""Parameters up to which sharing an update between threads costs more than it saves."""
STANDARDISE_ON = 512
"""Observations from which students are initialised."""
WARMUP = 0.02
"""Share of the updates over which the cosine schedule first rises: the first ones decide whether a student wakes."""


@dataclass
class Student:
    """A policy that learns."""

    name: str
    policy: Policy
    optimizer: torch.optim.Optimizer


@dataclass
class State:
    """All that changes while the loop runs, and so all that a checkpoint holds."""

    envs: Envs
    memory: Replay
    students: list[Student]
    play_rng: np.random.Generator
    sample_rng: np.random.Generator
    hours: int = 0
    """Hours begun and done, the last may be a fraction."""
    updates: int = 0
    seconds: dict[str, float] = field(default_factory=lambda: {"play": 0.0, "label": 0.0, "learn": 0.0})


@dataclass(frozen=True)
class Progress:
    """What the loop is doing. At stage "hour" an hour is complete: the moment to save."""

    stage: str
    done: int
    total: int
    hour: int
    losses: dict[str, float] = field(default_factory=dict)
    """Mean loss of each student since the last record."""
    agreement: dict[str, float] = field(default_factory=dict)
    """Share of the minibatches' states on which a student's best action is the teacher's."""


def num_hours(options: Options) -> int:
    """Hours begun."""
    return math.ceil(options.hours)


def rows_until(hour: float, options: Options) -> int:
    """Rows of play (one control step of every environment) until the end of an hour."""
    return round(min(hour, options.hours) * STEPS_PER_HOUR / options.envs)


def updates_until(hour: float, options: Options) -> int:
    """Updates until the end of an hour."""
    return round(min(hour, options.hours) * options.updates)


def distill(
    teacher: Policy, state: State, options: Options, temperature: float, bf16: bool, threads: int
) -> Iterator[Progress]:
    """Play and learn from `state` on until the options' hours are done.

    Args:
        teacher: plays and labels; it never changes.
        state: changed in place.
        options: hours, updates, loss and the rest.
        temperature: of the loss.
        bf16: whether updates are computed in bfloat16 (weights stay float32).
        threads: of arithmetic.
    """
    while state.hours < num_hours(options):
        hour = state.hours + 1
        torch.set_num_threads(play_threads(teacher, threads))
        yield from _play(teacher, state, rows_until(hour, options), hour, options)
        yield from _learn(state, updates_until(hour, options), hour, options, temperature, bf16, threads)
        state.hours = hour
        yield Progress("hour", hour, num_hours(options), hour)


def _play(teacher: Policy, state: State, rows: int, hour: int, options: Options) -> Iterator[Progress]:
    envs, memory = state.envs, state.memory
    while memory.rows < rows:
        start = time.perf_counter()
        outputs = teacher.outputs(envs.observations)
        labelled = time.perf_counter()
        memory.add(envs.observations, envs.age, outputs)
        envs.step(choose(outputs, options.play_epsilon, state.play_rng, options.act))
        state.seconds["label"] += labelled - start
        state.seconds["play"] += time.perf_counter() - labelled
        if memory.rows % REPORT_EVERY == 0:
            total = rows_until(options.hours, options)
            yield Progress("play", memory.rows * options.envs, total * options.envs, hour)


def _learn(
    state: State, updates: int, hour: int, options: Options, temperature: float, bf16: bool, threads: int
) -> Iterator[Progress]:
    total = updates_until(options.hours, options)
    if state.updates == 0:
        observations, _ = state.memory.sample(STANDARDISE_ON, state.sample_rng)
        for student in state.students:
            standardise(student.policy.network, observations.to(options.device))
    # Two students on a core each learn a fifth faster than one after the other on both cores.
    tiny = all(student.policy.num_parameters < TINY for student in state.students)
    side_by_side = options.device == "cpu" and not tiny and min(threads, len(state.students)) > 1
    largest_first = sorted(state.students, key=lambda student: -student.policy.num_parameters)
    sums: dict[str, Tensor] = {}
    start, since = time.perf_counter(), state.updates
    torch.set_num_threads(1 if tiny or side_by_side else threads)
    with ThreadPoolExecutor(threads if side_by_side else 1, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        spread = pool.map if side_by_side else map
        while state.updates < updates:
            observations, labels = state.memory.sample(options.batch, state.sample_rng)
            observations, labels = observations.to(options.device), labels.to(options.device)
            if observations.dtype == torch.uint8:  # once for all students
                observations = scale(observations, torch.bfloat16 if bf16 else torch.float32)
            rate = learning_rate(state.updates, total, options)
            step = partial(_update, observations, labels, rate, options, temperature, bf16)
            for student, now in zip(largest_first, spread(step, largest_first), strict=True):
                sums[student.name] = sums[student.name] + now if student.name in sums else now
            state.updates += 1
            if state.updates % REPORT_EVERY == 0 or state.updates == updates:
                means = {s.name: (sums[s.name] / (state.updates - since)).tolist() for s in state.students}
                state.seconds["learn"] += time.perf_counter() - start
                losses, agreement = ({name: mean[i] for name, mean in means.items()} for i in (0, 1))
                yield Progress("learn", state.updates, total, hour, losses, agreement)
                sums, start, since = {}, time.perf_counter(), state.updates


def _update(
    observations: Tensor,
    labels: Tensor,
    rate: float,
    options: Options,
    temperature: float,
    bf16: bool,
    student: Student,
) -> Tensor:
    """One optimiser step of one student; returns its loss and its agreement with the labels, (2,)."""
    with torch.autocast(options.device, torch.bfloat16, enabled=bf16):
        outputs = student.policy.network(observations)
    outputs = outputs.float()
    loss = LOSSES[options.loss](outputs, labels, temperature).mean()
    for group in student.optimizer.param_groups:
        group["lr"] = rate
    student.optimizer.zero_grad()
    loss.backward()
    student.optimizer.step()
    with torch.no_grad():
        return torch.stack([loss.detach(), (outputs.argmax(-1) == labels.argmax(-1)).float().mean()])


def learning_rate(update: int, total: int, options: Options) -> float:
    """The rate of the `update`-th of `total` updates."""
    peak = options.learning_rate or {"adam": 1.5e-3, "rmsprop": 2.5e-4}[options.optimizer]
    if options.schedule == "constant":
        return peak
    return peak * min(1.0, (update + 1) / (WARMUP * total)) * 0.5 * (1 + math.cos(math.pi * update / total))


def make_optimizer(policy: Policy, options: Options) -> torch.optim.Optimizer:
    """The optimiser of one student; its rate is set at each update."""
    parameters = policy.network.parameters()
    if options.optimizer == "rmsprop":
        return torch.optim.RMSprop(parameters, lr=0.0)
    return torch.optim.Adam(parameters, lr=0.0, fused=True)
