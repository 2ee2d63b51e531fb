import numpy as np
import pytest
from scipy.stats import norm

from potstill.evaluate import Score, normalised, relative


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


def test_the_interval_covers_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(1)
    covered = 0
    for _ in range(200):
        low, high = score(*rng.exponential(1.0, 100)).record()["ci95"]
        covered += low <= 1.0 <= high
    assert 0.89 <= covered / 200 <= 0.99


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


def test_a_ratio_that_says_nothing_is_none():
    assert relative(score(1.0), score(-5.0, -6.0)) is None
    assert normalised(score(1.0), score(2.0), score(2.0, 2.0)) is None
