"""A whole training run: the learner, its scores by protocol as it goes, the best of it, `result.json`.

runs/<name>/best.safetensors   the policy with the best score on the way, and what it was
           /last.safetensors   the policy as it is     portable.safetensors   to go on from on another machine
           /students/          what learns from the best so far, if anything does
"""

import copy
import shutil
import time
from collections.abc import Generator, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from potstill import policies
from potstill.chance import Stream
from potstill.errors import PotstillError
from potstill.files import read_json, sha256, write_json
from potstill.learners.dqn import State, dqn, new_state
from potstill.machine import arithmetic_threads, machine, made_on, versions
from potstill.networks import drawn_from, num_parameters
from potstill.policy import Policy
from potstill.progress import Progress
from potstill.run_directory import (
    OF_THE_MACHINE,
    SCHEMA,
    as_written,
    open_metrics,
    open_run,
    student_file,
    sync,
    tensorboard,
    write_line,
)
from potstill.tasks import Envs, EpisodeSeeds
from potstill.teachers import load_all
from potstill.train import checkpoint, online, scoring
from potstill.train.plan import Plan
from potstill.train.scoring import CHOOSING, REPORTED
from potstill.version import __version__

PROVENANCE = ("single_q", "n_step", "prioritised", "ez_greedy", "replay_ratio", "seed")
"""Options that a policy's file names."""
BEST, FOLDER, PORTABLE = "best.safetensors", "checkpoint", "portable.safetensors"
"""The best policy so far; what a run goes on from: here, or on another machine."""
ANEW = "there is nothing to go on from: begin anew in another folder"
LINE_EVERY = 2_000
"""Steps between two lines of metrics."""


@dataclass
class Run:
    """A run under way."""

    plan: Plan
    out: Path
    state: State
    followers: online.Followers | None
    curve: list[dict[str, Any]]
    """Its scores so far."""
    started: float
    """`time.perf_counter()` when it began, had it never been interrupted."""
    machines: list[dict[str, Any]]
    """Those it was worked on, in their order."""

    @property
    def seconds(self) -> float:
        """How long it has taken so far."""
        return time.perf_counter() - self.started

    def close(self) -> None:
        """End the environments, and the students' loop."""
        self.state.close()
        if self.followers:
            self.followers.close()


@dataclass
class Learnt:
    """What a result says of learning."""

    curve: list[dict[str, Any]]
    budget: dict[str, Any]
    parameters: int
    machines: list[dict[str, Any]]


def run(plan: Plan, out: Path, resume: bool, command: list[str]) -> Iterator[Progress]:
    """Train, score, write everything to `out`. Complete when the iterator ends.

    Args:
        plan: of `plan(options, …)`.
        out: the run directory.
        resume: go on from `out`'s checkpoint, or from its portable one.
        command: what was typed, for the record.

    Raises:
        PotstillError: `out` holds another run, or can't be written.
    """
    started = time.perf_counter()
    learnt, episodes = _what_was_learnt(plan, out) if resume else (None, 0)
    elsewhere = learnt is None and _goes_on_elsewhere(plan, out, resume)
    if resume and not (learnt or elsewhere) and (out / "result.json").exists() and not _has_checkpoint(out):
        raise PotstillError(f"--resume: {out} is finished, and lacks {PORTABLE} to go on from: bring it along")
    may_differ = plan.may_differ + (OF_THE_MACHINE if elsewhere else ())
    open_run(out, resume, command, plan.record(), may_differ, learnt=learnt is not None)
    if learnt is None:
        learnt = yield from _learn_all(plan, out, resume, elsewhere, started)
    if episodes < plan.episodes:
        yield from _conclude(plan, out, learnt, command)


def _learn_all(
    plan: Plan, out: Path, resume: bool, elsewhere: bool, started: float
) -> Generator[Progress, None, Learnt]:
    """Begin or go on, and learn to the end. The memories, gigabytes that evaluation doesn't need, end with it."""
    with arithmetic_threads(plan.threads), closing(_go_on(plan, out, resume, elsewhere, started)) as going:
        yield from _learn(going)
        state = going.state
        seconds = {**state.seconds, "total": going.seconds}
        budget = {"steps": state.steps, "updates": state.updates, "seconds": seconds}
        return Learnt(going.curve, budget, num_parameters(state.network), going.machines)


def _conclude(plan: Plan, out: Path, learnt: Learnt, command: list[str]) -> Iterator[Progress]:
    """Score the best policy, and what followed it, on fresh episodes; write `result.json`."""
    started, curve, seconds = time.perf_counter(), learnt.curve, learnt.budget["seconds"]
    best = [policy.to(plan.options.device) for policy in load_all(out / BEST)]
    found = {}
    for task, policy in zip(plan.tasks, best, strict=True):
        [found[task.id]] = yield from scoring.score([policy], task, plan, plan.episodes, REPORTED)
    followed = yield from scoring.followed(plan, out, curve, found)
    seconds = {**seconds, "total": seconds["total"] + time.perf_counter() - started}
    write_json(
        out / "result.json",
        {
            "schema": SCHEMA,
            "command": command,
            "seed": plan.options.seed,
            "versions": versions(),
            **made_on([*learnt.machines, machine(plan.threads)]),
            "protocol": plan.tasks[0].protocol.record(),
            "tasks": [task.id for task in plan.tasks],
            "network": str(plan.network),
            "parameters": learnt.parameters,
            "best": {
                "file": BEST,
                "sha256": sha256(out / BEST),
                "steps": best[0].provenance["steps"],
                "scores": {task: score.record() for task, score in found.items()},
            },
            "curve": curve,
            **followed,
            "budget": {**learnt.budget, "seconds": seconds},
        },
    )


def _go_on(plan: Plan, out: Path, resume: bool, elsewhere: bool, started: float) -> Run:
    """A fresh run, or one where its checkpoint, or `elsewhere` its portable one, was saved."""
    going = Run(plan, out, fresh_state(plan), None, [], started, [])
    with ExitStack() as unless_it_works:
        unless_it_works.callback(going.close)
        if plan.following.students:
            learner = going.state.games[0].policy
            going.followers = online.begin(plan.following, learner, plan.options, plan.checks, plan.threads)
        _restore(going, resume, elsewhere)
        unless_it_works.pop_all()
    going.machines.append(machine(plan.threads))
    return going


def _restore(going: Run, resume: bool, elsewhere: bool) -> None:
    """Take over what was saved, if there is something to go on from."""
    plan, out, followers = going.plan, going.out, going.followers
    if resume and _has_checkpoint(out):
        mend = f"remove {out / FOLDER}, and --resume goes on from the portable checkpoint"
        saved = checkpoint.load(out / FOLDER, going.state, ANEW if followers else mend)
        if followers:
            followers.load(out / FOLDER, ANEW)
    else:
        shutil.rmtree(out / FOLDER, ignore_errors=True)  # a killed run's, without its last file
        if not elsewhere:
            return
        saved = checkpoint.load_portable(out / PORTABLE, going.state, ANEW)
    going.curve, going.machines = saved["curve"], saved["machines"]
    going.started -= saved["total"]
    if going.curve:  # the last may be missing where the run was killed after its checkpoint
        _save_policies(_policies(plan, going.state), going.curve, out)


def _learn(run: Run) -> Iterator[Progress]:
    """Play and learn to the end, with metrics; a check at each interval's end."""
    plan, state, curve = run.plan, run.state, run.curve
    begun_at = written = state.steps
    with (
        open_metrics(run.out, lambda line: line["steps"] <= begun_at) as metrics,
        tensorboard(run.out, begun_at + 1) as write_events,
    ):
        for progress in dqn(state, plan.options, plan.bf16, plan.threads):
            if progress.stage == "refill":
                yield progress
                continue
            if progress.done // LINE_EVERY > written // LINE_EVERY:
                written = progress.done
                recent = {task.id: score for task, score in zip(plan.tasks, progress.scores, strict=True)}
                numbers = {"loss": progress.loss, "epsilon": progress.epsilon}
                write_line(metrics, {"steps": progress.done, "updates": progress.updates, **numbers, "scores": recent})
                events = numbers | {f"score/{task}": score for task, score in recent.items()}
                write_events({name: value for name, value in events.items() if value is not None}, progress.done)
            yield progress
            # The last score is at the end, whatever the last interval's length: there are as many as were planned.
            last = curve[-1]["steps"] if curve else 0
            if last // plan.eval_every < state.steps // plan.eval_every < plan.checks:
                sync(metrics)
                yield from _check(run)
    if not curve or curve[-1]["steps"] < state.steps:
        yield from _check(run)


def _check(run: Run) -> Iterator[Progress]:
    """Score, which adds a point to the curve; let the students learn from the best so far; save it all."""
    plan, out, state, curve = run.plan, run.out, run.state, run.curve
    now = _policies(plan, state)
    curve.append((yield from scoring.point(plan, state.steps, state.updates, now)))
    if run.followers:
        best = now if scoring.ends_in_its_best(curve) else load_all(out / BEST)
        copies = yield from run.followers.follow(best[0], len(curve))
        found = yield from scoring.score(list(copies.values()), plan.tasks[0], plan, plan.eval_episodes, CHOOSING)
        curve[-1]["students"] = {name: score.record() for name, score in zip(copies, found, strict=True)}
        for name, policy in copies.items():
            policy.save(out / student_file(name))
        run.followers.save(out / FOLDER)
    run_so_far = {"curve": curve, "total": run.seconds, "machines": run.machines}
    checkpoint.save(out / FOLDER, state, run_so_far)
    if not run.followers:  # whose memory it doesn't hold
        checkpoint.save_portable(out / PORTABLE, state, run_so_far)
    (out / "result.json").unlink(missing_ok=True)  # of a shorter run: its best policy may be replaced now
    _save_policies(now, curve, out)


def _what_was_learnt(plan: Plan, out: Path) -> tuple[Learnt | None, int]:
    """What a finished run has learnt, unless it is to be longer now; and how many episodes it was scored on."""
    if not (out / "result.json").exists():
        return None, 0
    with as_written(out / "result.json"):
        result = read_json(out / "result.json")
        if result["budget"]["steps"] < plan.options.steps:
            return None, 0
        episodes = min(score["episodes"] for score in result["best"]["scores"].values())
        machines = [result["machine"], *result.get("also_on", ())]
        return Learnt(result["curve"], result["budget"], result["parameters"], machines), episodes


def _has_checkpoint(out: Path) -> bool:
    return (out / FOLDER / checkpoint.STATE).exists()


def _goes_on_elsewhere(plan: Plan, out: Path, resume: bool) -> bool:
    """Whether a run goes on from its portable checkpoint, the memory being left on another machine.

    Raises:
        PotstillError: it would, but something else was left there, too.
    """
    if not resume or _has_checkpoint(out):
        return False
    if plan.following.students and (out / BEST).exists():
        raise PotstillError(f"--resume: the students' memory is in {out / FOLDER}, which is missing; start again")
    if (out / PORTABLE).exists() and not (out / BEST).exists():
        raise PotstillError(f"--resume: {out} lacks {BEST}, the best policy so far; bring it along")
    return (out / PORTABLE).exists()


def _policies(plan: Plan, state: State) -> list[Policy]:
    """The policies as they are, one a game."""
    provenance = {
        "method": "DQN (Mnih et al. 2015)",
        "steps": state.steps,
        "updates": state.updates,
        **{name: getattr(plan.options, name) for name in PROVENANCE},
        "potstill": __version__,
    }
    now = [replace(game.policy, provenance=provenance) for game in state.games]
    policies.use(now, copy.deepcopy(state.network).requires_grad_(False))
    return now


def _save_policies(now: list[Policy], curve: list[dict[str, Any]], out: Path) -> None:
    """Save the policies of a curve's last point, also as the best if they are."""
    if scoring.ends_in_its_best(curve):
        policies.save(now, out / BEST)
    policies.save(now, out / "last.safetensors")


def fresh_state(plan: Plan) -> State:
    """Where a run begins: weights drawn by its seed, an empty memory, open environments."""
    options = plan.options
    with drawn_from(options.seed, Stream.LEARNER, 0):
        fresh = [
            Policy.new(
                plan.network, "q", task.observation_shape, task.observation_dtype, task.num_actions, task=task.id
            ).to(options.device)
            for task in plan.tasks
        ]
    envs = [Envs(task, options.envs, EpisodeSeeds(options.seed, "training"), plan.threads) for task in plan.tasks]
    play_rng, sample_rng = (np.random.default_rng([options.seed, stream]) for stream in (Stream.PLAY, Stream.SAMPLE))
    return new_state(envs, fresh, options, play_rng, sample_rng)
