import sys
from collections.abc import Sequence
from itertools import islice

import numpy as np
import pytest
from PIL import Image

from potstill import Policy
from potstill.errors import PotstillError
from potstill.evaluate import Player, play_episodes, random_player
from potstill.tasks import Task, make_task
from potstill.tasks.starts import Start
from potstill.watch import pace, watch

CARTPOLE = make_task("CartPole-v1")
BREAKOUT = make_task("ALE/Breakout-v5").under(epsilon=1.0)


def evaluated(policy: Policy, task: Task, seed: int, episode: int, starts: Sequence[Start] | None = None) -> float:
    """The return of an episode as evaluation plays it."""
    player = Player(policy, task.protocol.act, task.protocol.epsilon, 1)
    [score] = [
        f[2] for m in play_episodes([player], task, [(0, episode)], seed, 1, starts, episode) for f in m.finished
    ]
    return score


def test_an_episode_is_one_of_evaluations(cartpole_teacher):
    task = CARTPOLE.under(epsilon=0.4, act="sample")
    scenes = watch(cartpole_teacher, task, seed=5)
    for episode in range(2):
        scene = next(scenes)
        assert (scene.score, scene.ended) == (0, False), "an episode begins"
        while not scene.ended:
            scene = next(scenes)
        assert scene.score == evaluated(cartpole_teacher, task, 5, episode)


def test_from_a_recorded_start_what_the_expert_did_is_neither_shown_nor_counted(cartpole_teacher):
    task, starts = CARTPOLE.under(epsilon=0.4), [Start(3, (0, 1, 1, 0)), Start(4, (1, 0))]
    scenes = watch(cartpole_teacher, task, seed=5, starts=starts)
    for episode in range(2):
        scene, steps = next(scenes), 0
        while not scene.ended:
            scene, steps = next(scenes), steps + 1
        assert scene.score == steps == evaluated(cartpole_teacher, task, 5, episode, starts)


def test_the_coloured_game_is_the_one_that_is_played(monkeypatch):
    policy, seen = random_player(BREAKOUT, 1).policy, []
    say = policy.outputs
    monkeypatch.setattr(policy, "outputs", lambda observations: seen.append(observations) or say(observations))
    pictures = []
    for scene in watch(policy, BREAKOUT, seed=0):  # to the end: over five lives
        pictures.append(scene.picture)
        if scene.ended:
            break
    assert scene.score == evaluated(random_player(BREAKOUT, 1).policy, BREAKOUT, 0, 0)
    assert len(pictures) == len(seen) + 1 > 100
    for picture, [observation] in zip(pictures, seen, strict=False):
        assert picture.shape == (210, 160, 3)
        grey = np.asarray(Image.fromarray(picture).convert("L").resize((84, 84), Image.Resampling.BOX), np.float32)
        assert np.abs(grey - observation[-1]).mean() < 3
    assert len({picture.tobytes() for picture in pictures}) > 50, "something moves"


def test_every_other_step_gives_the_same_play(cartpole_teacher):
    def play(every: int) -> list[float]:
        return [scene.score for scene in islice(watch(cartpole_teacher, CARTPOLE.under(epsilon=0.2), 0, every), 9)]

    assert play(3) == [3.0 * n for n in range(9)]
    assert play(1) == [1.0 * n for n in range(9)]


def test_outputs_and_action_are_those_of_the_moment(cartpole_teacher):
    for scene in islice(watch(cartpole_teacher, CARTPOLE, 0), 20):
        assert scene.outputs.shape == (2,)
        assert scene.action == scene.outputs.argmax()


@pytest.mark.parametrize(
    ("task", "expected"), [("ALE/Pong-v5", (15, 1)), ("CartPole-v1", (25, 2)), ("Pendulum-v1", (30, 1))]
)
def test_a_film_is_as_fast_as_the_game(task, expected):
    assert pace(make_task(task)) == expected


def test_a_missing_renderer_is_named_with_its_mend(cartpole_teacher, monkeypatch):
    monkeypatch.setitem(sys.modules, "pygame", None)
    with pytest.raises(PotstillError, match=r"CartPole-v1 can't be drawn here .*pip install potstill\[play\]") as error:
        next(watch(cartpole_teacher, CARTPOLE, 0))
    assert "\n" not in str(error.value)
