"""Many copies of a task, played in step, every episode one that can be come back to.

An episode is a pure function of a seed, the number of resets since that seed, and the actions taken
in it. Nothing else has to be saved to come back to the middle of one: ALE's vector env can't save the
emulator's state, but it can be seeded, reset one copy at a time, and stepped again.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from potstill.errors import PotstillError, named
from potstill.tasks.spec import Task, make_gymnasium_env, rom_name

if TYPE_CHECKING:
    from gymnasium import Env
    from gymnasium.vector import VectorEnv

ATARI_EPISODES_A_SEED = 32
"""For a seed ALE loads the ROM again: 0.1 s, as long as 300 control steps. Without sticky actions a reset alone does as
well: how many no-ops follow is all that chance decides, and it draws once a reset, whatever was played in between."""


@dataclass(frozen=True)
class EpisodeSeeds:
    """A seed for each episode that gets one. Training seeds are even and evaluation seeds odd: they can't meet."""

    seed: int
    stream: Literal["training", "evaluation"]

    def __call__(self, env: int, episode: int) -> int:
        """The 31-bit seed of the `episode`-th episode of copy `env`."""
        drawn = np.random.SeedSequence([self.seed, env, episode]).generate_state(1, np.uint32)[0]
        return 2 * (int(drawn) >> 2) + (self.stream == "evaluation")


@dataclass(frozen=True)
class Finished:
    """An episode that has ended."""

    env: int
    score: float
    """The undiscounted, unclipped sum of rewards."""
    length: int
    """Control steps."""


@dataclass
class Envs:
    """`num_envs` copies of a task. Reads: `observations`, `age`, what the last step brought. Moves: `step`.

    There are no dead rows between episodes: an ended copy is reset before `step` returns.
    """

    task: Task
    num_envs: int
    seeds: Callable[[int, int], int]
    """From (copy, how many episodes it played before) to the next one's seed, as `EpisodeSeeds` does. Atari's copies
    ask for one each 32 episodes, and only reset for the others."""
    threads: int = 0
    """Emulator threads (Atari); 0: one a core."""
    seed_each: bool = False
    """Ask for a seed for every episode, on Atari too."""

    observations: np.ndarray = field(init=False)
    """(num_envs, *observation_shape): what each copy shows now."""
    age: np.ndarray = field(init=False)
    """(num_envs,) control steps since each copy's episode began: 0 at its first observation."""
    episode: np.ndarray = field(init=False)
    """(num_envs,) which of its episodes each copy is in."""
    rewards: np.ndarray = field(init=False)
    """(num_envs,) of the last step, unclipped."""
    terminated: np.ndarray = field(init=False)
    """(num_envs,) whether the last step ended an episode by the task's rules."""
    truncated: np.ndarray = field(init=False)
    """(num_envs,) whether it was cut off by the time limit."""
    lost_life: np.ndarray = field(init=False)
    """(num_envs,) whether a life was lost (Atari)."""

    def __post_init__(self) -> None:
        with self._named():
            self._vector = make_vector_env(self.task, self.num_envs, self.threads)
        many = self.task.is_atari and not self.task.protocol.sticky and not self.seed_each
        self._episodes_a_seed = ATARI_EPISODES_A_SEED if many else 1
        self._restart(np.zeros(self.num_envs, dtype=np.int64))

    def step(self, actions: np.ndarray) -> list[Finished]:
        """Take one action in every copy; returns the episodes that ended with it.

        Args:
            actions: (num_envs,) int64; (num_envs, num_actions) float32 where actions are continuous.
        """
        self._step(actions)
        for history, action in zip(self._actions, actions.tolist(), strict=True):
            history.append(action)
        self._scores += self.rewards
        self.age += 1
        ended = self.terminated | self.truncated
        if not ended.any():
            return []
        finished = [Finished(e, float(self._scores[e]), int(self.age[e])) for e in np.flatnonzero(ended).tolist()]
        self.episode[ended] += 1
        self._begin(ended, from_seed=False)
        return finished

    def snapshot(self) -> dict[str, Any]:
        """All that is needed to come back to this moment, as JSON: episodes and the actions in them."""
        return {"episode": self.episode.tolist(), "actions": [list(history) for history in self._actions]}

    def restore(self, snapshot: dict[str, Any]) -> None:
        """Come back to a `snapshot` by playing its actions again, all copies arriving together."""
        histories: list[list[Any]] = snapshot["actions"]
        idle = 0 if self.task.bounds is None else self.task.bounds[0]
        self._restart(np.asarray(snapshot["episode"], dtype=np.int64))
        lengths = np.array([len(history) for history in histories])
        longest = int(lengths.max(initial=0))
        for tick in range(longest):
            starting = lengths == longest - tick
            if tick and starting.any():
                self._begin(starting, from_seed=True)
            into = tick - (longest - lengths)
            actions = [h[i] if i >= 0 else idle for h, i in zip(histories, into.tolist(), strict=True)]
            self._step(np.array(actions, dtype=np.int64 if self.task.bounds is None else np.float32))
            self._scores += self.rewards
            waiting = (self.terminated | self.truncated) & (into < 0)
            if waiting.any():  # a copy that waits for its turn came to an end meanwhile
                self._begin(waiting, from_seed=False)
        if (lengths == 0).any():
            self._begin(lengths == 0, from_seed=True)
        self.age = lengths.astype(np.int64)
        self._actions = [list(history) for history in histories]

    def close(self) -> None:
        self._vector.close()

    def _restart(self, episode: np.ndarray) -> None:
        self.episode = episode
        self.age = np.zeros(self.num_envs, dtype=np.int64)
        self._scores = np.zeros(self.num_envs)
        self._actions: list[list[Any]] = [[] for _ in range(self.num_envs)]
        self._begin(np.ones(self.num_envs, dtype=bool), from_seed=True)

    def _begin(self, which: np.ndarray, from_seed: bool) -> None:
        """Reset the copies of the (num_envs,) mask to the start of the episode each is in.

        Args:
            which: the copies.
            from_seed: come from the seed, over the resets since; otherwise from the episode before.
        """
        since = self.episode % self._episodes_a_seed
        if from_seed:
            for resets in range(int(since[which].max()) + 1):
                self._reset(which & (since >= resets), seeded=resets == 0)
        else:
            for seeded in (True, False):
                if (chosen := which & ((since == 0) == seeded)).any():
                    self._reset(chosen, seeded)
        self.age[which] = 0
        self._scores[which] = 0
        for env in np.flatnonzero(which).tolist():
            self._actions[env] = []

    def _reset(self, which: np.ndarray, seeded: bool) -> None:
        seeds: dict[int, int] = {}
        if seeded:
            first = self.episode - self.episode % self._episodes_a_seed
            seeds = {env: self.seeds(env, int(first[env])) for env in np.flatnonzero(which).tolist()}
        if self.task.is_atari:
            seed: Any = np.array(list(seeds.values())) if seeded else None
        else:
            seed = [seeds.get(env) for env in range(self.num_envs)]
        with self._named():
            options = {"reset_mask": which} if not which.all() else None
            observations, infos = self._vector.reset(seed=seed, options=options)
        self.observations = self._cast(observations)
        self._lives = self._lives_of(infos)

    def _step(self, actions: np.ndarray) -> None:
        with self._named():
            observations, self.rewards, self.terminated, self.truncated, infos = self._vector.step(actions)
        if not np.isfinite(self.rewards).all():  # a score of such rewards is none, which would only be seen in the end
            raise PotstillError(f"{self.task.id} gives a reward that is no finite number: mend the environment")
        self.observations = self._cast(observations)
        lives = self._lives_of(infos)
        self.lost_life = lives < self._lives
        self._lives = lives

    @contextmanager
    def _named(self) -> Iterator[None]:
        """An environment may be anybody's, and raise anything: say whose it is."""
        try:
            yield
        except PotstillError:
            raise
        except (Exception, SystemExit) as error:
            raise PotstillError(f"{self.task.id} failed: {named(error)}") from error

    def _lives_of(self, infos: dict[str, Any]) -> np.ndarray:
        return infos["lives"] if self.task.is_atari else np.zeros(self.num_envs, np.int32)

    def _cast(self, observations: np.ndarray) -> np.ndarray:
        return observations.astype(self.task.observation_dtype, copy=False)


def make_vector_env(task: Task, num_envs: int, threads: int, **other: Any) -> "VectorEnv[Any, Any, Any]":
    """The library's own vector env of a task, with its protocol's settings (`Envs` resets ended copies before it).

    Args:
        task: what is played.
        num_envs: copies.
        threads: of emulators (Atari).
        other: settings of the library's that are to be others.
    """
    from ale_py.vector_env import AtariVectorEnv
    from gymnasium.vector import AutoresetMode, SyncVectorEnv

    protocol = task.protocol
    if not task.is_atari:
        make_one = _make_with_time if protocol.time_feature else make_gymnasium_env
        return SyncVectorEnv([lambda: make_one(task.id, **other)] * num_envs, autoreset_mode=AutoresetMode.NEXT_STEP)
    assert protocol.resolution is not None
    assert protocol.max_frames is not None
    assert protocol.frame_skip is not None
    height, width = protocol.resolution
    make = partial(
        AtariVectorEnv,
        rom_name(task.id),
        num_envs,
        num_threads=threads,
        max_num_frames_per_episode=protocol.max_frames,
        repeat_action_probability=protocol.sticky or 0.0,
        full_action_space=protocol.actions == "full",
        autoreset_mode=AutoresetMode.NEXT_STEP,
        img_height=height,
        img_width=width,
        stack_num=protocol.stack,
        frameskip=protocol.frame_skip,
        noop_max=protocol.noop_max or 0,
        use_fire_reset=bool(protocol.fire_reset),
        episodic_life=bool(protocol.life_loss),
        reward_clipping=protocol.reward_clip,
    )
    return make(**other)


def _make_with_time(task_id: str, **other: Any) -> "Env[Any, Any]":
    """An env whose last input falls from 1 to 0 over its time limit."""
    from gymnasium.wrappers import TimeAwareObservation, TransformObservation

    env = TimeAwareObservation(make_gymnasium_env(task_id, **other), flatten=True, normalize_time=True)
    return TransformObservation(env, lambda seen: np.append(seen[:-1], 1 - seen[-1]), env.observation_space)
