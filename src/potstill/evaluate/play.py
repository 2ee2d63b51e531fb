"""Playing a list of episodes that is fixed beforehand, every one of them to its end.

"The first n episodes to finish" would favour short ones. Here each policy's episodes are a list;
environments take them from one queue, so that none stands idle while another plays, and nothing
ends before the last is over.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from potstill.actions import Actions
from potstill.chance import Stream
from potstill.choices import Act
from potstill.errors import PotstillError
from potstill.machine import arithmetic_threads
from potstill.networks import Network, NetworkSpec
from potstill.policy import Policy
from potstill.tasks import Envs, EpisodeSeeds, Task
from potstill.tasks.starts import Start

MAX_ENVS = 16
IDLE = (-1, -1)
"""What an environment plays when the list is at its end."""
RANDOM_SHARE = 0.25
"""Episodes of the random policy to one of the teacher's: it is far away, and its returns vary little."""
LEAST_RANDOM = 10
"""How many it plays where the teacher plays so many: of fewer, how much its returns vary isn't known."""
SMALL = 100_000
"""Parameters up to which a network is computed on one thread while emulators hold the cores."""


@dataclass(frozen=True)
class Player:
    """A policy, how it plays, and how many episodes."""

    policy: Policy
    act: Act
    epsilon: float
    episodes: int

    @classmethod
    def by_protocol(cls, policy: Policy, task: Task, episodes: int) -> "Player":
        """Plays as the task's protocol says."""
        return cls(policy, task.protocol.act, task.protocol.epsilon, episodes)


@dataclass(frozen=True)
class Moment:
    """One control step of every environment."""

    observations: np.ndarray
    """(num_envs, *observation_shape): what was seen."""
    player: np.ndarray
    """(num_envs,) which player acted on it; -1: none, it was on the way to its start, or the queue is empty."""
    outputs: Tensor
    """(num_envs, outputs) that player's outputs."""
    finished: list[tuple[int, int, float]]
    """(player, episode, return) of the episodes that ended with this step."""


def play_episodes(
    players: list[Player],
    task: Task,
    jobs: list[tuple[int, int]],
    seed: int,
    threads: int,
    starts: Sequence[Start] | None = None,
    process: int = 0,
) -> Iterator[Moment]:
    """Play exactly these episodes, on evaluation seeds, in this process.

    Args:
        players: who plays.
        task: what is played; its protocol's act and epsilon give way to the players'.
        jobs: (player, episode), in the order they are begun.
        seed: of the starts and of chance.
        threads: of emulators and large networks.
        starts: where episodes begin, the n-th one at the n-th start. Until there the recorded actions are taken, and
            what they earn isn't counted.
        process: which of several that share the episodes this is: each has seeds of its own.
    """
    seeds = EpisodeSeeds(seed, "evaluation")
    left, queue = len(jobs), iter(jobs)
    num_envs = min(MAX_ENVS, left)
    playing: list[tuple[int, int]] = [IDLE] * num_envs
    forced: list[tuple[int, ...]] = [()] * num_envs

    def seed_of(env: int, episode: int) -> int:
        if starts is None:
            return seeds(env + MAX_ENVS * process, episode)
        playing[env] = next(queue, IDLE)  # the copy is being reset: what it begins must be known now
        start = starts[playing[env][1]]
        forced[env] = start.actions
        return start.seed

    envs = Envs(task, num_envs, seed_of, threads, seed_each=starts is not None)
    if starts is None:
        playing = [next(queue) for _ in range(num_envs)]
    rng = np.random.default_rng([seed, Stream.SCORE, process])
    threads_of = [play_threads(player.policy, threads) for player in players]
    earned = np.zeros(num_envs)
    with arithmetic_threads(threads), closing(envs):
        while left:
            observations, now = envs.observations, list(playing)
            on_the_way = envs.age < [len(actions) for actions in forced]
            who = np.where(on_the_way, -1, [player for player, _ in now])
            actions = np.zeros(num_envs, np.int64)
            if task.bounds is not None:
                actions = np.tile(np.array(task.bounds[0], np.float32), (num_envs, 1))
            for env in np.flatnonzero(on_the_way).tolist():
                actions[env] = forced[env][int(envs.age[env])]
            said = torch.zeros(num_envs, task.num_outputs)
            for index, player in enumerate(players):
                its = np.flatnonzero(who == index)
                if len(its):
                    torch.set_num_threads(threads_of[index])
                    outputs = player.policy.outputs(observations[its])
                    said[its] = outputs
                    actions[its] = player.policy.choose(outputs, player.epsilon, rng, player.act)
            finished = envs.step(actions)
            earned += np.where(on_the_way, 0.0, envs.rewards)
            ended: list[tuple[int, int, float]] = []
            for env in (each.env for each in finished):
                if on_the_way[env] and now[env] != IDLE:
                    raise PotstillError(f"a start of {task.id} is over before it is reached: record starts anew")
                if now[env] != IDLE:
                    ended.append((*now[env], float(earned[env])))
                if starts is None:
                    playing[env] = next(queue, IDLE)
                earned[env] = 0.0
            left -= len(ended)
            yield Moment(observations, who, said, ended)


def play_threads(policy: Policy, threads: int) -> int:
    """Arithmetic threads for a policy that plays: idle ones would spin on the cores its emulators need."""
    return 1 if policy.num_parameters < SMALL or policy.device != "cpu" else threads


def random_episodes(episodes: int) -> int:
    """How many the random policy plays beside a teacher that plays so many."""
    return max(min(episodes, LEAST_RANDOM), math.ceil(episodes * RANDOM_SHARE))


def random_player(task: Task, episodes: int) -> Player:
    """Plays uniformly at random: the zero of `normalised`."""
    head = nn.Linear(1, task.num_outputs)
    network = Network(nn.Sequential(_One()), head)
    actions = None if task.bounds is None else Actions(*task.bounds, squashed=False)
    outputs_are = "logits" if actions is None else "gaussian"
    spec, shape = NetworkSpec("mlp", (), (1,)), task.observation_shape
    policy = Policy(network, spec, outputs_are, shape, task.observation_dtype, task.id, actions=actions)
    return Player(policy, "greedy", 1.0, episodes)


class _One(nn.Module):
    """A single 1 for each observation."""

    def forward(self, observations: Tensor) -> Tensor:
        return torch.ones(len(observations), 1)
