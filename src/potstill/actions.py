"""From outputs to actions, discrete or continuous."""

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Int64
from torch import Tensor

from potstill.choices import Act
from potstill.tasks.spec import are_bounds

LOG_STD = -20.0, 20.0
"""Beyond these a standard deviation's log is no more than 0 or far outside any bounds."""
SAME = 0.05
"""Share of a continuous action's range within which two count as the same."""


@dataclass(frozen=True)
class Actions:
    """How a Gaussian policy's outputs become continuous actions."""

    low: tuple[float, ...]
    high: tuple[float, ...]
    squashed: bool
    """By tanh, then scaled to the bounds (SAC, TD3); otherwise clipped to them (PPO)."""

    @property
    def log_std(self) -> tuple[float, float]:
        """Where the logs of standard deviations end; Stable-Baselines3's SAC has an end, its PPO none that matters."""
        return LOG_STD[0], 2.0 if self.squashed else LOG_STD[1]

    def of(self, means: Float[Tensor, "batch actions"]) -> Float[Tensor, "batch actions"]:
        """Actions from means or samples."""
        low, high = (_on(means.device, bound) for bound in (self.low, self.high))
        if self.squashed:
            return low + (means.tanh() + 1) / 2 * (high - low)
        return means.clamp(low, high)

    def choose(
        self, outputs: Float[Tensor, "batch outputs"], epsilon: float, rng: np.random.Generator, act: Act
    ) -> Float32[np.ndarray, "batch actions"]:
        """The mean action or one that is drawn; with probability ε one drawn uniformly from the bounds instead."""
        means, log_stds = outputs.chunk(2, -1)
        if act == "sample":
            means = means + log_stds.exp() * torch.as_tensor(rng.normal(size=means.shape), dtype=means.dtype)
        actions = self.of(means).numpy()
        explore = rng.random(len(actions)) < epsilon
        anywhere = rng.uniform(self.low, self.high, actions.shape)
        return np.where(explore[:, None], anywhere, actions).astype(np.float32)

    def same(
        self, outputs: Float[Tensor, "batch outputs"], others: Float[Tensor, "batch outputs"]
    ) -> Bool[Tensor, " batch"]:
        """Whether the mean actions are within 5 % of their range of each other, in every dimension."""
        one, other = (self.of(each.chunk(2, -1)[0]) for each in (outputs, others))
        ranges = _on(one.device, self.high) - _on(one.device, self.low)
        return ((one - other).abs() <= SAME * ranges).all(-1)


@cache
def _on(device: torch.device, bound: tuple[float, ...]) -> Tensor:
    """A bound where it is used; a CUDA graph can't fetch it there."""
    return torch.tensor(bound, device=device)


def read_actions(described: Any, num_actions: int) -> Actions:
    """Continuous actions from JSON.

    Raises:
        ValueError, TypeError, KeyError: it describes none.
    """
    try:
        low, high = (tuple(float(bound) for bound in described[name]) for name in ("low", "high"))
    except OverflowError as error:
        raise ValueError("the bounds of its actions") from error
    if not len(low) == len(high) == num_actions or not are_bounds(low, high):
        raise ValueError("the bounds of its actions")
    return Actions(low, high, bool(described["squashed"]))


def choose(
    outputs: Float[Tensor, "batch actions"], epsilon: float, rng: np.random.Generator, act: Act = "greedy"
) -> Int64[np.ndarray, " batch"]:
    """Actions from outputs: the best or drawn from softmax(outputs); with probability ε a random one instead."""
    batch, num_actions = outputs.shape
    if act == "sample":
        gumbel = torch.as_tensor(rng.gumbel(size=(batch, num_actions)))
        actions = (outputs + gumbel).argmax(-1).numpy()  # the Gumbel-max trick: a draw from softmax(outputs)
    else:
        actions = outputs.argmax(-1).numpy()
    explore = rng.random(batch) < epsilon
    return np.where(explore, rng.integers(0, num_actions, batch), actions)
