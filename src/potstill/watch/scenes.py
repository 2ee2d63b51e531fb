"""A policy's play as pictures: what a person would see at each moment, and what the policy said of it."""

import math
import os
import sys
import warnings
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

import numpy as np

from potstill.chance import Stream
from potstill.errors import PotstillError, in_a_line
from potstill.evaluate.play import MAX_ENVS
from potstill.policy import Policy
from potstill.tasks import EpisodeSeeds, Task
from potstill.tasks.envs import make_vector_env
from potstill.tasks.spec import make_gymnasium_env, screen_size
from potstill.tasks.starts import Start

MAX_RATE = 30
"""Pictures a second; faster tasks leave some out."""


@dataclass(frozen=True)
class Scene:
    """One moment of an episode."""

    picture: np.ndarray
    """(height, width, 3) uint8, RGB."""
    outputs: np.ndarray
    """(outputs,) float32: what the policy said of this moment."""
    action: int | np.ndarray
    """What was chosen; continuous: (num_actions,) float32. After the end: what was chosen last."""
    score: float
    """The rewards until now, unclipped."""
    ended: bool
    """Whether this is what the last step led to."""


def watch(
    policy: Policy, task: Task, seed: int, every: int = 1, starts: Sequence[Start] | None = None
) -> Generator[Scene]:
    """Episode after episode, without end, as `play_episodes` plays each of them alone: same starts, same chance.

    Args:
        policy: who plays; it sees what it sees in evaluation.
        task: what is played, with its protocol's act and epsilon.
        seed: of the starts and of chance.
        every: steps to a scene. The end of an episode always is one.
        starts: where episodes begin, as for `play_episodes`.

    Raises:
        PotstillError: the task can't be drawn here.
    """
    vectors = _make(task)
    try:
        for episode in count():
            rng = np.random.default_rng([seed, Stream.SCORE, episode])
            start = Start(EpisodeSeeds(seed, "evaluation")(MAX_ENVS * episode, 0), ())
            if starts is not None:
                start = starts[episode % len(starts)]
            first: Any = np.array([start.seed]) if task.is_atari else [start.seed]
            shown = [vector.reset(seed=first)[0] for vector in vectors]
            for action in start.actions:
                shown = [vector.step(np.array([action]))[0] for vector in vectors]
            score, ended, step = 0.0, False, 0
            outputs = action = np.zeros(0)
            while not ended:
                said = policy.outputs(shown[0].astype(task.observation_dtype, copy=False))
                actions = policy.choose(said, task.protocol.epsilon, rng, task.protocol.act)
                outputs, action = said[0].numpy(), actions[0]
                if step % every == 0:
                    yield Scene(_picture(task, vectors[-1], shown[-1]), outputs, action, score, False)
                steps = [vector.step(actions) for vector in vectors]
                shown = [each[0] for each in steps]
                _, rewards, terminated, truncated, _ = steps[0]
                score, ended, step = score + float(rewards[0]), bool(terminated[0] or truncated[0]), step + 1
            yield Scene(_picture(task, vectors[-1], shown[-1]), outputs, action, score, True)
    finally:
        for vector in vectors:
            vector.close()


def pace(task: Task) -> tuple[float, int]:
    """Pictures a second at which a task looks as fast as it is, and how many steps there are to each."""
    if task.is_atari:
        assert task.protocol.frame_skip is not None
        rate = 60 / task.protocol.frame_skip
    else:
        env = make_gymnasium_env(task.id)
        rate = float(env.metadata.get("render_fps") or MAX_RATE)
        env.close()
    every = math.ceil(rate / MAX_RATE)
    return rate / every, every


def has_display() -> bool:
    """Whether there is a screen to open a window on."""
    return sys.platform == "darwin" or any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))


def _make(task: Task) -> list[Any]:
    """One copy of the task to be played; on Atari another, in colour, that is played in step with it."""
    if task.is_atari:
        height, width = screen_size(task.id)
        colour = make_vector_env(task, 1, 1, grayscale=False, img_height=height, img_width=width, stack_num=1)
        return [make_vector_env(task, 1, 1), colour]
    # pygame greets on stdout and looks for loudspeakers, MuJoCo for a window.
    quiet = {"PYGAME_HIDE_SUPPORT_PROMPT": "1", "SDL_AUDIODRIVER": "dummy"}
    if not has_display():
        quiet |= {"SDL_VIDEODRIVER": "dummy", "MUJOCO_GL": "egl"}
    for name, value in quiet.items():
        os.environ.setdefault(name, value)
    try:
        return [make_vector_env(task, 1, 1, render_mode="rgb_array")]
    except PotstillError as error:
        raise _no_picture(task, error) from error


def _picture(task: Task, vector: Any, shown: np.ndarray) -> np.ndarray:
    """What a person would see now."""
    if task.is_atari:
        return shown[0, -1].copy()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of old models, fonts and displays; what matters comes as an error
            [picture] = vector.render()
    except Exception as error:  # a renderer may raise anything
        raise _no_picture(task, error) from error
    if not (isinstance(picture, np.ndarray) and picture.ndim == 3 and picture.dtype == np.uint8):
        raise _no_picture(task, TypeError("its rgb_array is no picture"))
    return picture


def _no_picture(task: Task, error: Exception) -> PotstillError:
    reason = in_a_line(error)
    mends = "pip install potstill[play] draws Gymnasium's own tasks; MuJoCo's need OpenGL, see MUJOCO_GL"
    return PotstillError(f"{task.id} can't be drawn here ({reason}); {mends}")
