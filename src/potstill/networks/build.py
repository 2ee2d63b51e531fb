"""From a spec to a network."""

import copy
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import cast

import numpy as np
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
"""Least weight of a batch in the running statistics: the last fifty or so count, when the learning rate is near 0."""


class Network(nn.Module):
    """A trunk and a linear head. Takes observations as they are played: vectors, or frames from 0 to 255."""

    def __init__(self, trunk: nn.Sequential, head: nn.Linear) -> None:
        super().__init__()
        self.trunk = trunk
        self.head = head

    def forward(self, observations: Shaped[Tensor, "batch ..."]) -> Float[Tensor, "batch outputs"]:
        return self.head(self.trunk(observations))

    @property
    def num_outputs(self) -> int:
        return self.head.out_features


class MultiHead(nn.Module):
    """Several tasks in one network: a trunk they share, and on it a head for each ("controller", Rusu et al. 2016)."""

    def __init__(self, trunk: nn.Sequential, heads: Iterable[Network]) -> None:
        super().__init__()
        self.trunk = trunk
        self.heads = nn.ModuleList(heads)

    @classmethod
    def join(cls, networks: Sequence[Network], own: int) -> "MultiHead":
        """Networks of the same sizes as one: the first one's trunk for all, and each one's `own` last layers."""
        shared = len(networks[0].trunk) - own
        layers = [list(network.trunk) for network in networks]
        heads = (Network(nn.Sequential(*of[shared:]), n.head) for of, n in zip(layers, networks, strict=True))
        return cls(nn.Sequential(*layers[0][:shared]), heads)

    def head(self, index: int) -> Network:
        """A task's own layers."""
        return cast(Network, self.heads[index])

    def of(self, index: int) -> Network:
        """The network that plays one task; its layers are those of this one."""
        head = self.head(index)
        return Network(nn.Sequential(*self.trunk, *head.trunk), head.head)

    def forward(self, observations: Shaped[Tensor, "batch ..."], counts: dict[int, int]) -> list[Tensor]:
        """Each task's outputs for its part of a batch.

        Args:
            observations: one task's after the other.
            counts: the tasks' heads, and how many of the observations are theirs.
        """
        parts = self.trunk(observations).split(list(counts.values()))
        return [self.head(index)(part) for index, part in zip(counts, parts, strict=True)]


class Select(nn.Module):
    """Some of the inputs: what a policy sees of a vector that shows more."""

    def __init__(self, ranges: tuple[tuple[int, int], ...]) -> None:
        super().__init__()
        self.ranges = ranges

    def forward(self, observations: Float[Tensor, "batch inputs"]) -> Float[Tensor, "batch seen"]:
        return torch.cat([observations[:, start:stop] for start, stop in self.ranges], 1)


class Newest(nn.Module):
    """The last frames of a stack, where a network looks at fewer than are shown."""

    def __init__(self, frames: int) -> None:
        super().__init__()
        self.frames = frames

    def forward(self, observations: Shaped[Tensor, "batch ..."]) -> Shaped[Tensor, "batch ..."]:
        return observations[:, -self.frames :]


class FramesConv(nn.Conv2d):
    """The first convolution: takes frames from 0 to 255, with the weights of one that takes them from 0 to 1.

    To divide the weights spares 28,000 divisions an observation (docs/log.md).
    """

    def forward(self, input: Shaped[Tensor, "batch ..."]) -> Float[Tensor, "batch ..."]:
        device = self.weight.device.type
        autocasts = torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)
        dtype = torch.get_autocast_dtype(device) if autocasts else self.weight.dtype
        learning = torch.is_grad_enabled() and self.weight.requires_grad
        return self._conv_forward(as_floats(input, dtype, learning), self.weight / 255, self.bias)

    def divided(self) -> nn.Conv2d:
        """A plain convolution that does the same, its weights divided once and for all."""
        plain = nn.Conv2d(self.in_channels, self.out_channels, KERNELS[0][0], KERNELS[0][1])
        state = self.state_dict()
        plain.load_state_dict(state | {"weight": state["weight"] / 255})
        return plain


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


def as_floats(frames: Shaped[Tensor, "batch ..."], dtype: torch.dtype, learning: bool) -> Float[Tensor, "batch ..."]:
    """Frames as convolutions take them: channels last where they are faster so, which is on a GPU, in bfloat16, and
    where they have gradients (docs/log.md)."""
    frames = frames.to(dtype)
    if learning or frames.is_cuda or dtype == torch.bfloat16:
        return frames.contiguous(memory_format=torch.channels_last)
    return frames


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
        if spec.frames is not None and spec.frames > observation_shape[0]:
            raise PotstillError(f"{spec} looks at {spec.frames} frames, {observation_shape[0]} are shown")
        layers = [] if spec.frames is None else [Newest(spec.frames)]
        channels = (spec.frames or observation_shape[0], *spec.convs)
        kinds = (FramesConv, nn.Conv2d, nn.Conv2d)
        for (inputs, outputs), (size, stride), kind in zip(itertools.pairwise(channels), KERNELS, kinds, strict=True):
            layers += [kind(inputs, outputs, size, stride), activation()]
        layers.append(nn.Flatten())
        width = spec.convs[-1] * math.prod(map(_after_convolutions, observation_shape[1:]))
    for hidden in (*spec.hidden, *spec.controller):
        layers += [nn.Linear(width, hidden), activation()]
        width = hidden
    network = Network(nn.Sequential(*layers), nn.Linear(width, num_outputs))
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(layer.weight, nonlinearity=spec.activation)
            nn.init.zeros_(cast(Tensor, layer.bias))
    return network


def with_batch_norm(network: MultiHead) -> MultiHead:
    """A copy of a fresh network that learns faster: each layer before an activation is batch-normalised.

    Ioffe & Szegedy 2015. Game frames are nearly constant; without it the units see little but the
    background, and students stay at the teacher's mean for thousands of updates (docs/decisions/0003).
    """
    return _rebuilt(network, _with_batch_norm)


def set_batch_norm_momentum(network: MultiHead, number: int) -> None:
    """Set what the `number`-th minibatch (0 is the first) weighs in the running statistics.

    The first ones are averaged: the statistics begin at a variance of 1, a thousand times that of game frames.
    """
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
            layer.momentum = max(BATCH_NORM_MOMENTUM, 1 / (number + 1))


def fold_batch_norm(network: MultiHead) -> MultiHead:
    """A copy without batch normalisation that computes what `network` does in evaluation: it goes into the weights."""
    return _rebuilt(network, _fold_batch_norm)


def _rebuilt(network: MultiHead, change: Callable[[nn.Sequential], list[nn.Module]]) -> MultiHead:
    copied = copy.deepcopy(network)
    heads = map(copied.head, range(len(copied.heads)))
    return MultiHead(
        nn.Sequential(*change(copied.trunk)), (Network(nn.Sequential(*change(head.trunk)), head.head) for head in heads)
    )


def _with_batch_norm(plain: nn.Sequential) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for layer in plain:
        layers.append(layer)
        if isinstance(layer, nn.Conv2d | nn.Linear):
            layer.register_parameter("bias", None)  # the normalisation's own takes its place
            if isinstance(layer, nn.Conv2d):
                layers.append(nn.BatchNorm2d(layer.out_channels, momentum=BATCH_NORM_MOMENTUM))
            else:
                layers.append(nn.BatchNorm1d(layer.out_features, momentum=BATCH_NORM_MOMENTUM))
    return layers


def _fold_batch_norm(normalised: nn.Sequential) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for layer in normalised.eval():
        if isinstance(layer, nn.BatchNorm2d):
            layers[-1] = fuse_conv_bn_eval(cast(nn.Conv2d, layers[-1]), layer)
        elif isinstance(layer, nn.BatchNorm1d):
            layers[-1] = fuse_linear_bn_eval(cast(nn.Linear, layers[-1]), layer)
        else:
            layers.append(layer)
    return layers


@contextmanager
def drawn_from(*entropy: int) -> Iterator[None]:
    """Networks that are built within it draw their weights from these numbers, and from nothing else."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(np.random.SeedSequence(entropy).generate_state(1)[0]))
        yield


def num_parameters(network: nn.Module) -> int:
    """Weights and biases, all of them."""
    if isinstance(network, Foreign) and network.num_parameters:
        return network.num_parameters
    return sum(cast(Tensor, parameter).numel() for parameter in network.parameters())


def _after_convolutions(side: int) -> int:
    for size, stride in KERNELS:
        side = (side - size) // stride + 1
    return side
