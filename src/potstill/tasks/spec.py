"""A task and the protocol it is played by: every setting named, so that it can be recorded."""

import difflib
import json
import re
import sys
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import asdict, dataclass, replace
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Literal

from potstill.choices import Act
from potstill.errors import PotstillError, in_a_line

# ale-py and Gymnasium are imported only when something is played: learning from recorded play needs neither.
if TYPE_CHECKING:
    import gymnasium

MAX_PARTS = 64
"""Of a vector that a policy sees."""
MAX_ACTION = 1e6
"""Beyond it continuous actions aren't bounded in earnest."""
OLD_ATARI = re.compile("NoFrameskip|Deterministic")
"""In gym's names of Atari's games, as in PongNoFrameskip-v4."""


@dataclass(frozen=True)
class Protocol:
    """How episodes are played. `None`: the setting doesn't exist for this kind of task."""

    name: str
    act: Act = "greedy"
    """"greedy": the best action. "sample": an action drawn from the policy's distribution."""
    epsilon: float = 0.0
    """Probability of a uniformly random action instead."""
    starts: str = "reset"
    noop_max: int | None = None
    """Up to this many no-ops before the first decision (ALE's vector env draws 0 to noop_max - 1)."""
    max_frames: int | None = None
    """Emulator frames after which an episode is cut (108,000: 30 minutes)."""
    sticky: float | None = None
    frame_skip: int | None = None
    stack: int = 1
    resolution: tuple[int, int] | None = None
    actions: str | None = None
    fire_reset: bool | None = None
    life_loss: bool | None = None
    reward_clip: bool = False
    time_feature: bool | None = None
    """The last input is the share of the time limit that is left, as RL Zoo's TimeFeatureWrapper adds it."""

    def record(self) -> dict[str, Any]:
        """The settings as JSON, those that don't exist for the task left out."""
        return {name: value for name, value in asdict(self).items() if value is not None}


RUSU2016 = Protocol(
    name="rusu2016",
    epsilon=0.05,
    starts="noop",
    noop_max=30,
    max_frames=108_000,
    sticky=0.0,
    frame_skip=4,
    stack=4,
    resolution=(84, 84),
    actions="minimal",
    fire_reset=True,
    life_loss=False,
)
"""Policy Distillation's evaluation (Rusu et al. 2016, appendix), from no-op starts."""

GYMNASIUM = Protocol(name="gymnasium")
"""A Gymnasium id as registered: its own starts and time limit, no exploration."""


@dataclass(frozen=True)
class Task:
    """Something to play: its id, its protocol, and the shapes a policy for it must have."""

    id: str
    protocol: Protocol
    observation_shape: tuple[int, ...]
    """Of one observation: (stack, height, width) uint8 frames on Atari, (n,) float32 elsewhere."""
    num_actions: int
    """How many there are to choose from; or, of a continuous action, its dimensions."""
    bounds: tuple[tuple[float, ...], tuple[float, ...]] | None = None
    """The lowest and the highest continuous action; None: actions are discrete."""
    keys: tuple[tuple[str, int, int], ...] = ()
    """Of a Dict of observations, which is seen as one vector: each key, from where until before where it lies."""
    action_names: tuple[str, ...] = ()
    """As the emulator calls them; (): they have only numbers."""

    def parts(self, flag: str, wanted: str) -> tuple[tuple[int, int], ...]:
        """Which parts of its vectors are meant: keys of a Dict or slices, as in `goal,observation` or `0:4,6:8`.

        Args:
            flag: what the user gave them by, for messages.
            wanted: them.

        Raises:
            PotstillError: there is no such part.
        """
        keys = {key: (start, stop) for key, start, stop in self.keys}
        parts: list[tuple[int, int]] = []
        if len(self.observation_shape) != 1:
            raise PotstillError(f"{flag} {wanted}: {self.id} shows frames, only vectors have parts: leave it out")
        for name in wanted.split(","):
            if name in keys:
                parts.append(keys[name])
            elif match := re.fullmatch(r"(-?[0-9]{1,6})?:(-?[0-9]{1,6})?", name):
                if any(abs(int(end or 0)) > self.observation_shape[0] for end in match.groups()):
                    break
                start, stop, _ = slice(*(end and int(end) for end in match.groups())).indices(self.observation_shape[0])
                parts.append((start, stop))
        if not 0 < len(parts) == wanted.count(",") + 1 <= MAX_PARTS or any(start >= stop for start, stop in parts):
            known = f"its keys are {', '.join(keys)}" if keys else "name slices, as in 0:4 or 0:2,5:"
            raise PotstillError(f"{flag} {wanted}: {self.id} shows {self.observation_shape[0]} numbers, {known}")
        return tuple(parts)

    @property
    def num_outputs(self) -> int:
        """Of a policy: one an action, or a mean and a log standard deviation a dimension."""
        return self.num_actions if self.bounds is None else 2 * self.num_actions

    @property
    def is_atari(self) -> bool:
        return self.id.startswith("ALE/")

    @property
    def num_kinds(self) -> int:
        """Kinds of best action that agreement is counted by: one an action; one where they are continuous."""
        return self.num_actions if self.bounds is None else 1

    @property
    def observation_dtype(self) -> Literal["uint8", "float32"]:
        return "uint8" if self.is_atari else "float32"

    def under(self, **settings: Any) -> "Task":
        """The same task with some settings of its protocol changed, those that are None apart.

        The protocol's name then ends in "*", unless only who acts how (`act`) is another. With `time_feature`
        observations are one number longer.
        """
        changed = {k: v for k, v in settings.items() if v is not None and v != getattr(self.protocol, k)}
        if not changed:
            return self
        name = self.protocol.name if changed.keys() <= {"act"} else self.protocol.name.rstrip("*") + "*"
        changed_task = replace(self, protocol=replace(self.protocol, **changed, name=name))
        if "time_feature" in changed:
            changed_task = replace(changed_task, observation_shape=(self.observation_shape[0] + 1,))
        return changed_task


@cache
def make_task(task_id: str) -> Task:
    """The task of a Gymnasium id: `ALE/Pong-v5` (by ALE's vector env) or any id with vector observations.

    Its arguments, numbers or truth values, may follow an id: `LunarLander-v3?gravity=-5&enable_wind=true`.

    Raises:
        PotstillError: no such id, a package it needs is missing, or its spaces aren't of the kinds played here.
    """
    if task_id.startswith("ALE/") or _is_old_atari(task_id):
        names = _action_names(task_id)
        return Task(
            id=task_id,
            protocol=RUSU2016,
            observation_shape=(RUSU2016.stack, *(RUSU2016.resolution or ())),
            num_actions=len(names),
            action_names=names,
        )
    return _gymnasium_task(task_id)


def rom_name(task_id: str) -> str:
    """`ALE/MsPacman-v5` → `ms_pacman`.

    Raises:
        PotstillError: the game doesn't exist, or the id isn't of that form.
    """
    games = _games()
    game, _, version = task_id.removeprefix("ALE/").partition("-")
    if "?" in version:
        raise PotstillError(f"task {task_id!r}: Atari's games take no arguments here")
    if version == "v5" and game in map(_camel_case, games.values()):
        return games[game.lower()]
    hint = _atari_like(OLD_ATARI.sub("", game), 0.5)
    raise PotstillError(f"task {task_id!r}: no such Atari game; ids look like {hint or 'ALE/Pong-v5'}")


def _games() -> dict[str, str]:
    """ALE's names of games by Gymnasium's in small letters: `mspacman` → `ms_pacman`."""
    from ale_py import roms

    return {name.replace("_", ""): name for name in roms.get_all_rom_ids()}


def _is_old_atari(task_id: str) -> bool:
    """Whether an id is one of gym's for an Atari game, as in PongNoFrameskip-v4."""
    game = task_id.partition("-")[0]
    return OLD_ATARI.search(game) is not None and OLD_ATARI.sub("", game).lower() in _games()


def _atari_like(game: str, cutoff: float) -> str | None:
    """The id of the Atari game that is called most like this, if it is enough."""
    games = _games()
    for close in difflib.get_close_matches(game.lower(), games, n=1, cutoff=cutoff):
        return f"ALE/{_camel_case(games[close])}-v5"
    return None


def _camel_case(rom: str) -> str:
    """ALE's name of a game as Gymnasium's ids have it: `ms_pacman` → `MsPacman`."""
    return "".join(part.capitalize() for part in rom.split("_"))


@cache
def _action_names(task_id: str) -> tuple[str, ...]:
    """What an Atari game's actions are called: NOOP, FIRE, UP, …"""
    return tuple(action.name for action in _emulator(task_id).getMinimalActionSet())


@cache
def screen_size(task_id: str) -> tuple[int, int]:
    """Height and width of an Atari game's screen, in pixels."""
    return _emulator(task_id).getScreenDims()


def _emulator(task_id: str) -> Any:
    import ale_py
    from ale_py import roms

    rom = rom_name(task_id)
    with _quiet_ale():
        ale = ale_py.ALEInterface()
        path = roms.get_rom_path(rom)
        if path is None:
            raise PotstillError(f"ale-py has no ROM for {rom}; reinstall ale-py")
        ale.loadROM(path)
        return ale


@contextmanager
def _quiet_ale() -> Iterator[None]:
    """ALE prints a banner for each emulator it starts."""
    import ale_py

    ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)
    try:
        yield
    finally:
        ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Warning)


@contextmanager
def _quiet_mujoco(entry_point: str) -> Iterator[None]:
    """MuJoCo warns of old models on stderr and in a log file of its own, for each environment that is made."""
    if ".mujoco" not in entry_point or find_spec("mujoco") is None:
        yield
        return
    mujoco: Any = import_module("mujoco")
    mujoco.set_mju_user_warning(lambda message: None)
    try:
        yield
    finally:
        mujoco.set_mju_user_warning(None)


def make_gymnasium_env(task_id: str, **settings: Any) -> "gymnasium.Env[Any, Any]":
    """`gymnasium.make` with the arguments in the id, its many errors turned into one line; Dicts as one vector."""
    import gymnasium
    from gymnasium.wrappers import FlattenObservation

    name, arguments = _arguments(task_id)
    try:
        quiet_mujoco = _quiet_mujoco(str(gymnasium.spec(name).entry_point))
        with warnings.catch_warnings(), quiet_mujoco, redirect_stdout(sys.stderr):  # it may greet
            warnings.simplefilter("ignore")  # its advice about ids and dtypes; what matters comes as an error
            env = gymnasium.make(name, **arguments, **settings)
        return FlattenObservation(env) if isinstance(env.observation_space, gymnasium.spaces.Dict) else env
    except gymnasium.error.DependencyNotInstalled as error:
        raise PotstillError(f"task {task_id!r} needs a package that is not installed: {error}") from error
    except gymnasium.error.Error as error:
        atari = _atari_like(name.partition("-")[0], 0.9)
        hint = f" Atari's games are called as in {atari}." if atari else " One's own: --task module:Mine-v0."
        raise PotstillError(f"task {task_id!r}: {in_a_line(error)}{hint}") from error
    except Exception as error:  # an environment may raise anything, of arguments that it doesn't take too
        raise PotstillError(f"task {task_id!r}: {in_a_line(error)}") from error


def _arguments(task_id: str) -> tuple[str, dict[str, Any]]:
    """An id and the arguments behind it. A stranger's file may name them, so no strings: some are paths."""
    name, _, query = task_id.partition("?")
    arguments: dict[str, Any] = {}
    for pair in query.split("&") if query else ():
        argument, _, text = pair.partition("=")
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            value = None
        if not argument.isidentifier() or not isinstance(value, int | float):
            raise PotstillError(f"task {task_id!r}: {pair!r} is no argument, as in ?gravity=-5&enable_wind=true")
        arguments[argument] = value
    return name, arguments


def _gymnasium_task(task_id: str) -> Task:
    from gymnasium.spaces import Box, Discrete

    env = make_gymnasium_env(task_id)
    observations, actions = env.observation_space, env.action_space
    keys = _keys(env.unwrapped.observation_space)
    env.close()
    if not isinstance(observations, Box) or len(observations.shape) != 1 or keys is None:
        shown = observations if keys is not None else env.unwrapped.observation_space
        raise PotstillError(f"task {task_id!r} has observations {shown}; only vectors are seen so far")
    if isinstance(actions, Discrete) and actions.start == 0:
        return Task(task_id, GYMNASIUM, observations.shape, int(actions.n), keys=keys)
    if isinstance(actions, Box) and len(actions.shape) == 1 and are_bounds(actions.low, actions.high):
        low, high = (tuple(map(float, bound)) for bound in (actions.low, actions.high))
        return Task(task_id, GYMNASIUM, observations.shape, len(low), (low, high), keys)
    raise PotstillError(
        f"task {task_id!r} has actions {actions}; discrete ones from 0 and vectors bounded by numbers up to"
        f" {MAX_ACTION:,.0f} are played so far"
    )


def check_share_a_trunk(tasks: Sequence[Task]) -> None:
    """Check that one network can play several tasks, each with a head of its own.

    Raises:
        PotstillError: it can't see both of two, or they are played by different protocols.
    """
    first, *more = tasks
    for task in more:
        if (task.observation_shape, task.protocol) != (first.observation_shape, first.protocol):
            raise PotstillError(
                f"{first.id} shows {first.observation_shape}, {task.id} {task.observation_shape}: tasks that share a"
                " trunk show the same and are played by the same protocol"
            )


def are_bounds(low: Iterable[float], high: Iterable[float]) -> bool:
    """Whether continuous actions can lie between them."""
    return all(-MAX_ACTION <= lowest < highest <= MAX_ACTION for lowest, highest in zip(low, high, strict=True))


def _keys(space: "gymnasium.Space[Any]") -> tuple[tuple[str, int, int], ...] | None:
    """Where each key of a Dict lies in the vector it is seen as; None: something in it is no vector."""
    from gymnasium.spaces import Box, Dict

    keys: list[tuple[str, int, int]] = []
    if isinstance(space, Dict):
        for key, part in space.items():
            if not isinstance(part, Box) or len(part.shape) != 1:
                return None
            start = keys[-1][2] if keys else 0
            keys.append((key, start, start + part.shape[0]))
    return tuple(keys)
