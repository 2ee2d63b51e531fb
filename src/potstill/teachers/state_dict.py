"""Bare state dicts, told apart by their tensors' names."""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from potstill.errors import PotstillError
from potstill.networks.spec import Activation
from potstill.policy import Meaning, Policy
from potstill.teachers import rename
from potstill.teachers.task_name import NAME, task_in_name, todays_id

SEQUENCES = ("network", "net", "q_network", "model")
"""What people call the one chain of layers of a DQN (CleanRL: network)."""


@dataclass(frozen=True)
class _Layout:
    name: str
    outputs_are: Meaning
    activation: Activation
    """Of its MLPs; CNNs are ReLU everywhere."""
    chain: list[str]


def load(path: Path, metadata: dict[str, str], tensors: dict[str, Tensor]) -> Policy:
    """The policy of a state dict.

    Args:
        path: the file, for its name.
        metadata: of its header, where it has one.
        tensors: its.

    Raises:
        PotstillError: its names belong to no layout known here.
    """
    layout = _layout(path, tensors)
    kept = {k: v for k, v in metadata.items() if len(k) + len(v) < 1000}
    provenance: dict[str, object] = {"format": layout.name, **({"metadata": kept} if kept else {})}
    said = NAME.match(metadata.get("env", ""))  # `PongNoFrameskip-v4 (…)`
    task = todays_id(said[1]) if said else task_in_name(path, provenance)
    return rename.to_policy(path, tensors, layout.chain, layout.outputs_are, layout.activation, task, provenance)


def _layout(path: Path, names: Collection[str]) -> _Layout:
    def only(*prefixes: str) -> bool:  # another part of a network may come before those that are known
        return all(name.startswith(prefixes) for name in names)

    if "dist.linear.weight" in names and "base.critic_linear.weight" in names:
        known = ("base.main.", "base.actor.", "base.critic.", "base.critic_linear.", "dist.linear.")
        if not only(*known):  # a recurrent one's memory
            other = next(name for name in sorted(names) if not name.startswith(known))
            raise PotstillError(f"{path}: pytorch-a2c-ppo-acktr's with {other[:60]}, which is not known here")
        if rename.layers("base.actor", names):
            raise PotstillError(
                f"{path}: pytorch-a2c-ppo-acktr normalises vectors by what a state dict doesn't hold (obs_rms): give"
                " the policy and that to Policy.from_callable"
            )
        body = rename.layers("base.main", names)
        return _Layout("pytorch-a2c-ppo-acktr", "logits", "tanh", [*body, "dist.linear"])
    for prefix in ("", "q_net."):  # of its q_net, of its whole policy
        head, extractor = rename.layers(f"{prefix}q_net", names), f"{prefix}features_extractor"
        if head and only(f"{prefix}q_net.", f"{extractor}.cnn.", f"{extractor}.linear.", "q_net_target."):
            body = [*rename.layers(f"{extractor}.cnn", names), *rename.layers(f"{extractor}.linear", names)]
            return _Layout("stable-baselines3 DQN state dict", "q", "relu", [*body, *head])
    body = rename.layers("network", names)
    if "actor.weight" in names and body and only(*(f"{layer}." for layer in body), "actor.", "critic."):
        return _Layout("cleanrl PPO on Atari", "logits", "relu", [*body, "actor"])
    if "critic.0.weight" in names and (chain := rename.layers("actor", names)) and only("actor.", "critic."):
        return _Layout("cleanrl PPO", "logits", "tanh", chain)
    for name in SEQUENCES:
        chain = rename.layers(name, names)
        of_it = {f"{layer}.{kind}" for layer in chain for kind in ("weight", "bias")}
        if chain and of_it == set(names):
            return _Layout("a chain of layers, taken for a DQN's with ReLU between them", "q", "relu", chain)
    known = ", ".join(sorted(names)[:3])
    raise PotstillError(
        f"{path}: a state dict of no known layout (tensors {known[:200]}, …); known: pytorch-a2c-ppo-acktr, CleanRL's"
        " DQN and discrete PPO, Stable-Baselines3's DQN, a DQN's chain of layers called network or net"
    )
