import copy
import os
from typing import Any

import pytest
import torch

from potstill import PotstillError, load
from potstill.evaluate import Player, evaluate, parallel, random_player
from potstill.tasks import make_task
from potstill.tasks.starts import Start

PONG = make_task("ALE/Pong-v5").under(max_frames=800)


def play(threads: int, players: list[Player], **more) -> tuple[dict, list[int], list[list[int]]]:
    scores, states, agreed = {}, 0, 0
    for tally in evaluate(players, PONG, 0, threads, **more):
        scores |= {(player, episode): score for player, episode, score in tally.finished}
        states += tally.states
        agreed += tally.agreed
    return scores, states.tolist(), agreed.tolist()


def test_processes_play_every_episode_once_and_always_the_same(teacher_pong):
    teacher = load(teacher_pong)
    players = [Player(teacher, "greedy", 0.0, 16), random_player(PONG, 3)]
    first, second = (play(2, players, watched=[teacher]) for _ in range(2))
    scores, states, agreed = first
    assert sorted(scores) == [*[(0, episode) for episode in range(16)], *[(1, episode) for episode in range(3)]]
    assert first == second
    assert len(states) == 6
    assert sum(states) > 50
    assert agreed == [states], "a policy agrees with itself"
    # Without chance an episode follows from its start: two processes with the same starts would play pairs.
    assert sum(scores[0, episode] == scores[0, episode + 1] for episode in range(0, 16, 2)) < 8


def test_a_policy_that_always_does_something_else_never_agrees(cartpole_teacher):
    opposite = copy.deepcopy(cartpole_teacher)
    with torch.no_grad():
        for parameter in opposite.network.head.parameters():
            parameter.copy_(parameter.flip(0))
    players, watched = [Player(cartpole_teacher, "greedy", 0.0, 2)], [opposite, cartpole_teacher]
    tallies = list(evaluate(players, make_task("CartPole-v1"), 0, 1, watched=watched))
    states = sum(tally.states for tally in tallies)
    assert states.sum() > 50
    assert sum(tally.agreed for tally in tallies).tolist() == [[0, 0], states.tolist()]


def test_processes_have_seeds_of_their_own_however_few_episodes_there_are(teacher_pong, monkeypatch):
    shares: list[Any] = []
    monkeypatch.setattr(parallel, "_play_in_processes", lambda given: shares.extend(given) or iter(()))
    list(parallel.evaluate([Player(load(teacher_pong), "greedy", 0.05, 1)] * 3, PONG, 0, threads=3))
    assert [share.process for share in shares] == [0, 1, 2]


def test_a_worker_that_dies_is_noticed(teacher_pong, monkeypatch):
    monkeypatch.setattr("potstill.evaluate.parallel.sys.executable", "/bin/false")
    if not os.path.exists("/bin/false"):
        pytest.skip("no /bin/false")
    with pytest.raises(PotstillError, match="an evaluation process ended with status 1"):
        play(2, [random_player(PONG, 6)])


def test_it_is_noticed_before_the_others_have_ended(tmp_path, monkeypatch):
    interpreter = tmp_path / "python"  # the first ends at once, the other never
    interpreter.write_text(f"#!/bin/sh\nmkdir {tmp_path}/first 2>/dev/null && exit 3\nexec sleep 600\n")
    interpreter.chmod(0o755)
    monkeypatch.setattr("potstill.evaluate.parallel.sys.executable", str(interpreter))
    with pytest.raises(PotstillError, match="ended with status 3"):
        play(2, [random_player(PONG, 6)])


def test_what_a_worker_says_against_its_work_is_passed_on():
    players = [random_player(PONG, 4)]
    with pytest.raises(PotstillError, match="is over before it is reached: record starts anew"):
        play(2, players, starts=[Start(0, (0,) * 2000)] * 4)


def test_nothing_is_imported_from_the_current_folder(tmp_path, monkeypatch):
    (tmp_path / "numpy.py").write_text("raise SystemExit(7)")
    monkeypatch.chdir(tmp_path)
    assert len(play(2, [random_player(PONG, 2)])[0]) == 2
