"""Stable-Baselines3's `vecnormalize.pkl`: the statistics a teacher's observations were normalised with.

It is a pickle. It is taken apart, not executed: every class and function it names becomes a record of its name and
arguments, and arrays are built from their recorded bytes.
"""

import io
import os
import pickle
import pickletools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32

from potstill.errors import PotstillError, in_a_line
from potstill.files import read_bytes
from potstill.teachers.task_name import NAME

MAX_BYTES = 2**20
MAX_KEYS = 64
"""Of a Dict of observations: a file can name one array as often as it likes."""
OPCODES = {
    "ADDITEMS", "APPEND", "APPENDS", "BINBYTES", "BINFLOAT", "BINGET", "BININT", "BININT1", "BININT2", "BINPUT",
    "BINUNICODE", "BUILD", "DICT", "EMPTY_DICT", "EMPTY_LIST", "EMPTY_SET", "EMPTY_TUPLE", "FRAME", "GLOBAL", "LIST",
    "LONG1", "LONG_BINGET", "LONG_BINPUT", "MARK", "MEMOIZE", "NEWFALSE", "NEWOBJ", "NEWTRUE", "NONE", "POP",
    "POP_MARK", "PROTO", "REDUCE", "SETITEM", "SETITEMS", "SHORT_BINBYTES", "SHORT_BINUNICODE", "STACK_GLOBAL", "STOP",
    "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3",
}  # fmt: skip
"""What such a file is written with. Of the others, some allocate what they claim."""
DTYPES = {"f4": "<f4", "f8": "<f8"}


@dataclass(frozen=True)
class VecNormalize:
    """(observation − mean) / std, clipped to ±clip."""

    mean: Float32[np.ndarray, " inputs"]
    std: Float32[np.ndarray, " inputs"]
    clip: float


NAMES = ("vecnormalize.pkl", "vec_normalize.pkl")
"""RL Zoo's on disk and on the Hub."""


def beside(path: Path) -> Path | None:
    """The statistics that belong to a zip: in its folder, or in one beside it, as RL Zoo writes them.

    RL Zoo names that folder after the task; its best_model.zip shares the statistics with the task's own zip.
    """

    def there(folder: Path) -> list[Path]:
        return [folder / name for name in NAMES if os.path.exists(folder / name)]  # False where it may not look

    found = there(path.parent) or there(path.parent / path.stem)
    if not found and path.stem == "best_model":
        found = [one for folder in path.parent.iterdir() if NAME.search(folder.name) for one in there(folder)]
        if len(found) > 1:
            raise PotstillError(f"{path}: {found[0]} or {found[1]}? Remove the one that doesn't belong to it")
    return found[0] if found else None


def read(path: Path) -> VecNormalize | None:
    """Read the statistics; None where only rewards were normalised.

    Raises:
        PotstillError: the file is too large, or not what Stable-Baselines3 writes.
    """
    content = read_bytes(path, MAX_BYTES)
    try:
        return _decode(content)
    except Exception as error:  # whatever a mangled pickle makes its reader raise
        said = in_a_line(error, 100)
        raise PotstillError(f"{path} is not what Stable-Baselines3's VecNormalize writes ({said})") from error


def _decode(content: bytes) -> VecNormalize | None:
    for opcode, _, _ in pickletools.genops(content):
        if opcode.name not in OPCODES:
            raise ValueError(f"opcode {opcode.name}")
    saved = _Reader(io.BytesIO(content)).load().attributes
    if not saved.get("norm_obs", True):
        return None
    statistics = saved["obs_rms"]
    of_keys = statistics.items if isinstance(statistics, _Record) else statistics  # of a Dict's observations
    # In the order in which its vectors are seen as one; those of keys that weren't normalised are missing, and missed.
    parts = list(of_keys.values()) or [statistics]
    if len(parts) > MAX_KEYS:
        raise ValueError(f"{len(parts)} keys")
    mean, variance = (np.concatenate([_array(part.attributes[name]) for part in parts]) for name in ("mean", "var"))
    epsilon, clip = float(saved["epsilon"]), float(saved["clip_obs"])
    if mean.ndim != 1 or mean.shape != variance.shape or not (variance >= 0).all() or not clip > 0:
        raise ValueError(f"statistics of shape {mean.shape} and {variance.shape}")
    std = np.sqrt(variance + epsilon)
    if not (np.isfinite(mean).all() and np.isfinite(std).all() and (std > 0).all()):
        raise ValueError("statistics that are no numbers")
    return VecNormalize(mean.astype(np.float32), std.astype(np.float32), clip)


class _Record:
    """What stands where an object would: pickle makes one by `__new__` alone, or by a call."""

    name: str
    arguments: tuple[Any, ...]
    attributes: Any
    items: dict[Any, Any]
    """Of what is a dict."""

    def __new__(cls, *arguments: Any) -> "_Record":
        made = object.__new__(cls)
        made.arguments, made.attributes, made.items = arguments, {}, {}
        return made

    def __init__(self, *arguments: Any) -> None: ...

    def __setitem__(self, key: Any, value: Any) -> None:
        self.items[key] = value

    def __setstate__(self, state: Any) -> None:
        self.attributes = state


class _Reader(pickle._Unpickler):  # pyright: ignore
    """The pickle machine in Python (the one in C lets a file size its memo), without access to anything."""

    def find_class(self, module: str, name: str) -> type[_Record]:
        return type("Named", (_Record,), {"name": f"{module}.{name}"})


def _array(record: _Record) -> np.ndarray:
    """A numeric array from its record, as NumPy 1 and 2 pickle them."""
    if record.name.endswith("_frombuffer"):
        data, dtype, shape, _ = record.arguments
    else:
        _, shape, dtype, _, data = record.attributes
    kind = DTYPES[dtype.arguments[0]]
    if not isinstance(data, bytes) or dtype.attributes[1] not in ("<", "="):
        raise ValueError("array")
    return np.frombuffer(data, kind).reshape(tuple(int(side) for side in shape)).astype(np.float64)
