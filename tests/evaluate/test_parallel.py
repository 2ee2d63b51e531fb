import os

import pytest

from potstill import load
from potstill.evaluate import Player, evaluate, random_player
from potstill.tasks import make_task

PONG = make_task("ALE/Pong-v5").under(max_frames=1200)


def play(threads: int, players: list[Player], **more) -> tuple[dict, list[int], list[list[int]]]:
    scores, states, agreed = {}, 0, 0
    for tally in evaluate(players, PONG, 0, threads, **more):
        scores |= {(player, episode): score for player, episode, score in tally.finished}
        states += tally.states
        agreed += tally.agreed
    return scores, states.tolist(), agreed.tolist()


def test_processes_play_every_episode_once_and_always_the_same(teacher_pong):
    teacher = load(teacher_pong)
    players = [Player(teacher, "greedy", 0.05, 6), random_player(PONG, 3)]
    first, second = (play(2, players, watched=[teacher]) for _ in range(2))
    assert sorted(first[0]) == [*[(0, episode) for episode in range(6)], *[(1, episode) for episode in range(3)]]
    assert first == second
    assert len(first[1]) == 6
    assert sum(first[1]) > 50
    assert first[2] == [first[1]], "a policy agrees with itself"


def test_each_process_has_starts_of_its_own(teacher_pong):
    # Without chance an episode follows from its start: two processes with the same starts would play pairs.
    scores = play(2, [Player(load(teacher_pong), "greedy", 0.0, 16)])[0]
    assert sum(scores[0, episode] == scores[0, episode + 1] for episode in range(0, 16, 2)) < 8


def test_a_worker_that_dies_is_noticed(teacher_pong, monkeypatch):
    monkeypatch.setattr("potstill.evaluate.parallel.sys.executable", "/bin/false")
    if not os.path.exists("/bin/false"):
        pytest.skip("no /bin/false")
    with pytest.raises((RuntimeError, BrokenPipeError)):
        play(2, [random_player(PONG, 6)])
