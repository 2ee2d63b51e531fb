"""A whole training run: the learner, its scores by protocol as it goes, the best of it, `result.json`.

runs/<name>/best.safetensors   the policy with the best score on the way, and what it was
           /last.safetensors   the policy as it is     portable.safetensors   to go on from on another machine
"""

import copy
import os
import shutil
import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from potstill.errors import PotstillError
from potstill.evaluate import Player, Score, evaluate
from potstill.files import sha256, write_json
from potstill.learners.dqn import Progress, State, dqn, new_state
from potstill.learners.options import DQNOptions
from potstill.machine import check_device, has_bf16, machine, versions
from potstill.networks import NetworkSpec
from potstill.policy import Policy
from potstill.run_directory import SCHEMA, open_metrics, open_run, tensorboard, write_line
from potstill.tasks import Envs, EpisodeSeeds, Task, make_task
from potstill.train import checkpoint
from potstill.version import __version__

OF_THE_MACHINE = ("device", "precision", "threads")
"""Options that may be others where the portable checkpoint is gone on from."""
LINE_EVERY = 2_000
"""Steps between two lines of metrics."""


@dataclass(frozen=True)
class Plan:
    """The options with every default resolved."""

    options: DQNOptions
    task: Task
    network: NetworkSpec
    bf16: bool
    threads: int
    eval_every: int
    eval_episodes: int
    episodes: int

    def record(self) -> dict[str, Any]:
        """What decides the weights, as JSON. A run may be made longer: `steps` is not part of it."""
        record = {
            **self.options.record(),
            "algo": "dqn",
            "task": self.task.id,
            "network": str(self.network),
            "precision": "bf16" if self.bf16 else "fp32",
            "threads": self.threads,
            "eval_every": self.eval_every,
            "eval_episodes": self.eval_episodes,
            "protocol": self.task.protocol.record(),
        }
        return {name: value for name, value in record.items() if name != "steps"}


def plan(options: DQNOptions, task_id: str, eval_every: int, eval_episodes: int, episodes: int) -> Plan:
    """Resolve the options and check them, before any work starts.

    Raises:
        PotstillError: something doesn't fit; the message names it.
    """
    options.check()
    for name, value in (("eval-every", eval_every), ("eval-episodes", eval_episodes), ("episodes", episodes)):
        if value < 1:
            raise PotstillError(f"--{name} {value}: must be at least 1")
    check_device(options.device)
    task = make_task(task_id)
    if task.bounds is not None:
        raise PotstillError(f"{task_id} has continuous actions, DQN chooses from discrete ones")
    network = NetworkSpec.parse("mlp:64-64" if options.network == "dqn" and not task.is_atari else options.network)
    with torch.device("meta"):  # refuses a network that can't see the task, and takes no memory
        Policy.new(network, "q", task.observation_shape, task.observation_dtype, task.num_actions)
    bf16 = options.precision == "bf16" or (options.precision == "auto" and task.is_atari and has_bf16(options.device))
    threads = options.threads or os.cpu_count() or 1
    return Plan(options, task, network, bf16, threads, eval_every, eval_episodes, episodes)


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
    folder, portable = out / "checkpoint", out / "portable.safetensors"
    exactly = (folder / checkpoint.STATE).exists()
    elsewhere = resume and portable.exists() and not exactly
    if elsewhere and not (out / "best.safetensors").exists():
        raise PotstillError(f"--resume: {out} lacks best.safetensors, the best policy so far; bring it along")
    open_run(out, resume, command, plan.record(), OF_THE_MACHINE if elsewhere else ())
    state, curve, before = _fresh(plan), list[dict[str, Any]](), 0.0
    if resume and exactly:
        saved = checkpoint.load(folder, state)
        curve, before = saved["curve"], saved["total"]
    elif elsewhere:
        shutil.rmtree(folder, ignore_errors=True)  # a killed run's, without its last file
        saved = checkpoint.load_portable(portable, state)
        curve, before = saved["curve"], saved["total"]
    begun_at = state.steps
    with (
        open_metrics(out, lambda line: line["steps"] <= begun_at) as metrics,
        tensorboard(out, begun_at + 1) as write_events,
    ):
        written = begun_at
        for progress in dqn(state, options, plan.bf16, plan.threads):
            if progress.done // LINE_EVERY > written // LINE_EVERY:
                written = progress.done
                numbers = {"loss": progress.loss, "epsilon": progress.epsilon, "score": progress.score}
                write_line(metrics, {"steps": progress.done, "updates": progress.updates, **numbers})
                write_events({name: value for name, value in numbers.items() if value is not None}, progress.done)
            yield progress
            if state.steps // plan.eval_every > (curve[-1]["steps"] if curve else 0) // plan.eval_every:
                yield from _check(plan, state, curve, out)
                run_so_far = {"curve": curve, "total": before + time.perf_counter() - begun}
                os.fsync(metrics.fileno())
                checkpoint.save_portable(portable, state, run_so_far)
                checkpoint.save(folder, state, run_so_far)
    if not curve or curve[-1]["steps"] < state.steps:
        yield from _check(plan, state, curve, out)
        run_so_far = {"curve": curve, "total": before + time.perf_counter() - begun}
        checkpoint.save_portable(portable, state, run_so_far)
        checkpoint.save(folder, state, run_so_far)
    state.envs.close()
    seconds, updates, steps = state.seconds, state.updates, state.steps
    del state  # the memory: gigabytes that evaluation doesn't need
    best = Policy.from_file(out / "best.safetensors").to(options.device)
    # Other episodes than those that chose it.
    score = yield from _score(best, plan, plan.episodes, options.seed + 1)
    seconds = {**seconds, "total": before + time.perf_counter() - begun}
    write_json(
        out / "result.json",
        {
            "schema": SCHEMA,
            "command": command,
            "seed": options.seed,
            "versions": versions(),
            "machine": machine(plan.threads),
            "protocol": plan.task.protocol.record(),
            "task": plan.task.id,
            "network": str(plan.network),
            "parameters": best.num_parameters,
            "best": {
                "file": "best.safetensors",
                "sha256": sha256(out / "best.safetensors"),
                "steps": best.provenance["steps"],
                "score": score.record(),
            },
            "curve": curve,
            "budget": {"steps": steps, "updates": updates, "seconds": seconds},
        },
    )


def _check(plan: Plan, state: State, curve: list[dict[str, Any]], out: Path) -> Iterator[Progress]:
    """Score the policy as it is; save it, and as the best if it is."""
    network = copy.deepcopy(state.policy.network).requires_grad_(False)
    provenance = {
        "method": "DQN (Mnih et al. 2015)",
        "steps": state.steps,
        "updates": state.updates,
        **{name: getattr(plan.options, name) for name in ("single_q", "n_step", "prioritised", "replay_ratio", "seed")},
        "potstill": __version__,
    }
    policy = replace(state.policy, network=network, provenance=provenance)
    score = yield from _score(policy, plan, plan.eval_episodes, plan.options.seed)
    best = max((point["score"]["mean"] for point in curve), default=-np.inf)
    if score.mean >= best:
        policy.save(out / "best.safetensors")
    policy.save(out / "last.safetensors")
    curve.append({"steps": state.steps, "updates": state.updates, "score": score.record()})


def _score(policy: Policy, plan: Plan, episodes: int, seed: int) -> Generator[Progress, None, Score]:
    task = plan.task
    player = Player(policy, task.protocol.act, task.protocol.epsilon, episodes)
    returns, done = [0.0] * episodes, 0
    for tally in evaluate([player], task, seed, plan.threads):
        for _, episode, value in tally.finished:
            returns[episode] = value
        done += len(tally.finished)
        yield Progress("evaluate", done, episodes)
    return Score(tuple(returns))


def _fresh(plan: Plan) -> State:
    options, task = plan.options, plan.task
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(np.random.SeedSequence([options.seed, 4, 0]).generate_state(1)[0]))
        policy = Policy.new(
            plan.network, "q", task.observation_shape, task.observation_dtype, task.num_actions, task=task.id
        )
    envs = Envs(task, options.envs, EpisodeSeeds(options.seed, "training"), plan.threads)
    play_rng, sample_rng = (np.random.default_rng([options.seed, stream]) for stream in (2, 3))
    return new_state(envs, policy.to(options.device), options, play_rng, sample_rng)
