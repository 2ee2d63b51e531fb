"""Which rows of a replay memory are drawn more often (Schaul et al. 2016, section 3.3: proportional)."""

from typing import cast

import numpy as np
from jaxtyping import Float32

from potstill.memory.replay import Sample

ALPHA = 0.6
"""How much priorities count; 0: not at all."""
SMALLEST = 1e-3
"""Added to an error, so that no step is forgotten."""


class Priorities:
    """A priority for each step of a ring of `capacity` rows by `num_envs`; 0 is never drawn."""

    def __init__(self, capacity: int, num_envs: int) -> None:
        self.weights: Float32[np.ndarray, "rows envs"] = np.zeros((capacity, num_envs), np.float32)
        """Priorities to the power of α."""
        self.largest = 1.0
        """The largest so far: what a step that was never learnt from gets."""

    def open(self, row: int) -> None:
        """Let a row (counted from the first ever added) be drawn."""
        self.weights[row % len(self.weights)] = self.largest

    def close(self, row: int) -> None:
        """Never draw a row any more."""
        self.weights[row % len(self.weights)] = 0

    def draw(
        self, batch: int, rng: np.random.Generator, rows: int, beta: float
    ) -> tuple[Sample, Float32[np.ndarray, " batch"]]:
        """Draw steps in proportion to their priorities.

        Args:
            batch: how many.
            rng: of the draw.
            rows: ever added to the memory.
            beta: how far the importance weights make up for the draw; 1: wholly.

        Returns:
            The steps, and the weights of their losses, at most 1.
        """
        # A running sum over all of half a million steps takes a millisecond, a hundredth of the update it is for.
        sums = np.cumsum(self.weights.ravel(), dtype=np.float64)
        at = cast(np.ndarray, np.searchsorted(sums, rng.random(batch) * sums[-1], side="right"))
        ring, envs = np.divmod(np.minimum(at, self.weights.size - 1), self.weights.shape[1])
        chances = np.maximum(self.weights[ring, envs], np.finfo(np.float32).tiny)
        importance = (chances / chances.min()) ** -beta
        newest = rows - 1
        return (newest - (newest - ring) % len(self.weights), envs), importance.astype(np.float32)

    def update(self, sample: Sample, errors: Float32[np.ndarray, " batch"]) -> None:
        """New priorities from absolute temporal-difference errors."""
        rows, envs = sample
        weights = (errors + SMALLEST) ** ALPHA
        self.weights[rows % len(self.weights), envs] = weights
        self.largest = max(self.largest, float(weights.max()))
