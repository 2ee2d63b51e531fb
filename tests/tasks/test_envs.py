import json

import numpy as np
import pytest
from gymnasium.envs.classic_control import CartPoleEnv

from potstill import PotstillError
from potstill.tasks import Envs, EpisodeSeeds, make_task

TRAINING = EpisodeSeeds(0, "training")


def play(envs: Envs, steps: int, rng: np.random.Generator) -> list:
    finished = []
    for _ in range(steps):
        finished += envs.step(rng.integers(0, envs.task.num_actions, envs.num_envs))
    return finished


def test_training_and_evaluation_never_share_a_seed():
    pairs = [(env, episode) for env in range(50) for episode in range(50)]
    for seed in (0, 1):
        training = {EpisodeSeeds(seed, "training")(*pair) for pair in pairs}
        evaluation = {EpisodeSeeds(seed, "evaluation")(*pair) for pair in pairs}
        assert all(s % 2 == 0 for s in training)
        assert all(s % 2 == 1 for s in evaluation)
        assert len(training) > 2490  # 31 bits: next to none meet by chance
        assert max(training | evaluation) < 2**31


@pytest.mark.parametrize("task_id", ["CartPole-v1", "ALE/Breakout-v5"])
def test_an_episode_is_a_function_of_its_seed_and_actions(task_id):
    first, second = (Envs(make_task(task_id), 3, TRAINING) for _ in range(2))
    one, other = play(first, 60, np.random.default_rng(0)), play(second, 60, np.random.default_rng(0))
    assert one == other
    np.testing.assert_array_equal(first.observations, second.observations)


@pytest.mark.parametrize(("task_id", "steps"), [("CartPole-v1", 0), ("CartPole-v1", 131), ("ALE/Breakout-v5", 331)])
def test_a_snapshot_is_come_back_to_exactly(task_id, steps):
    # Random Breakout loses its five lives in 100 to 300 steps: copies are then at different ages.
    task = make_task(task_id)
    envs = Envs(task, 4, TRAINING)
    finished = play(envs, steps, np.random.default_rng(1))
    assert bool(finished) == bool(steps)
    snapshot = json.loads(json.dumps(envs.snapshot()))
    again = Envs(task, 4, TRAINING)
    play(again, 7, np.random.default_rng(9))
    again.restore(snapshot)
    for attribute in ("observations", "age", "episode"):
        np.testing.assert_array_equal(getattr(again, attribute), getattr(envs, attribute))
    rng = np.random.default_rng(2), np.random.default_rng(2)
    assert play(envs, 150, rng[0]) == play(again, 150, rng[1])
    np.testing.assert_array_equal(again.observations, envs.observations)


def test_atari_is_come_back_to_across_seeds(monkeypatch):
    monkeypatch.setattr("potstill.tasks.envs.ATARI_EPISODES_A_SEED", 3)
    task = make_task("ALE/Breakout-v5")
    envs = Envs(task, 3, TRAINING)
    rng = np.random.default_rng(1)
    play(envs, 1000, rng)
    while set((envs.episode % 3).tolist()) != {0, 1, 2}:
        envs.step(rng.integers(0, 4, 3))
    assert envs.episode.min() > 3
    again = Envs(task, 3, TRAINING)
    again.restore(envs.snapshot())
    rng = np.random.default_rng(2), np.random.default_rng(2)
    assert play(envs, 400, rng[0]) == play(again, 400, rng[1])
    np.testing.assert_array_equal(again.observations, envs.observations)


@pytest.mark.parametrize(
    "game",
    [
        "BeamRider",
        "Breakout",
        "Enduro",
        "Freeway",
        "MsPacman",
        "Pong",
        "Qbert",
        "Riverraid",
        "Seaquest",
        "SpaceInvaders",
    ],
)
def test_how_a_game_was_played_does_not_change_the_next(game):
    # What `restore` stands on: after a reset nothing but the number of no-ops depends on what came before.
    task = make_task(f"ALE/{game}-v5")
    shown = []
    for steps in (0, 60):
        envs = Envs(task, 1, TRAINING)
        play(envs, steps, np.random.default_rng(steps))
        envs.restore({"episode": [2], "actions": [[]]})
        envs.episode[0] += 1
        if steps:
            play(envs, steps, np.random.default_rng(7))
        envs._begin(np.array([True]), from_seed=False)
        play(envs, 60, np.random.default_rng(3))
        shown.append(envs.observations)
    np.testing.assert_array_equal(*shown)


def test_there_are_no_dead_rows():
    envs = Envs(make_task("CartPole-v1"), 2, TRAINING)
    rng = np.random.default_rng(0)
    for _ in range(200):
        finished = envs.step(rng.integers(0, 2, 2))
        for episode in finished:
            assert envs.age[episode.env] == 0
            assert abs(envs.observations[episode.env]).max() <= 0.05  # CartPole starts within ±0.05
            assert episode.score == episode.length


def test_an_atari_episode_begins_with_one_frame_and_three_of_zeros():
    envs = Envs(make_task("ALE/Breakout-v5"), 4, TRAINING)
    ended = 0
    rng = np.random.default_rng(0)
    for _ in range(400):
        for episode in envs.step(rng.integers(0, 4, 4)):
            ended += 1
            assert not envs.observations[episode.env, :3].any()
            assert envs.observations[episode.env, 3].any()
    assert ended


def test_an_episode_is_cut_at_the_protocols_frames():
    task = make_task("ALE/Pong-v5").under(max_frames=400)
    envs = Envs(task, 2, TRAINING)
    lengths = [episode.length for episode in play(envs, 220, np.random.default_rng(0))]
    assert lengths
    # The no-ops (0 to 29 frames) and FIRE at the start count as frames.
    assert all(90 <= length <= 100 for length in lengths)


def test_an_environment_that_fails_is_named(monkeypatch):
    envs = Envs(make_task("CartPole-v1"), 2, TRAINING)

    def overheat(self: CartPoleEnv, action: int) -> None:
        raise RuntimeError("the motor\nis hot")

    monkeypatch.setattr(CartPoleEnv, "step", overheat)
    with pytest.raises(PotstillError, match="CartPole-v1 failed: RuntimeError: the motor is hot"):
        envs.step(np.zeros(2, np.int64))


@pytest.mark.filterwarnings("ignore:.*The reward is a")  # Gymnasium's checker, which goes on
@pytest.mark.parametrize("reward", [float("nan"), float("inf")])
def test_an_environment_whose_reward_is_no_number_is_named(monkeypatch, reward):
    envs = Envs(make_task("CartPole-v1"), 2, TRAINING)
    monkeypatch.setattr(CartPoleEnv, "step", lambda self, action: (np.zeros(4, np.float32), reward, False, False, {}))
    with pytest.raises(PotstillError, match="CartPole-v1 gives a reward that is no finite number"):
        envs.step(np.zeros(2, np.int64))


def test_an_environment_that_cannot_be_made_is_named(monkeypatch):
    task = make_task("CartPole-v1").under(time_feature=True)
    monkeypatch.setattr("gymnasium.wrappers.TimeAwareObservation", lambda *_, **__: 1 / 0)  # as without a time limit
    with pytest.raises(PotstillError, match="CartPole-v1 failed: ZeroDivisionError"):
        Envs(task, 2, TRAINING)


def test_rewards_are_not_clipped():
    envs = Envs(make_task("ALE/SpaceInvaders-v5"), 4, TRAINING)
    scores = [episode.score for episode in play(envs, 800, np.random.default_rng(0))]
    assert scores
    assert max(scores) >= 50
    assert all(score % 5 == 0 for score in scores)
