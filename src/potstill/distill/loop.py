"""The loop: the teacher plays and labels, the students learn.

Each hour of play (54,000 control steps) is followed by its updates, as in Rusu et al. 2016, section
3. Several tasks have a teacher, a memory and a head each; several students learn from the same
minibatches. It is a generator: whoever drives it logs, saves, shows progress and stops.
"""

import copy
import math
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from queue import SimpleQueue
from threading import Event

import numpy as np
import torch
from jaxtyping import Float32
from torch import Tensor

from potstill.distill.options import STEPS_PER_HOUR, Options
from potstill.distill.recording import Recording
from potstill.errors import PotstillError
from potstill.evaluate import play_threads
from potstill.losses import GAUSSIAN_LOSSES, LOSSES
from potstill.memory import Replay, Sample
from potstill.networks import MultiHead, fold_batch_norm, scale, weigh_batch, with_batch_norm
from potstill.policies import as_one, count_parameters, use
from potstill.policy import Policy
from potstill.progress import Progress
from potstill.tasks import Envs

REPORT_EVERY = 50
"""Updates between two progress records."""
DEFAULT_RATE = {("adam", True): 2e-2, ("adam", False): 1.5e-3, ("rmsprop", True): 2.5e-4, ("rmsprop", False): 2.5e-4}
"""Peak learning rate by optimiser and batch normalisation."""
TINY = 20_000
"""Parameters up to which sharing an update between threads costs more than it saves."""
THREADS_TO_PLAY_AHEAD = 4
"""From how many threads on the next hour is played while one is learnt. Two are busy without it: docs/log.md."""
MAX_GRADIENT = 1.0
"""The norm that gradients are scaled down to, for continuous actions."""
COOLING = 0.2
"""Share of an hour's updates that is added, with a rate that falls to nothing, before a student plays on the way."""
WARMUP = 0.1
"""Share of the updates over which the cosine schedule first rises."""


@dataclass
class Student:
    """A network that learns, for one task or for several."""

    name: str
    policies: list[Policy]
    """One a task, as they were at the end of the last hour: what is saved."""
    learner: MultiHead
    """The policies' network as it learns, batch-normalised or not."""
    optimizer: torch.optim.Optimizer

    def keep(self) -> None:
        """Make the policies what the learner has become."""
        use(self.policies, fold_batch_norm(self.learner))

    @property
    def num_parameters(self) -> int:
        """Of the network that is saved."""
        return count_parameters(self.policies)


@dataclass
class State:
    """All that changes while the loop runs, and so all that a checkpoint holds."""

    envs: list[Envs]
    """A task's each; none where play was recorded before."""
    memories: list[Replay]
    """A task's each."""
    plays_ahead: bool
    """Whether an hour is played while the one before it is learnt."""
    students: list[Student]
    play_rng: np.random.Generator
    sample_rng: np.random.Generator
    hours: int = 0
    """Hours begun and done, the last may be a fraction."""
    updates: int = 0
    seconds: dict[str, float] = field(default_factory=lambda: {"play": 0.0, "label": 0.0, "learn": 0.0})
    began: float = field(default_factory=time.perf_counter)
    """When the run began, had it never been interrupted."""

    @property
    def elapsed(self) -> float:
        """Seconds of the run so far; those lost with a killed process apart."""
        return time.perf_counter() - self.began


@dataclass(frozen=True)
class LoopProgress(Progress):
    """What the loop is doing. At stage "hour" an hour is complete: the moment to save."""

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


def updates_until(hour: float, options: Options, tasks: int = 1) -> int:
    """Updates until the end of an hour."""
    return round(min(hour, options.hours) * options.updates * tasks)


def window(options: Options) -> int:
    """Rows that are learnt from at a time."""
    return rows_until(min(options.hours, options.memory_hours), options)


def capacity(options: Options, ahead: bool) -> int:
    """Rows that a memory has: what is learnt from and the hour played ahead of it, and always a whole hour, which is
    sealed at once."""
    hour = math.ceil(STEPS_PER_HOUR / options.envs)
    return min(max(window(options) + hour * ahead, hour), rows_until(options.hours, options))


def hours_played(state: State, options: Options) -> int:
    """Hours of play in the memory, those overwritten included; the last may be a fraction."""
    return next(hour for hour in range(num_hours(options) + 1) if rows_until(hour, options) >= state.memories[0].rows)


def plays_ahead(options: Options, threads: int) -> bool:
    """Whether an hour can be played while the one before it is learnt: what is learnt is the same, sooner."""
    return options.student_share == 0 and (options.device == "cuda" or threads >= THREADS_TO_PLAY_AHEAD)


def distill(
    sources: Sequence[Policy | Recording],
    state: State,
    options: Options,
    temperatures: Sequence[float],
    bf16: bool,
    threads: int,
) -> Iterator[LoopProgress]:
    """Play and learn from `state` on until the options' hours are done.

    Args:
        sources: for each task the teacher that plays and labels, or what it played and labelled before.
        state: changed in place.
        options: hours, updates, loss and the rest.
        temperatures: of the loss, for each task.
        bf16: whether updates are computed in bfloat16 (weights stay float32).
        threads: of arithmetic.
    """
    # On the CPU whole networks share the cores, not the loops inside them: OpenMP's idle threads would spin on the
    # cores that the emulators need, and a student on a core each learn faster than one after the other on all.
    workers = partial(ThreadPoolExecutor, initializer=torch.set_num_threads, initargs=(1,))
    with workers(threads) as players, workers(len(state.students)) as learners:
        drivers: list[list[Policy]] = []

        def play_until(hour: int) -> Iterator[LoopProgress]:
            # Nothing is learnt within an hour: one task's hour after the other's is what turns by episode would give.
            for index, source in enumerate(sources):
                if isinstance(source, Recording):
                    yield from read(source, state, index, hour, options)
                else:
                    yield from play(source, state, index, hour, options, players, threads, drivers)

        while state.hours < num_hours(options):
            hour = state.hours + 1
            if options.student_share and state.updates:  # fresh students know nothing
                copies = yield from cooled(state, options, temperatures, bf16, threads)
                drivers[:] = copies.values()
            yield from play_until(hour)  # nothing, where it was played ahead
            learning = learn(state, hour, options, temperatures, bf16, learners, threads)
            playing = [play_until(hour + 1)] if state.plays_ahead and hour < num_hours(options) else []
            yield from _side_by_side(learning, *playing)
            for student in state.students:
                student.keep()
            state.hours = hour
            yield LoopProgress("hour", hour, num_hours(options), hour)


def _side_by_side(*stages: Iterator[LoopProgress]) -> Iterator[LoopProgress]:
    """Run stages at once, each on a thread of its own; what they report, as it comes."""
    if len(stages) == 1:
        yield from stages[0]
        return
    reports: SimpleQueue[LoopProgress | Future[None]] = SimpleQueue()
    stop = Event()

    def run(stage: Iterator[LoopProgress]) -> None:
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


def read(recording: Recording, state: State, index: int, hour: int, options: Options) -> Iterator[LoopProgress]:
    """Remember a task's recorded play until the end of an hour."""
    start = time.perf_counter()
    memory = state.memories[index]
    if (rows := rows_until(hour, options) - memory.rows) > 0:
        recording.read(memory, hour, rows)
    state.seconds["play"] += time.perf_counter() - start
    yield from ()


def play(
    teacher: Policy,
    state: State,
    index: int,
    hour: int,
    options: Options,
    pool: ThreadPoolExecutor,
    threads: int,
    drivers: Sequence[list[Policy]] = (),
) -> Iterator[LoopProgress]:
    """Play a task, label and remember until the end of an hour; students drive their share, where there are some."""
    envs, memory = state.envs[index], state.memories[index]
    driven = math.ceil(options.envs * options.student_share) if drivers else 0
    total = rows_until(options.hours, options)
    torch.set_num_threads(1)
    while memory.rows < rows_until(hour, options):
        start = time.perf_counter()
        outputs = label(teacher, envs.observations, pool, threads)
        labelled = time.perf_counter()
        memory.add(envs.observations, envs.age, outputs)
        for number, driver in enumerate(drivers):
            its = np.arange(number, driven, len(drivers))
            if len(its):
                outputs[its] = driver[index].outputs(envs.observations[its])
        envs.step(teacher.choose(outputs, options.play_epsilon, state.play_rng, options.act))
        state.seconds["label"] += labelled - start
        state.seconds["play"] += time.perf_counter() - labelled
        if memory.rows % REPORT_EVERY == 0:
            done = sum(memory.rows for memory in state.memories)
            in_all = total * options.envs * len(state.memories)
            yield LoopProgress("play", done * options.envs, in_all, hour)


def label(
    teacher: Policy, observations: np.ndarray, pool: ThreadPoolExecutor, threads: int
) -> Float32[Tensor, "envs outputs"]:
    """The teacher's outputs; a large teacher's a part on each thread."""
    parts = np.array_split(observations, min(play_threads(teacher, threads), len(observations)))
    return torch.cat(list(pool.map(teacher.outputs, parts)))


def learn(
    state: State,
    hour: int,
    options: Options,
    temperatures: Sequence[float],
    bf16: bool,
    pool: ThreadPoolExecutor,
    threads: int,
) -> Iterator[LoopProgress]:
    """Learn from the play until the end of an hour, as many updates as that calls for."""
    tasks = len(state.memories)
    updates, rows = updates_until(hour, options, tasks), rows_until(hour, options)
    total = updates_until(options.hours, options, tasks)
    spread = _spread(state.students, options, threads, pool)
    while state.updates < updates:
        start = time.perf_counter()
        several = min(updates, (state.updates // REPORT_EVERY + 1) * REPORT_EVERY) - state.updates
        # Only where the samples lie is drawn here: each student fetches them itself and keeps its own pace.
        samples = [draw(state, rows, options, state.sample_rng) for _ in range(several)]
        rates = [learning_rate(state.updates + number, total, options) for number in range(several)]
        work = partial(_updates, state.memories, samples, rates, state.updates, options, temperatures, bf16)
        means = list(spread(work, state.students))
        state.updates += several
        state.seconds["learn"] += time.perf_counter() - start
        if lost := [student.name for student, (loss, _) in zip(state.students, means, strict=True) if not loss < 1e30]:
            raise PotstillError(f"{lost[0]} diverged: try a lower --learning-rate, or without --no-batch-norm")
        losses = {student.name: loss for student, (loss, _) in zip(state.students, means, strict=True)}
        agreement = {student.name: agreed for student, (_, agreed) in zip(state.students, means, strict=True)}
        yield LoopProgress("learn", state.updates, total, hour, losses, agreement)


def cooled(
    state: State, options: Options, temperatures: Sequence[float], bf16: bool, threads: int
) -> Generator[LoopProgress, None, dict[str, list[Policy]]]:
    """Copies of the students as they would play if their schedule ended with the hour that is done, by name.

    At a high learning rate a student that has learnt nearly all there is plays as chance does (docs/decisions/0015).
    The copies' rate falls to nothing over a few more updates. The students aren't changed, nor is anything drawn from
    the run's own chance.
    """
    copies, tasks = copy.deepcopy(state.students), len(state.memories)
    total = updates_until(options.hours, options, tasks)
    settled = state.updates >= total or options.schedule == "constant"
    count = 0 if settled else round(COOLING * updates_until(1, options, tasks))
    rng, rows = np.random.default_rng([options.seed, 7, state.hours]), rows_until(state.hours, options)
    rate = learning_rate(state.updates, total, options)
    with ThreadPoolExecutor(len(copies), initializer=torch.set_num_threads, initargs=(1,)) as pool:
        spread = _spread(copies, options, threads, pool)
        for done in range(0, count, REPORT_EVERY):
            start = time.perf_counter()
            numbers = range(done, min(done + REPORT_EVERY, count))
            samples = [draw(state, rows, options, rng) for _ in numbers]
            rates = [rate * (1 - number / count) for number in numbers]
            first = state.updates + done
            work = partial(_updates, state.memories, samples, rates, first, options, temperatures, bf16)
            list(spread(work, copies))
            state.seconds["learn"] += time.perf_counter() - start
            yield LoopProgress("cool", numbers.stop, count, state.hours)
    for student in copies:
        student.keep()
        for policy in student.policies:
            policy.network.requires_grad_(False)
    return {student.name: student.policies for student in copies}


def draw(state: State, rows: int, options: Options, rng: np.random.Generator) -> dict[int, Sample]:
    """A minibatch's samples, by task: an equal share of each.

    Batch normalisation learns the statistics of all tasks together only from minibatches of all of them
    (docs/decisions/0010). Without it a minibatch is of one task, drawn at random, as in the paper.
    """
    held, memories = window(options), state.memories
    if options.batch_norm or len(memories) == 1:
        sizes = [len(part) for part in np.array_split(np.arange(options.batch), len(memories))]
        return {index: memories[index].draw(size, rng, rows, held) for index, size in enumerate(sizes)}
    index = int(rng.integers(len(memories)))
    return {index: memories[index].draw(options.batch, rng, rows, held)}


def threads_inside(students: list[Student], threads: int) -> int:
    """Threads that share one update; tiny networks are faster on one."""
    return 1 if all(student.num_parameters < TINY for student in students) else threads


def _spread(
    students: list[Student], options: Options, threads: int, pool: ThreadPoolExecutor
) -> Callable[..., Iterable[tuple[float, float]]]:
    """Students a core each, or one after the other on all: a `map`."""
    inside = threads_inside(students, threads)
    side_by_side = options.device == "cpu" and min(inside, len(students)) > 1
    torch.set_num_threads(1 if side_by_side else inside)
    return pool.map if side_by_side else map


def _updates(
    memories: list[Replay],
    samples: list[dict[int, Sample]],
    rates: list[float],
    first: int,
    options: Options,
    temperatures: Sequence[float],
    bf16: bool,
    student: Student,
) -> tuple[float, float]:
    """Some optimiser steps of one student, from its `first` on, each with its samples and its learning rate; returns
    the mean loss and the agreement with the labels."""
    sums = torch.zeros(2, device=options.device)
    for number, (sample, rate) in enumerate(zip(samples, rates, strict=True), first):
        batch = {index: memories[index].take(*where) for index, where in sample.items()}
        weigh_batch(student.learner, number)
        for group in student.optimizer.param_groups:
            group["lr"] = rate
        sums += torch.stack(update(student, batch, options, temperatures, bf16))
    loss, agreement = (sums / len(samples)).tolist()
    return loss, agreement


def update(
    student: Student,
    batch: dict[int, tuple[Tensor, Tensor]],
    options: Options,
    temperatures: Sequence[float],
    bf16: bool,
) -> tuple[Tensor, Tensor]:
    """One optimiser step on a minibatch, observations and labels by task; returns the loss, and the student's agreement
    with the labels before it."""
    observations = torch.cat([observations for observations, _ in batch.values()])
    if observations.dtype == torch.uint8:
        observations = scale(observations, torch.bfloat16 if bf16 else torch.float32)
    with torch.autocast(options.device, torch.bfloat16, enabled=bf16):
        outputs = student.learner(observations, {index: len(labels) for index, (_, labels) in batch.items()})
    losses: list[Tensor] = []
    agreed: list[Tensor] = []
    for (index, (_, labels)), said in zip(batch.items(), outputs, strict=True):
        policy, said = student.policies[index], said.float()
        of_its_kind = LOSSES if policy.actions is None else GAUSSIAN_LOSSES
        losses.append(of_its_kind[options.loss](said, labels, temperatures[index]))
        agreed.append(policy.agree(said.detach(), labels))
    loss = torch.cat(losses).mean()
    student.optimizer.zero_grad()
    loss.backward()
    if student.policies[0].actions is not None:
        # Where the teacher is sure, a Gaussian's divergence is a thousand times what it is elsewhere.
        torch.nn.utils.clip_grad_norm_(student.learner.parameters(), MAX_GRADIENT)
    student.optimizer.step()
    return loss.detach(), torch.cat(agreed).float().mean()


def learning_rate(update: int, total: int, options: Options) -> float:
    """The rate of the `update`-th of `total` updates."""
    peak = options.learning_rate or DEFAULT_RATE[options.optimizer, options.batch_norm]
    if options.schedule == "constant":
        return peak
    return peak * min(1.0, (update + 1) / (WARMUP * total)) * 0.5 * (1 + math.cos(math.pi * update / total))


def new_student(name: str, policies: list[Policy], options: Options) -> Student:
    """A student that begins as `policies`, which from now on share the first one's trunk."""
    network = as_one(policies)
    use(policies, network)
    learner = (with_batch_norm(network) if options.batch_norm else copy.deepcopy(network)).to(options.device)
    for policy in policies:
        policy.to(options.device)
    parameters = learner.parameters()
    if options.optimizer == "rmsprop":
        return Student(name, policies, learner, torch.optim.RMSprop(parameters, lr=0.0))
    return Student(name, policies, learner, torch.optim.Adam(parameters, lr=0.0, betas=(0.9, 0.99), fused=True))
