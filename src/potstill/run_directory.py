"""A run's folder: begun once, gone on with by --resume, its metrics written as they come.

runs/<name>/config.json    what to run again       metrics.jsonl   one JSON object a line
           /checkpoint/    where to go on from     events.out.*    the metrics for TensorBoard, where it is installed
           /result.json    the numbers, once it is finished
"""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, BinaryIO

from potstill.errors import PotstillError
from potstill.files import TEMPORARY_SUFFIX, read_json, write_json
from potstill.machine import versions

SCHEMA = 1
"""Of config.json and result.json."""


def open_run(
    out: Path, resume: bool, command: list[str], record: dict[str, Any], may_differ: tuple[str, ...] = ("teacher",)
) -> None:
    """Begin a run, or check that it is this one that is gone on with.

    Args:
        out: its folder.
        resume: go on.
        command: what was typed.
        record: all that decides what is computed.
        may_differ: what of it may be another from now on: where the teacher's file lies, or the machine.

    Raises:
        PotstillError: `out` holds something else, or was begun with other options.
    """
    config = out / "config.json"
    if not resume:
        if out.exists() and any(path.suffix != TEMPORARY_SUFFIX for path in out.iterdir()):
            raise PotstillError(f"--out {out} is not empty: add --resume to go on with it, or choose another folder")
        write_json(config, {"schema": SCHEMA, "command": command, "versions": versions(), "run": record})
        return
    if not config.exists():
        raise PotstillError(f"--resume: there is no run in {out}; leave --resume out to start one")
    begun = read_json(config)
    before = begun.get("run", {}) if isinstance(begun, dict) else {}
    now = json.loads(json.dumps(record))
    for key in {**before, **now}:
        if key not in may_differ and before.get(key) != now.get(key):
            raise PotstillError(
                f"--resume: {out} was begun with {key.replace('_', '-')} {before.get(key)}, not {now.get(key)};"
                " repeat its options, or choose another --out"
            )
    if before != now:
        write_json(config, {**begun, "run": record})


@contextmanager
def open_metrics(out: Path, kept: Callable[[dict[str, Any]], bool]) -> Iterator[BinaryIO]:
    """`metrics.jsonl`, to be written on; dropped from the first line that isn't `kept` or that a kill cut off."""
    path = out / "metrics.jsonl"
    with path.open("r+b" if path.exists() else "w+b") as file:
        end = 0
        for line in file.read().splitlines(keepends=True):
            try:
                if not kept(json.loads(line)):
                    break
            except (ValueError, KeyError):
                break
            end += len(line)
        file.seek(end)
        file.truncate()
        yield file


def write_line(metrics: BinaryIO, line: dict[str, Any]) -> None:
    """Add a line to `metrics.jsonl`."""
    metrics.write(json.dumps(line).encode() + b"\n")
    metrics.flush()


@contextmanager
def tensorboard(out: Path, purge_step: int) -> Iterator[Callable[[dict[str, float], int], None]]:
    """Writes named numbers at a step as TensorBoard events; writes nothing where TensorBoard is not installed."""
    if find_spec("tensorboard") is None:
        yield lambda scalars, step: None
        return
    from torch.utils.tensorboard.writer import SummaryWriter

    with SummaryWriter(str(out), purge_step=purge_step) as writer:

        def write(scalars: dict[str, float], step: int) -> None:
            for name, value in scalars.items():
                writer.add_scalar(name, value, step)

        yield write
