import numpy as np
import pytest
from scipy.stats import norm

from potstill.evaluate import Score, geometric_mean, normalised, relative, statistics


def score(*returns: float) -> Score:
    return Score(tuple(returns))


def test_a_score_keeps_every_return():
    record = score(1.0, 2.0, 6.0).record()
    assert record["mean"] == 3.0
    assert record["episodes"] == 3
    assert record["returns"] == [1.0, 2.0, 6.0]
    assert 1.0 <= record["ci95"][0] <= 3.0 <= record["ci95"][1] <= 6.0


def test_the_interval_is_the_normal_one_where_that_is_known():
    returns = np.random.default_rng(0).normal(10, 2, 400)
    low, high = score(*returns).record()["ci95"]
    half = norm.ppf(0.975) * returns.std() / 20
    assert low == pytest.approx(returns.mean() - half, abs=0.03)
    assert high == pytest.approx(returns.mean() + half, abs=0.03)


@pytest.mark.parametrize("episodes", [5, 10, 20, 100])
def test_the_interval_covers_the_truth_as_often_as_it_says(episodes, monkeypatch):
    monkeypatch.setattr(statistics, "RESAMPLES", 999)
    rng = np.random.default_rng(1)
    covered = 0
    for _ in range(400):
        low, high = score(*rng.normal(1.0, 1.0, episodes)).record()["ci95"]
        covered += low <= 1.0 <= high
    assert 0.925 <= covered / 400 <= 0.98


def test_equal_returns_have_an_interval_of_no_width():
    assert score(500.0, 500.0).record()["ci95"] == [500.0, 500.0]
    assert score(7.0).record()["ci95"] == [7.0, 7.0]


def test_relative_and_normalised_by_hand():
    student, teacher, random = score(8.0, 12.0), score(15.0, 25.0), score(-10.0, -10.0)
    ratio, share = relative(student, teacher), normalised(student, teacher, random)
    assert ratio is not None
    assert share is not None
    assert ratio.mean == 0.5
    assert share.mean == pytest.approx(20 / 30)
    assert ratio.ci95[0] < 0.5 < ratio.ci95[1]
    assert share.ci95[0] < share.mean < share.ci95[1]


@pytest.mark.parametrize("single", [0, 1, 2])
def test_a_single_episode_says_nothing_of_a_ratio(single):
    scores = [score(8.0, 12.0), score(15.0, 25.0), score(-10.0, -9.0)]
    scores[single] = score(scores[single].mean)
    assert normalised(*scores) is None
    assert single == 2 or relative(*scores[:2]) is None


def test_a_ratio_that_says_nothing_is_none():
    assert relative(score(1.0), score(-5.0, -6.0)) is None
    assert normalised(score(1.0), score(2.0), score(2.0, 2.0)) is None


def test_a_student_that_scores_nothing_has_an_interval_beside_a_teacher_that_rarely_does():
    student, teacher, random = Score((0.0,) * 100), Score((1.0,) * 4 + (0.0,) * 96), Score((0.0,) * 25)
    for estimate in (relative(student, teacher), normalised(student, teacher, random)):
        assert estimate is not None
        assert (estimate.mean, estimate.ci95) == (0.0, (0.0, 0.0))


def test_the_geometric_mean_by_hand():
    games = [(score(20.0, 20.0), score(10.0, 10.0)), (score(1000.0, 1000.0), score(2000.0, 2000.0)),
             (score(8.0, 8.0), score(1.0, 1.0))]  # fmt: skip
    mean = geometric_mean(games)
    assert mean is not None
    assert mean.mean == pytest.approx(2.0)
    assert mean.ci95 == (mean.mean, mean.mean)


def test_the_geometric_means_interval_is_that_of_the_mean_logarithm():
    rng = np.random.default_rng(0)
    games = [(score(*rng.normal(100, 20, 400)), score(*rng.normal(50, 5, 400))) for _ in range(4)]
    mean = geometric_mean(games)
    assert mean is not None
    # Each log ratio's variance is 0.2²/400 + 0.1²/400; the mean of four has a quarter of it.
    half = norm.ppf(0.975) * np.sqrt((0.2**2 + 0.1**2) / 400 / 4)
    assert np.log(mean.ci95[1] / mean.mean) == pytest.approx(half, rel=0.15)
    assert np.log(mean.mean / mean.ci95[0]) == pytest.approx(half, rel=0.15)


@pytest.mark.parametrize("teacher", [[0.0] * 19 + [1.0], [-3.0, 4.0], [0.0, 0.0], [-1.0, -2.0]])
def test_a_teacher_that_may_score_nothing_gives_no_ratio(teacher):
    assert relative(score(1.0, 2.0), score(*teacher)) is None
    assert normalised(score(1.0, 2.0), score(*teacher), score(0.0, 0.0)) is None
    assert geometric_mean([(score(1.0, 2.0), score(*teacher))]) is None
    assert geometric_mean([(score(*teacher), score(1.0, 2.0))]) is None
