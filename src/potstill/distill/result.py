"""The numbers of a run: everybody's scores, and `result.json`."""

from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from potstill.distill.options import DistillOptions
from potstill.distill.plan import Lesson, Plan
from potstill.errors import PotstillError
from potstill.evaluate import (
    Player,
    Score,
    evaluate,
    geometric_mean,
    normalised,
    random_episodes,
    random_player,
    relative,
)
from potstill.evaluate.cost import examples, macs, speeds
from potstill.evaluate.statistics import Estimate
from potstill.files import write_json
from potstill.policies import count_parameters
from potstill.policy import Policy
from potstill.progress import Progress
from potstill.run_directory import as_written
from potstill.tasks import Task
from potstill.tasks.spec import Act
from potstill.teachers import load_all


@dataclass(frozen=True)
class Played:
    """What was played of a task."""

    scores: dict[str, Score]
    states: np.ndarray
    """(actions,) how many of the teacher's states the students were asked about, by its best action; (1,) where actions
    are continuous."""
    agreed: dict[str, np.ndarray]
    """(actions,) on how many of them each student's best action is the teacher's."""

    def agreement(self, name: str) -> float:
        """Share of the teacher's states on which a student's best action is the teacher's."""
        return int(self.agreed[name].sum()) / max(int(self.states.sum()), 1)


def score(
    plan: Plan, students: dict[str, list[Policy]], both_acts: bool = True
) -> Generator[Progress, None, list[Played | None]]:
    """Score the teachers, the students and chance on each task; None for those that have no teacher to compare with.

    With `both_acts` teachers that have a distribution are scored by their best actions and by drawn ones.
    """
    options = plan.options
    lists = [_players(lesson, index, students, options, both_acts) for index, lesson in enumerate(plan.lessons)]
    total, done = sum(player.episodes for players in lists for player in players.values()), 0
    played: list[Played | None] = []
    for index, (lesson, players) in enumerate(zip(plan.lessons, lists, strict=True)):
        if not players:
            played.append(None)
            continue
        returns = [[0.0] * player.episodes for player in players.values()]
        states, agreed = 0, 0
        watched = [policies[index] for policies in students.values()]
        starts = lesson.starts and lesson.starts.starts
        for tally in evaluate(list(players.values()), lesson.task, options.seed, plan.threads, watched, starts):
            for player, episode, score in tally.finished:
                returns[player][episode] = score
            done += len(tally.finished)
            states += tally.states
            agreed += tally.agreed
            yield Progress("evaluate", done, total)
        scores = {name: Score(tuple(of)) for name, of in zip(players, returns, strict=True)}
        played.append(Played(scores, np.asarray(states), dict(zip(students, np.asarray(agreed), strict=True))))
    return played


def _players(
    lesson: Lesson, index: int, students: dict[str, list[Policy]], options: DistillOptions, both_acts: bool
) -> dict[str, Player]:
    """Everybody who plays a lesson's task."""
    task, teacher, episodes = lesson.task, lesson.teacher, options.episodes
    if teacher is None:
        return {}
    act, epsilon = task.protocol.act, task.protocol.epsilon
    players = {"teacher": Player(teacher, act, epsilon, episodes)}
    players |= {f"student {name}": Player(of[index], act, epsilon, episodes) for name, of in students.items()}
    if both_acts and teacher.outputs_are != "q":
        players["teacher, other act"] = Player(teacher, _other(act), epsilon, episodes)
    return players | {"random": random_player(task, random_episodes(episodes))}


def results(plan: Plan, students: dict[str, list[Policy]], played: list[Played | None]) -> dict[str, Any]:
    """`result.json`'s part about policies; null where nothing was played."""
    teachers: list[dict[str, Any]] = []
    for lesson, of in zip(plan.lessons, played, strict=True):
        scores = of.scores if of else {}
        teacher: dict[str, Any] = {"task": lesson.task.id, **lesson.teacher_record, "score": _record(scores, "teacher")}
        if lesson.starts:
            teacher["starts"] = {"expert": lesson.starts.expert, "sha256": lesson.starts.sha256}
        if "teacher, other act" in scores:
            act = _other(lesson.task.protocol.act)
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
                "file": f"students/{name}.safetensors",
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

    A policy that can't be measured, such as a stranger's that won't have these observations, has no cost then.
    """
    with as_written(out / "result.json"):
        files = {record["name"]: out / record["file"] for record in result["students"]}
    try:
        measured = [
            (record, lesson.teacher.to("cpu"), lesson.size)
            for record, lesson in zip(result["teachers"], plan.lessons, strict=True)
            if lesson.teacher
        ]
        measured += [
            (record, load_all(files[record["name"]])[0], files[record["name"]].stat().st_size)
            for record in result["students"]
        ]
        functions = {str(n): (policy.outputs, examples(policy)) for n, (_, policy, _) in enumerate(measured)}
        found = yield from speeds(functions)
    except PotstillError:
        return
    for n, (record, policy, size) in enumerate(measured):
        record["cost"] = {"macs": macs(policy), "bytes": size, **found[str(n)].record()}
    write_json(out / "result.json", result)


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


def _other(act: Act) -> Act:
    return "sample" if act == "greedy" else "greedy"
