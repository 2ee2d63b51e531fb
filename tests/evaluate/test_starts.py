"""Starts in the midst of an expert's episodes."""

import json
from pathlib import Path

import numpy as np
import pytest

from potstill import Policy, PotstillError
from potstill.evaluate import Player, evaluate, play_episodes, random_player, record_starts
from potstill.networks import NetworkSpec
from potstill.tasks import Envs, make_task
from potstill.tasks.starts import BUNDLED, Start, Starts, dynamics

CARTPOLE = make_task("CartPole-v1")
BREAKOUT = make_task("ALE/Breakout-v5")


def recorded(player: Player, task=CARTPOLE, seed: int = 0) -> list[Start]:
    recording = record_starts(player, task, seed, 1)
    while True:
        try:
            next(recording)
        except StopIteration as end:
            return end.value


def test_each_start_lies_in_the_first_fifth_of_an_episode_of_its_own(cartpole_teacher: Policy):
    starts = recorded(Player(cartpole_teacher, "greedy", 0.0, 40))
    lengths = [len(start.actions) for start in starts]
    assert len({start.seed for start in starts}) == 40
    assert max(lengths) < 100, "its episodes last 500 steps"
    assert np.mean(lengths) == pytest.approx(50, abs=15)
    assert starts == recorded(Player(cartpole_teacher, "greedy", 0.0, 40))
    assert starts != recorded(Player(cartpole_teacher, "greedy", 0.0, 40), seed=1)


def test_points_before_the_start_are_not_counted(cartpole_teacher: Policy):
    starts = recorded(Player(cartpole_teacher, "greedy", 0.0, 30))
    players = [Player(cartpole_teacher, "greedy", 0.0, 30), random_player(CARTPOLE, 20)]
    scores: list[dict[int, float]] = [{}, {}]
    for tally in evaluate(players, CARTPOLE, 0, 1, starts=starts):
        for player, episode, score in tally.finished:
            scores[player][episode] = score
    assert [scores[0][episode] for episode in range(30)] == [500 - len(start.actions) for start in starts]
    assert len(scores[1]) == 20
    assert np.mean(list(scores[1].values())) < 60, "chance begins where the expert stood"


def test_an_episode_begins_where_the_recorded_actions_lead():
    player = random_player(BREAKOUT, 5)
    starts = recorded(player, BREAKOUT)
    [longest] = [start for start in starts if len(start.actions) == max(len(s.actions) for s in starts)][:1]
    envs = Envs(BREAKOUT, 1, lambda env, episode: longest.seed, seed_each=True)
    for action in longest.actions:
        envs.step(np.array([action]))
    moments = play_episodes([Player(player.policy, "greedy", 0.0, 1)], BREAKOUT, [(0, 0)], 0, 1, [longest])
    first = next(moment for moment in moments if moment.player[0] == 0)
    np.testing.assert_array_equal(first.observations, envs.observations)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    starts = (Start(2, (0, 1)), Start(4, ()))
    Starts(CARTPOLE.id, {"name": "x", "sha256": "0"}, dynamics(CARTPOLE.protocol), starts).write(
        tmp_path / "s.json", ["potstill"]
    )
    return tmp_path / "s.json"


def test_a_file_of_starts_reads_back(file):
    assert Starts.read(str(file), CARTPOLE, 2).starts == (Start(2, (0, 1)), Start(4, ()))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task": "ALE/Pong-v5"}, "holds starts of ALE/Pong-v5"),
        ({"schema": 2}, "schema 2"),
        ({"protocol": {"sticky": 0.25}}, "recorded by another protocol"),
        ({"starts": []}, "0 starts"),
        ({"starts": [{"seed": -1, "actions": "0"}]}, "a seed or its actions"),
        ({"starts": [{"seed": 1, "actions": "5"}]}, "none of 2"),
        ({"starts": [{"seed": 1, "actions": "Ä"}]}, "substring not found"),
        ({"starts": [{"seed": 1, "actions": 7}]}, "not iterable"),
        ({"starts": None}, "is no file of starts"),
        ({"expert": {"name": "x", "sha256": 7}}, "its expert"),
        ({"expert": {"name": "x", "sha256": float("nan")}}, "is not a JSON file"),
    ],
)
def test_a_file_that_is_none_is_one_line(file, changes, message):
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))
    with pytest.raises(PotstillError, match=message):
        Starts.read(str(file), CARTPOLE, 2)


def test_fewer_starts_than_episodes_are_refused(file):
    mend = r"2 starts of CartPole-v1 for 3 episodes: add --episodes 2, or record as many with .* --number 3"
    with pytest.raises(PotstillError, match=mend):
        Starts.read(str(file), CARTPOLE, 3)


def test_where_none_are_recorded_the_command_that_records_them_is_named():
    with pytest.raises(PotstillError, match="no starts of CartPole-v1 are recorded; record them with potstill starts"):
        Starts.read("expert", CARTPOLE, 1)


def test_files_in_a_folder_are_found_by_their_tasks_name(file):
    file.rename(file.with_name("CartPole.json"))
    assert Starts.read(str(file.parent), CARTPOLE, 2).starts == (Start(2, (0, 1)), Start(4, ()))
    with pytest.raises(PotstillError, match=r"no starts of ALE/Breakout-v5 are recorded"):
        Starts.read(str(file.parent), BREAKOUT, 1)


def test_a_start_that_leads_nowhere_any_more_is_no_score_of_zero(cartpole_teacher: Policy):
    over = [Start(2, (0,) * 60)]
    with pytest.raises(PotstillError, match="a start of CartPole-v1 is over before it is reached"):
        list(evaluate([Player(cartpole_teacher, "greedy", 0.0, 1)], CARTPOLE, 0, 1, starts=over))


@pytest.mark.parametrize("path", sorted(BUNDLED.glob("*.json")), ids=lambda path: path.stem)
def test_the_packages_starts_can_be_read(path):
    starts = Starts.read("expert", make_task(f"ALE/{path.stem}-v5"), 100)
    assert len(starts.starts) == len({start.seed for start in starts.starts}) == 100


def test_processes_share_the_same_starts(tmp_path):
    policy = Policy.new(NetworkSpec.parse("cnn:4-4-4:8"), "logits", (4, 84, 84), "uint8", 4)
    starts = recorded(random_player(BREAKOUT, 6), BREAKOUT)
    player = Player(policy, "greedy", 1.0, 6)
    ended = [(p, e) for t in evaluate([player], BREAKOUT, 0, 2, starts=starts) for p, e, _ in t.finished]
    assert sorted(ended) == [(0, episode) for episode in range(6)]
