"""Starts in the midst of other players' episodes, recorded: everybody can be scored from the same ones.

Rusu et al. 2016 score from states of human play. Here each start lies in the first fifth of an episode that another
expert played; a start is that episode's seed and the actions until there.
"""

import hashlib
import string
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from potstill.errors import PotstillError
from potstill.files import read_json, write_json
from potstill.tasks.spec import Protocol, Task

SCHEMA = 1
SHARE = 0.2
"""Of an episode: a start lies in this first part of it."""
DIGITS = string.digits + string.ascii_lowercase
"""An action a character: the file is small and can be read."""
BUNDLED = Path(str(resources.files("potstill") / "assets" / "starts"))
"""Those that come with the package."""
EXPERT = ("name", "sha256")
MAX_STARTS, MAX_ACTIONS = 10_000, 30_000


@dataclass(frozen=True)
class Start:
    """Where an episode begins."""

    seed: int
    actions: tuple[int, ...]


@dataclass(frozen=True)
class Starts:
    """Recorded starts of a task."""

    task: str
    expert: dict[str, str]
    """Who played: its name and sha256."""
    protocol: dict[str, Any]
    """What it played by: with other settings the same actions lead elsewhere."""
    starts: tuple[Start, ...]

    @property
    def sha256(self) -> str:
        """Of what decides where episodes begin."""
        return hashlib.sha256(repr(self.starts).encode()).hexdigest()

    def write(self, path: Path, command: list[str]) -> None:
        """Write a file of starts, atomically."""
        starts = [{"seed": s.seed, "actions": "".join(DIGITS[action] for action in s.actions)} for s in self.starts]
        record = {"schema": SCHEMA, "command": command, "task": self.task, "expert": self.expert}
        write_json(path, {**record, "protocol": self.protocol, "starts": starts})

    @classmethod
    def read(cls, name: str, task: Task, episodes: int) -> "Starts":
        """The starts of a task.

        Args:
            name: `expert` for those that come with the package, or the path of a file, or of a folder of such files,
                each called as its game: Pong.json.
            task: what will be played from them.
            episodes: how many, each from a start of its own.

        Raises:
            PotstillError: there are none or too few, or they are of another task or of other settings.
        """
        path = BUNDLED if name == "expert" else Path(name)
        if path.is_dir():
            path = path / f"{task.id.removeprefix('ALE/').split('-')[0]}.json"
        if not path.exists():
            raise PotstillError(
                f"--starts {name}: no starts of {task.id} are recorded; record them with potstill starts and name that"
                " file"
            )
        content = read_json(path)
        try:
            if content["schema"] != SCHEMA or content["task"] != task.id:
                raise PotstillError(f"{path} holds starts of {content['task']}, schema {content['schema']}")
            if content["protocol"] != dynamics(task.protocol):
                raise PotstillError(f"{path}: its starts were recorded by another protocol than {task.protocol.name}")
            starts = tuple(_read_start(start, task.num_actions) for start in content["starts"])
            if not 1 <= len(starts) <= MAX_STARTS:
                raise ValueError(f"{len(starts)} starts")
            expert = {name: content["expert"][name] for name in EXPERT}
            if not all(isinstance(value, str) for value in expert.values()):
                raise ValueError("its expert")
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise PotstillError(f"{path} is no file of starts ({error})") from error
        if len(starts) < episodes:  # the same start twice would count as two that agree
            raise PotstillError(
                f"--starts {name}: {len(starts)} starts of {task.id} for {episodes} episodes: add --episodes"
                f" {len(starts)}, or record as many with potstill starts --number {episodes}"
            )
        return cls(content["task"], expert, content["protocol"], starts)


def dynamics(protocol: Protocol) -> dict[str, Any]:
    """The settings of a protocol that decide where actions lead."""
    deciding = ("noop_max", "sticky", "frame_skip", "actions", "fire_reset")
    return {name: value for name, value in protocol.record().items() if name in deciding}


def _read_start(described: dict[str, Any], num_actions: int) -> Start:
    seed, text = described["seed"], described["actions"]
    actions = tuple(map(DIGITS.index, text))
    if type(seed) is not int or not 0 <= seed < 2**31 or len(actions) > MAX_ACTIONS:
        raise ValueError("a seed or its actions")
    if any(action >= num_actions for action in actions):
        raise ValueError(f"an action that is none of {num_actions}")
    return Start(seed, actions)
