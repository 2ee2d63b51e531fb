"""Writing files so that a killed process leaves the old one or the new one, never half of either."""

import hashlib
import json
import math
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from potstill.errors import PotstillError

TEMPORARY_SUFFIX = ".partial"


@contextmanager
def writing(path: Path | str) -> Iterator[None]:
    """Whatever the system says against writing to a file, in one line.

    Raises:
        PotstillError: it said something.
    """
    try:
        yield
    except OSError as error:
        raise PotstillError(f"cannot write {path}: {error.strerror or error}") from error


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """The same of reading."""
    try:
        yield
    except OSError as error:
        raise PotstillError(f"cannot read {path}: {error.strerror or error}") from error


def read_bytes(path: Path, limit: int) -> bytes:
    """A whole file.

    Raises:
        PotstillError: it has more than `limit` bytes, or can't be read.
    """
    with reading(path), path.open("rb") as file:
        content = file.read(limit + 1)
    if len(content) > limit:
        raise PotstillError(f"{path} has over {limit} bytes and is not read")
    return content


def refuse_pointer(path: Path, start: bytes) -> None:
    """Refuse what stands in a clone for a file that Git LFS keeps.

    Raises:
        PotstillError: it begins like that.
    """
    if start.startswith(b"version https://"):
        raise PotstillError(f"{path} only points to the file, which Git LFS keeps: git lfs pull")


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file, atomically."""
    with atomic_write(path) as file:
        file.write(content)


@contextmanager
def atomic_write(path: Path) -> Iterator[BinaryIO]:
    """Open a temporary file beside `path`; on success fsync it and rename it into place.

    Raises:
        PotstillError: the folder can't be written or the disk is full; `path` is as it was.
    """
    unfinished = path.parent / f"{path.name}.{secrets.token_hex(4)}{TEMPORARY_SUFFIX}"
    try:
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with unfinished.open("xb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            unfinished.replace(path)
            _fsync_folder(path.parent)
    finally:
        with suppress(OSError):  # in place, or never begun
            unfinished.unlink()


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, atomically."""
    write_bytes(path, to_json(value))


def to_json(value: Any) -> bytes:
    """Indented JSON, as a file of it is written."""
    return (json.dumps(value, indent=1, allow_nan=False, ensure_ascii=False) + "\n").encode()


def read_json(path: Path) -> Any:
    """Read a JSON file, all of whose numbers are finite: others couldn't be written again.

    Raises:
        PotstillError: it is missing, unreadable or not JSON.
    """
    try:
        with reading(path):
            return json.loads(path.read_text(encoding="utf-8"), parse_constant=_finite, parse_float=_finite)
    except (ValueError, RecursionError) as error:
        raise PotstillError(f"{path} is not a JSON file ({error})") from error


def _finite(number: str) -> float:
    if not math.isfinite(value := float(number)):
        raise ValueError(f"{number} is no number")
    return value


def sha256(path: Path) -> str:
    """The file's SHA-256, in hex."""
    with reading(path), path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _fsync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
