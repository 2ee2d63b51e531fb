"""The students' half of the loop: minibatches out of the memories, and updates."""

import copy
import time
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait

import numpy as np
import torch
from torch import Tensor

from potstill.chance import Stream
from potstill.distill.options import DistillOptions
from potstill.distill.plan import Plan
from potstill.distill.schedule import learning_rate, rows_until, updates_until, window
from potstill.distill.state import LoopProgress, State, Student
from potstill.errors import PotstillError
from potstill.losses import GAUSSIAN_LOSSES, LOSSES
from potstill.machine import arithmetic_threads, use_threads, workers
from potstill.memory import Replay, Sample
from potstill.networks import BATCH_NORM_MOMENTUM, set_batch_norm_momentum
from potstill.policy import Policy

REPORT_EVERY = 50
"""Updates between two progress records."""
TINY = 20_000
"""Parameters up to which sharing an update between threads costs more than it saves."""
MAX_GRADIENT = 1.0
"""The norm that gradients are scaled down to, for continuous actions."""
COOLING = 0.2
"""Share of an hour's updates that is added, with a rate that falls to nothing, before a student plays on the way."""


def learn(plan: Plan, state: State, hour: int, pool: ThreadPoolExecutor) -> Iterator[LoopProgress]:
    """Learn from the play until the end of an hour, as many updates as that calls for."""
    options, tasks = plan.options, len(state.memories)
    updates, rows = updates_until(hour, options, tasks), rows_until(hour, options)
    total = updates_until(options.hours, options, tasks)
    while state.updates < updates:
        start = time.perf_counter()
        several = min(updates, (state.updates // REPORT_EVERY + 1) * REPORT_EVERY) - state.updates
        # Only where the samples lie is drawn here: each student fetches them itself.
        samples = [draw(state, rows, options, state.sample_rng) for _ in range(several)]
        rates = [learning_rate(state.updates + number, total, options) for number in range(several)]
        means = _several_updates(plan, state.memories, state.students, samples, rates, state.updates, pool)
        state.updates += several
        state.seconds["learn"] += time.perf_counter() - start
        if lost := [student.name for student, (loss, _) in zip(state.students, means, strict=True) if not loss < 1e30]:
            raise PotstillError(f"{lost[0]} diverged: try a lower --learning-rate, or without --no-batch-norm")
        losses = {student.name: loss for student, (loss, _) in zip(state.students, means, strict=True)}
        agreement = {student.name: agreed for student, (_, agreed) in zip(state.students, means, strict=True)}
        yield LoopProgress("learn", state.updates, total, hour, losses, agreement)


def cooled(plan: Plan, state: State) -> Generator[LoopProgress, None, dict[str, list[Policy]]]:
    """Copies of the students as they would play if their schedule ended with the hour that is done, by name.

    At a high learning rate a student that has learnt nearly all there is plays as chance does (docs/decisions/0015).
    The copies' rate falls to nothing over a few more updates. The students aren't changed, nor is anything drawn from
    the run's own chance.
    """
    options, tasks, copies = plan.options, len(state.memories), copy.deepcopy(state.students)
    total = updates_until(options.hours, options, tasks)
    settled = state.updates >= total or options.schedule == "constant"
    count = 0 if settled else round(COOLING * updates_until(1, options, tasks))
    rng, rows = np.random.default_rng([options.seed, Stream.ASIDE, state.hours]), rows_until(state.hours, options)
    rate = learning_rate(state.updates, total, options)
    with workers(len(copies), plan.threads) as pool, arithmetic_threads(1):
        for done in range(0, count, REPORT_EVERY):
            start = time.perf_counter()
            numbers = range(done, min(done + REPORT_EVERY, count))
            samples = [draw(state, rows, options, rng) for _ in numbers]
            rates = [rate * (1 - number / count) for number in numbers]
            _several_updates(plan, state.memories, copies, samples, rates, state.updates + done, pool)
            state.seconds["learn"] += time.perf_counter() - start
            yield LoopProgress("cool", numbers.stop, count, state.hours)
    for student in copies:
        student.keep()
        for policy in student.policies:
            policy.network.requires_grad_(False)
    return {student.name: student.policies for student in copies}


def draw(state: State, rows: int, options: DistillOptions, rng: np.random.Generator) -> dict[int, Sample]:
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


def _several_updates(
    plan: Plan,
    memories: list[Replay],
    students: list[Student],
    samples: list[dict[int, Sample]],
    rates: list[float],
    first: int,
    pool: ThreadPoolExecutor,
) -> list[tuple[float, float]]:
    """Optimiser steps of every student, from its `first` on, each with its samples and its learning rate; returns each
    student's mean loss and its agreement with the labels."""
    sums = [torch.zeros(2, device=plan.options.device) for _ in students]
    inside = threads_inside(students, plan.threads)

    def one(index: int, number: int) -> None:
        batch = {task: memories[task].take(*where) for task, where in samples[number].items()}
        sums[index] += torch.stack(_update(plan, students[index], batch, rates[number], first + number))

    if plan.options.device == "cpu" and min(inside, len(students)) > 1:
        use_threads(1)
        _in_turns(one, len(students), len(samples), pool, plan.threads)
    else:
        use_threads(inside)
        for index in range(len(students)):
            for number in range(len(samples)):
                one(index, number)
    return [(loss, agreement) for loss, agreement in (torch.stack(sums) / len(samples)).tolist()]


def _in_turns(
    work: Callable[[int, int], None], students: int, updates: int, pool: ThreadPoolExecutor, threads: int
) -> None:
    """Students side by side, an update at a time, whoever has most of them left first: so that they end together, as
    nearly as may be, and no core waits for the last one."""
    left, running = [updates] * students, dict[Future[None], int]()
    while any(left) or running:
        free = [index for index in range(students) if left[index] and index not in running.values()]
        if free and len(running) < threads:
            index = max(free, key=left.__getitem__)
            running[pool.submit(work, index, updates - left[index])] = index
            left[index] -= 1
        else:
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                del running[future]
                future.result()


def _update(
    plan: Plan, student: Student, batch: dict[int, tuple[Tensor, Tensor]], rate: float, number: int
) -> tuple[Tensor, ...]:
    """A student's optimiser step of that number; returns the loss and the agreement with the labels."""
    settled = number * BATCH_NORM_MOMENTUM >= 1
    if not settled:
        set_batch_norm_momentum(student.learner, number)
    for group in student.optimizer.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate
    # A graph holds batch normalisation's momentum as it was, and that changes until then.
    as_graph = plan.options.device == "cuda" and settled
    return (update_as_graph if as_graph else update)(plan, student, batch)


def update_as_graph(plan: Plan, student: Student, batch: dict[int, tuple[Tensor, Tensor]]) -> tuple[Tensor, ...]:
    """The same as `update`, launched at once."""

    def step(*tensors: Tensor) -> tuple[Tensor, Tensor]:
        return update(plan, student, dict(zip(batch, zip(tensors[::2], tensors[1::2], strict=True), strict=True)))

    return student.graphs.run(step, tuple(batch), *(tensor for pair in batch.values() for tensor in pair))


def update(plan: Plan, student: Student, batch: dict[int, tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """One optimiser step on a minibatch, observations and labels by task; returns the loss, and the student's agreement
    with the labels before it."""
    parts = [observations for observations, _ in batch.values()]
    observations = torch.cat(parts) if parts[1:] else parts[0]  # which would be copied
    with torch.autocast(plan.options.device, torch.bfloat16, enabled=plan.bf16):
        outputs = student.learner(observations, {index: len(labels) for index, (_, labels) in batch.items()})
    losses: list[Tensor] = []
    agreed: list[Tensor] = []
    for (index, (_, labels)), said in zip(batch.items(), outputs, strict=True):
        policy, said = student.policies[index], said.float()
        of_its_kind = LOSSES if policy.actions is None else GAUSSIAN_LOSSES
        losses.append(of_its_kind[student.loss](said, labels, plan.lessons[index].temperature))
        agreed.append(policy.agree(said.detach(), labels))
    loss = torch.cat(losses).mean()
    student.optimizer.zero_grad()
    loss.backward()
    if student.policies[0].actions is not None:
        # Where the teacher is sure, a Gaussian's divergence is a thousand times what it is elsewhere.
        torch.nn.utils.clip_grad_norm_(student.learner.parameters(), MAX_GRADIENT)
    student.optimizer.step()
    return loss.detach(), torch.cat(agreed).float().mean()
