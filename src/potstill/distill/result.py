"""What `result.json` says of a run's policies: scores, ratios, costs."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from potstill.distill.plan import Plan
from potstill.distill.scoring import Played, other
from potstill.errors import PotstillError
from potstill.evaluate import Score, geometric_mean, normalised, relative
from potstill.evaluate.cost import examples, macs, speeds
from potstill.evaluate.statistics import Estimate
from potstill.files import write_json
from potstill.policies import count_parameters
from potstill.policy import Policy
from potstill.progress import Progress
from potstill.run_directory import as_written, student_file
from potstill.tasks import Task
from potstill.teachers import load_all


def results(plan: Plan, students: dict[str, list[Policy]], played: list[Played | None]) -> dict[str, Any]:
    """`result.json`'s part about policies; null where nothing was played."""
    teachers: list[dict[str, Any]] = []
    for lesson, of in zip(plan.lessons, played, strict=True):
        scores = of.scores if of else {}
        teacher: dict[str, Any] = {"task": lesson.task.id, **lesson.teacher_record, "score": _record(scores, "teacher")}
        if lesson.starts:
            teacher["starts"] = {"expert": lesson.starts.expert, "sha256": lesson.starts.sha256}
        if "teacher, other act" in scores:
            act = other(lesson.task.protocol.act)
            teacher["other_act"] = {"act": act, "score": _record(scores, "teacher, other act")}
        teachers.append({**teacher, "random": _record(scores, "random")})
    records: list[dict[str, Any]] = []
    for name, policies in students.items():
        ratios = [of and relative(of.scores[f"student {name}"], of.scores["teacher"]) for of in played]
        tasks = [
            _task_record(lesson.task, name, of, ratio)
            for lesson, of, ratio in zip(plan.lessons, played, ratios, strict=True)
        ]
        pairs = [(of.scores[f"student {name}"], of.scores["teacher"]) for of in played if of]
        mean = geometric_mean(pairs) if len(pairs) == len(tasks) > 1 else None
        records.append(
            {
                "name": name,
                "spec": str(policies[0].spec),
                "parameters": count_parameters(policies),
                "file": student_file(name),
                "loss": plan.losses[name],
                "temperature": plan.temperatures if len(tasks) > 1 else plan.temperatures[0],
                "seed": plan.options.seed,
                "tasks": tasks,
                **({"geometric_mean": mean.record()} if mean else {}),
            }
        )
    return {"teachers": teachers, "students": records}


def add_costs(result: dict[str, Any], plan: Plan, out: Path) -> Iterator[Progress]:
    """Measure what every policy of a written result costs on one thread of this machine, and write it down there.

    A policy that can't be measured, such as a stranger's that won't have these observations, has none.
    """
    with as_written(out / "result.json"):
        files = {record["name"]: out / student_file(record["name"]) for record in result["students"]}
        check_names(files, plan)
    policies = [
        (record, lesson.teacher.to("cpu"), lesson.size)
        for record, lesson in zip(result["teachers"], plan.lessons, strict=True)
        if lesson.teacher
    ]
    policies += [
        (record, load_all(files[record["name"]])[0], files[record["name"]].stat().st_size)
        for record in result["students"]
    ]
    functions: dict[int, tuple[Callable[[np.ndarray], Any], np.ndarray]] = {}
    for number, (_, policy, _) in enumerate(policies):
        seen = examples(policy)
        with suppress(PotstillError):
            policy.outputs(seen)
            functions[number] = policy.outputs, seen
    found = yield from speeds(functions)
    for number, cost in found.items():
        record, policy, size = policies[number]
        record["cost"] = {"macs": macs(policy), "bytes": size, **cost.record()}
    write_json(out / "result.json", result)


def check_names(names: Iterable[str], plan: Plan) -> None:
    """Check that students named by a `result.json`, which may be a stranger's, are the plan's: files are called so.

    Raises:
        ValueError: one isn't.
    """
    if unknown := set(names) - plan.students.keys():
        raise ValueError(f"students {', '.join(unknown)}")


def _task_record(task: Task, name: str, played: Played | None, ratio: Estimate | None) -> dict[str, Any]:
    """What a student's score on a task is."""
    if played is None:
        return {"task": task.id, "score": None, "relative": None, "normalised": None, "random": None, "agreement": None}
    scores = played.scores
    share = normalised(scores[f"student {name}"], scores["teacher"], scores["random"])
    return {
        "task": task.id,
        "score": _record(scores, f"student {name}"),
        "relative": ratio and ratio.record(),
        "normalised": share and share.record(),
        "random": scores["random"].mean,
        "agreement": played.agreement(name),
        "agreement_by_action": None if task.bounds else _by_action(task, played.states, played.agreed[name]),
    }


def _by_action(task: Task, states: np.ndarray, agreed: np.ndarray) -> list[dict[str, Any]]:
    """Each action the teacher would take: on how many states, and on how many of them the student would too."""
    names = task.action_names or tuple(str(action) for action in range(task.num_actions))
    return [
        {"action": action, "name": name, "states": int(states[action]), "agreed": int(agreed[action])}
        for action, name in enumerate(names)
    ]


def _record(scores: dict[str, Score], of: str) -> dict[str, Any] | None:
    return scores[of].record() if of in scores else None
