"""An export from start to end: made, compared with its policy, played if asked for, and only then written."""

import tempfile
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from potstill.actions import SAME
from potstill.errors import PotstillError
from potstill.evaluate import Player, difference, scores
from potstill.export import check, sb3
from potstill.export.onnx import INPUT, actions_name, output_names, to_int8, to_onnx
from potstill.export.options import ExportOptions
from potstill.files import write_bytes
from potstill.machine import cores
from potstill.policies import sees_time
from potstill.policy import Policy
from potstill.progress import Progress
from potstill.tasks import Task, make_task
from potstill.teachers import load_all
from potstill.teachers.onnx_trial import make_session
from potstill.teachers.vecnormalize import beside

CALIBRATION = 1024
"""Observations that int8's ranges are taken from; others than those it is compared on."""


@dataclass(frozen=True)
class Made:
    """A policy's export for one task."""

    task: Task
    policy: Policy
    export: check.Export
    player: Policy
    """The export as a policy that plays."""


def export(policies: Sequence[Policy], out: Path, options: ExportOptions) -> Generator[Progress, None, dict[str, Any]]:
    """Export policies that share a trunk, or a single one, to a file.

    Args:
        policies: with their tasks; of this package's networks.
        out: the file; replaced atomically once everything holds.
        options: the rest.

    Returns:
        What was compared and played, as JSON.

    Raises:
        PotstillError: there is no such export of these policies, it isn't near enough to them, it plays worse, or the
            file can't be written.
    """
    options.check()
    threads = cores(options.threads)
    if options.to == "sb3" and len(policies) > 1:
        raise PotstillError("--to sb3 holds one task: name it with --task")
    if options.to == "sb3" and (statistics := beside(out)):
        raise PotstillError(
            f"--out {out}: {statistics} would be taken for its statistics, which its network doesn't ask for; choose"
            " another folder"
        )
    graph = to_onnx(policies) if options.to == "onnx" else None
    if options.to == "sb3":
        sb3.check(policies[0])
    tasks = [make_task(str(policy.task)) for policy in policies]
    if options.to == "sb3" and tasks[0].keys:
        raise PotstillError(f"--to sb3: {tasks[0].id} shows a Dict, a student sees one vector: use onnx")
    tasks = [task.under(time_feature=sees_time(policy, task)) for task, policy in zip(tasks, policies, strict=True)]
    seen = yield from _observe(policies, tasks, options.seed, check.OBSERVATIONS, threads)
    before: list[np.ndarray] = []
    if options.int8:
        before = yield from _observe(policies, tasks, options.seed + 1, CALIBRATION, threads)
    with tempfile.TemporaryDirectory() as folder:
        draft = Path(folder) / f"draft.{'onnx' if options.to == 'onnx' else 'zip'}"
        if graph is not None and options.int8:
            graph = to_int8(graph, np.concatenate(before))
        made = _make(policies, tasks, draft, graph, seen)
        record: dict[str, Any] = {"file": str(out), "to": options.to, "int8": options.int8, "tasks": []}
        for number, (each, observations) in enumerate(zip(made, seen, strict=True), 1):
            tolerance = options.tolerance
            if options.int8:
                tolerance = 0.0 if each.policy.actions is None else SAME
            found = check.agreement(each.policy, each.export, observations, tolerance)
            min_same = options.min_agreement if options.int8 else 1.0
            check.refuse(str(out), found, None if options.int8 else tolerance, min_same)
            yield Progress("compare", number, len(made))
            record["tasks"].append({"task": each.task.id, **found.record()})
        if options.verify:
            for each, task_record in zip(made, record["tasks"], strict=True):
                task_record |= yield from _verify(each, out, options, threads)
        content = draft.read_bytes()
    write_bytes(out, content)
    return {**record, "bytes": len(content)}


def _observe(
    policies: Sequence[Policy], tasks: list[Task], seed: int, count: int, threads: int
) -> Generator[Progress, None, list[np.ndarray]]:
    """What each policy meets in play of its task."""
    seen: list[np.ndarray] = []
    for policy, task in zip(policies, tasks, strict=True):
        seen.append((yield from check.observe(policy, task, count, seed, threads)))
    return seen


def _make(
    policies: Sequence[Policy],
    tasks: list[Task],
    draft: Path,
    graph: Any,
    observations: list[np.ndarray],
) -> list[Made]:
    """Write the draft, the graph or else Stable-Baselines3's zip, and read it again by its own library."""
    if graph is None:
        import stable_baselines3

        [policy], [task] = policies, tasks
        model = sb3.to_sb3(policy, task, observations[0])
        write_bytes(draft, sb3.to_bytes(model))
        again = getattr(stable_baselines3, type(model).__name__).load(draft, device="cpu")
        made = check.Export(
            lambda seen: sb3.outputs_of(again, policy, seen).numpy(), lambda seen: sb3.best_actions(again, seen)
        )
        return [Made(task, policy, made, Policy.from_callable(made.actions, task, kind="sb3"))]
    write_bytes(draft, graph.SerializeToString())
    import onnxruntime

    session = make_session(onnxruntime, str(draft))

    def said(name: str) -> Callable[[np.ndarray], np.ndarray]:
        return lambda seen: np.asarray(session.run([name], {INPUT: seen})[0])

    return [
        Made(task, policy, check.Export(said(name), said(actions_name(name))), player)
        for task, policy, player, name in zip(tasks, policies, load_all(draft), output_names(policies), strict=True)
    ]


def _verify(made: Made, out: Path, options: ExportOptions, threads: int) -> Generator[Progress, None, dict[str, Any]]:
    """Play the policy and its export by protocol.

    Raises:
        PotstillError: the export scores surely less.
    """
    players = [Player.by_protocol(policy, made.task, options.episodes) for policy in (made.policy, made.player)]
    policy, exported = yield from scores(players, made.task, options.seed, threads)
    between = difference(exported, policy)
    if between.ci95[1] < 0:
        raise PotstillError(
            f"{out}: it scores {exported.mean:.2f}, the policy {policy.mean:.2f} ({options.episodes} episodes each):"
            " nothing is written"
        )
    return {"policy": policy.record(), "export": exported.record(), "difference": between.record()}
