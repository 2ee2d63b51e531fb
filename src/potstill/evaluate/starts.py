"""Recording starts: an expert plays, and each of its episodes gives one."""

from collections.abc import Generator
from contextlib import closing

import numpy as np

from potstill.chance import Stream
from potstill.evaluate.play import MAX_ENVS, Player
from potstill.progress import Progress
from potstill.tasks import Envs, EpisodeSeeds
from potstill.tasks.spec import Task
from potstill.tasks.starts import SHARE, Start

SLOT = 1_000_000
"""Added to the number of an environment: these episodes are none that policies are scored on."""


def record_starts(player: Player, task: Task, seed: int, threads: int) -> Generator[Progress, None, list[Start]]:
    """Play the player's episodes, every one to its end; returns a moment drawn from the first fifth of each."""
    num_envs = min(MAX_ENVS, player.episodes)
    queue, playing = iter(range(player.episodes)), [-1] * num_envs
    seeds = [EpisodeSeeds(seed, "evaluation")(SLOT, episode) for episode in range(player.episodes)]

    def seed_of(env: int, episode: int) -> int:
        playing[env] = next(queue, -1)
        return seeds[playing[env]]

    played: list[list[int]] = [[] for _ in range(num_envs)]
    starts: dict[int, Start] = {}
    rng = np.random.default_rng([seed, Stream.EXPERT])
    with closing(Envs(task, num_envs, seed_of, threads, seed_each=True)) as envs:
        while len(starts) < player.episodes:
            now = list(playing)
            actions = player.policy.act(envs.observations, player.epsilon, rng, player.act)
            for history, action in zip(played, actions.tolist(), strict=True):
                history.append(action)
            for finished in envs.step(actions):
                episode, history = now[finished.env], played[finished.env]
                if episode >= 0:
                    # A draw of its own: the same seed gives the same starts, whoever ends first.
                    draw = np.random.default_rng([seed, Stream.STARTS, episode])
                    reached = int(draw.integers(0, max(1, int(SHARE * len(history)))))
                    starts[episode] = Start(seeds[episode], tuple(history[:reached]))
                played[finished.env] = []
            yield Progress("record", len(starts), player.episodes)
    return [starts[episode] for episode in range(player.episodes)]
