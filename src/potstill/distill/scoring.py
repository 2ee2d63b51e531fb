"""Who plays what once students have learnt, task by task: a run that is stopped goes on with the next."""

import time
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from potstill.choices import Act
from potstill.distill.options import DistillOptions
from potstill.distill.plan import Lesson, Plan
from potstill.evaluate import Player, Score, evaluate, random_episodes, random_player
from potstill.files import read_json, write_json
from potstill.machine import machine
from potstill.policy import Policy
from potstill.progress import Progress
from potstill.saved_state import restoring

SCORED = "scored.json"
"""What was played so far, a task after the other; there is none once there is a result."""


@dataclass(frozen=True)
class Played:
    """What was played of a task."""

    scores: dict[str, Score]
    states: np.ndarray
    """(actions,) how many of the teacher's states the students were asked about, by its best action; (1,) where actions
    are continuous."""
    agreed: dict[str, np.ndarray]
    """(actions,) on how many of them each student's best action is the teacher's."""
    seconds: float
    """That it took, on the wall's clock."""
    machine: dict[str, Any]
    """Where it was played."""

    def agreement(self, name: str) -> float:
        """Share of the teacher's states on which a student's best action is the teacher's."""
        return int(self.agreed[name].sum()) / max(int(self.states.sum()), 1)

    def record(self) -> dict[str, Any]:
        return {
            "returns": {name: score.returns for name, score in self.scores.items()},
            "states": self.states.tolist(),
            "agreed": {name: agreed.tolist() for name, agreed in self.agreed.items()},
            "seconds": self.seconds,
            "machine": self.machine,
        }


def score(
    plan: Plan, students: dict[str, list[Policy]], out: Path, both_acts: bool = True
) -> Generator[Progress, None, list[Played | None]]:
    """Score the teachers, the students and chance on each task; None for those that have no teacher to compare with.

    With `both_acts` teachers that have a distribution are scored by their best actions and by drawn ones. What was
    played is saved in the run directory after each task, and not played again.
    """
    options = plan.options
    lists = [_players(lesson, index, students, options, both_acts) for index, lesson in enumerate(plan.lessons)]
    played = _read(out / SCORED, plan.lessons, lists, list(students))
    left = list(zip(plan.lessons, lists, strict=True))[len(played) :]
    total = sum(player.episodes for players in lists for player in players.values())
    done = total - sum(player.episodes for _, players in left for player in players.values())
    for lesson, players in left:
        found = None
        if players:
            watched = {name: policies[len(played)] for name, policies in students.items()}
            found = yield from _play(plan, lesson, players, watched, done, total)
            done += sum(player.episodes for player in players.values())
        played.append(found)
        write_json(out / SCORED, [of and of.record() for of in played])
    return played


def _play(
    plan: Plan, lesson: Lesson, players: dict[str, Player], watched: dict[str, Policy], done: int, total: int
) -> Generator[Progress, None, Played]:
    """Play a task, of all tasks' `total` episodes so many being `done`; `watched` students are asked about the
    teacher's states."""
    start = time.perf_counter()
    returns = [[0.0] * player.episodes for player in players.values()]
    states = np.zeros(lesson.task.num_kinds, np.int64)
    agreed = np.zeros((len(watched), lesson.task.num_kinds), np.int64)
    seed, starts = plan.options.seed, lesson.starts and lesson.starts.starts
    for tally in evaluate([*players.values()], lesson.task, seed, plan.threads, [*watched.values()], starts):
        for player, episode, earned in tally.finished:
            returns[player][episode] = earned
        done += len(tally.finished)
        states += tally.states
        agreed += tally.agreed
        yield Progress("evaluate", done, total)
    scores = {name: Score(tuple(of)) for name, of in zip(players, returns, strict=True)}
    seconds = time.perf_counter() - start
    return Played(scores, states, dict(zip(watched, agreed, strict=True)), seconds, machine(plan.threads))


def _read(
    path: Path, lessons: tuple[Lesson, ...], lists: list[dict[str, Player]], students: list[str]
) -> list[Played | None]:
    """What was played of the tasks, in their order, before the run was stopped; until the first that had a teacher then
    and has none now, or the other way round, or was played another number of times.

    Raises:
        PotstillError: the file is damaged, with the mend.
    """
    if not path.exists():
        return []
    played: list[Played | None] = []
    with restoring(path, f"remove {path}, and --resume scores again"):
        for said, lesson, players in zip(read_json(path), lessons, lists, strict=False):
            if (said is None) == bool(players):
                break
            if said is not None and len(said["returns"]["teacher"]) != players["teacher"].episodes:
                break
            played.append(None if said is None else _read_task(said, lesson, players, students))
    return played


def _read_task(said: dict[str, Any], lesson: Lesson, players: dict[str, Player], students: list[str]) -> Played:
    scores = {name: Score(tuple(map(float, said["returns"][name]))) for name in players}
    states, agreed = np.array(said["states"], np.int64), np.array([said["agreed"][name] for name in students], np.int64)
    if any(len(scores[name].returns) != player.episodes for name, player in players.items()):
        raise ValueError("episodes are missing")
    if states.shape != (lesson.task.num_kinds,) or agreed.shape != (len(students), *states.shape):
        raise ValueError("states are missing")
    return Played(scores, states, dict(zip(students, agreed, strict=True)), float(said["seconds"]), {**said["machine"]})


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
        players["teacher, other act"] = Player(teacher, other(act), epsilon, episodes)
    return players | {"random": random_player(task, random_episodes(episodes))}


def other(act: Act) -> Act:
    """The way of acting that isn't this one."""
    return "sample" if act == "greedy" else "greedy"
