"""Tensors out of PyTorch's files, without unpickling anything else."""

import io
import pickle
import pickletools
import re
import warnings
import zipfile
import zlib
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from potstill import artifact
from potstill.errors import PotstillError

MAX_WEIGHTS = 2**29
"""Bytes of a file of weights: 40 times a DQN with its target network."""
MAX_MEMBERS = 2**14
"""Files in a zip: each costs memory when its list is read."""
MAX_PICKLE, MAX_OPCODES = 2**22, 2**17
"""Bytes and steps of a state dict's pickle, which only names tensors: a hundred times those of a DQN."""
GLOBALS = re.compile(
    r"collections OrderedDict|torch \w+Storage|torch\.nn\.parameter Parameter"
    r"|torch\._utils (_rebuild_tensor_v2|_rebuild_parameter)"
)
"""What it may call. PyTorch allows more, some of which takes any amount of memory, or none for weights."""


def read_member(path: Path, name: str, limit: int) -> bytes:
    """One file of a zip, if it unpacks to no more than `limit` bytes.

    Raises:
        PotstillError: it is larger, or the zip is damaged.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            content = _unpacked(archive, archive.getinfo(name), limit)
    except (zipfile.BadZipFile, zipfile.LargeZipFile, OSError, EOFError, KeyError, ValueError, RuntimeError,
            NotImplementedError, zlib.error) as error:  # fmt: skip
        raise PotstillError(f"{path} is a damaged zip ({name}: {error})") from error
    if content is None:
        raise PotstillError(f"{path}: {name} unpacks to over {limit} bytes and is not read")
    return content


def _unpacked(archive: zipfile.ZipFile, member: zipfile.ZipInfo, limit: int) -> bytes | None:
    """A file of a zip; None: it has more than `limit` bytes."""
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):  # others unpack all of it at once
        raise ValueError("its method of compression is not read")
    with archive.open(member) as file:
        content = file.read(limit + 1)
    return content if len(content) <= limit else None


def check_members(content: bytes) -> None:
    """Refuse a zip with more files than are read.

    Raises:
        BadZipFile: it has.
    """
    if content.count(b"PK\1\2") > MAX_MEMBERS:  # what each of them begins with in the list
        raise zipfile.BadZipFile(f"over {MAX_MEMBERS} files")


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
            check_members(content)
            content = _rewritten(path, name, content)
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
        # A view can claim any shape over a few bytes.
        if tensor.nbytes > tensor.untyped_storage().nbytes():
            raise PotstillError(
                f"{path}: tensor {key[:60]} is {tensor.dtype} {tuple(tensor.shape)} without the bytes for it"
            )
    found = cast(dict[str, Tensor], tensors)
    if sum(tensor.nbytes for tensor in found.values()) > MAX_WEIGHTS:  # thousands can be views of the same bytes
        raise PotstillError(f"{path}: the tensors of {name} take over {MAX_WEIGHTS} bytes and are not read")
    for key, tensor in found.items():
        artifact.check_weights(path, key, tensor)
    return found


def _rewritten(path: Path, name: str, content: bytes) -> bytes:
    """The same zip of nothing but what was checked.

    PyTorch's reader takes a name in any case and follows another list of files than Python's, where a zip has two.
    """
    written = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as given, zipfile.ZipFile(written, "w") as checked:
        size = sum(info.file_size for info in given.infolist())
        if size > MAX_WEIGHTS:
            raise PotstillError(f"{path}: {name} unpacks to {size} bytes; over {MAX_WEIGHTS} are not read")
        names = [member.filename.lower() for member in given.infolist()]
        if len(set(names)) < len(names):
            raise ValueError("two files of one name")
        for member, called in zip(given.infolist(), names, strict=True):
            is_pickle = called.endswith("data.pkl")
            unpacked = _unpacked(given, member, MAX_PICKLE if is_pickle else MAX_WEIGHTS)
            if unpacked is None:
                raise ValueError("a file of more bytes than it may have")
            if is_pickle:
                _check_pickle(io.BytesIO(unpacked))
            checked.writestr(member.filename, unpacked)
    return written.getvalue()


def _check_old_format(content: bytes) -> None:
    """Refuse a file of PyTorch before 1.6 whose tensors claim more than it holds: they'd be allocated before it shows.

    It is a magic number, a version, facts of the machine, the state dict, the storages' keys, all pickles, and then the
    numbers.
    """
    stream = io.BytesIO(content)
    for part in range(5):
        largest = _check_pickle(stream)
        if part == 3 and largest > len(content):
            raise ValueError("a tensor larger than the file")


def _check_pickle(stream: io.BytesIO) -> int:
    """Refuse a pickle that does more than name tensors; returns the largest number in it.

    Tuples are what `torch.save` never names again, and what can hold each other so that a hash takes for ever.
    """
    tuples: set[Any] = set()
    largest, last = 0, ""
    for count, (opcode, argument, _) in enumerate(pickletools.genops(stream)):
        if count > MAX_OPCODES:
            raise ValueError(f"over {MAX_OPCODES} steps")
        if opcode.name == "GLOBAL" and not GLOBALS.fullmatch(str(argument)):
            raise ValueError(f"it calls {argument}")
        if "PUT" in opcode.name and last.startswith("TUPLE"):
            tuples.add(argument)
        if "GET" in opcode.name and argument in tuples:
            raise ValueError("a tuple that is named again")
        if type(argument) is int:
            largest = max(largest, argument)
        last = opcode.name
    return largest
