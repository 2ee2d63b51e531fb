import pytest

from potstill import PotstillError
from potstill.tasks import RUSU2016, make_task


@pytest.mark.parametrize(
    ("task_id", "actions"),
    [("ALE/Pong-v5", 6), ("ALE/Breakout-v5", 4), ("ALE/Freeway-v5", 3), ("ALE/MsPacman-v5", 9), ("ALE/Qbert-v5", 6),
     ("ALE/BeamRider-v5", 9), ("ALE/Enduro-v5", 9), ("ALE/Riverraid-v5", 18), ("ALE/Seaquest-v5", 18),
     ("ALE/SpaceInvaders-v5", 6)],
)  # fmt: skip
def test_the_papers_games_have_their_minimal_actions(task_id, actions):
    task = make_task(task_id)
    assert (task.num_actions, task.observation_shape, task.is_atari) == (actions, (4, 84, 84), True)


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


@pytest.mark.parametrize(
    ("task_id", "message"),
    [
        ("ALE/Pnog-v5", "no such Atari game; ids look like ALE/Pong-v5"),
        ("ALE/pong", "ids look like ALE/Pong-v5"),
        ("ALE/../../etc-v5", "no such Atari game"),
        ("CartPoel-v1", "CartPoel"),
        ("LunarLander-v2", "LunarLander-v3"),
        ("MountainCar-v99", "--task MountainCar-v99"),
        ("FrozenLake-v1", "only vectors are seen so far"),
        ("", "--task"),
        ("a b c", "--task"),
        ("nothing:Here-v0", "--task nothing:Here-v0"),
    ],
)
def test_a_task_that_cannot_be_played_is_one_line(task_id, message):
    with pytest.raises(PotstillError, match=message) as error:
        make_task(task_id)
    assert "\n" not in str(error.value)
