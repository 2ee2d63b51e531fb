"""Which episodes score a policy that learns: some choose the best on the way, others are the result's."""

from collections.abc import Generator
from pathlib import Path
from typing import Any

import numpy as np

from potstill.evaluate import Player, Score, relative, scores
from potstill.policy import Policy
from potstill.progress import Progress
from potstill.run_directory import student_file
from potstill.tasks import Task
from potstill.teachers import load_all
from potstill.train.plan import Plan

LEARNER = "the learner"
"""What it is called among the students that follow it, none of whom can be called so."""
CHOOSING, REPORTED = 2_000_003, 0
"""Added to the seed: for episodes that choose the best policy, on which nobody scores it later; for the result's."""


def score(
    policies: list[Policy], task: Task, plan: Plan, episodes: int, apart: int
) -> Generator[Progress, None, list[Score]]:
    """Each policy's score on a task.

    Args:
        policies: who plays.
        task: what.
        plan: of the run: its seed, and the threads.
        episodes: how many of each.
        apart: how far their seed is from the run's, `CHOOSING` or `REPORTED`.
    """
    players = [Player.by_protocol(policy, task, episodes) for policy in policies]
    return (yield from scores(players, task, plan.options.seed + apart, plan.threads))


def point(plan: Plan, steps: int, updates: int, now: list[Policy]) -> Generator[Progress, None, dict[str, Any]]:
    """A point of the curve: the scores of the policies, one a task, after so many steps and updates."""
    found: dict[str, Any] = {}
    for task, policy in zip(plan.tasks, now, strict=True):
        [its] = yield from score([policy], task, plan, plan.eval_episodes, CHOOSING)
        found[task.id] = its.record()
    return {"steps": steps, "updates": updates, "scores": found}


def best_of(curve: list[dict[str, Any]]) -> int:
    """Which point of a curve is the best so far.

    Of several games each is measured by where its score lies between its worst and its best, then averaged. A point
    counts from where it was reached: one that was passed by before isn't kept.
    """
    means = np.array([[score["mean"] for score in point["scores"].values()] for point in curve])
    best = 0
    for now in range(1, len(means)):
        low, high = means[: now + 1].min(0), means[: now + 1].max(0)
        merits = ((means[[best, now]] - low) / np.where(high > low, high - low, 1)).mean(1)
        best = now if merits[1] >= merits[0] else best
    return best


def ends_in_its_best(curve: list[dict[str, Any]]) -> bool:
    """Whether the last point of a curve is the best so far."""
    return best_of(curve) == len(curve) - 1


def followed(
    plan: Plan, out: Path, curve: list[dict[str, Any]], best: dict[str, Score]
) -> Generator[Progress, None, dict[str, Any]]:
    """`result.json`'s part about students that followed: their scores beside the best's, and how steady curves were."""
    if not plan.following.students:
        return {}
    task = plan.tasks[0]
    students = {name: load_all(out / student_file(name))[0].to(plan.options.device) for name in curve[-1]["students"]}
    of_students = yield from score(list(students.values()), task, plan, plan.episodes, REPORTED)
    records: list[dict[str, Any]] = []
    for (name, policy), its in zip(students.items(), of_students, strict=True):
        ratio = relative(its, best[task.id])
        records.append(
            {
                "name": name,
                "spec": str(policy.spec),
                "parameters": policy.num_parameters,
                "file": student_file(name),
                "score": its.record(),
                "relative": ratio and ratio.record(),
            }
        )
    second_half = curve[len(curve) // 2 :]
    lines = {LEARNER: [point["scores"][task.id]["mean"] for point in second_half]}
    lines |= {name: [point["students"][name]["mean"] for point in second_half] for name in students}
    spread = {name: float(np.std(line)) if len(line) > 1 else None for name, line in lines.items()}
    return {"students": records, "spread": spread}
