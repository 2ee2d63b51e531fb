import sys

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete

from potstill import PotstillError
from potstill.tasks import RUSU2016, Envs, EpisodeSeeds, make_task


@pytest.mark.parametrize(
    ("task_id", "actions"),
    [("ALE/Pong-v5", 6), ("ALE/Breakout-v5", 4), ("ALE/Freeway-v5", 3), ("ALE/MsPacman-v5", 9), ("ALE/Qbert-v5", 6),
     ("ALE/BeamRider-v5", 9), ("ALE/Enduro-v5", 9), ("ALE/Riverraid-v5", 18), ("ALE/Seaquest-v5", 18),
     ("ALE/SpaceInvaders-v5", 6)],
)  # fmt: skip
def test_the_papers_games_have_their_minimal_actions(task_id, actions):
    task = make_task(task_id)
    assert (task.num_actions, task.observation_shape, task.is_atari) == (actions, (4, 84, 84), True)
    assert len(set(task.action_names)) == actions


def test_every_setting_of_the_papers_protocol_is_recorded():
    assert make_task("ALE/Pong-v5").protocol.record() == {
        "name": "rusu2016", "act": "greedy", "epsilon": 0.05, "noop_max": 30, "max_frames": 108000, "sticky": 0.0,
        "starts": "noop", "frame_skip": 4, "stack": 4, "resolution": (84, 84), "actions": "minimal",
        "fire_reset": True, "life_loss": False, "reward_clip": False,
    }  # fmt: skip


def test_gymnasium_ids_are_the_same_type():
    task = make_task("CartPole-v1")
    assert (task.num_actions, task.observation_shape, task.is_atari) == (2, (4,), False)
    assert task.protocol.record() == {
        "name": "gymnasium", "act": "greedy", "epsilon": 0.0, "starts": "reset", "stack": 1, "reward_clip": False,
    }  # fmt: skip


def test_a_changed_protocol_says_so():
    task = make_task("ALE/Pong-v5")
    assert task.under(epsilon=0.05, act=None) is task
    assert task.under(epsilon=0.1).protocol.name == "rusu2016*"
    assert task.under(act="sample").protocol.name == "rusu2016"  # the act stands beside the name
    assert task.protocol == RUSU2016


def test_an_id_that_only_sounds_like_an_old_one_of_ataris_is_its_own():
    gymnasium.register("GridDeterministic-v0", "gymnasium.envs.classic_control:CartPoleEnv")
    assert make_task("GridDeterministic-v0").observation_shape == (4,)


@pytest.mark.parametrize(
    ("task_id", "message"),
    [
        ("ALE/Pnog-v5", "no such Atari game; ids look like ALE/Pong-v5"),
        ("ALE/pong", "ids look like ALE/Pong-v5"),
        ("ALE/../../etc-v5", "no such Atari game"),
        ("CartPoel-v1", "CartPoel"),
        ("PongNoFrameskip-v4", "no such Atari game; ids look like ALE/Pong-v5"),
        ("MsPacman", "as in ALE/MsPacman-v5"),
        ("LunarLander-v2", "LunarLander-v3"),
        ("MountainCar-v99", "task 'MountainCar-v99': "),
        ("FrozenLake-v1", "only vectors are seen so far"),
        ("", "task ''"),
        ("a b c", "task 'a b c'"),
        ("nothing:Here-v0", "task 'nothing:Here-v0': "),
        ("LunarLander-v3?gravity", "'gravity' is no argument"),
        ("LunarLander-v3?gravity=/etc/passwd", "is no argument"),
        pytest.param("LunarLander-v3?gravity=" + "[" * 100_000, "is no argument", id="nested"),
        ("LunarLander-v3?nothing=1", "unexpected keyword argument"),
        ("LunarLander-v3?gravity=5", "gravity"),
    ],
)
def test_a_task_that_cannot_be_played_is_one_line(task_id, message):
    with pytest.raises(PotstillError, match=message) as error:
        make_task(task_id)
    assert "\n" not in str(error.value)


def test_arguments_behind_an_id_reach_the_environment():
    light, heavy = (
        Envs(make_task(f"LunarLander-v3?gravity={gravity}"), 1, EpisodeSeeds(0, "training")) for gravity in (-1, -11)
    )
    for envs in (light, heavy):
        for _ in range(30):
            envs.step(np.zeros(1, np.int64))
    assert light.observations[0, 3] > heavy.observations[0, 3] + 0.1, "vertical speed"


class Reach(gymnasium.Env):
    """A Dict of vectors, its keys not in the order of the alphabet where they are made."""

    observation_space = Dict({"position": Box(-1, 1, (2,)), "goal": Box(-1, 1, (3,))})
    action_space = Discrete(2)

    def reset(self, *, seed=None, options=None):
        return {"position": np.float32([0.1, 0.2]), "goal": np.float32([0.3, 0.4, 0.5])}, {}


@pytest.fixture(scope="module")
def reach() -> str:
    gymnasium.register("PotstillReach-v0", Reach, max_episode_steps=5)
    return "PotstillReach-v0"


@pytest.mark.parametrize("bounds", [(-np.inf, np.inf), (-1e7, 1e7), (1.0, 1.0)])
def test_continuous_actions_without_bounds_in_earnest_are_refused(monkeypatch, bounds):
    monkeypatch.setattr(Reach, "action_space", Box(*bounds, (2,)))
    gymnasium.register("PotstillReach-v1", Reach, max_episode_steps=5)
    try:
        with pytest.raises(PotstillError, match="vectors bounded by numbers up to 1,000,000 are played so far"):
            make_task("PotstillReach-v1")
    finally:
        del gymnasium.registry["PotstillReach-v1"]


def test_what_an_environment_prints_when_it_is_made_is_not_on_stdout(monkeypatch, capsys):
    monkeypatch.setattr(Reach, "__init__", lambda self: sys.stdout.write("welcome") and None)
    gymnasium.register("PotstillReach-v2", Reach, max_episode_steps=5)
    try:
        make_task("PotstillReach-v2")
    finally:
        del gymnasium.registry["PotstillReach-v2"]
    assert capsys.readouterr() == ("", "welcome")


def test_a_dict_of_vectors_is_seen_as_one_with_parts_by_key(reach):
    task = make_task(reach)
    assert (task.observation_shape, task.keys) == ((5,), (("goal", 0, 3), ("position", 3, 5)))
    envs = Envs(task, 1, EpisodeSeeds(0, "training"))
    np.testing.assert_allclose(envs.observations, [[0.3, 0.4, 0.5, 0.1, 0.2]])
    assert task.parts("--sees", "position,0:1") == ((3, 5), (0, 1))


@pytest.mark.parametrize(("wanted", "parts"), [("0:2", ((0, 2),)), (":2,-1:", ((0, 2), (3, 4)))])
def test_parts_of_a_vector_are_slices(wanted, parts):
    assert make_task("CartPole-v1").parts("--sees", wanted) == parts


@pytest.mark.parametrize("wanted", ["", "speed", "0:2,", "2:2", "3:1", "0:2:1", "1", "9:", "1:99", "-9:2"])
def test_parts_that_do_not_exist_are_one_line(wanted):
    with pytest.raises(PotstillError, match="CartPole-v1 shows 4 numbers, name slices"):
        make_task("CartPole-v1").parts("--sees", wanted)


def test_frames_have_no_parts(reach):
    with pytest.raises(PotstillError, match="shows frames"):
        make_task("ALE/Pong-v5").parts("--sees", "0:2")
    with pytest.raises(PotstillError, match="its keys are goal, position"):
        make_task(reach).parts("--sees", "speed")


def test_making_a_mujoco_task_prints_and_writes_nothing(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    task = make_task("HalfCheetah-v4")
    Envs(task, 2, EpisodeSeeds(0, "training")).close()
    assert (task.num_actions, task.observation_shape) == (6, (17,))
    assert capfd.readouterr().err == ""
    assert list(tmp_path.iterdir()) == []
