"""Bare state dicts in .safetensors, told apart by their tensors' names."""

import re
from pathlib import Path

from potstill import artifact
from potstill.errors import PotstillError
from potstill.policy import Meaning, Policy
from potstill.teachers import rename


def load(path: Path, metadata: dict[str, str], shapes: rename.Shapes) -> Policy:
    """Load a state dict whose header was read already.

    Raises:
        PotstillError: its names belong to no layout known here.
    """
    outputs_are: Meaning
    if "dist.linear.weight" in shapes and "base.critic_linear.weight" in shapes:
        layout, outputs_are = "pytorch-a2c-ppo-acktr", "logits"
        body = rename.layers("base.main", shapes) or rename.layers("base.actor", shapes)
        chain = [*body, "dist.linear"]
        activation = "tanh"  # that library's MLPs; its CNNs are ReLU
    elif "features_extractor.cnn.0.weight" in shapes and rename.layers("q_net", shapes):
        layout, outputs_are, activation = "stable-baselines3 DQN state dict", "q", "relu"
        chain = [
            *rename.layers("features_extractor.cnn", shapes),
            *rename.layers("features_extractor.linear", shapes),
            *rename.layers("q_net", shapes),
        ]
    else:
        known = ", ".join(sorted(shapes)[:3])
        raise PotstillError(
            f"{path}: a state dict of no known layout (tensors {known}, …);"
            " known: pytorch-a2c-ppo-acktr, Stable-Baselines3's DQN"
        )
    provenance = {"format": layout, "metadata": {k: v for k, v in metadata.items() if len(k) + len(v) < 1000}}
    task = _atari_task(metadata.get("env", ""))
    policy, names = rename.to_policy(path, shapes, chain, outputs_are, activation, task, provenance)
    return rename.fill(policy, names, artifact.read_tensors(path))


def _atari_task(env: str) -> str | None:
    """`PongNoFrameskip-v4 (…)` → `ALE/Pong-v5`."""
    match = re.match(r"([A-Za-z0-9]+)NoFrameskip-v[04]\b", env)
    return f"ALE/{match[1]}-v5" if match else None
