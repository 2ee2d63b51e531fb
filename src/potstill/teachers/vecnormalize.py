"""Stable-Baselines3's `vecnormalize.pkl`: the statistics a teacher's observations were normalised with.

It is a pickle. It is taken apart, not executed: every class and function it names becomes a record of its name and
arguments, and arrays are built from their recorded bytes.
"""

import io
import pickle
import pickletools
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float32

from potstill.errors import PotstillError, in_a_line
from potstill.files import read_bytes, refuse_pointer
from potstill.teachers.task_name import NAME

MAX_BYTES = 2**26
MAX_OPCODES = 2**14
"""Ten times what the largest known file has: each may be an object."""
MAX_ARGUMENTS, MAX_NAME, MAX_ARRAY = 16, 200, 2**20
"""Of a call; in letters; in bytes: a file can name one of its parts as often as it likes."""
MAX_KEYS = 64
"""Of a Dict of observations: a file can name one array as often as it likes."""
OPCODES = {
    "ADDITEMS", "APPEND", "APPENDS", "BINBYTES", "BINFLOAT", "BINGET", "BININT", "BININT1", "BININT2", "BINPUT",
    "BINUNICODE", "BUILD", "BYTEARRAY8", "DICT", "EMPTY_DICT", "EMPTY_LIST", "EMPTY_SET", "EMPTY_TUPLE", "FRAME",
    "GLOBAL", "LIST", "LONG1", "LONG_BINGET", "LONG_BINPUT", "MARK", "MEMOIZE", "NEWFALSE", "NEWOBJ", "NEWTRUE",
    "NONE", "POP", "POP_MARK", "PROTO", "REDUCE", "SETITEM", "SETITEMS", "SHORT_BINBYTES", "SHORT_BINUNICODE",
    "STACK_GLOBAL", "STOP", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3",
}  # fmt: skip
"""What such a file is written with. Of the others, some allocate what they claim."""
NO_CLIP = 1e29
"""What infinity becomes: it is no JSON."""
DTYPES = {"f4": "<f4", "f8": "<f8"}


@dataclass(frozen=True)
class VecNormalize:
    """(observation − mean) / std, clipped to ±clip."""

    mean: Float32[np.ndarray, " inputs"]
    std: Float32[np.ndarray, " inputs"]
    clip: float


CALLED = re.compile("vec[-_ ]?norm(alize)?", re.IGNORECASE)
"""RL Zoo calls them vecnormalize.pkl, on the Hub vec_normalize.pkl, Stable-Baselines3's callback as its checkpoint."""

SHARES = re.compile(r"best_model|rl_model_[0-9]+_steps")
"""RL Zoo's other zips in the folder of a task's own."""


def is_called_so(path: PurePath) -> bool:
    """Whether a file is called as statistics are."""
    return path.suffix == ".pkl" and CALLED.search(path.stem) is not None


def shares(stem: str, folder: str) -> bool:
    """Whether a zip called so has its statistics in a folder called so, which is named after the task."""
    return bool(SHARES.fullmatch(stem) and NAME.search(folder))


def beside(path: Path) -> Path | None:
    """The statistics that belong to a zip: called like it, in its folder, or in one beside it, as RL Zoo writes them.

    RL Zoo names that folder after the task, and its best_model.zip and checkpoints share the statistics with the
    task's own zip.

    Raises:
        PotstillError: there are some that may be its own or not.
    """
    here = _statistics(path.parent)
    zips = {key(other.stem) for other in _listed(path.parent) if other.suffix == ".zip"}
    found = here.get(key(path.stem)) or here.get("") or _statistics(path.parent / path.stem).get("", [])
    if not found:
        folders = (folder for folder in _listed(path.parent) if shares(path.stem, folder.name))
        found = [one for folder in folders for one in _statistics(folder).get("", [])]
    if not found:
        found = [one for called, of in here.items() if called not in zips for one in of]
        if found:
            raise PotstillError(f"{path}: is {found[0].name} of it? Call it vecnormalize.pkl, or put it elsewhere")
    if len(found) > 1:
        raise PotstillError(f"{path}: {found[0]} or {found[1]}? Remove the one that doesn't belong to it")
    return found[0] if found else None


def _statistics(folder: Path) -> dict[str, list[Path]]:
    """The statistics in a folder by what they are called beside that; "": they are of all that is there."""
    found: dict[str, list[Path]] = {}
    for path in _listed(folder):
        if is_called_so(path):
            found.setdefault(key(path.stem), []).append(path)
    return found


def key(stem: str) -> str:
    """What statistics, or a zip, are called: `rl_model_vecnormalize_1000_steps` → `rlmodel1000steps`."""
    return re.sub("[-_. ]", "", CALLED.sub("", stem)).lower()


def _listed(folder: Path) -> list[Path]:
    """What is in a folder; nothing where it isn't one, or may not be looked into."""
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []


def read(path: Path) -> VecNormalize | None:
    """Read the statistics; None where only rewards were normalised.

    Raises:
        PotstillError: the file is too large, or not what Stable-Baselines3 writes.
    """
    content = read_bytes(path, MAX_BYTES)
    refuse_pointer(path, content)
    try:
        saved = _taken_apart(content)
        return _decode(path, saved) if saved.get("norm_obs", True) else None
    except PotstillError:
        raise
    except Exception as error:  # whatever a mangled pickle makes its reader raise
        said = in_a_line(error, 100)
        raise PotstillError(f"{path} is not what Stable-Baselines3's VecNormalize writes ({said})") from error


def _taken_apart(content: bytes) -> dict[str, Any]:
    """The attributes of the object in a pickle."""
    for count, (opcode, _, _) in enumerate(pickletools.genops(content)):
        if opcode.name not in OPCODES:
            raise ValueError(f"opcode {opcode.name}")
        if count > MAX_OPCODES:
            raise ValueError(f"over {MAX_OPCODES} opcodes")
    return _Reader(io.BytesIO(content)).load().attributes


def _decode(path: Path, saved: dict[str, Any]) -> VecNormalize:
    statistics = saved["obs_rms"]
    of_keys = statistics.items if isinstance(statistics, _Record) else statistics  # of a Dict's observations
    if not isinstance(of_keys, dict):
        raise ValueError("statistics")
    if len(of_keys) > MAX_KEYS:
        raise ValueError(f"{len(of_keys)} keys")
    # A Dict's vectors are seen as one in the order of its space; the statistics may have another.
    spaces = saved.get("obs_spaces")
    spaces = spaces.items if isinstance(spaces, _Record) else spaces  # old ones are OrderedDicts
    keys: list[str] = list(spaces) if of_keys and isinstance(spaces, dict) else list(of_keys)
    if missing := [key for key in keys if key not in of_keys]:
        raise PotstillError(f"{path} doesn't normalise {in_a_line(missing[0], 60)}: it is all or nothing here")
    parts = [of_keys[key] for key in keys] or [statistics]
    mean, variance = (np.concatenate([_array(part.attributes[name]) for part in parts]) for name in ("mean", "var"))
    epsilon, clip = _number(saved["epsilon"]), _number(saved["clip_obs"])
    if mean.ndim != 1 or mean.shape != variance.shape or not (variance >= 0).all() or not clip > 0:
        raise ValueError(f"statistics of shape {mean.shape} and {variance.shape}")
    std = np.sqrt(variance + epsilon)
    if not (np.isfinite(mean).all() and np.isfinite(std).all() and (std > 0).all()):
        raise ValueError("statistics that are no numbers")
    return VecNormalize(mean.astype(np.float32), std.astype(np.float32), min(clip, NO_CLIP))


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


def _call(reader: Any) -> None:
    arguments = reader.stack.pop()
    if not isinstance(arguments, list) or len(arguments) > MAX_ARGUMENTS:
        raise ValueError("a call")
    reader.stack[-1] = reader.stack[-1](*arguments)


def _list_of_last(number: int) -> Callable[[Any], None]:
    def load(reader: Any) -> None:
        reader.stack[-number:] = [reader.stack[-number:]]

    return load


class _Reader(pickle._Unpickler):  # pyright: ignore
    """The pickle machine in Python (the one in C lets a file size its memo), without access to anything.

    Tuples are read as lists, which can't be keys: the hash of some that hold each other takes for ever.
    """

    dispatch: ClassVar[dict[int, Any]] = {
        **pickle._Unpickler.dispatch,  # pyright: ignore
        pickle.REDUCE[0]: _call,
        pickle.NEWOBJ[0]: _call,
        pickle.EMPTY_TUPLE[0]: pickle._Unpickler.load_empty_list,  # pyright: ignore
        pickle.TUPLE1[0]: _list_of_last(1),
        pickle.TUPLE2[0]: _list_of_last(2),
        pickle.TUPLE3[0]: _list_of_last(3),
        pickle.TUPLE[0]: pickle._Unpickler.load_list,  # pyright: ignore
    }

    def find_class(self, module: str, name: str) -> type[_Record]:
        if len(module) + len(name) > MAX_NAME:
            raise ValueError("a long name")
        return type("Named", (_Record,), {"name": f"{module}.{name}"})


def _number(value: Any) -> float:
    """A number, or a record of NumPy's."""
    if isinstance(value, _Record):
        dtype, data = value.arguments
        return float(np.frombuffer(data, DTYPES[dtype.arguments[0]])[0])
    return float(value)


def _array(record: _Record) -> np.ndarray:
    """A numeric array from its record, as NumPy 1 and 2 pickle them."""
    if record.name.endswith("_frombuffer"):
        data, dtype, shape, _ = record.arguments
    else:
        _, shape, dtype, _, data = record.attributes
    kind = DTYPES[dtype.arguments[0]]
    if not isinstance(data, bytes | bytearray) or len(data) > MAX_ARRAY or dtype.attributes[1] not in ("<", "="):
        raise ValueError("array")
    return np.frombuffer(data, kind).reshape(tuple(int(side) for side in shape)).astype(np.float64)
