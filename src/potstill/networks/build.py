"""From a spec to a network."""

import copy
import itertools
import math
from typing import cast

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn
from torch.nn.utils import fuse_conv_bn_eval, fuse_linear_bn_eval

from potstill.errors import PotstillError
from potstill.networks.foreign import Foreign
from potstill.networks.spec import NetworkSpec

KERNELS = ((8, 4), (4, 2), (3, 1))
"""(size, stride) of the DQN's three convolutions (Mnih et al. 2015)."""
BATCH_NORM_MOMENTUM = 0.02
"""Weight of a batch in the running statistics: the last fifty or so count, when the learning rate is near 0."""


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

    @property
    def num_outputs(self) -> int:
        return self.head.out_features


class Select(nn.Module):
    """Some of the inputs: what a policy sees of a vector that shows more."""

    def __init__(self, ranges: tuple[tuple[int, int], ...]) -> None:
        super().__init__()
        self.ranges = ranges

    def forward(self, observations: Float[Tensor, "batch inputs"]) -> Float[Tensor, "batch seen"]:
        return torch.cat([observations[:, start:stop] for start, stop in self.ranges], 1)


class Normalize(nn.Module):
    """(x − mean) / std, clipped: how some teachers see observations (Stable-Baselines3's VecNormalize)."""

    mean: Tensor
    std: Tensor

    def __init__(self, width: int, clip: float) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("std", torch.ones(width))
        self.clip = clip

    def forward(self, observations: Float[Tensor, "batch inputs"]) -> Float[Tensor, "batch inputs"]:
        return ((observations - self.mean) / self.std).clamp(-self.clip, self.clip)


class GsdeHead(nn.Linear):
    """A Gaussian whose spread depends on the state (gSDE; Raffin et al. 2021), its means clipped."""

    def __init__(self, width: int, num_actions: int, clip: float) -> None:
        super().__init__(width, num_actions)
        self.log_std = nn.Parameter(torch.zeros(width, num_actions))
        self.clip = clip
        self.out_features = 2 * num_actions

    def forward(self, input: Float[Tensor, "batch features"]) -> Float[Tensor, "batch outputs"]:
        means = super().forward(input).clamp(-self.clip, self.clip)
        variance = input.square() @ self.log_std.exp().square()
        return torch.cat([means, (variance + 1e-6).log() / 2], -1)


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


def with_batch_norm(network: Network) -> Network:
    """A copy of a fresh network that learns faster: each layer before an activation is batch-normalised.

    Ioffe & Szegedy 2015. Game frames are nearly constant; without it the units see little but the
    background, and students stay at the teacher's mean for thousands of updates (docs/decisions/0003).
    """
    copied = copy.deepcopy(network)
    layers: list[nn.Module] = []
    for layer in copied.trunk:
        layers.append(layer)
        if isinstance(layer, nn.Conv2d | nn.Linear):
            layer.register_parameter("bias", None)  # the normalisation's own takes its place
            if isinstance(layer, nn.Conv2d):
                layers.append(nn.BatchNorm2d(layer.out_channels, momentum=BATCH_NORM_MOMENTUM))
            else:
                layers.append(nn.BatchNorm1d(layer.out_features, momentum=BATCH_NORM_MOMENTUM))
    return Network(nn.Sequential(*layers), copied.head)


def fold_batch_norm(network: Network) -> Network:
    """A copy without batch normalisation that computes what `network` does in evaluation: it goes into the weights."""
    copied = copy.deepcopy(network).eval()
    layers: list[nn.Module] = []
    for layer in copied.trunk:
        if isinstance(layer, nn.BatchNorm2d):
            layers[-1] = fuse_conv_bn_eval(cast(nn.Conv2d, layers[-1]), layer)
        elif isinstance(layer, nn.BatchNorm1d):
            layers[-1] = fuse_linear_bn_eval(cast(nn.Linear, layers[-1]), layer)
        else:
            layers.append(layer)
    return Network(nn.Sequential(*layers), copied.head)


def num_parameters(network: nn.Module) -> int:
    """Weights and biases, all of them."""
    if isinstance(network, Foreign) and network.num_parameters:
        return network.num_parameters
    return sum(cast(Tensor, parameter).numel() for parameter in network.parameters())


def _after_convolutions(side: int) -> int:
    for size, stride in KERNELS:
        side = (side - size) // stride + 1
    return side
