"""A whole run: from the teacher's file to students, their scores and `result.json`.

The students' policy files are in the run directory's `students/`.
"""

import os
import shutil
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import torch

from potstill.distill import checkpoint
from potstill.distill.loop import Progress, State, distill, num_hours, play, rows_until
from potstill.distill.plan import Plan, new_state
from potstill.distill.recording import Recording, seal_hour
from potstill.distill.result import add_costs, results, score
from potstill.errors import PotstillError
from potstill.files import write_json
from potstill.machine import machine, versions
from potstill.policies import save
from potstill.policy import Policy
from potstill.progress import Progress as BaseProgress
from potstill.run_directory import SCHEMA, open_metrics, open_run, tensorboard, write_line


def run(plan: Plan, out: Path, resume: bool, command: list[str]) -> Iterator[BaseProgress]:
    """Distil, evaluate, write everything to `out`. Complete when the iterator ends.

    Args:
        plan: of `plan(options)`.
        out: the run directory.
        resume: go on from `out`'s checkpoint.
        command: what was typed, for the record.

    Raises:
        PotstillError: `out` holds another run, or can't be written.
    """
    begun = time.perf_counter()
    open_run(out, resume, command, plan.record())
    if (out / "result.json").exists():
        return
    state = new_state(plan)
    go_on(plan, state, out, resume)
    before = state.seconds.get("total", 0.0)
    yield from learn(plan, state, out)
    students = {student.name: student.policies for student in state.students}
    save_students(students, out)
    budget = {
        "teacher_steps": rows_until(plan.options.hours, plan.options) * plan.options.envs * len(plan.lessons),
        "updates": state.updates,
    }
    seconds = state.seconds
    del state  # the memory: gigabytes that evaluation doesn't need
    evaluation = time.perf_counter()
    played = yield from score(plan, students)
    seconds["evaluate"] = time.perf_counter() - evaluation
    seconds["total"] = before + time.perf_counter() - begun
    result = {
        "schema": SCHEMA,
        "command": command,
        "seed": plan.options.seed,
        "versions": versions(),
        "machine": machine(plan.threads),
        "protocol": plan.scored_by.record(),
        **results(plan, students, played),
        "budget": {**budget, "seconds": seconds},
    }
    write_json(out / "result.json", result)
    shutil.rmtree(out / "checkpoint", ignore_errors=True)
    yield from add_costs(result, plan, students, out)


def go_on(plan: Plan, state: State, out: Path, resume: bool) -> None:
    """Bring a fresh state to the run's checkpoint, where there is one to go on from; the teachers to their device."""
    for lesson in plan.lessons:
        if lesson.teacher:
            lesson.teacher.to(plan.options.device)
    if resume and checkpoint.exists(out / "checkpoint"):
        checkpoint.load(out / "checkpoint", state, plan.options)
    else:
        shutil.rmtree(out / "checkpoint", ignore_errors=True)  # a killed run's, without its last file


def learn(plan: Plan, state: State, out: Path) -> Iterator[Progress]:
    """Play and learn to the end, with metrics and a checkpoint after each hour; at stage "hour" all is saved."""
    begun, before, hours = time.perf_counter(), state.seconds.get("total", 0.0), state.hours
    with (
        open_metrics(out, lambda line: line["hour"] <= hours) as metrics,
        tensorboard(out, state.updates + 1) as write_events,
    ):
        for progress in distill(plan.sources, state, plan.options, plan.temperatures, plan.bf16, plan.threads):
            if progress.stage == "learn":
                line = {
                    "hour": progress.hour,
                    "update": progress.done,
                    "loss": progress.losses,
                    "agreement": progress.agreement,
                }
                write_line(metrics, line)
                scalars = {"loss": progress.losses, "agreement": progress.agreement}
                write_events({f"{k}/{name}": v for k, of in scalars.items() for name, v in of.items()}, progress.done)
            if progress.stage == "hour":
                state.seconds["total"] = before + time.perf_counter() - begun
                os.fsync(metrics.fileno())
                checkpoint.save(out / "checkpoint", state, plan.options)
            yield progress
    for envs in state.envs:
        envs.close()


def save_students(students: dict[str, list[Policy]], out: Path) -> None:
    """Write every student's policy file."""
    for name, policies in students.items():
        for policy in policies:
            policy.network.requires_grad_(False)
        save(policies, out / "students" / f"{name}.safetensors")


def record(plan: Plan, out: Path, command: list[str]) -> Iterator[Progress]:
    """Play and label, and write every hour to `out`. What is written is a whole recording after each hour.

    Raises:
        PotstillError: `out` is not empty, or can't be written.
    """
    if out.exists() and any(out.iterdir()):
        raise PotstillError(f"--out {out} is not empty: choose another folder")
    options, [lesson] = plan.options, plan.lessons
    teacher = lesson.labeller
    assert teacher is not None
    teacher.to(options.device)
    recording = Recording(out, lesson.task, lesson.teacher_record, options.envs, options.play_epsilon, 0.0, [])
    state = new_state(replace(plan, options=replace(options, memory_hours=min(options.hours, 1.0))))
    memory = state.memories[0]
    with ThreadPoolExecutor(plan.threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        for hour in range(1, num_hours(options) + 1):
            first_row = memory.rows
            yield from play(teacher, state, 0, hour, options, pool, plan.threads)
            seal_hour(recording, memory, hour, first_row)
            recording = replace(recording, hours=min(hour, options.hours))
            recording.write(command)
            yield Progress("hour", hour, num_hours(options), hour)
    state.envs[0].close()
