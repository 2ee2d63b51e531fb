import numpy as np
import pytest

from potstill import Policy
from potstill.evaluate import Player, play_episodes, random_episodes, random_player
from potstill.tasks import EpisodeSeeds, make_task
from potstill.tasks.starts import Start

CARTPOLE = make_task("CartPole-v1")


def returns(players: list[Player], seed: int = 0) -> list[dict[int, float]]:
    scores: list[dict[int, float]] = [{} for _ in players]
    jobs = [(index, episode) for index, player in enumerate(players) for episode in range(player.episodes)]
    for moment in play_episodes(players, CARTPOLE, jobs, seed, 1):
        for player, episode, score in moment.finished:
            assert episode not in scores[player]
            scores[player][episode] = score
    return scores


def test_every_player_plays_exactly_its_episodes(cartpole_teacher: Policy):
    players = [
        Player(cartpole_teacher, "greedy", 0.0, 37),
        random_player(CARTPOLE, 20),
        Player(cartpole_teacher, "sample", 0.0, 37),
    ]
    scores = returns(players)
    assert [sorted(of) for of in scores] == [list(range(37)), list(range(20)), list(range(37))]
    assert set(scores[0].values()) == {500.0}
    assert 15 < np.mean(list(scores[1].values())) < 30  # random CartPole: about 22


def test_a_short_episode_counts_no_more_than_a_long_one():
    poor = Policy.from_callable(lambda seen: (seen[:, 1] < 0).astype(np.int64), CARTPOLE)  # plays on for 21 to 78 steps
    starts = [Start(EpisodeSeeds(0, "evaluation")(0, episode), ()) for episode in range(60)]

    def play(episodes: list[int]) -> dict[int, float]:
        jobs = [(0, episode) for episode in episodes]
        moments = play_episodes([Player(poor, "greedy", 0.0, 60)], CARTPOLE, jobs, 0, 1, starts)
        return {episode: score for moment in moments for _, episode, score in moment.finished}

    together = play(list(range(60)))
    assert max(together.values()) > 2 * min(together.values())
    # Scored one start at a time there is nothing to choose from.
    assert together == {episode: play([episode])[episode] for episode in range(60)}


def test_the_same_seed_gives_the_same_returns_and_another_does_not(cartpole_teacher: Policy):
    players = [Player(cartpole_teacher, "greedy", 0.9, 20)]
    assert returns(players) == returns(players)
    assert returns(players) != returns(players, seed=1)


def test_evaluation_starts_are_on_evaluation_seeds(monkeypatch, cartpole_teacher: Policy):
    seeds: list[int] = []
    real = EpisodeSeeds.__call__
    monkeypatch.setattr(EpisodeSeeds, "__call__", lambda self, e, k: seeds.append(real(self, e, k)) or seeds[-1])
    returns([Player(cartpole_teacher, "greedy", 0.0, 5)])
    assert len(seeds) >= 5
    assert all(seed % 2 == 1 for seed in seeds)


@pytest.mark.parametrize(("episodes", "of_chance"), [(1, 1), (4, 4), (30, 10), (100, 25), (101, 26)])
def test_chance_plays_a_quarter_of_the_episodes_but_enough(episodes, of_chance):
    assert random_episodes(episodes) == of_chance


@pytest.mark.parametrize("task_id", ["CartPole-v1", "ALE/Freeway-v5"])
def test_the_random_player_is_uniform(task_id):
    task = make_task(task_id)
    player = random_player(task, 1)
    observations = np.zeros((300 if task.is_atari else 3000, *task.observation_shape), task.observation_dtype)
    actions = player.policy.act(observations, player.epsilon, np.random.default_rng(0))
    shares = np.bincount(actions, minlength=task.num_actions) / len(actions)
    np.testing.assert_allclose(shares, 1 / task.num_actions, atol=0.1)
