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
            observations = scale(observations, self.head.weight.dtype)
        return self.head(self.trunk(observations))


def scale(frames: Shaped[Tensor, "batch ..."], dtype: torch.dtype) -> Float[Tensor, "batch ..."]:
    """uint8 frames as numbers from 0 to 1."""
    return frames.to(dtype).div_(255)


def build(spec: NetworkSpec, observation_shape: tuple[int, ...], num_outputs: int) -> Network:
    """A fresh network, initialised after He et al. 2015 from PyTorch's global generator.

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
    network = Network(nn.Sequential(*layers), nn.Linear(width, num_outputs))
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(layer.weight, nonlinearity=spec.activation)
            nn.init.zeros_(cast(Tensor, layer.bias))
    return network


@torch.no_grad()
def standardise(network: Network, observations: Shaped[Tensor, "batch ..."]) -> None:
    """Scale a fresh network so that every unit before an activation has mean 0 and variance 1 on these observations.

    Data-dependent initialisation (Salimans & Kingma 2016, section 3). Game frames are nearly constant:
    under a standard initialisation the outputs hardly differ from one to another, and a student stays at
    the teacher's mean for thousands of updates (docs/log.md has the figures).

    Args:
        network: changed in place.
        observations: (batch, …), some hundreds.
    """
    values = scale(observations, torch.float32) if observations.dtype == torch.uint8 else observations
    for layer in network.trunk:
        if isinstance(layer, nn.Conv2d | nn.Linear):
            units = layer(values).transpose(0, 1).flatten(1)
            deviation = units.std(1).clamp_min(1e-3)  # a unit that never changes stays as it is, nearly
            layer.weight /= deviation.view(-1, *[1] * (layer.weight.dim() - 1))
            cast(Tensor, layer.bias).copy_(-units.mean(1) / deviation)
        values = layer(values)


def num_parameters(network: nn.Module) -> int:
    """Weights and biases, all of them."""
    return sum(cast(Tensor, parameter).numel() for parameter in network.parameters())


def _after_convolutions(side: int) -> int:
    for size, stride in KERNELS:
        side = (side - size) // stride + 1
    return side
