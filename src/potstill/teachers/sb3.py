"""Stable-Baselines3 zips, read without unpickling.

The zip's `data` is JSON in which whatever isn't JSON stands as a base64 cloudpickle beside readable
attributes. Only the readable ones are used; what they leave open is Stable-Baselines3's default, and
what differs from the defaults in a way that can't be read is refused by name. `policy.pth` is read
by `torch.load(weights_only=True)`.
"""

import io
import json
import pickle
import re
import zipfile
import zlib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from potstill.errors import PotstillError
from potstill.networks.spec import Activation
from potstill.policy import Meaning, Policy
from potstill.teachers import rename

MAX_DATA = 2**26
"""Bytes of `data`: replay statistics and schedules can be pickled into it, weights aren't."""
MAX_WEIGHTS = 2**29
"""Bytes of `policy.pth`: 40 times a DQN with its target network."""
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
    """Load a DQN, PPO or A2C policy with discrete actions.

    Raises:
        PotstillError: the zip is damaged or oversized, or holds something that can't be known or loaded safely.
    """
    if (path.parent / "vecnormalize.pkl").exists():
        raise PotstillError(
            f"{path} comes with {path.parent / 'vecnormalize.pkl'}: its observations were normalised,"
            " and such statistics can't be read yet"
        )
    data = _read_data(path)
    _check_spaces(path, data)
    kwargs = data.get("policy_kwargs") or {}
    module = str(_attribute(data.get("policy_class"), "__module__"))
    tensors = _read_weights(path)
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    outputs_are: Meaning
    if "q_net.q_net.0.weight" in shapes:
        algorithm, outputs_are, default = "DQN", "q", "ReLU"
        extractor, heads = "q_net.features_extractor", ["q_net.q_net"]
    elif "action_net.weight" in shapes and "value_net.weight" in shapes:
        algorithm, outputs_are, default = "PPO" if "clip_range" in data else "A2C", "logits", "Tanh"
        extractor, heads = "features_extractor", ["mlp_extractor.shared_net", "mlp_extractor.policy_net"]
        if any(name.startswith("pi_features_extractor.") for name in shapes):
            extractor = "pi_features_extractor"
    else:
        raise PotstillError(f"{path}: a policy of {module or 'an unknown algorithm'}; DQN, PPO and A2C are read so far")
    chain = [
        *rename.layers(f"{extractor}.cnn", shapes),
        *rename.layers(f"{extractor}.linear", shapes),
        *(layer for head in heads for layer in rename.layers(head, shapes)),
        *(["action_net"] if algorithm != "DQN" else []),
    ]
    activation = _check_kwargs(path, kwargs, default)
    if any(name.startswith(f"{extractor}.cnn") for name in shapes) and activation != "relu" and len(chain) > 5:
        raise PotstillError(f"{path}: a CNN followed by tanh layers is not a network known here")
    provenance = {
        "format": "stable-baselines3",
        "algorithm": algorithm,
        "num_timesteps": _int(data.get("num_timesteps")),
    }
    policy, names = rename.to_policy(path, shapes, chain, outputs_are, activation, None, provenance)
    return rename.fill(policy, names, tensors)


def _read_data(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(_read_member(path, "data", MAX_DATA))
    except (ValueError, RecursionError) as error:
        raise PotstillError(f"{path}: its data is not JSON ({type(error).__name__})") from error
    if not isinstance(data, dict):
        raise PotstillError(f"{path}: its data is not what Stable-Baselines3 writes")
    return data


def _read_weights(path: Path) -> dict[str, Tensor]:
    content = _read_member(path, "policy.pth", MAX_WEIGHTS)
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as inner:
            unpacked = sum(info.file_size for info in inner.infolist())
        if unpacked > MAX_WEIGHTS:
            raise PotstillError(f"{path}: policy.pth unpacks to {unpacked} bytes; over {MAX_WEIGHTS} are not read")
        tensors = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except PotstillError:
        raise
    except (pickle.UnpicklingError, RuntimeError, ValueError, KeyError, EOFError, TypeError, AttributeError,
            IndexError, OSError, AssertionError, zipfile.BadZipFile, NotImplementedError) as error:  # fmt: skip
        reason = " ".join(str(error).split())[:100]
        raise PotstillError(f"{path}: policy.pth is no plain state dict and is not read ({reason})") from error
    if not isinstance(tensors, dict):
        raise PotstillError(f"{path}: policy.pth is no state dict")
    for name, tensor in tensors.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor) or tensor.layout != torch.strided:
            raise PotstillError(f"{path}: policy.pth is no state dict (entry {str(name)[:60]})")
        # A view can claim any shape over a few bytes.
        if not tensor.is_floating_point() or tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
            raise PotstillError(
                f"{path}: tensor {name[:60]} is {tensor.dtype} {tuple(tensor.shape)} without the bytes for it"
            )
    return tensors


def _read_member(path: Path, name: str, limit: int) -> bytes:
    try:
        with zipfile.ZipFile(path) as archive, archive.open(name) as member:
            content = member.read(limit + 1)
    except (zipfile.BadZipFile, zipfile.LargeZipFile, OSError, EOFError, KeyError, ValueError, RuntimeError,
            NotImplementedError, zlib.error) as error:  # fmt: skip
        raise PotstillError(f"{path} is a damaged zip ({name}: {error})") from error
    if len(content) > limit:
        raise PotstillError(f"{path}: {name} unpacks to over {limit} bytes and is not read")
    return content


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
