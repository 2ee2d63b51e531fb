"""From a spec to a network."""

import itertools
import math
from typing import cast

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from potstill.errors import PotstillError
from potstill.networks.spec import NetworkSpec

KERNELS = ((8, 4), (4, 2), (3, 1))
"""(size, stride) of the DQN's three convolutions (Mnih et al. 2015)."""


class Network(nn.Module):
    """A trunk and a linear head. Takes observations as they are played; uint8 frames are scaled to [0, 1]."""

    def __init__(self, trunk: nn.Sequential, head: nn.Linear) -> None:
        super().__init__()
        self.trunk = trunk
        self.head = head

    def forward(self, observations: Shaped[Tensor, "batch ..."]) -> Float[Tensor, "batch outputs"]:
        if observations.dtype == torch.uint8:
            observations = observations.to(self.head.weight.dtype) / 255
        return self.head(self.trunk(observations))


def build(spec: NetworkSpec, observation_shape: tuple[int, ...], num_outputs: int) -> Network:
    """A fresh network (PyTorch's default initialisation, from its global generator).

    Args:
        spec: the sizes.
        observation_shape: (channels, height, width) for a CNN, (n,) for an MLP.
        num_outputs: linear outputs, one an action.

    Raises:
        PotstillError: the network can't take such observations.
    """
    activation = nn.Tanh if spec.activation == "tanh" else nn.ReLU
    if spec.kind == "mlp":
        if len(observation_shape) != 1:
            raise PotstillError(f"{spec} takes vectors, the observations are {observation_shape}: use net1 or a cnn:…")
        layers: list[nn.Module] = []
        width = observation_shape[0]
    else:
        if len(observation_shape) != 3 or min(observation_shape[1:]) < 36:
            raise PotstillError(f"{spec} takes frames, the observations are {observation_shape}: use mlp:64-64")
        channels = (observation_shape[0], *spec.convs)
        layers = []
        for (inputs, outputs), (size, stride) in zip(itertools.pairwise(channels), KERNELS, strict=True):
            layers += [nn.Conv2d(inputs, outputs, size, stride), activation()]
        layers.append(nn.Flatten())
        width = spec.convs[-1] * math.prod(map(_after_convolutions, observation_shape[1:]))
    for hidden in spec.hidden:
        layers += [nn.Linear(width, hidden), activation()]
        width = hidden
    return Network(nn.Sequential(*layers), nn.Linear(width, num_outputs))


def num_parameters(network: nn.Module) -> int:
    """Weights and biases, all of them."""
    return sum(cast(Tensor, parameter).numel() for parameter in network.parameters())


def _after_convolutions(side: int) -> int:
    for size, stride in KERNELS:
        side = (side - size) // stride + 1
    return side
