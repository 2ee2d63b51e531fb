"""Whether an export says what its policy says, on observations that the policy met in play."""

from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from potstill.chance import Stream
from potstill.errors import PotstillError
from potstill.policy import Policy
from potstill.progress import Progress
from potstill.tasks import Envs, EpisodeSeeds, Task

OBSERVATIONS = 10_000
ENVS = 16
EVERY = 2
"""Of an environment's observations every second is kept: neighbours are nearly the same."""
EPSILON = 0.05
BATCH = 256


@dataclass(frozen=True)
class Export:
    """A policy in another format, as that format's own library computes it."""

    outputs: Callable[[np.ndarray], np.ndarray]
    """Q-values, logits up to a constant, or means."""
    actions: Callable[[np.ndarray], np.ndarray]
    """The best ones."""


@dataclass(frozen=True)
class Agreement:
    """How near an export is to its policy."""

    observations: int
    difference: float
    """The largest between two outputs, as a share of the largest output."""
    same: float
    """The share of observations with the same best action. Where the policy's own best two are nearer to each other
    than twice the tolerance, either will do."""

    def record(self) -> dict[str, Any]:
        return {"observations": self.observations, "largest_difference": self.difference, "same_actions": self.same}


def observe(policy: Policy, task: Task, count: int, seed: int, threads: int) -> Generator[Progress, None, np.ndarray]:
    """Play and collect observations; returns (count, *observation_shape)."""
    rng = np.random.default_rng([seed, Stream.ASIDE])
    seen = np.empty((-(-count // ENVS), ENVS, *task.observation_shape), task.observation_dtype)
    with closing(Envs(task, ENVS, EpisodeSeeds(seed, "training"), threads)) as envs:
        for row in range(len(seen)):
            for _ in range(EVERY):
                envs.step(policy.act(envs.observations, EPSILON, rng))
            seen[row] = envs.observations
            yield Progress("observe", min(count, (row + 1) * ENVS), count)
    return seen.reshape(-1, *task.observation_shape)[:count]


def agreement(policy: Policy, export: Export, observations: np.ndarray, tolerance: float) -> Agreement:
    """Compare an export with its policy.

    Args:
        policy: what was exported.
        export: what it became.
        observations: (n, *observation_shape).
        tolerance: as a share of the largest output; of continuous actions, of their range.
    """
    difference, same = 0.0, 0
    parts = [observations[start : start + BATCH] for start in range(0, len(observations), BATCH)]
    said = [policy.outputs(part) for part in parts]
    largest = max(float(_meant(policy, outputs).abs().max()) for outputs in said)
    for part, outputs in zip(parts, said, strict=True):
        theirs = torch.as_tensor(export.outputs(part))
        apart = float((_meant(policy, outputs) - _meant(policy, theirs)).abs().max())
        difference = float(np.maximum(difference, apart))  # NaN stays
        same += int(_same(policy, outputs, export.actions(part), tolerance, largest).sum())
    return Agreement(len(observations), difference / largest if largest else difference, same / len(observations))


def refuse(name: str, found: Agreement, tolerance: float | None, min_same: float) -> None:
    """Refuse an export that isn't near enough.

    Raises:
        PotstillError: its outputs or its actions differ; nothing is written.
    """
    if tolerance is not None and not found.difference <= tolerance:
        raise PotstillError(
            f"{name}: outputs differ by {found.difference:.1e} of the largest, over --tolerance {tolerance:g}:"
            " nothing is written"
        )
    if found.same < min_same:
        asked = f"under --min-agreement {min_same:g}" if tolerance is None else "and all must be"
        share = f"{100 * found.same:.2f} % of {found.observations} best actions are the same"
        raise PotstillError(f"{name}: {share}, {asked}: nothing is written")


def _meant(policy: Policy, outputs: Tensor) -> Tensor:
    """What outputs say: a constant added to logits says nothing; of a Gaussian, the means."""
    if policy.outputs_are == "logits":
        return torch.log_softmax(outputs, -1)
    return outputs if policy.actions is None else outputs[:, : policy.num_actions]


def _same(policy: Policy, outputs: Tensor, actions: np.ndarray, tolerance: float, largest: float) -> np.ndarray:
    if policy.actions is not None:
        ours = policy.choose(outputs, 0.0, np.random.default_rng())
        ranges = np.array(policy.actions.high) - np.array(policy.actions.low)
        return np.all(np.abs(ours - actions) <= tolerance * ranges, axis=-1)
    theirs = outputs.gather(1, torch.as_tensor(actions).long()[:, None])[:, 0]
    return (theirs >= outputs.max(-1).values - 2 * tolerance * largest).numpy()
