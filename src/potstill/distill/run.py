"""A whole run: from the teacher's file to students, their scores and `result.json`.

The students' policy files are in the run directory's `students/`.
"""

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from potstill.distill import checkpoint
from potstill.distill.loop import distill, play
from potstill.distill.plan import Plan
from potstill.distill.recording import Recording, seal_hour
from potstill.distill.result import add_costs, results, score
from potstill.distill.schedule import num_hours, rows_until
from potstill.distill.state import LoopProgress, State, new_state
from potstill.files import read_json, write_json
from potstill.machine import machine, versions, workers
from potstill.policies import save
from potstill.policy import Policy
from potstill.progress import Progress
from potstill.run_directory import (
    SCHEMA,
    as_written,
    check_empty,
    open_metrics,
    open_run,
    sync,
    tensorboard,
    write_line,
)


def run(plan: Plan, out: Path, resume: bool, command: list[str]) -> Iterator[Progress]:
    """Distil, evaluate, write everything to `out`. Complete when the iterator ends.

    Args:
        plan: of `plan(options)`.
        out: the run directory.
        resume: go on from `out`'s checkpoint.
        command: what was typed, for the record.

    Raises:
        PotstillError: `out` holds another run, or can't be written.
    """
    finished = (out / "result.json").exists()
    open_run(out, resume, command, plan.record(), finished=finished)
    if finished:
        yield from complete(plan, out)
        return
    state = new_state(plan)
    go_on(plan, state, out, resume)
    yield from learn_and_save(plan, state, out)
    students = save_students(state, out)
    learnt = state.elapsed
    played = yield from score(plan, students)
    state.seconds["evaluate"] = state.elapsed - learnt
    conclude(plan, state, results(plan, students, played), out, command)
    yield from complete(plan, out)


def go_on(plan: Plan, state: State, out: Path, resume: bool) -> None:
    """Bring a fresh state to the run's checkpoint, where there is one to go on from; the teachers to their device."""
    for lesson in plan.lessons:
        if lesson.teacher:
            lesson.teacher.to(plan.options.device)
    if resume and checkpoint.exists(out / "checkpoint"):
        mend = f"remove {out / 'checkpoint'}, and --resume begins anew"
        checkpoint.load(out / "checkpoint", state, mend)
    else:
        shutil.rmtree(out / "checkpoint", ignore_errors=True)  # a killed run's, without its last file


def learn_and_save(plan: Plan, state: State, out: Path) -> Iterator[LoopProgress]:
    """Play and learn to the end, with metrics and a checkpoint after each hour; at stage "hour" all is saved."""
    hours = state.hours
    with (
        open_metrics(out, lambda line: line["hour"] <= hours) as metrics,
        tensorboard(out, state.updates + 1) as write_events,
    ):
        for progress in distill(plan, state):
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
                sync(metrics)
                checkpoint.save(out / "checkpoint", state)
            yield progress
    for envs in state.envs:
        envs.close()
    state.memories.clear()  # gigabytes that evaluation doesn't need


def save_students(state: State, out: Path) -> dict[str, list[Policy]]:
    """Write every student's policy file; returns the policies by the student's name."""
    for student in state.students:
        for policy in student.policies:
            policy.network.requires_grad_(False)
        save(student.policies, out / "students" / f"{student.name}.safetensors")
    return {student.name: student.policies for student in state.students}


def conclude(plan: Plan, state: State, said: dict[str, Any], out: Path, command: list[str]) -> None:
    """Write `result.json`: what is said of the policies, and how it came about."""
    options = plan.options
    result = {
        "schema": SCHEMA,
        "command": command,
        "seed": options.seed,
        "versions": versions(),
        "machine": machine(plan.threads),
        "protocol": plan.scored_by.record(),
        **said,
        "budget": {
            "teacher_steps": rows_until(options.hours, options) * options.envs * len(plan.lessons),
            "updates": state.updates,
            "seconds": state.seconds | {"total": state.elapsed},
        },
    }
    write_json(out / "result.json", result)


def complete(plan: Plan, out: Path) -> Iterator[Progress]:
    """What follows once `result.json` is there, as often as the run is stopped within it: what there was to go on from
    goes, and the policies' costs are added."""
    with as_written(out / "result.json"):
        result = read_json(out / "result.json")
        measured = all("cost" in student for student in result["students"])
    shutil.rmtree(out / "checkpoint", ignore_errors=True)
    if not measured:
        yield from add_costs(result, plan, out)


def record(plan: Plan, out: Path, command: list[str]) -> Iterator[LoopProgress]:
    """Play and label, and write every hour to `out`. What is written is a whole recording after each hour.

    Raises:
        PotstillError: `out` is not empty, or can't be written.
    """
    check_empty(out, "choose another folder")
    options, [lesson] = plan.options, plan.lessons
    teacher = lesson.labeller
    assert teacher is not None
    teacher.to(options.device)
    recording = Recording(out, lesson.task, lesson.teacher_record, options.envs, options.play_epsilon, 0.0, [])
    an_hour = replace(plan, options=replace(options, memory_hours=min(options.hours, 1.0)))
    state = new_state(an_hour)
    memory = state.memories[0]
    with workers(plan.threads, plan.threads) as pool:
        for hour in range(1, num_hours(options) + 1):
            first_row = memory.rows
            yield from play(plan, state, teacher, 0, hour, pool)
            seal_hour(recording, memory, hour, first_row)
            recording = replace(recording, hours=min(hour, options.hours))
            recording.write(command)
            yield LoopProgress("hour", hour, num_hours(options), hour)
    state.envs[0].close()
