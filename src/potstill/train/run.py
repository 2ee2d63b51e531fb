"""A whole training run: the learner, its scores by protocol as it goes, the best of it, `result.json`.

runs/<name>/best.safetensors   the policy with the best score on the way, and what it was
           /last.safetensors   the policy as it is     portable.safetensors   to go on from on another machine
           /students/          what learns from the best so far, if anything does
"""

import copy
import shutil
import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from potstill import policies
from potstill.distill.options import name_students
from potstill.distill.schedule import STEPS_PER_HOUR
from potstill.errors import PotstillError, must_be
from potstill.evaluate import Player, Score, relative, scores
from potstill.files import read_json, sha256, write_json
from potstill.learners.dqn import REPORT_EVERY, UPDATES_AT_A_TIME, State, dqn, new_state
from potstill.learners.options import DQNOptions
from potstill.machine import cores, has_bf16, machine, memory_bytes, prepare_device, versions
from potstill.memory import step_bytes
from potstill.networks import NetworkSpec, drawn_from, num_parameters
from potstill.policy import Policy
from potstill.progress import Progress
from potstill.run_directory import (
    OF_THE_MACHINE,
    SCHEMA,
    as_written,
    open_metrics,
    open_run,
    sync,
    tensorboard,
    write_line,
)
from potstill.tasks import Envs, EpisodeSeeds, Task, make_task
from potstill.teachers import load_all
from potstill.train import checkpoint, online
from potstill.version import __version__

PROVENANCE = ("single_q", "n_step", "prioritised", "ez_greedy", "replay_ratio", "seed")
"""Options that a policy's file names."""
LEARNER = "the learner"
"""What it is called among the students that follow it, none of whom can be called so."""
BEST, FOLDER, PORTABLE = "best.safetensors", "checkpoint", "portable.safetensors"
"""The best policy so far; what a run goes on from: here, or on another machine."""
ANEW = "there is nothing to go on from: begin anew in another folder"
LINE_EVERY = 2_000
"""Steps between two lines of metrics."""
CHOOSING, REPORTED = 2_000_003, 0
"""Added to the seed: for episodes that choose the best policy, on which nobody scores it later; for the result's."""


@dataclass(frozen=True)
class Plan:
    """The options with every default resolved."""

    options: DQNOptions
    tasks: tuple[Task, ...]
    network: NetworkSpec
    bf16: bool
    threads: int
    eval_every: int
    eval_episodes: int
    episodes: int
    following: online.Following
    """What learns from the best policy so far all the while."""

    @property
    def checks(self) -> int:
        """How often the policy is scored; the last time at the end."""
        return max(1, self.options.steps // self.eval_every)

    def record(self) -> dict[str, Any]:
        """What decides the weights and the scores, as JSON."""
        return {
            **self.options.record(),
            "algo": "dqn",
            "task": [task.id for task in self.tasks],
            "network": str(self.network),
            "precision": "bf16" if self.bf16 else "fp32",
            "threads": self.threads,
            "eval_every": self.eval_every,
            "eval_episodes": self.eval_episodes,
            "episodes": self.episodes,
            "protocol": self.tasks[0].protocol.record(),
            "distill_online": list(self.following.students),
            "online_updates": self.following.updates,
        }

    @property
    def may_differ(self) -> tuple[str, ...]:
        """What of the record may be another later: a run may be made longer, unless students share its schedule."""
        return ("episodes",) if self.following.students else ("episodes", "steps")


def plan(
    options: DQNOptions,
    task_ids: tuple[str, ...],
    eval_every: int,
    eval_episodes: int,
    episodes: int,
    following: online.Following | None = None,
) -> Plan:
    """Resolve the options and check them, before any work starts.

    Raises:
        PotstillError: something doesn't fit; the message names it.
    """
    options.check()
    prepare_device(options.device)
    if not task_ids:
        raise PotstillError("train: name what to play, for example ALE/Pong-v5")
    if len(set(task_ids)) < len(task_ids):
        raise PotstillError(f"train {' '.join(task_ids)}: a task is named twice")
    following = following or online.Following()
    if following.students:
        if len(task_ids) > 1:
            raise PotstillError("--distill-online: one task at a time")
        if following.updates < 1:
            raise PotstillError(f"--online-updates {following.updates}: must be at least 1")
        learning = UPDATES_AT_A_TIME * options.batch / options.replay_ratio + options.envs
        block = learning + REPORT_EVERY * options.envs
        if eval_every < block:
            raise PotstillError(f"--eval-every {eval_every}: with --distill-online it must be at least {block:.0f}")
    tasks = tuple(map(make_task, task_ids))
    first = tasks[0]
    for task in tasks:
        if task.bounds is not None:
            raise PotstillError(f"{task.id} has continuous actions, DQN chooses from discrete ones")
        if task.observation_shape != first.observation_shape:
            raise PotstillError(
                f"{first.id} shows {first.observation_shape}, {task.id} {task.observation_shape}: tasks that share a"
                " trunk show the same"
            )
    default = (
        ("dqn" if len(tasks) == 1 else f"multitask-{3 if len(tasks) <= 3 else 10}") if first.is_atari else "mlp:64-64"
    )
    network = NetworkSpec.parse(options.network or default)
    for spec in (network, *map(NetworkSpec.parse, name_students(following.students).values())):
        with torch.device("meta"):  # refuses a network that can't see the task, and takes no memory
            Policy.new(spec, "q", first.observation_shape, first.observation_dtype, first.num_actions)
    students = int(online.MEMORY_HOURS * STEPS_PER_HOUR) * step_bytes(first) if following.students else 0
    needed = options.memory * len(tasks) * step_bytes(first) + students
    if needed > (there := memory_bytes(options.device)):
        also = " and the students' play" if students else ""
        raise PotstillError(
            f"--memory {options.memory} steps of {len(tasks)} tasks{also} take {needed / 2**30:.0f} GB, this machine"
            f" has {there / 2**30:.0f}: add --memory {int(options.memory * there / needed * 0.7)}"
        )
    bf16 = options.precision == "bf16" or (options.precision == "auto" and first.is_atari and has_bf16(options.device))
    threads = cores(options.threads)
    planned = Plan(options, tasks, network, bf16, threads, eval_every, eval_episodes, episodes, following)
    must_be("at least 1", planned, "eval_every", "eval_episodes", "episodes")
    return planned


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
    begun, options = time.perf_counter(), plan.options
    done = resume and _is_done(plan, out)
    elsewhere = not done and _goes_on_elsewhere(plan, out, resume)
    may_differ = plan.may_differ + (OF_THE_MACHINE if elsewhere else ())
    open_run(out, resume, command, plan.record(), may_differ, learnt=done)
    if done:
        return
    state = _fresh(plan)
    followers = None
    if plan.following.students:
        followers = online.begin(plan.following, state.games[0].policy, options, plan.checks, plan.threads)
    saved: dict[str, Any] = {"curve": [], "total": 0.0}
    if resume and (out / FOLDER / checkpoint.STATE).exists():
        mend = f"remove {out / FOLDER}, and --resume goes on from the portable checkpoint"
        saved = checkpoint.load(out / FOLDER, state, ANEW if followers else mend)
        if followers:
            followers.load(out / FOLDER, ANEW)
    else:
        shutil.rmtree(out / FOLDER, ignore_errors=True)  # a killed run's, without its last file
        if elsewhere:
            saved = checkpoint.load_portable(out / PORTABLE, state, ANEW)
    curve: list[dict[str, Any]] = saved["curve"]
    if curve:  # the last may be missing where the run was killed after its checkpoint
        _save_policies(_policies(plan, state), curve, out)
    before, begun_at = saved["total"], state.steps

    def check() -> Iterator[Progress]:
        """Score, let the students learn from the best so far, save it all."""
        now = _policies(plan, state)
        point = yield from _point(plan, state, now)
        curve.append(point)
        if followers:
            best = now if _ends_in_its_best(curve) else load_all(out / BEST)
            copies = yield from followers.follow(best[0], len(curve))
            found = yield from _score(list(copies.values()), plan.tasks[0], plan, plan.eval_episodes, CHOOSING)
            curve[-1]["students"] = {name: score.record() for name, score in zip(copies, found, strict=True)}
            for name, policy in copies.items():
                policy.save(out / _student_file(name))
            followers.save(out / FOLDER)
        run_so_far = {"curve": curve, "total": before + time.perf_counter() - begun}
        checkpoint.save(out / FOLDER, state, run_so_far)
        checkpoint.save_portable(out / PORTABLE, state, run_so_far)
        _save_policies(now, curve, out)

    with (
        open_metrics(out, lambda line: line["steps"] <= begun_at) as metrics,
        tensorboard(out, begun_at + 1) as write_events,
    ):
        written = begun_at
        for progress in dqn(state, options, plan.bf16, plan.threads):
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
                yield from check()
    if not curve or curve[-1]["steps"] < state.steps:
        yield from check()
    state.close()
    seconds, updates, steps = state.seconds, state.updates, state.steps
    parameters = num_parameters(state.network)
    del state, followers  # the memories: gigabytes that evaluation doesn't need
    best = [policy.to(options.device) for policy in load_all(out / BEST)]
    found = {}
    for task, policy in zip(plan.tasks, best, strict=True):
        [found[task.id]] = yield from _score([policy], task, plan, plan.episodes, REPORTED)
    followed = yield from _followed(plan, out, curve, found)
    write_json(
        out / "result.json",
        {
            "schema": SCHEMA,
            "command": command,
            "seed": options.seed,
            "versions": versions(),
            "machine": machine(plan.threads),
            "protocol": plan.tasks[0].protocol.record(),
            "tasks": [task.id for task in plan.tasks],
            "network": str(plan.network),
            "parameters": parameters,
            "best": {
                "file": BEST,
                "sha256": sha256(out / BEST),
                "steps": best[0].provenance["steps"],
                "scores": {task: score.record() for task, score in found.items()},
            },
            "curve": curve,
            **followed,
            "budget": {
                "steps": steps,
                "updates": updates,
                "seconds": {**seconds, "total": before + time.perf_counter() - begun},
            },
        },
    )


def _is_done(plan: Plan, out: Path) -> bool:
    """Whether a run was finished, and isn't to be longer now or scored on another number of episodes."""
    if not (out / "result.json").exists():
        return False
    with as_written(out / "result.json"):
        result = read_json(out / "result.json")
        episodes = {score["episodes"] for score in result["best"]["scores"].values()}
        return result["budget"]["steps"] >= plan.options.steps and episodes == {plan.episodes}


def _goes_on_elsewhere(plan: Plan, out: Path, resume: bool) -> bool:
    """Whether a run goes on from its portable checkpoint, the memory being left on another machine.

    Raises:
        PotstillError: it would, but something else was left there, too.
    """
    if not resume or not (out / PORTABLE).exists() or (out / FOLDER / checkpoint.STATE).exists():
        return False
    if not (out / BEST).exists():
        raise PotstillError(f"--resume: {out} lacks {BEST}, the best policy so far; bring it along")
    if plan.following.students:
        raise PotstillError(f"--resume: the students' memory is in {out / FOLDER}, which is missing; start again")
    return True


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


def _point(plan: Plan, state: State, now: list[Policy]) -> Generator[Progress, None, dict[str, Any]]:
    """A point of the curve: the policies' scores."""
    found: dict[str, Any] = {}
    for task, policy in zip(plan.tasks, now, strict=True):
        [score] = yield from _score([policy], task, plan, plan.eval_episodes, CHOOSING)
        found[task.id] = score.record()
    return {"steps": state.steps, "updates": state.updates, "scores": found}


def _save_policies(now: list[Policy], curve: list[dict[str, Any]], out: Path) -> None:
    """Save the policies of a curve's last point, also as the best if they are."""
    if _ends_in_its_best(curve):
        policies.save(now, out / BEST)
    policies.save(now, out / "last.safetensors")


def _ends_in_its_best(curve: list[dict[str, Any]]) -> bool:
    return best_of(curve) == len(curve) - 1


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


def _followed(
    plan: Plan, out: Path, curve: list[dict[str, Any]], best: dict[str, Score]
) -> Generator[Progress, None, dict[str, Any]]:
    """`result.json`'s part about students that followed: their scores beside the best's, and how steady curves were."""
    if not plan.following.students:
        return {}
    task = plan.tasks[0]
    students = {name: load_all(out / _student_file(name))[0].to(plan.options.device) for name in curve[-1]["students"]}
    of_students = yield from _score(list(students.values()), task, plan, plan.episodes, REPORTED)
    records: list[dict[str, Any]] = []
    for (name, policy), score in zip(students.items(), of_students, strict=True):
        ratio = relative(score, best[task.id])
        records.append(
            {
                "name": name,
                "spec": str(policy.spec),
                "parameters": policy.num_parameters,
                "file": _student_file(name),
                "score": score.record(),
                "relative": ratio and ratio.record(),
            }
        )
    second_half = curve[len(curve) // 2 :]
    lines = {LEARNER: [point["scores"][task.id]["mean"] for point in second_half]}
    lines |= {name: [point["students"][name]["mean"] for point in second_half] for name in students}
    return {"students": records, "spread": {name: float(np.std(line)) for name, line in lines.items()}}


def _student_file(name: str) -> str:
    return f"students/{name}.safetensors"


def _score(
    policies: list[Policy], task: Task, plan: Plan, episodes: int, apart: int
) -> Generator[Progress, None, list[Score]]:
    """Scores on the episodes of the seed that is so far from the run's."""
    act, epsilon = task.protocol.act, task.protocol.epsilon
    players = [Player(policy, act, epsilon, episodes) for policy in policies]
    return (yield from scores(players, task, plan.options.seed + apart, plan.threads))


def _fresh(plan: Plan) -> State:
    options = plan.options
    with drawn_from(options.seed, 4, 0):
        fresh = [
            Policy.new(
                plan.network, "q", task.observation_shape, task.observation_dtype, task.num_actions, task=task.id
            ).to(options.device)
            for task in plan.tasks
        ]
    envs = [Envs(task, options.envs, EpisodeSeeds(options.seed, "training"), plan.threads) for task in plan.tasks]
    play_rng, sample_rng = (np.random.default_rng([options.seed, stream]) for stream in (2, 3))
    return new_state(envs, fresh, options, play_rng, sample_rng)
