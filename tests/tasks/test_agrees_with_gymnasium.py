"""ALE's vector env against Gymnasium's own AtariPreprocessing and FrameStackObservation.

Where the two can agree they do, to the pixel, for whole stretches of play that cross game over:
observations, rewards, ends. Where they differ by design the tests set both alike, and these are the differences:

- no-ops: Gymnasium draws 1 to noop_max, ALE's vector env 0 to noop_max − 1 (here: none at all);
- FIRE: the vector env presses it at reset where the game has it, AtariPreprocessing doesn't
  (off here; `test_fire_at_reset…` below presses it by hand);
- the stack before an episode's first frames: zeros in the vector env, copies of the first frame in
  FrameStackObservation by default (`padding_type="zero"` here);
- life loss: not an end in either (`episodic_life` would restart the whole game in the vector env);
- sticky actions: the v5 ids default to 0.25, the vector env to 0; both are given 0.
"""

import ale_py
import gymnasium
import numpy as np
import pytest
from gymnasium.wrappers import AtariPreprocessing, FrameStackObservation

from potstill.tasks import Envs, EpisodeSeeds, make_task

gymnasium.register_envs(ale_py)

SEEDS = EpisodeSeeds(3, "training")


def scalar(task_id: str) -> gymnasium.Env:
    env = gymnasium.make(task_id, frameskip=1, repeat_action_probability=0.0, full_action_space=False)
    env = AtariPreprocessing(env, noop_max=0, frame_skip=4, screen_size=84, grayscale_obs=True)
    return FrameStackObservation(env, 4, padding_type="zero")


@pytest.mark.parametrize("game", ["Pong", "Breakout", "SpaceInvaders", "Qbert", "Enduro"])
def test_observations_rewards_and_ends_agree(game):
    task_id = f"ALE/{game}-v5"
    task = make_task(task_id).under(noop_max=0, fire_reset=False)
    envs, env = Envs(task, 1, SEEDS, threads=1), scalar(task_id)
    expected, _ = env.reset(seed=0)
    rng = np.random.default_rng(0)
    score = episodes = 0
    for _ in range(700):
        np.testing.assert_array_equal(envs.observations[0], expected)
        action = int(rng.integers(0, task.num_actions))
        finished = envs.step(np.array([action]))
        expected, reward, terminated, truncated, _ = env.step(action)
        score += float(reward)
        assert bool(finished) == (terminated or truncated)
        if finished:
            assert finished[0].score == score
            expected, _ = env.reset()
            score, episodes = 0, episodes + 1
    assert episodes or game in ("Pong", "Enduro")  # random play doesn't end these within 700 steps
    env.close()


def test_fire_at_reset_is_one_press_before_the_first_observation():
    task = make_task("ALE/Breakout-v5").under(noop_max=0)
    envs, env = Envs(task, 1, SEEDS, threads=1), scalar("ALE/Breakout-v5")
    env.reset(seed=0)
    frames = [envs.observations[0, -1]]
    for _ in range(20):
        envs.step(np.array([0]))
        frames.append(envs.observations[0, -1])
    assert task.protocol.fire_reset
    # The ball is in play without a FIRE of ours: frames change. Unfired, Breakout stands still.
    assert any((frame != frames[0]).any() for frame in frames[5:])
    still = [env.step(0)[0][-1] for _ in range(20)]
    assert all((frame == still[0]).all() for frame in still)
