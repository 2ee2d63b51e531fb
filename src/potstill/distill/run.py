"""A whole run: from the teacher's file to students, their scores and `result.json`.

The students' policy files are in the run directory's `students/`.
"""

import shutil
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import replace
from itertools import compress
from pathlib import Path
from typing import Any

from potstill.distill import checkpoint
from potstill.distill.loop import distill, play
from potstill.distill.plan import Plan, check_memory, check_students
from potstill.distill.recording import MANIFEST, Recording, seal_hour
from potstill.distill.result import add_costs, results
from potstill.distill.schedule import num_hours, rows_until
from potstill.distill.scoring import SCORED, Played, score
from potstill.distill.state import LoopProgress, State, new_state
from potstill.errors import PotstillError
from potstill.files import read_json, sha256, write_json
from potstill.machine import arithmetic_threads, machine, versions, workers
from potstill.policies import save
from potstill.policy import Policy
from potstill.progress import Progress
from potstill.run_directory import (
    FILES,
    SCHEMA,
    as_written,
    open_metrics,
    open_run,
    student_file,
    sync,
    tensorboard,
    write_line,
)
from potstill.saved_state import restoring
from potstill.teachers import load_all

LEARNT = "learnt.json"
"""Is there once learning is over: what it took, and the students' checksums."""


def run(plan: Plan, out: Path, resume: bool, command: list[str]) -> Generator[Progress, None, bool]:
    """Distil, evaluate, write everything to `out`. Complete when the generator ends; returns whether it was before.

    Args:
        plan: of `plan(options)`.
        out: the run directory.
        resume: go on from `out`'s checkpoint; where all is learnt, with the scoring, which is begun anew where more
            episodes are wanted than there were.
        command: what was typed, for the record.

    Raises:
        PotstillError: `out` holds another run, or can't be written.
    """
    check_students(plan)
    begin(plan, out, resume, command, plan.record(), may_differ=("episodes",))
    finished = is_scored(plan, out)
    if not finished:
        if not (out / LEARNT).exists():
            with closing(new_state(plan)) as state:
                go_on(state, out, resume)
                yield from learn_and_save(plan, state, out)
        learnt, students = read_learnt(plan, plan.students, out)
        played = yield from score(plan, students, out)
        conclude(plan, learnt, results(plan, students, played), played, out, command)
    yield from complete(plan, out)
    return finished


def is_scored(plan: Plan, out: Path) -> bool:
    """Whether there is a result, of no fewer episodes than are wanted now and of every task that has a teacher now.

    Raises:
        PotstillError: there is one of fewer, and nothing left to be scored anew.
    """
    if not (out / "result.json").exists():
        return False
    with as_written(out / "result.json"):
        scores = [teacher["score"] for teacher in read_json(out / "result.json")["teachers"]]
        episodes = [int(score["episodes"]) if score else 0 for score in scores]
        taught = [lesson.teacher is not None for lesson in plan.lessons]
        fewest = min(compress(episodes, taught), default=plan.options.episodes)
    if fewest >= plan.options.episodes:
        return True
    if not (out / LEARNT).exists():
        mend = f"add --episodes {fewest}" if fewest else "leave out --teacher"
        raise PotstillError(f"{out} lacks {LEARNT} to be scored anew by: {mend}")
    return False


def begin(
    plan: Plan,
    out: Path,
    resume: bool,
    command: list[str],
    record: dict[str, Any],
    may_differ: tuple[str, ...] = (),
) -> None:
    """Begin a run, or check that it is this one that is gone on with, on any machine once it has learnt; the teachers
    to their device. The options named by `may_differ` may be others now."""
    learnt = any((out / name).exists() for name in (LEARNT, "result.json"))
    if not learnt:
        check_memory(plan)
    open_run(out, resume, command, record, (*FILES, *may_differ), learnt=learnt)
    for lesson in plan.lessons:
        if lesson.teacher:
            lesson.teacher.to(plan.options.device)


def go_on(state: State, out: Path, resume: bool) -> None:
    """Bring a fresh state to the run's checkpoint, where there is one to go on from."""
    if resume and checkpoint.exists(out / "checkpoint"):
        mend = f"remove {out / 'checkpoint'}, and --resume begins anew"
        checkpoint.load(out / "checkpoint", state, mend)
    else:
        shutil.rmtree(out / "checkpoint", ignore_errors=True)  # a killed run's, without its last file


def learn_and_save(plan: Plan, state: State, out: Path) -> Iterator[LoopProgress]:
    """Play and learn to the end, with metrics and a checkpoint after each hour; at stage "hour" all is saved.

    At the end come the students' policy files and, when they are whole, `learnt.json`.
    """
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
    state.memories.clear()  # gigabytes that evaluation doesn't need
    for student in state.students:
        save(student.policies, out / student_file(student.name))
    learnt = {
        "students": {student.name: sha256(out / student_file(student.name)) for student in state.students},
        "versions": versions(),
        "machine": machine(plan.threads),
        "updates": state.updates,
        "seconds": state.seconds | {"total": state.elapsed},
    }
    (out / SCORED).unlink(missing_ok=True)  # of students that were learnt before
    write_json(out / LEARNT, learnt)


def read_learnt(plan: Plan, names: Iterable[str], out: Path) -> tuple[dict[str, Any], dict[str, list[Policy]]]:
    """What `learnt.json` says, and the students as their files hold them; the checkpoint goes, nothing needs it now.

    Raises:
        PotstillError: one of the files is damaged, with the mend.
    """
    path = out / LEARNT
    also = f" and {out / 'result.json'}" if (out / "result.json").exists() else ""
    mend = f"copy it again from where it was learnt, or remove {path}{also}, and --resume learns again"
    with restoring(path, mend):
        learnt = read_json(path)
        students = {name: _read_student(out / student_file(name), learnt["students"][name]) for name in names}
        learnt = {  # what can't be concluded with is to be found before hours of scoring, not after
            "versions": {**learnt["versions"]},
            "machine": {**learnt["machine"]},
            "updates": int(learnt["updates"]),
            "seconds": {stage: float(learnt["seconds"][stage]) for stage in ("play", "label", "learn", "total")},
        }
    for policy in (policy for policies in students.values() for policy in policies):
        policy.to(plan.options.device)
    shutil.rmtree(out / "checkpoint", ignore_errors=True)
    return learnt, students


def _read_student(file: Path, checksum: str) -> list[Policy]:
    if sha256(file) != checksum:
        raise PotstillError(f"{file} is not as it was learnt")
    return load_all(file)


def conclude(
    plan: Plan,
    learnt: dict[str, Any],
    said: dict[str, Any],
    played: list[Played | None],
    out: Path,
    command: list[str],
) -> None:
    """Write `result.json`: what is said of the policies, and how it came about.

    Args:
        plan: of the run.
        learnt: of `read_learnt`.
        said: of the policies.
        played: how long it took, and where.
        out: the run directory.
        command: what was typed.
    """
    options, scored = plan.options, [of for of in played if of]
    seconds = {**learnt["seconds"], "evaluate": sum(of.seconds for of in scored)}
    total = seconds.pop("total") + seconds["evaluate"]
    elsewhere = [of.machine for of in scored if of.machine != learnt["machine"]]
    result = {
        "schema": SCHEMA,
        "command": command,
        "seed": options.seed,
        "versions": learnt["versions"],
        "machine": learnt["machine"],
        **({"scored_on": _distinct(elsewhere)} if elsewhere else {}),
        "protocol": plan.scored_by.record(),
        **said,
        "budget": {
            "teacher_steps": rows_until(options.hours, options) * options.envs * len(plan.lessons),
            "updates": learnt["updates"],
            "seconds": {**seconds, "total": total},
        },
    }
    write_json(out / "result.json", result)
    (out / SCORED).unlink(missing_ok=True)


def _distinct(machines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [one for number, one in enumerate(machines) if one not in machines[:number]]


def complete(plan: Plan, out: Path) -> Iterator[Progress]:
    """What follows once `result.json` is there, as often as the run is stopped within it: the policies' costs."""
    with as_written(out / "result.json"):
        result = read_json(out / "result.json")
        measured = all("cost" in student for student in result["students"])
    if not measured:
        yield from add_costs(result, plan, out)


def record(plan: Plan, out: Path, resume: bool, command: list[str]) -> Iterator[LoopProgress]:
    """Play and label, and write every hour to `out`. What is written is a whole recording after each hour.

    Args:
        plan: whose one teacher plays.
        out: the recording's folder.
        resume: go on after the last hour that is complete.
        command: what was typed, for the record.

    Raises:
        PotstillError: `out` holds something else, or can't be written.
    """
    options, [lesson] = plan.options, plan.lessons
    an_hour = replace(plan, options=replace(options, memory_hours=min(options.hours, 1.0)))
    check_memory(an_hour)
    open_run(out, resume, command, plan.record())
    begun = read_json(out / "config.json")["command"]
    recording = Recording(out, lesson.task, lesson.teacher_record, options.envs, options.play_epsilon, 0.0, [])
    if (out / MANIFEST).exists():
        recording = Recording.open(out)
    if recording.hours < options.hours:
        teacher = lesson.labeller
        assert teacher is not None
        teacher.to(options.device)
        with closing(new_state(an_hour)) as state:
            go_on(state, out, resume)
            if len(recording.shards) < state.hours:
                raise PotstillError(f"{out / MANIFEST} lacks hours that were recorded: record anew in another folder")
            yield from _record_hours(plan, teacher, state, recording, begun)
    shutil.rmtree(out / "checkpoint", ignore_errors=True)


def _record_hours(
    plan: Plan, teacher: Policy, state: State, recording: Recording, command: list[str]
) -> Iterator[LoopProgress]:
    """Play, label and seal hour by hour, from the state's on."""
    options, [memory] = plan.options, state.memories
    with workers(plan.threads, plan.threads) as pool, arithmetic_threads(1):
        for hour in range(state.hours + 1, num_hours(options) + 1):
            first_row = memory.rows
            yield from play(plan, state, teacher, 0, hour, pool)
            recording = seal_hour(recording, memory, hour, first_row, min(hour, options.hours))
            recording.write(command)
            state.hours = hour
            checkpoint.save(recording.folder / "checkpoint", state)
            yield LoopProgress("hour", hour, num_hours(options), hour)
