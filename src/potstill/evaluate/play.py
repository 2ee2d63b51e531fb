"""Playing episodes by a task's protocol, each environment a fixed quota of them.

"The first n episodes to finish" would favour short ones; here every episode that is begun within its
environment's quota is played to its end and counts.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from potstill.networks import NetworkSpec
from potstill.networks.build import Network
from potstill.policy import Policy, choose
from potstill.tasks import Envs, EpisodeSeeds, Task
from potstill.tasks.envs import Finished

MAX_ENVS = 32


@dataclass(frozen=True)
class Moment:
    """One control step of every environment."""

    observations: np.ndarray
    """(num_envs, *observation_shape): what was seen."""
    outputs: Tensor
    """(num_envs, num_actions): what the policy made of it."""
    live: np.ndarray
    """(num_envs,) bool: still within its quota."""
    finished: list[Finished]
    """The episodes that ended with this step and count."""


def play_episodes(policy: Policy, task: Task, episodes: int, seed: int, threads: int = 0) -> Iterator[Moment]:
    """Play exactly `episodes` episodes by the task's protocol, on evaluation seeds.

    Args:
        policy: what plays.
        task: what is played, and how.
        episodes: how many.
        seed: of the starts and of chance; the same seed gives the same episodes.
        threads: emulator threads; 0: one a core.
    """
    num_envs = -(-episodes // -(-episodes // MAX_ENVS))
    quota = episodes // num_envs + (np.arange(num_envs) < episodes % num_envs)
    envs = Envs(task, num_envs, EpisodeSeeds(seed, "evaluation"), threads)
    rng = np.random.default_rng([seed, 1])
    try:
        while (live := envs.episode < quota).any():
            observations = envs.observations
            outputs = policy.outputs(observations)
            finished = envs.step(choose(outputs, task.protocol.epsilon, rng, task.protocol.act))
            yield Moment(observations, outputs, live, [f for f in finished if f.episode < quota[f.env]])
    finally:
        envs.close()


def random_policy(task: Task) -> Policy:
    """Plays uniformly at random when sampled from: all its logits are 0. The zero of `normalised`."""
    head = nn.Linear(1, task.num_actions)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    network = Network(nn.Sequential(_One()), head)
    dtype = "uint8" if task.is_atari else "float32"
    return Policy(network, NetworkSpec("mlp", (), (1,)), "logits", task.observation_shape, dtype, task.id)


class _One(nn.Module):
    """A single 1 for each observation."""

    def forward(self, observations: Tensor) -> Tensor:
        return torch.ones(len(observations), 1)
