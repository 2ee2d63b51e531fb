"""The numbers of a run: everybody's scores, and `result.json`."""

import math
from collections.abc import Generator
from typing import Any

import numpy as np

from potstill.distill.loop import Progress, num_hours
from potstill.distill.plan import Plan
from potstill.evaluate import Player, Score, evaluate, normalised, random_player, relative
from potstill.policy import Policy
from potstill.tasks.spec import Act

RANDOM_SHARE = 0.25
"""Episodes of the random policy to one of the teacher's: it is far away, and its returns vary little."""


def score(
    plan: Plan, students: dict[str, Policy]
) -> Generator[Progress, None, tuple[dict[str, Score], dict[str, float]]]:
    """Score the teacher, the students and chance; and how often students agree with the teacher on its states."""
    options, task, teacher = plan.options, plan.task, plan.teacher
    if teacher is None:
        return {}, {}
    act, epsilon = task.protocol.act, task.protocol.epsilon
    episodes = options.episodes
    players = {"teacher": Player(teacher, act, epsilon, episodes)}
    players |= {f"student {name}": Player(policy, act, epsilon, episodes) for name, policy in students.items()}
    if teacher.outputs_are != "q":
        players["teacher, other act"] = Player(teacher, _other(act), epsilon, episodes)
    players["random"] = random_player(task, math.ceil(episodes * RANDOM_SHARE))
    returns = [[0.0] * player.episodes for player in players.values()]
    agreed = np.zeros(len(students), np.int64)
    states = done = 0
    for tally in evaluate(list(players.values()), task, options.seed, plan.threads, list(students.values())):
        for player, episode, score in tally.finished:
            returns[player][episode] = score
        done += len(tally.finished)
        states += tally.states
        agreed += tally.agreed
        yield Progress("evaluate", done, sum(map(len, returns)), num_hours(options))
    scores = {name: Score(tuple(of)) for name, of in zip(players, returns, strict=True)}
    return scores, dict(zip(students, (agreed / states).tolist(), strict=True))


def results(
    plan: Plan, students: dict[str, Policy], scores: dict[str, Score], agreement: dict[str, float]
) -> dict[str, Any]:
    """`result.json`'s part about policies; null where nothing was played."""
    options, task = plan.options, plan.task
    act = task.protocol.act

    def record(of: str) -> dict[str, Any] | None:
        return scores[of].record() if of in scores else None

    teacher_record = {"task": task.id, **plan.teacher_record, "score": record("teacher")}
    if "teacher, other act" in scores:
        teacher_record["other_act"] = {"act": _other(act), "score": record("teacher, other act")}
    records: list[dict[str, Any]] = []
    for name, student in students.items():
        ratio = share = None
        if scores:
            score = scores[f"student {name}"]
            ratio = relative(score, scores["teacher"])
            share = normalised(score, scores["teacher"], scores["random"])
        played = {
            "task": task.id,
            "score": record(f"student {name}"),
            "relative": ratio and ratio.record(),
            "normalised": share and share.record(),
            "random": scores["random"].mean if scores else None,
            "agreement": agreement.get(name),
        }
        records.append(
            {
                "name": name,
                "spec": str(student.spec),
                "parameters": student.num_parameters,
                "file": f"students/{name}.safetensors",
                "loss": options.loss,
                "temperature": plan.temperature,
                "seed": options.seed,
                "tasks": [played],
            }
        )
    return {"teachers": [teacher_record], "students": records, "random": record("random")}


def _other(act: Act) -> Act:
    return "sample" if act == "greedy" else "greedy"
