"""Stable-Baselines3 zips, read without unpickling.

The zip's `data` is JSON in which whatever isn't JSON stands as a base64 cloudpickle beside readable
attributes. Only the readable ones are used; what they leave open is Stable-Baselines3's default, and
what differs from the defaults in a way that can't be read is refused by name. `policy.pth` is read
by `torch.load(weights_only=True)`.
"""

import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from potstill.actions import Actions, read_actions
from potstill.errors import PotstillError, in_a_line
from potstill.networks import GsdeHead
from potstill.networks.spec import Activation
from potstill.policy import Meaning, Policy
from potstill.teachers import rename, vecnormalize
from potstill.teachers.task_name import task_in_name
from potstill.teachers.tensors import MAX_WEIGHTS, read_member, read_state_dict

MAX_DATA, MAX_VALUES = 2**26, 2**18
"""Bytes of `data`: replay statistics and schedules can be pickled into it, weights aren't; and of its JSON, a thousand
times what is known: each takes far more memory than it has letters."""
HARMLESS = {
    "optimizer_class",
    "optimizer_kwargs",
    "ortho_init",
    "device",
    "full_std",
    "log_std_init",
    "net_arch",
    "n_critics",
    "n_quantiles",
    "sde_net_arch",
    "with_bias",
}
"""policy_kwargs that don't change what is computed from the tensors (sizes show in the tensors' shapes)."""
SIZES = {"cnn_output_dim", "convs", "features_dim"}
"""features_extractor_kwargs of that kind."""
GAUSSIAN_HEAD = "gaussian"
"""Our name for the layer that is made for continuous actions."""
NO_SPREAD = 0.1
"""The standard deviation of policies without one, before they are squashed: TD3's exploration noise."""
EXTRACTORS = {
    "potstill.export.sb3_network.PotstillCNN",
    *(
        f"stable_baselines3.common.torch_layers.{name}"
        for name in ("CombinedExtractor", "FlattenExtractor", "NatureCNN")
    ),
}
ACTIVATIONS: dict[str, Activation] = {
    "torch.nn.modules.activation.ReLU": "relu",
    "torch.nn.modules.activation.Tanh": "tanh",
}


def load(path: Path) -> Policy:
    """Load a policy of DQN, QR-DQN, PPO, A2C, TRPO, ARS, SAC, TQC, TD3 or DDPG.

    QR-DQN's quantiles become their mean, the action value that it plays by. Policies that have no spread of their own
    (TD3, DDPG, ARS) get one of 0.1. `vecnormalize.pkl` beside the zip is applied.

    Raises:
        PotstillError: the zip is damaged or oversized, or holds something that can't be known or loaded safely.
    """
    data = _read_data(path)
    actions_are = _space(path, data, "action_space", ("Discrete", "Box"))
    _space(path, data, "observation_space", ("Box", "Dict"))  # a Dict's vectors are seen as one, by order of their keys
    module = _module(path, data)
    kwargs = data.get("policy_kwargs") or {}
    tensors = read_state_dict(path, "policy.pth", read_member(path, "policy.pth", MAX_WEIGHTS))
    if any("sde_features_extractor." in name for name in tensors):
        raise PotstillError(
            f"{path}: its spread is computed by layers of its own (sde_net_arch), which isn't known here"
        )
    if any(".extractors." in name for name in tensors):
        raise PotstillError(f"{path}: among its observations by key are frames; only vectors are seen of a Dict")
    layout = _layout(path, module, data, tensors)
    frames = any(name.startswith(f"{layout.extractor}.cnn") for name in tensors)
    _check_frames(path, data["observation_space"], frames)
    activation = _check_kwargs(path, kwargs, layout, frames)
    actions = _bounds(path, data["action_space"], layout.squashed) if actions_are == "Box" else None
    if layout.algorithm == "QR-DQN":
        tensors = _mean_of_quantiles(path, tensors, _attribute(data["action_space"], "n"))
    gsde = actions is not None and tensors.get(layout.log_std, torch.empty(0)).ndim == 2
    if actions is not None:
        tensors = _with_gaussian_head(path, tensors, layout, len(actions.low))
    body = (layer for name in layout.bodies for layer in rename.layers(name, tensors) if layer != layout.head)
    chain = [
        *rename.layers(f"{layout.extractor}.cnn", tensors),
        *rename.layers(f"{layout.extractor}.linear", tensors),
        *body,
        GAUSSIAN_HEAD if actions else layout.head,
    ]
    if frames and activation != "relu" and len(chain) > 5:
        raise PotstillError(f"{path}: a CNN followed by tanh layers is not a network known here")
    provenance: dict[str, object] = {
        "format": "stable-baselines3",
        "algorithm": layout.algorithm,
        "num_timesteps": _int(data.get("num_timesteps")),
    }
    if _has_time_feature(data["observation_space"]):
        provenance["time_feature"] = True
    if keys := _keys(data["observation_space"]):
        provenance["keys"] = keys
    task = task_in_name(path, provenance)
    outputs_are: Meaning = layout.outputs_are if actions is None else "gaussian"
    policy = rename.to_policy(
        path, tensors, chain, outputs_are, activation, task, provenance, layout.algorithm == "ARS", actions
    )
    if gsde:
        _give_gsde_head(path, policy, tensors[layout.log_std], layout, kwargs)
    return _normalised(path, policy)


@dataclass(frozen=True)
class _Layout:
    """Where an algorithm's policy network lies among its tensors."""

    algorithm: str
    outputs_are: Meaning
    """Where actions are discrete."""
    activation: Activation
    """By default."""
    extractor: str
    bodies: tuple[str, ...]
    head: str
    """The last layer: outputs, or means."""
    log_std: str = ""
    """What says how far continuous actions spread: a vector, a layer, or gSDE's matrix."""
    squashed: bool = False


def _module(path: Path, data: dict[str, Any]) -> str:
    """The module of its policy's class: the library's own, as only that is known to compute what its tensors say."""
    module = str(_attribute(data.get("policy_class"), "__module__"))
    if any(kind in module for kind in ("maskable", "recurrent", "crossq")):
        raise PotstillError(
            f"{path}: a policy of {in_a_line(module, 60)}: masks, recurrent and normalised layers are not played here"
        )
    if not module.startswith(("stable_baselines3.", "sb3_contrib.")):
        raise PotstillError(
            f"{path}: its policy's class is of {in_a_line(module, 60)}: only Stable-Baselines3's own are known"
        )
    return module


def _layout(path: Path, module: str, data: dict[str, Any], tensors: dict[str, Tensor]) -> _Layout:
    def last(body: str) -> str:
        return rename.layers(body, tensors)[-1]

    if "q_net.q_net.0.weight" in tensors:
        body = "q_net.q_net"
        return _Layout("DQN", "q", "relu", "q_net.features_extractor", (body,), last(body))
    if "quantile_net.quantile_net.0.weight" in tensors:
        body = "quantile_net.quantile_net"
        return _Layout("QR-DQN", "q", "relu", "quantile_net.features_extractor", (body,), last(body))
    if "action_net.weight" in tensors and "value_net.weight" in tensors:
        algorithm = "PPO" if "clip_range" in data else "TRPO" if "cg_max_steps" in data else "A2C"
        apart = any(name.startswith("pi_features_extractor.") for name in tensors)
        extractor = "pi_features_extractor" if apart else "features_extractor"
        bodies = ("mlp_extractor.shared_net", "mlp_extractor.policy_net")
        return _Layout(algorithm, "logits", "tanh", extractor, bodies, "action_net", "log_std")
    # sb3-contrib's first linear policies were no chain of layers.
    alone = ["action_net"] if "action_net.weight" in tensors else []
    if "ars" in module and (layers := rename.layers("action_net", tensors) or alone):
        linear = "ARSLinearPolicy" in str(_attribute(data["policy_class"], "__init__"))  # clips, MlpPolicy squashes
        given = _attribute(data.get("policy_kwargs"), "squash_output")
        squashed = not linear if given is None else bool(given)
        return _Layout("ARS", "logits", "relu", "features_extractor", ("action_net",), layers[-1], squashed=squashed)
    extractor, body = "actor.features_extractor", "actor.latent_pi"
    if rename.layers(body, tensors) or any(name.startswith("actor.log_std") for name in tensors):
        head = "actor.mu" if "actor.mu.weight" in tensors else "actor.mu.0"
        algorithm = "TQC" if "tqc" in module else "SAC"
        return _Layout(algorithm, "logits", "relu", extractor, (body,), head, "actor.log_std", squashed=True)
    if rename.layers("actor.mu", tensors):
        algorithm = "DDPG" if not any("qf1" in name for name in tensors) else "TD3"
        return _Layout(algorithm, "logits", "relu", extractor, ("actor.mu",), last("actor.mu"), squashed=True)
    raise PotstillError(
        f"{path}: a policy of {in_a_line(module, 60)}; read are DQN, QR-DQN, PPO, A2C, TRPO, ARS, SAC, TQC, TD3, DDPG"
    )


def _bounds(path: Path, space: Any, squashed: bool) -> Actions:
    """The bounds of continuous actions, by the readable fields of the pickled space."""
    bounds: dict[str, tuple[float, ...]] = {}
    try:
        for name in ("low", "high"):
            numbers = re.findall(r"-?[0-9.]+(?:e[-+]?[0-9]+)?", str(_attribute(space, name))[:10_000])
            bounds[name] = tuple(map(float, numbers))
        size = int(re.fullmatch(r"[\[(]([0-9]{1,4}),?[\])]", _shape(space))[1])  # pyright: ignore
        return read_actions({**bounds, "squashed": squashed}, size)
    except (ValueError, TypeError) as error:
        raise PotstillError(f"{path}: its actions are no vector within readable, finite bounds") from error


def _with_gaussian_head(path: Path, tensors: dict[str, Tensor], layout: _Layout, num_actions: int) -> dict[str, Tensor]:
    """One layer for means and log standard deviations out of what the algorithm has for them."""
    weight, log_std = tensors.get(f"{layout.head}.weight"), tensors.get(layout.log_std)
    if weight is None or weight.ndim != 2 or len(weight) != num_actions:
        raise PotstillError(f"{path}: tensor {layout.head}.weight doesn't give {num_actions} means")
    bias = tensors.get(f"{layout.head}.bias", torch.zeros(num_actions))
    spread = tensors.get(f"{layout.log_std}.weight", torch.zeros_like(weight))
    if log_std is None or log_std.ndim != 1:  # a layer of its own, gSDE's (put right later), or none
        log_std = tensors.get(f"{layout.log_std}.bias", torch.full((num_actions,), math.log(NO_SPREAD)))
    if bias.shape != log_std.shape or spread.shape != weight.shape:
        raise PotstillError(f"{path}: its means and {layout.log_std} don't fit together")
    head = {"weight": torch.cat([weight.float(), spread.float()]), "bias": torch.cat([bias.float(), log_std.float()])}
    return {**tensors, **{f"{GAUSSIAN_HEAD}.{kind}": tensor for kind, tensor in head.items()}}


def _give_gsde_head(path: Path, policy: Policy, log_std: Tensor, layout: _Layout, kwargs: dict[str, Any]) -> None:
    linear, num_actions = policy.ours.head, policy.num_actions
    clip = float(kwargs.get("clip_mean", 2.0)) if layout.head == "actor.mu.0" else math.inf
    if log_std.shape == (linear.in_features, 1):  # one for all actions: full_std=False
        log_std = log_std.expand(-1, num_actions).contiguous()
    if log_std.shape != (linear.in_features, num_actions):
        raise PotstillError(f"{path}: tensor {layout.log_std} is {tuple(log_std.shape)}, not a spread for each feature")
    head = GsdeHead(linear.in_features, num_actions, clip)
    state = {"weight": linear.weight[:num_actions], "bias": linear.bias[:num_actions], "log_std": log_std.float()}
    head.load_state_dict(state)
    policy.ours.head = head.requires_grad_(False)


def _check_frames(path: Path, space: dict[str, Any], by_cnn: bool) -> None:
    """Refuse frames of another size than Atari's, which fit some CNNs too, and those that an MLP sees as numbers."""
    sides = [int(side) for side in re.findall("[0-9]{1,9}", _shape(space))]
    if by_cnn and sides and sides[1:] != [84, 84]:
        raise PotstillError(
            f"{path}: it sees frames of {' × '.join(map(str, sides))}; only four of 84 × 84 are shown here"
        )
    if not by_cnn and len(sides) == 3 and str(_attribute(space, "dtype")) == "uint8":
        raise PotstillError(f"{path}: an MLP that sees frames is not known here")


def _keys(space: Any) -> list[str]:
    """Of a Dict, in the order in which a policy sees them; as gym's OrderedDict is shown, too."""
    return re.findall(r"'([^']*)'[:,] \w+\(", str(_attribute(space, "spaces") or "")[:10_000])


def _has_time_feature(space: Any) -> bool:
    """Whether the last input alone is within [0, 1]: what RL Zoo's TimeFeatureWrapper adds to MuJoCo's."""
    low, high = (str(_attribute(space, name)).strip("[]").split() for name in ("low", "high"))
    unbounded = {"-inf"} == set(low[:-1]) and {"inf"} == set(high[:-1])
    return unbounded and low[-1] in ("0.", "0") and high[-1] in ("1.", "1")


def _mean_of_quantiles(path: Path, tensors: dict[str, Tensor], actions: Any) -> dict[str, Tensor]:
    """The last layer has a row for each quantile of each action; the mean of rows gives the mean of outputs."""
    num_actions = int(actions) if re.fullmatch("[1-9][0-9]{0,3}", str(actions)) else 0
    head = rename.layers("quantile_net.quantile_net", tensors)[-1]
    averaged = dict(tensors)
    for name in (f"{head}.weight", f"{head}.bias"):
        tensor = tensors.get(name)
        if tensor is None or not num_actions or not tensor.ndim or len(tensor) % num_actions:
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
        if len(policy.observation_shape) == 1 and policy.observation_shape[0] % len(statistics.mean) == 0:
            raise PotstillError(f"{path} sees several observations at once, normalised by {found}: not played here")
        raise PotstillError(
            f"{path} sees {policy.observation_shape}, {found} normalises {statistics.mean.shape}: remove the one that"
            " doesn't belong here"
        )
    policy.normalised(statistics.clip)
    policy.ours.trunk[0].load_state_dict(
        {"mean": torch.from_numpy(statistics.mean), "std": torch.from_numpy(statistics.std)}
    )
    policy.provenance["observations"] = f"normalised by {found.name}"
    return policy


def _read_data(path: Path) -> dict[str, Any]:
    try:
        content = read_member(path, "data", MAX_DATA)
        if sum(map(content.count, (b"[", b"{", b","))) > MAX_VALUES:
            raise ValueError("too many values")
        data = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise PotstillError(f"{path}: its data is not JSON ({type(error).__name__})") from error
    if not isinstance(data, dict):
        raise PotstillError(f"{path}: its data is not what Stable-Baselines3 writes")
    return data


def _attribute(value: Any, name: str) -> Any:
    return value.get(name) if isinstance(value, dict) else None


def _shape(space: Any) -> str:
    """Of a Box, as it is shown."""
    return str(_attribute(space, "_shape") or _attribute(space, "shape"))  # Gymnasium's, gym's


def _int(value: Any) -> int | None:
    return value if type(value) is int else None


def _space(path: Path, data: dict[str, Any], key: str, kinds: tuple[str, ...]) -> str:
    """Which of these kinds a pickled space is, by its readable fields."""
    found = re.search(r"spaces\.\w+\.(\w+)'", str(_attribute(data.get(key), ":type:")))
    name = found[1] if found else "unreadable"
    if name not in kinds:
        raise PotstillError(f"{path}: its {key} is {name}; only {' and '.join(kinds)} are supported")
    if name == "Discrete" and str(_attribute(data[key], "start") or 0) != "0":
        raise PotstillError(f"{path}: its actions don't count from 0")
    return name


def _check_kwargs(path: Path, kwargs: Any, layout: _Layout, frames: bool) -> Activation:
    """The activation function; refuses what would change the computation unseen."""
    if not isinstance(kwargs, dict):
        raise PotstillError(f"{path}: its policy_kwargs can't be read")
    activation = ACTIVATIONS.get(_class(kwargs["activation_fn"])) if "activation_fn" in kwargs else layout.activation
    if activation is None:
        raise PotstillError(
            f"{path}: activation {_class(kwargs['activation_fn'])} is not known here (ReLU and Tanh are)"
        )
    for name, value in kwargs.items():
        if not _is_known(name, value, layout, frames):
            raise PotstillError(f"{path}: policy_kwargs {in_a_line(name, 40)}={in_a_line(value, 40)} is not known here")
    return activation


def _is_known(name: str, value: Any, layout: _Layout, frames: bool) -> bool:
    """Whether one of the policy_kwargs changes nothing, or is minded elsewhere."""
    match name:
        case "features_extractor_class":
            return _class(value) in EXTRACTORS
        case "features_extractor_kwargs":
            return value is None or (isinstance(value, dict) and value.keys() <= SIZES)
        case "share_features_extractor":
            return isinstance(value, bool)
        case "normalize_images":
            return value is True or not frames
        case "use_expln":
            return value is False
        case "squash_output":
            return value is False or layout.algorithm == "ARS"
        case "clip_mean":
            return isinstance(value, int | float) and 0 <= value < 1e9
        case _:
            return name.startswith(":") or name in HARMLESS or name in ("activation_fn", "use_sde")


def _class(shown: Any) -> str:
    """The dotted name of a class that is shown as `<class 'torch.nn.modules.activation.Tanh'>`."""
    return re.sub("^<class '(.*)'>$", r"\1", in_a_line(shown))[:60]
