"""The picture of a multi-task student: t-SNE of what its first and its last shared layer see (appendix D).

States of each game lie apart where the network tells games apart, and together where it shares what it knows.
"""

from contextlib import closing
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from potstill.chance import Stream
from potstill.files import write_json
from potstill.policies import as_one
from potstill.policy import Policy
from potstill.tasks import Envs, EpisodeSeeds, make_task
from potstill.teachers import load_all

ENVS, EVERY, STATES = 8, 25, 200
"""Copies played in step, control steps between two states that are taken, states of each game."""


def picture(student: Path, out: Path, seed: int, threads: int) -> None:
    """Write `out`, the points of a multi-task student's states as JSON.

    Args:
        student: its file.
        out: `activations.json`.
        seed: of the episodes and of the embedding.
        threads: of emulators.
    """
    from sklearn.manifold import TSNE

    policies = load_all(student)
    trunk = as_one(policies).trunk
    games: list[str] = []
    first: list[Tensor] = []
    last: list[Tensor] = []
    for policy in policies:
        frames = torch.from_numpy(_states(policy, seed, threads))
        with torch.no_grad():
            first.append(trunk[:2](frames).flatten(1))
            last.append(trunk(frames))
        games += [str(policy.task)] * len(frames)
    layers: dict[str, list[list[float]]] = {}
    for name, values in (("first layer", first), ("last shared layer", last)):
        embedding = TSNE(random_state=seed, init="pca", perplexity=30).fit_transform(torch.cat(values).numpy())
        layers[name] = np.asarray(embedding, np.float64).round(3).tolist()
    write_json(out, {"games": games, "layers": layers})


def _states(policy: Policy, seed: int, threads: int) -> np.ndarray:
    """(STATES, stack, height, width) of the policy's own play."""
    task = make_task(str(policy.task))
    rng = np.random.default_rng([seed, Stream.ASIDE])
    taken: list[np.ndarray] = []
    with closing(Envs(task, ENVS, EpisodeSeeds(seed, "evaluation"), threads)) as envs:
        for step in range(1, STATES // ENVS * EVERY + 1):
            envs.step(policy.act(envs.observations, task.protocol.epsilon, rng))
            if step % EVERY == 0:
                taken.append(envs.observations.copy())
    return np.concatenate(taken)
