"""A policy on disk: one .safetensors file, its description as JSON in the header.

The file is data: reading one runs no code, and the header is checked before a tensor is touched.
"""

import json
import math
import os
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load, save
from torch import Tensor, nn

from potstill.errors import PotstillError, in_a_line
from potstill.files import read_bytes, reading, write_bytes

SCHEMA = 1
KEY = "potstill"
"""The header's metadata key that holds the description."""
SUFFIXES = ("", ".safetensors")
"""What a policy file's name may end in: under another it is not read."""
MAX_BYTES = 2**30
"""The largest weights file that is read: a guard, 150 times the size of a DQN."""
MAX_HEADER = 2**20
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def write(path: Path, description: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    """Write a policy file atomically.

    Raises:
        PotstillError: the file can't be written, or it would not be read under its name.
    """
    if path.suffix not in SUFFIXES:
        raise PotstillError(f"cannot write {path}: policies are .safetensors files")
    metadata = {KEY: json.dumps({"schema": SCHEMA, **description}, ensure_ascii=False, allow_nan=False)}
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    write_bytes(path, save(contiguous, metadata))


def read_metadata(path: Path) -> tuple[dict[str, str], dict[str, tuple[int, ...]]]:
    """The header of any .safetensors file: its metadata and each tensor's shape. No tensor is read.

    Raises:
        PotstillError: it can't be read, is damaged, or is not a .safetensors file.
    """
    _check_size(path)
    try:
        with safe_open(path, framework="pt") as file:
            return file.metadata() or {}, {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}
    except (SafetensorError, OSError, ValueError) as error:
        raise PotstillError(f"{path} is damaged or not a .safetensors file ({in_a_line(error)})") from error


def read_description(path: Path, metadata: dict[str, str]) -> dict[str, Any]:
    """Our description out of a header's metadata.

    Raises:
        PotstillError: it is not JSON, or of a schema this version doesn't know.
    """
    try:
        description = json.loads(metadata[KEY])
        # As it will be written again: halves of a character aren't text, nor infinity a number.
        json.dumps(description, ensure_ascii=False, allow_nan=False).encode()
        schema = description["schema"]
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise PotstillError(f"{path}: its header holds no readable policy description") from error
    if schema != SCHEMA:
        raise PotstillError(f"{path} has schema {schema!r}, this potstill reads {SCHEMA}: install a newer one")
    return description


def read_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a .safetensors file, as float32.

    Raises:
        PotstillError: the file is damaged or holds something else than floating-point numbers.
    """
    _check_size(path)
    try:
        tensors = load(read_bytes(path, MAX_BYTES))  # safe_open's get_tensor takes Ctrl-C for a ValueError
    except (SafetensorError, LookupError, ValueError, RuntimeError) as error:
        raise PotstillError(f"{path} is damaged ({in_a_line(error)})") from error
    for name, tensor in tensors.items():
        check_weights(path, name, tensor)
        tensors[name] = tensor.to(torch.float32)
    return tensors


def check_weights(path: Path, name: str, tensor: Tensor) -> None:
    """Refuse a tensor that holds no numbers to compute with.

    Raises:
        PotstillError: it does; the message says what it holds.
    """
    if tensor.dtype not in FLOATS:
        raise PotstillError(f"{path}: tensor {name[:60]} is {tensor.dtype}, not floating point")
    if tensor.numel() and not all(map(math.isfinite, tensor.aminmax())):  # isfinite() would take its size in bytes
        raise PotstillError(f"{path}: tensor {name[:60]} holds infinities, or what is no number")


def fill(network: nn.Module, path: Path, shapes: dict[str, tuple[int, ...]], kind: object) -> None:
    """Fill a network on the meta device from a file whose tensors have these shapes; it then plays, and doesn't learn.

    Raises:
        PotstillError: they are others than the network's; `kind` is what the message calls it.
    """
    expected = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    if shapes != expected:
        name = min(n for n in {*shapes, *expected} if shapes.get(n) != expected.get(n))
        raise PotstillError(
            f"{path}: tensor {name} is {shapes.get(name, 'missing')}, {kind} has {expected.get(name, 'none')}"
        )
    network.load_state_dict(read_tensors(path), assign=True)
    network.requires_grad_(False)


def _check_size(path: Path) -> None:
    with reading(path), path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        header = int.from_bytes(file.read(8), "little")
    if size > MAX_BYTES:
        raise PotstillError(f"{path} has {size} bytes; policies over {MAX_BYTES} are not read")
    if header > MAX_HEADER:
        raise PotstillError(f"{path} is damaged or not a .safetensors file (a header of {header} bytes)")
