"""What plays but is no network of ours: any function of observations, in a network's place."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

SURE = 10.0
"""The logit of the action that a function chose, where it says no more than that; the others' is 0."""
SPREAD = 0.1
"""The standard deviation given to continuous actions that come without one, as a share of half their range."""


class OnArrays(nn.Module):
    """A function of NumPy arrays, given tensors."""

    def __init__(self, function: Callable[[np.ndarray], Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, observations: Shaped[Tensor, "batch ..."]) -> Tensor:
        return torch.as_tensor(self.function(observations.numpy()))


class Foreign(nn.Module):
    """A function from observations, as they are played, to outputs; one that works in place doesn't change them.

    Raises from `forward`: whatever the function raises; ValueError where what it says has another shape.
    """

    def __init__(
        self,
        function: nn.Module,
        num_outputs: int,
        half_ranges: tuple[float, ...] | None,
        num_parameters: int,
        one_by_one: bool = False,
        thread_safe: bool = False,
    ) -> None:
        """What is known of the function.

        Args:
            function: gives outputs, chosen actions as integers (batch,), or continuous actions without their spread.
            num_outputs: of a policy for the task.
            half_ranges: of continuous actions; None: they are discrete.
            num_parameters: where they are no tensors of PyTorch.
            one_by_one: it takes no more than one observation at a time.
            thread_safe: several threads may call it at once: a user's own code may keep something between its calls.
        """
        super().__init__()
        self.function, self.num_outputs, self.half_ranges = function, num_outputs, half_ranges
        self.num_parameters, self.one_by_one, self.thread_safe = num_parameters, one_by_one, thread_safe

    def forward(self, observations: Shaped[Tensor, "batch ..."]) -> Float[Tensor, "batch outputs"]:
        observations = observations.clone()  # the function's own, should it work in place
        parts = observations.split(1) if self.one_by_one else [observations]
        return torch.cat([self._outputs(part) for part in parts])

    def behind(self, layer: nn.Module) -> "Foreign":
        """The same function of what a layer makes of observations."""
        function = nn.Sequential(layer, self.function)
        same = self.half_ranges, self.num_parameters, self.one_by_one, self.thread_safe
        return Foreign(function, self.num_outputs, *same)

    def _outputs(self, observations: Tensor) -> Tensor:
        said: Any = self.function(observations)
        if not isinstance(said, Tensor):
            raise TypeError(f"it gives a {type(said).__name__}, not an array")
        batch = len(observations)
        if self.half_ranges is None and said.shape in ((batch,), (batch, 1)) and not said.is_floating_point():
            return SURE * nn.functional.one_hot(said.view(batch).long(), self.num_outputs).float()
        if self.half_ranges is not None and said.shape == (batch, len(self.half_ranges)):
            log_stds = torch.tensor([math.log(SPREAD * half) for half in self.half_ranges])
            said = torch.cat([said.float(), log_stds.to(said.device).expand(batch, -1)], 1)
        if said.shape != (batch, self.num_outputs):
            raise ValueError(f"{tuple(said.shape)} outputs for {batch} observations, not {self.num_outputs} each")
        return said.float()
