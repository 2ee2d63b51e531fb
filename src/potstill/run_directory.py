"""A run's folder: begun once, gone on with by --resume, its metrics written as they come.

runs/<name>/config.json    what to run again       metrics.jsonl   one JSON object a line
           /checkpoint/    where to go on from     events.out.*    the metrics for TensorBoard, where it is installed
           /learnt.json    in its place once a distillation has learnt: with config.json and students/ it can be scored
           /scored.json    and the tasks scored so far, until it is finished
           /result.json    the numbers, once it is
           /.lock          locked by the process that works on it
"""

import fcntl
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from io import FileIO
from pathlib import Path
from typing import Any

from potstill.errors import PotstillError, named
from potstill.files import TEMPORARY_SUFFIX, read_json, write_json, writing
from potstill.machine import versions

SCHEMA = 1
"""Of config.json and result.json."""
FILES = ("teacher", "data", "starts")
"""Options that name files; their checksums stand beside them."""
OF_THE_MACHINE = ("device", "precision", "threads")
"""Options that may be others on another machine."""
LOCK = ".lock"


def open_run(
    out: Path,
    resume: bool,
    command: list[str],
    record: dict[str, Any],
    may_differ: tuple[str, ...] = FILES,
    learnt: bool = False,
) -> None:
    """Begin a run, or check that it is this one that is gone on with.

    Args:
        out: its folder.
        resume: go on, if it was begun.
        command: what was typed.
        record: all that decides what is computed.
        may_differ: what of it may be another from now on: where files lie, whose checksums must be the same, or the
            machine.
        learnt: nothing is left to be learnt: config.json stays as it was begun, maybe on another machine.

    Raises:
        PotstillError: `out` holds something else, was begun with other options, or is another process's.
    """
    config = out / "config.json"
    if not resume or not config.exists():
        mend = "it holds no run to go on with;" if resume else "add --resume to go on with it, or"
        check_empty(out, f"{mend} choose another folder")
        lock(out)
        write_json(config, {"schema": SCHEMA, "command": command, "versions": versions(), "run": record})
        return
    lock(out)
    with as_written(config):
        begun = read_json(config)
        before: dict[str, Any] = {**begun["run"]}
        begun_by = [str(word) for word in begun["command"][1:2]]
    now = json.loads(json.dumps(record))
    commands = {*begun_by, *command[1:2]}
    if len(commands) > 1 and ("record" in commands or before.keys() != now.keys()):
        raise PotstillError(f"--resume: {out} was begun by potstill {_typed(begun_by)}; choose another --out")
    for key in {**before, **now}:
        if key not in (*may_differ, *(OF_THE_MACHINE if learnt else ())) and before.get(key) != now.get(key):
            raise PotstillError(
                f"--resume: {out} was begun with {key.replace('_', '-')} {_typed(before.get(key))}, not"
                f" {_typed(now.get(key))};"
                " repeat its options, or choose another --out"
            )
    if before != now and not learnt:
        write_json(config, {**begun, "run": record})


@contextmanager
def as_written(what: Path | str, mend: str = "; choose another --out") -> Iterator[None]:
    """Whatever fails within because a run's JSON files, maybe a stranger's, have other contents than a run's is one
    line.

    Args:
        what: the files.
        mend: how the line ends.

    Raises:
        PotstillError: it did.
    """
    try:
        yield
    except PotstillError:
        raise
    except Exception as error:  # drawing and templates raise their own kinds
        raise PotstillError(f"{what} is not what a run writes ({named(error, 200)}){mend}") from error


def _typed(value: Any) -> Any:
    """An option's value as it is typed, names of students before their networks."""
    if isinstance(value, dict):
        value = [f"{name}={of}" for name, of in value.items()]
    return " ".join(map(str, value)) if isinstance(value, list) else value


def lock(out: Path) -> None:
    """Lock a folder until this process ends, however it ends; it may lock it again, and mustn't open the file else.

    Raises:
        PotstillError: another process has locked it.
    """
    with writing(out / LOCK):
        out.mkdir(parents=True, exist_ok=True)
        file = os.open(out / LOCK, os.O_RDWR | os.O_CREAT, 0o666)  # never closed, which would unlock it
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError) as error:
        os.close(file)
        raise PotstillError(f"{out} is being worked on by another process; wait for its end, or stop it") from error
    except OSError:  # a file system without locks
        os.close(file)


def check_empty(out: Path, mend: str) -> None:
    """Check that a folder is free to be written to; what a killed process left half-written in it doesn't count.

    Raises:
        PotstillError: it isn't, with the mend.
    """
    if out.exists() and not out.is_dir():
        raise PotstillError(f"--out {out} is a file: name a folder")
    if out.exists() and any(path.suffix != TEMPORARY_SUFFIX and path.name != LOCK for path in out.iterdir()):
        raise PotstillError(f"--out {out} is not empty: {mend}")


def student_file(name: str) -> str:
    """Where a student's policy is within a run's folder."""
    return f"students/{name}.safetensors"


@contextmanager
def open_metrics(out: Path, kept: Callable[[dict[str, Any]], bool]) -> Iterator[FileIO]:
    """`metrics.jsonl`, to be written on; dropped from the first line that isn't `kept` or that a kill cut off."""
    path = out / "metrics.jsonl"
    with writing(path):
        file = path.open("r+b" if path.exists() else "w+b", buffering=0)
    with file:
        end = 0
        for line in file.read().splitlines(keepends=True):
            try:
                if not line.endswith(b"\n") or not kept(json.loads(line)):
                    break
            except (ValueError, KeyError, TypeError):
                break
            end += len(line)
        file.seek(end)
        file.truncate()
        yield file


def write_line(metrics: FileIO, line: dict[str, Any]) -> None:
    """Add a line to `metrics.jsonl`."""
    left = json.dumps(line).encode() + b"\n"
    with writing(metrics.name):
        while left:  # a disk that fills up takes a part first, and complains at the next
            left = left[metrics.write(left) :]


def sync(metrics: FileIO) -> None:
    """When this returns, what was added is on the disk."""
    with writing(metrics.name):
        os.fsync(metrics.fileno())


@contextmanager
def tensorboard(out: Path, purge_step: int) -> Iterator[Callable[[dict[str, float], int], None]]:
    """Writes named numbers at a step as TensorBoard events; writes nothing where TensorBoard is not installed."""
    if find_spec("tensorboard") is None:
        yield lambda scalars, step: None
        return
    from torch.utils.tensorboard.writer import SummaryWriter

    with writing(out):
        writer = SummaryWriter(str(out), purge_step=purge_step)

    def write(scalars: dict[str, float], step: int) -> None:
        with writing(out):
            for name, value in scalars.items():
                writer.add_scalar(name, value, step)

    try:
        yield write
    finally:
        with writing(out):
            writer.close()
