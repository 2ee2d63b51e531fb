"""Stable-Baselines3 zips, read without unpickling.

The zip's `data` is JSON in which whatever isn't JSON stands as a base64 cloudpickle beside readable
attributes. Only the readable ones are used; what they leave open is Stable-Baselines3's default, and
what differs from the defaults in a way that can't be read is refused by name. `policy.pth` is read
by `torch.load(weights_only=True)`.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from potstill.errors import PotstillError
from potstill.networks.spec import Activation
from potstill.policy import Meaning, Policy
from potstill.teachers import rename, vecnormalize
from potstill.teachers.task_name import task_in_name
from potstill.teachers.tensors import MAX_WEIGHTS, read_member, state_dict

MAX_DATA = 2**26
"""Bytes of `data`: replay statistics and schedules can be pickled into it, weights aren't."""
HARMLESS = {
    "optimizer_class",
    "optimizer_kwargs",
    "ortho_init",
    "device",
    "log_std_init",
    "net_arch",
    "n_quantiles",
}
"""policy_kwargs that don't change what is computed from the tensors (sizes show in the tensors' shapes)."""
EXTRACTORS = {"NatureCNN", "FlattenExtractor"}
ACTIVATIONS: dict[str, Activation] = {"ReLU": "relu", "Tanh": "tanh"}


def load(path: Path) -> Policy:
    """Load a policy with discrete actions: DQN, QR-DQN, PPO, A2C, TRPO, ARS.

    QR-DQN's quantiles become their mean, the action value that it plays by. `vecnormalize.pkl` beside the zip is
    applied.

    Raises:
        PotstillError: the zip is damaged or oversized, or holds something that can't be known or loaded safely.
    """
    data = _read_data(path)
    _check_spaces(path, data)
    kwargs = data.get("policy_kwargs") or {}
    tensors = tensors_of(path)
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    layout = _layout(path, data, shapes)
    if layout.algorithm == "QR-DQN":
        tensors = _mean_of_quantiles(path, tensors, _attribute(data["action_space"], "n"))
        shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    chain = [
        *rename.layers(f"{layout.extractor}.cnn", shapes),
        *rename.layers(f"{layout.extractor}.linear", shapes),
        *(layer for body in layout.bodies for layer in rename.layers(body, shapes)),
        *(["action_net"] if "action_net.weight" in shapes else []),
    ]
    activation = _check_kwargs(path, kwargs, layout.activation)
    if any(name.startswith(f"{layout.extractor}.cnn") for name in shapes) and activation != "relu" and len(chain) > 5:
        raise PotstillError(f"{path}: a CNN followed by tanh layers is not a network known here")
    provenance: dict[str, object] = {
        "format": "stable-baselines3",
        "algorithm": layout.algorithm,
        "num_timesteps": _int(data.get("num_timesteps")),
    }
    task = task_in_name(path, provenance)
    policy, names = rename.to_policy(
        path, shapes, chain, layout.outputs_are, activation, task, provenance, biasless=layout.algorithm == "ARS"
    )
    return _normalised(path, rename.fill(policy, names, tensors))


@dataclass(frozen=True)
class _Layout:
    """Where an algorithm's policy network lies among its tensors."""

    algorithm: str
    outputs_are: Meaning
    activation: str
    """By default."""
    extractor: str
    bodies: tuple[str, ...]


def _layout(path: Path, data: dict[str, Any], shapes: rename.Shapes) -> _Layout:
    module = str(_attribute(data.get("policy_class"), "__module__"))
    if "maskable" in module or "recurrent" in module or any("lstm" in name for name in shapes):
        raise PotstillError(f"{path}: a policy of {module}: masks and recurrent networks are not played here")
    if "q_net.q_net.0.weight" in shapes:
        return _Layout("DQN", "q", "ReLU", "q_net.features_extractor", ("q_net.q_net",))
    if "quantile_net.quantile_net.0.weight" in shapes:
        return _Layout("QR-DQN", "q", "ReLU", "quantile_net.features_extractor", ("quantile_net.quantile_net",))
    if "action_net.weight" in shapes and "value_net.weight" in shapes:
        algorithm = "PPO" if "clip_range" in data else "TRPO" if "cg_max_steps" in data else "A2C"
        apart = any(name.startswith("pi_features_extractor.") for name in shapes)
        extractor = "pi_features_extractor" if apart else "features_extractor"
        bodies = ("mlp_extractor.shared_net", "mlp_extractor.policy_net")
        return _Layout(algorithm, "logits", "Tanh", extractor, bodies)
    if "ars" in module and "action_net.0.weight" in shapes:
        return _Layout("ARS", "logits", "ReLU", "features_extractor", ("action_net",))
    raise PotstillError(
        f"{path}: a policy of {module or 'an unknown algorithm'}; DQN, QR-DQN, PPO, A2C, TRPO and ARS are read"
    )


def _mean_of_quantiles(path: Path, tensors: dict[str, Tensor], actions: Any) -> dict[str, Tensor]:
    """The last layer has a row for each quantile of each action; the mean of rows gives the mean of outputs."""
    num_actions = int(actions) if re.fullmatch("[1-9][0-9]{0,3}", str(actions)) else 0
    head = rename.layers("quantile_net.quantile_net", tensors)[-1]
    averaged = dict(tensors)
    for name in (f"{head}.weight", f"{head}.bias"):
        tensor = tensors.get(name)
        if tensor is None or not num_actions or tensor.shape[0] % num_actions:
            raise PotstillError(
                f"{path}: tensor {name} doesn't hold the quantiles of {num_actions or 'unreadable'} actions"
            )
        averaged[name] = tensor.float().unflatten(0, (-1, num_actions)).mean(0)
    return averaged


def _normalised(path: Path, policy: Policy) -> Policy:
    """Let the policy see its observations normalised, where statistics lie beside its file."""
    found = vecnormalize.beside(path)
    statistics = vecnormalize.read(found) if found else None
    if not found or not statistics:
        return policy
    if policy.observation_shape != statistics.mean.shape:
        raise PotstillError(
            f"{path} sees {policy.observation_shape}, {found} normalises {statistics.mean.shape}: remove the one that"
            " doesn't belong here"
        )
    policy.normalised(statistics.clip)
    policy.network.trunk[0].load_state_dict(
        {"mean": torch.from_numpy(statistics.mean), "std": torch.from_numpy(statistics.std)}
    )
    policy.provenance["observations"] = f"normalised by {found.name}"
    return policy


def tensors_of(path: Path) -> dict[str, Tensor]:
    """The policy's tensors."""
    return state_dict(path, "policy.pth", read_member(path, "policy.pth", MAX_WEIGHTS))


def _read_data(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(read_member(path, "data", MAX_DATA))
    except (ValueError, RecursionError) as error:
        raise PotstillError(f"{path}: its data is not JSON ({type(error).__name__})") from error
    if not isinstance(data, dict):
        raise PotstillError(f"{path}: its data is not what Stable-Baselines3 writes")
    return data


def _attribute(value: Any, name: str) -> Any:
    return value.get(name) if isinstance(value, dict) else None


def _int(value: Any) -> int | None:
    return value if type(value) is int else None


def _check_spaces(path: Path, data: dict[str, Any]) -> None:
    """Discrete actions and Box observations, by the readable fields of the pickled spaces."""
    for key, kind in (("action_space", "Discrete"), ("observation_space", "Box")):
        found = re.search(r"spaces\.\w+\.(\w+)'", str(_attribute(data.get(key), ":type:")))
        name = found[1] if found else "unreadable"
        if name != kind:
            raise PotstillError(f"{path}: its {key} is {name}; only {kind} is supported so far")
    if str(_attribute(data["action_space"], "start") or 0) != "0":
        raise PotstillError(f"{path}: its actions don't count from 0")


def _check_kwargs(path: Path, kwargs: Any, default: str) -> Activation:
    """The activation function; refuses what would change the computation unseen."""
    if not isinstance(kwargs, dict):
        raise PotstillError(f"{path}: its policy_kwargs can't be read")
    activation = str(kwargs.get("activation_fn", default)).rpartition(".")[2].rstrip("'>")
    if activation not in ACTIVATIONS:
        raise PotstillError(f"{path}: activation {activation[:40]} is not known here (ReLU and Tanh are)")
    for name, value in kwargs.items():
        if name.startswith(":") or name in HARMLESS or name == "activation_fn":
            continue
        if name == "features_extractor_class" and str(value).rpartition(".")[2].rstrip("'>") in EXTRACTORS:
            continue
        if name in ("share_features_extractor", "normalize_images") and value is True:
            continue
        if name == "features_extractor_kwargs" and isinstance(value, dict) and value.keys() <= {"features_dim"}:
            continue
        if name in ("use_sde", "share_features_extractor") and value is False:
            continue
        raise PotstillError(f"{path}: policy_kwargs {name}={str(value)[:40]} is not known here")
    return ACTIVATIONS[activation]
