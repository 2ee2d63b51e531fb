"""The loop: the teacher plays and labels, the students learn.

Each hour of play (54,000 control steps) is followed by its updates, as in Rusu et al. 2016, section
3. Several tasks have a teacher, a memory and a head each; several students learn from the same
minibatches. It is a generator: whoever drives it logs, saves, shows progress and stops.
"""

import math
import time
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue
from threading import Event

import numpy as np
import torch
from jaxtyping import Float32
from torch import Tensor

from potstill.distill.learning import REPORT_EVERY, cooled, learn
from potstill.distill.plan import Plan
from potstill.distill.recording import Recording
from potstill.distill.schedule import num_hours, rows_until
from potstill.distill.state import LoopProgress, State
from potstill.errors import PotstillError
from potstill.evaluate import play_threads
from potstill.machine import arithmetic_threads, own_stream, use_threads, workers
from potstill.policy import Policy

FORBIDDEN = -1e9
"""An output so low that its action is never taken, at any temperature."""


def distill(plan: Plan, state: State) -> Generator[LoopProgress, None, None]:
    """Play and learn from `state` on until the plan's hours are done.

    Args:
        plan: who plays and labels, or what was played and labelled before; hours, updates, loss and the rest.
        state: of `new_state(plan)`; changed in place.
    """
    # On the CPU whole networks share the cores before the loops inside them do: OpenMP's idle threads would spin on the
    # cores that the emulators need, and students side by side learn faster than one after the other on all cores.
    options = plan.options
    with workers(plan.threads, plan.threads) as players, arithmetic_threads(1):
        drivers: list[list[Policy]] = []

        def play_until(hour: int) -> Iterator[LoopProgress]:
            # Nothing is learnt within an hour: one task's hour after the other's is what turns by episode would give.
            for index, lesson in enumerate(plan.lessons):
                source = lesson.source  # anew each hour: a teacher that is still learning is replaced
                if isinstance(source, Recording):
                    yield from read(plan, state, source, index, hour)
                else:
                    yield from play(plan, state, source, index, hour, players, drivers)

        while state.hours < num_hours(options):
            hour = state.hours + 1
            if options.student_share and state.updates:  # fresh students know nothing
                copies = yield from cooled(plan, state)
                drivers[:] = copies.values()
            yield from play_until(hour)  # nothing, where it was played ahead
            playing = [play_until(hour + 1)] if plan.ahead and hour < num_hours(options) else []
            with workers(len(state.students), plan.threads) as learners:  # each hour: fit drops some
                yield from _side_by_side(options.device, learn(plan, state, hour, learners), *playing)
            for student in state.students:
                student.keep()
            state.hours = hour
            yield LoopProgress("hour", hour, num_hours(options), hour)


def _side_by_side(device: str, *stages: Iterator[LoopProgress]) -> Iterator[LoopProgress]:
    """Run stages at once, each on a thread of its own; what they report, as it comes."""
    if len(stages) == 1:
        yield from stages[0]
        return
    reports: SimpleQueue[LoopProgress | Future[None]] = SimpleQueue()
    stop = Event()

    def run(stage: Iterator[LoopProgress]) -> None:
        with own_stream(device):
            for progress in stage:
                reports.put(progress)
                if stop.is_set():
                    return

    with ThreadPoolExecutor(len(stages)) as pool:
        for stage in stages:
            pool.submit(run, stage).add_done_callback(reports.put)
        try:
            running = len(stages)
            while running:
                report = reports.get()
                if isinstance(report, LoopProgress):
                    yield report
                else:
                    report.result()
                    running -= 1
        finally:
            stop.set()


def read(plan: Plan, state: State, recording: Recording, index: int, hour: int) -> Iterator[LoopProgress]:
    """Remember a task's recorded play until the end of an hour."""
    start = time.perf_counter()
    memory = state.memories[index]
    if (rows := rows_until(hour, plan.options) - memory.rows) > 0:
        recording.read(memory, hour, rows)
        check_squares(memory.labels[: memory.rows], state)
    state.seconds["play"] += time.perf_counter() - start
    yield from ()


def play(
    plan: Plan,
    state: State,
    teacher: Policy,
    index: int,
    hour: int,
    pool: ThreadPoolExecutor,
    drivers: Sequence[list[Policy]] = (),
) -> Iterator[LoopProgress]:
    """Play a task, label and remember until the end of an hour; students drive their share, where there are some."""
    options, envs, memory = plan.options, state.envs[index], state.memories[index]
    driven = math.ceil(options.envs * options.student_share) if drivers else 0
    total = rows_until(options.hours, options)
    use_threads(1)
    while memory.rows < rows_until(hour, options):
        start = time.perf_counter()
        outputs = label(teacher, envs.observations, pool, plan.threads)
        labelled = time.perf_counter()
        check_squares(outputs, state)
        memory.add(envs.observations, envs.age, outputs)
        for number, driver in enumerate(drivers):
            its = np.arange(number, driven, len(drivers))
            if len(its):
                outputs[its] = driver[index].outputs(envs.observations[its])
        envs.step(teacher.choose(outputs, options.play_epsilon, state.play_rng, options.act))
        state.seconds["label"] += labelled - start
        state.seconds["play"] += time.perf_counter() - labelled
        if memory.rows % REPORT_EVERY == 0 or memory.rows == rows_until(hour, options):
            done = sum(memory.rows for memory in state.memories)
            in_all = total * options.envs * len(state.memories)
            yield LoopProgress("play", done * options.envs, in_all, hour)


def check_squares(outputs: Float32[Tensor, "... outputs"], state: State) -> None:
    """Refuse to learn forbidden actions' outputs by their squares.

    Raises:
        PotstillError: there are some, and a student learns by MSE.
    """
    if any(student.loss == "mse" for student in state.students) and outputs.min() <= FORBIDDEN:
        raise PotstillError("--loss mse: the teacher forbids actions by -inf, which has no square; use kl or nll")


def label(
    teacher: Policy, observations: np.ndarray, pool: ThreadPoolExecutor, threads: int
) -> Float32[Tensor, "envs outputs"]:
    """The teacher's outputs; a large teacher's a part on each thread, a user's own code is called by one at a time.

    Actions that a teacher forbids by -inf are as good as forbidden by `FORBIDDEN`, of which KL can be computed.

    Raises:
        PotstillError: they are no finite numbers else.
    """
    if teacher.thread_safe:
        mine, *others = np.array_split(observations, min(play_threads(teacher, threads), len(observations)))
        theirs = [pool.submit(teacher.outputs, part) for part in others]
        outputs = torch.cat([teacher.outputs(mine), *(part.result() for part in theirs)])
    else:
        with arithmetic_threads(play_threads(teacher, threads)):
            outputs = teacher.outputs(observations)
    if outputs.isfinite().all():
        return outputs
    if teacher.actions is None:
        outputs = outputs.masked_fill(outputs == -torch.inf, FORBIDDEN)
    if not outputs.isfinite().all():
        raise PotstillError("the teacher says what is no finite number, which no student can learn: mend it")
    return outputs
