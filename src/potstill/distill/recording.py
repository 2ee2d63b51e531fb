"""Recorded play: a sealed file for each hour, and a manifest that says what was played, by whom and how.

Learning from a recording needs no environment and no teacher: observations and labels are in it.
"""

import hashlib
import json
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast, get_args

from potstill.actions import read_actions
from potstill.choices import Act
from potstill.distill.schedule import STEPS_PER_HOUR
from potstill.errors import PotstillError
from potstill.files import read_json, sha256, write_json
from potstill.memory import Replay
from potstill.policy import TEMPERATURE
from potstill.tasks import Protocol, Task

SCHEMA = 1
MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Recording:
    """A folder of recorded play, as its manifest describes it."""

    folder: Path
    task: Task
    teacher: dict[str, Any]
    """The player's name, sha256, network, parameters and outputs ("q", "logits" or "gaussian"); of a Gaussian its
    actions, too."""
    envs: int
    play_epsilon: float
    hours: float
    shards: list[dict[str, Any]]
    """Each hour's file, rows and sha256."""

    def write(self, command: list[str]) -> None:
        """Write the manifest, atomically."""
        task = self.task
        write_json(
            self.folder / MANIFEST,
            {
                "schema": SCHEMA,
                "command": command,
                "task": task.id,
                "protocol": task.protocol.record(),
                "observation_shape": task.observation_shape,
                "num_actions": task.num_actions,
                "keys": task.keys,
                "teacher": self.teacher,
                "envs": self.envs,
                "play_epsilon": self.play_epsilon,
                "hours": self.hours,
                "shards": self.shards,
            },
        )

    def checksum(self, hours: int) -> str:
        """SHA-256 of what is learnt from its first hours: a recording may have grown since."""
        said = [self.task.id, self.task.protocol.record(), self.teacher, self.envs, self.play_epsilon]
        return hashlib.sha256(json.dumps([*said, self.shards[:hours]]).encode()).hexdigest()

    @classmethod
    def open(cls, folder: Path) -> "Recording":
        """Read a manifest.

        Raises:
            PotstillError: there is none, or it isn't one.
        """
        if not (folder / MANIFEST).exists():
            raise PotstillError(f"--data {folder} has no {MANIFEST}: record one with potstill record")
        content = read_json(folder / MANIFEST)
        try:
            if content["schema"] != SCHEMA:
                raise PotstillError(
                    f"{folder / MANIFEST} is of schema {content['schema']}, this potstill reads {SCHEMA}"
                )
            protocol: dict[str, Any] = {
                name: tuple(value) if isinstance(value, list) else value for name, value in content["protocol"].items()
            }
            teacher, bounds = content["teacher"], None
            if teacher["outputs"] == "gaussian":
                actions = read_actions(teacher["actions"], content["num_actions"])
                bounds = (actions.low, actions.high)
            shape = tuple(content["observation_shape"])
            keys = tuple((str(key), start, stop) for key, start, stop in content.get("keys", ()))
            if not all(type(start) is type(stop) is int and 0 <= start < stop <= shape[0] for _, start, stop in keys):
                raise ValueError("its keys")
            task = Task(content["task"], Protocol(**protocol), shape, content["num_actions"], bounds, keys)
            shards = cast(list[dict[str, Any]], content["shards"])
            numbers = (*task.observation_shape, task.num_actions, content["envs"], task.protocol.stack)
            numbers += tuple(shard["rows"] for shard in shards)
            if not all(type(number) is int and 0 < number <= 2**24 for number in numbers):
                raise ValueError("a size is no number")
            hours = float(content["hours"])
            if (
                not 0 < hours < math.inf
                or len(shards) != math.ceil(hours)
                or not isinstance(task.id, str)
                or ":" in task.id
            ):
                raise ValueError(f"{hours} hours of {task.id} in {len(shards)} files")
            if (
                type(teacher["parameters"]) is not int
                or teacher["outputs"] not in TEMPERATURE
                or not all(isinstance(teacher[key], str) for key in ("name", "network"))
                or not isinstance(teacher["sha256"], str | None)
                or any(Path(s["file"]).name != s["file"] or not s["file"].isprintable() for s in shards)
                or not all(isinstance(s["sha256"], str) for s in shards)
            ):
                raise ValueError("its teacher or its files")
            epsilon = float(content["play_epsilon"])
            if not (0 <= epsilon <= 1 and 0 <= task.protocol.epsilon <= 1 and task.protocol.act in get_args(Act)):
                raise ValueError("how it was played")
            return cls(folder, task, teacher, content["envs"], epsilon, hours, shards)
        except (LookupError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise PotstillError(f"{folder / MANIFEST} does not describe recorded play ({error})") from error

    def read(self, memory: Replay, hour: int, rows: int) -> None:
        """Add the first `rows` rows of an hour (1 is the first) to a memory.

        Raises:
            PotstillError: the file is missing, damaged or not the one the manifest names.
        """
        shard = self.shards[hour - 1]
        path = self.folder / shard["file"]
        if sha256(path) != shard["sha256"]:
            raise PotstillError(f"{path} is damaged: its checksum is not the manifest's; record it again")
        memory.unseal(path, rows, most=math.ceil(STEPS_PER_HOUR / self.envs))


def seal_hour(recording: Recording, memory: Replay, hour: int, first_row: int, hours: float) -> Recording:
    """Write an hour's rows; returns the recording with them, which is so many `hours` long then."""
    path = recording.folder / f"play-{hour:04}.npz"
    memory.seal(path, first_row, memory.rows)
    shard = {"file": path.name, "rows": memory.rows - first_row, "sha256": sha256(path)}
    return replace(recording, shards=[*recording.shards[: hour - 1], shard], hours=hours)
