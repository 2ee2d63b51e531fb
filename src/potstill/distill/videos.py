"""Films of a finished run: each student beside its teacher, from the same start."""

import time
from collections.abc import Iterator
from itertools import islice, takewhile
from pathlib import Path

from potstill.distill.plan import Lesson, Plan
from potstill.distill.result import check_names
from potstill.errors import PotstillError
from potstill.files import TEMPORARY_SUFFIX, read_json, write_json
from potstill.policy import Policy
from potstill.progress import Progress
from potstill.run_directory import as_written, student_file
from potstill.teachers import load_all
from potstill.watch import Actor, frames, pace, write

SECONDS = 20
"""Of play in a film."""
PATIENCE = 10.0
"""Seconds to make one: without a GPU a MuJoCo picture takes a quarter of one."""


def film(plan: Plan, out: Path, chosen: str | None = None) -> Iterator[Progress]:
    """Film every student, or the chosen one, that has none of its films yet; `result.json` says where they are.

    Where there is no teacher, or a task can't be drawn here, there is none: a run doesn't fail for a film. It says why.

    Args:
        plan: of the run.
        out: its folder, finished.
        chosen: a student's name.
    """
    with as_written(out / "result.json"):
        result = read_json(out / "result.json")
        missing = [
            (student, index, lesson.teacher)
            for student in result["students"]
            for index, lesson in enumerate(plan.lessons)
            if lesson.teacher and "video" not in student["tasks"][index] and chosen in (None, student["name"])
        ]
        check_names((student["name"] for student, _, _ in missing), plan)
    for unfinished in (out / "videos").glob(f"*{TEMPORARY_SUFFIX}"):  # a killed process was writing it
        unfinished.unlink(missing_ok=True)
    for done, (student, index, teacher) in enumerate(missing):
        yield Progress("film", done, len(missing))
        policies = load_all(out / student_file(student["name"]))
        number = f"-{index + 1}" if len(policies) > 1 else ""
        path = f"videos/{student['name']}{number}.mp4"
        try:
            if not (out / path).exists():  # it does where a run was scored anew
                _film(plan.lessons[index], teacher, student["name"], policies[index], plan.options.seed, out / path)
            student["tasks"][index]["video"] = path
            student["tasks"][index].pop("no_video", None)
        except PotstillError as error:
            student["tasks"][index]["no_video"] = str(error)
        write_json(out / "result.json", result)
    yield Progress("film", len(missing), len(missing))


def _film(lesson: Lesson, teacher: Policy, name: str, student: Policy, seed: int, path: Path) -> None:
    named = ("teacher", teacher), (name, student)
    actors = [Actor(_title(of, policy.num_parameters), policy, lesson.task) for of, policy in named]
    rate, _ = pace(lesson.task)
    starts = lesson.starts and lesson.starts.starts
    pictures = islice(frames(actors, seed, starts=starts), round(SECONDS * rate))
    until = time.perf_counter() + PATIENCE
    write(takewhile(lambda _: time.perf_counter() < until, pictures), path, rate)


def _title(name: str, parameters: int) -> str:
    return f"{name}, {parameters:,} parameters" if parameters else name  # a callable's aren't known
