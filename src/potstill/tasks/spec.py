"""A task and the protocol it is played by: every setting named, so that it can be recorded."""

import difflib
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

from potstill.errors import PotstillError

# ale-py and Gymnasium are imported only when something is played: learning from recorded play needs neither.
if TYPE_CHECKING:
    import gymnasium

Act = Literal["greedy", "sample"]


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

    @property
    def num_outputs(self) -> int:
        """Of a policy: one an action, or a mean and a log standard deviation a dimension."""
        return self.num_actions if self.bounds is None else 2 * self.num_actions

    @property
    def is_atari(self) -> bool:
        return self.id.startswith("ALE/")

    @property
    def observation_dtype(self) -> Literal["uint8", "float32"]:
        return "uint8" if self.is_atari else "float32"

    def under(self, **settings: Any) -> "Task":
        """The same task with some settings of its protocol changed; its name then ends in "*"."""
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

    Raises:
        PotstillError: no such id, a package it needs is missing, or its spaces aren't of the kinds played here.
    """
    if task_id.startswith("ALE/"):
        return Task(
            id=task_id,
            protocol=RUSU2016,
            observation_shape=(RUSU2016.stack, *(RUSU2016.resolution or ())),
            num_actions=_minimal_actions(rom_name(task_id)),
        )
    return _gymnasium_task(task_id)


def rom_name(task_id: str) -> str:
    """`ALE/MsPacman-v5` → `ms_pacman`.

    Raises:
        PotstillError: the game doesn't exist, or the id isn't of that form.
    """
    from ale_py import roms

    games = {name.replace("_", ""): name for name in roms.get_all_rom_ids()}
    game, _, version = task_id.removeprefix("ALE/").partition("-")
    if version == "v5" and game.lower() in games:
        return games[game.lower()]
    close = difflib.get_close_matches(game.lower(), games, n=1, cutoff=0.5)
    hint = "".join(part.capitalize() for part in games[close[0]].split("_")) if close else "Pong"
    raise PotstillError(f"--task {task_id}: no such Atari game; ids look like ALE/{hint}-v5")


def _minimal_actions(rom: str) -> int:
    import ale_py
    from ale_py import roms

    with _quiet_ale():
        ale = ale_py.ALEInterface()
        path = roms.get_rom_path(rom)
        if path is None:
            raise PotstillError(f"ale-py has no ROM for {rom}; reinstall ale-py")
        ale.loadROM(path)
        return len(ale.getMinimalActionSet())


@contextmanager
def _quiet_ale() -> Iterator[None]:
    """ALE prints a banner for each emulator it starts."""
    import ale_py

    ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)
    try:
        yield
    finally:
        ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Warning)


def make_gymnasium_env(task_id: str) -> "gymnasium.Env[Any, Any]":
    """`gymnasium.make`, with its many errors turned into one line."""
    import gymnasium

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # its advice about ids and dtypes; what matters comes as an error
            return gymnasium.make(task_id)
    except gymnasium.error.DependencyNotInstalled as error:
        raise PotstillError(f"--task {task_id} needs a package that is not installed: {error}") from error
    except (gymnasium.error.Error, ImportError) as error:
        raise PotstillError(f"--task {task_id}: {' '.join(str(error).split())}") from error


def _gymnasium_task(task_id: str) -> Task:
    from gymnasium.spaces import Box, Discrete

    env = make_gymnasium_env(task_id)
    observations, actions = env.observation_space, env.action_space
    env.close()
    if not isinstance(observations, Box) or len(observations.shape) != 1:
        raise PotstillError(f"--task {task_id} has observations {observations}; only vectors are seen so far")
    if isinstance(actions, Discrete) and actions.start == 0:
        return Task(task_id, GYMNASIUM, observations.shape, int(actions.n))
    if isinstance(actions, Box) and len(actions.shape) == 1 and actions.is_bounded():
        low, high = (tuple(map(float, bound)) for bound in (actions.low, actions.high))
        return Task(task_id, GYMNASIUM, observations.shape, len(low), (low, high))
    raise PotstillError(
        f"--task {task_id} has actions {actions}; discrete ones from 0 and bounded vectors are played so far"
    )
