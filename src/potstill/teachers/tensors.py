"""Tensors out of PyTorch's files, without unpickling anything else."""

import io
import pickle
import pickletools
import warnings
import zipfile
import zlib
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from potstill.errors import PotstillError

MAX_WEIGHTS = 2**29
"""Bytes of a file of weights: 40 times a DQN with its target network."""


def read_member(path: Path, name: str, limit: int) -> bytes:
    """One file of a zip, if it unpacks to no more than `limit` bytes.

    Raises:
        PotstillError: it is larger, or the zip is damaged.
    """
    try:
        with zipfile.ZipFile(path) as archive, archive.open(name) as member:
            content = member.read(limit + 1)
    except (zipfile.BadZipFile, zipfile.LargeZipFile, OSError, EOFError, KeyError, ValueError, RuntimeError,
            NotImplementedError, zlib.error) as error:  # fmt: skip
        raise PotstillError(f"{path} is a damaged zip ({name}: {error})") from error
    if len(content) > limit:
        raise PotstillError(f"{path}: {name} unpacks to over {limit} bytes and is not read")
    return content


def read_state_dict(path: Path, name: str, content: bytes) -> dict[str, Tensor]:
    """The state dict that `torch.save` wrote, read by `torch.load(weights_only=True)`.

    Args:
        path: the file it came from, for messages.
        name: which part of it.
        content: its bytes.

    Raises:
        PotstillError: it holds something else than named floating-point tensors, or less than it claims.
    """
    try:
        if content.startswith(b"PK"):
            with zipfile.ZipFile(io.BytesIO(content)) as inner:
                unpacked = sum(info.file_size for info in inner.infolist())
            if unpacked > MAX_WEIGHTS:
                raise PotstillError(f"{path}: {name} unpacks to {unpacked} bytes; over {MAX_WEIGHTS} are not read")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd pickles: what matters comes as an error
            if not content.startswith(b"PK"):
                _check_old_format(content)
            tensors: Any = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except PotstillError:
        raise
    except (pickle.UnpicklingError, RuntimeError, ValueError, KeyError, EOFError, TypeError, AttributeError,
            IndexError, OSError, AssertionError, zipfile.BadZipFile, NotImplementedError) as error:  # fmt: skip
        raise PotstillError(
            f"{path}: {name} is no plain state dict ({type(error).__name__}): anything else is a pickle, which can run"
            " code when read; save the state dict alone"
        ) from error
    if not isinstance(tensors, dict):
        raise PotstillError(f"{path}: {name} is no state dict")
    for key, tensor in cast(dict[Any, Any], tensors).items():
        if not isinstance(key, str) or not isinstance(tensor, Tensor) or tensor.layout != torch.strided:
            raise PotstillError(f"{path}: {name} is no state dict (entry {str(key)[:60]})")
        if not tensor.is_floating_point():
            raise PotstillError(f"{path}: tensor {key[:60]} is {tensor.dtype}, not floating point")
        # A view can claim any shape over a few bytes.
        if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
            raise PotstillError(
                f"{path}: tensor {key[:60]} is {tensor.dtype} {tuple(tensor.shape)} without the bytes for it"
            )
    return cast(dict[str, Tensor], tensors)


def _check_old_format(content: bytes) -> None:
    """Refuse a file of PyTorch before 1.6 whose tensors claim more than it holds: they'd be allocated before it shows.

    It is a magic number, a version, facts of the machine, the state dict, all pickles, and then the numbers.
    """
    stream = io.BytesIO(content)
    for part in range(4):
        for _, argument, _ in pickletools.genops(stream):
            if part == 3 and type(argument) is int and argument > len(content):
                raise ValueError("a tensor larger than the file")
