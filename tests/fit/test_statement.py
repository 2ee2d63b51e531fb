"""The statement against textbook tests, by simulation, and where it says nothing."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ttest_ind

from potstill.evaluate import Score
from potstill.fit.statement import episodes_needed, fewest_episodes, p_value, statement, with_doubt


def score_of(values) -> Score:
    return Score(tuple(map(float, values)))


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def skewed(mean: float, spread: float, number: int, rng: np.random.Generator) -> Score:
    """Returns with a long tail, as games give them."""
    return score_of(mean + spread * (rng.exponential(size=number) - 1))


def test_a_share_of_one_is_welchs_test_of_two_means(rng):
    student, teacher, random = skewed(10, 3, 40, rng), skewed(10.5, 5, 60, rng), skewed(0, 1, 10, rng)
    expected = ttest_ind(student.returns, teacher.returns, equal_var=False, alternative="greater").pvalue
    assert p_value(student, teacher, random, 1.0) == pytest.approx(expected)


def test_constants_by_hand():
    student, teacher, random = score_of([9, 11]), score_of([10, 10]), score_of([0, 0])
    # S − 0.5 T = 5, its variance 2 / 2 = 1 with 1 degree of freedom: P(t₁ > 5) = 1/2 − arctan(5)/π.
    assert p_value(student, teacher, random, 0.5) == pytest.approx(0.5 - np.arctan(5) / np.pi)
    # With an episode of chance's: 9, 11 and 0, whose mean is 20 / 3 and its variance 103 / 3 / 3, 2 degrees of freedom.
    # P(t₂ > x) = 0.1 at x = 1.8856: shown is every share k with 20 / 3 − 10 k ≥ x √(103 / 9).
    said = statement(student, teacher, random, 0.02, 0.9)
    assert (said.share, said.episodes, said.holds) == (1.0, 2, True)
    assert said.at_least == pytest.approx((20 / 3 - 1.885618 * (103 / 9) ** 0.5) / 10, abs=1e-6)
    assert not statement(student, teacher, random, 0.5, 0.9).holds


def test_where_nothing_varies_enough_episodes_decide():
    teacher, random = score_of([500] * 60), score_of([20] * 20)
    assert fewest_episodes(0.95, 0.95) == 53
    assert fewest_episodes(0.1, 0.5) == 8, "of one episode nothing says how much they vary"
    assert statement(score_of([500] * 53), teacher, random, 0.95, 0.95).holds
    assert not statement(score_of([500] * 52), teacher, random, 0.95, 0.95).holds
    assert not statement(score_of([476] * 900), teacher, random, 0.95, 0.95).holds
    assert episodes_needed(score_of([500] * 9), teacher, random, 0.95, 0.95, 0.9) == 53


def test_a_teacher_no_better_than_chance_shows_nothing(rng):
    chance = skewed(0, 1, 50, rng)
    said = statement(chance, skewed(-1, 1, 50, rng), chance, 0.95, 0.95)
    assert (said.share, said.at_least, said.holds) == (None, None, False)
    same = score_of([-200] * 5)
    assert not statement(same, same, same, 0.95, 0.95).holds
    assert episodes_needed(chance, skewed(-1, 1, 50, rng), chance, 0.95, 0.95, 0.9) is None


def test_it_is_wrong_as_rarely_as_it_says():
    """Students that keep exactly what is asked: 5 of 100 statements may be wrong."""
    rng, keep, number, wrong = np.random.default_rng(1), 0.9, 60, 0
    for _ in range(600):
        teacher, random = skewed(100, 60, number, rng), skewed(10, 8, number // 4, rng)
        student = with_doubt(skewed(10 + keep * 90, 60, number, rng), random)
        wrong += p_value(student, teacher, random, keep) <= 0.05
    assert 0.02 < wrong / 600 < 0.05 + 3 * (0.05 * 0.95 / 600) ** 0.5


@pytest.mark.parametrize("number", [8, 20, 53, 60, 100, 400])
@pytest.mark.parametrize("failure", [20, 250])
def test_rare_failures_that_nobody_saw_are_counted_with(number, failure):
    """Students that end at the most there is but for a few episodes: how few seldom shows in how much they vary."""
    rng, keep, wrong = np.random.default_rng(3), 0.95, 0
    often = (1 - keep) * (500 - 20) / (500 - failure)
    teacher, random = score_of([500] * number), score_of(rng.normal(20, 5, 30))
    for _ in range(600):
        student = score_of(np.where(rng.random(number) < often, failure, 500))
        wrong += p_value(with_doubt(student, random), teacher, random, keep) <= 0.05
    assert wrong / 600 < 0.05 + 3 * (0.05 * 0.95 / 600) ** 0.5


def test_the_largest_share_shown_is_where_the_test_turns(rng):
    of = skewed(90, 60, 50, rng), skewed(100, 60, 50, rng), skewed(10, 8, 12, rng)
    said = statement(*of, 0.9, 0.95)
    assert statement(*of, said.at_least - 1e-6, 0.95).holds
    assert not statement(*of, said.at_least + 1e-6, 0.95).holds
    assert said.at_least < said.share


def test_the_number_of_episodes_gives_the_power_that_was_asked_for():
    rng, shown = np.random.default_rng(2), 0
    pilot = skewed(100, 60, 4000, rng), skewed(100, 60, 4000, rng), skewed(10, 8, 4000, rng)
    number = episodes_needed(*pilot, keep=0.9, confidence=0.95, power=0.9)
    assert number is not None
    for _ in range(300):
        fresh = skewed(100, 60, number, rng), skewed(100, 60, number, rng), skewed(10, 8, number // 4, rng)
        shown += p_value(with_doubt(fresh[0], fresh[2]), *fresh[1:], 0.9) <= 0.05
    assert 0.85 < shown / 300 < 0.97


def test_more_is_needed_the_less_is_to_spare(rng):
    teacher, random = skewed(100, 30, 200, rng), skewed(10, 8, 50, rng)
    needed = [episodes_needed(skewed(m, 30, 200, rng), teacher, random, 0.9, 0.95, 0.9) for m in (110, 97, 80)]
    assert needed[0] is not None
    assert needed[1] is not None
    assert needed[0] < needed[1]
    assert needed[2] is None


@settings(max_examples=30)
@given(st.floats(0.1, 1000), st.floats(-1000, 1000))
def test_units_and_zero_of_a_game_change_nothing(unit, zero):
    rng = np.random.default_rng(0)
    given_ = skewed(90, 30, 20, rng), skewed(100, 30, 20, rng), skewed(10, 8, 20, rng)
    moved = [score_of(np.array(of.returns) * unit + zero) for of in given_]
    assert p_value(*moved, 0.9) == pytest.approx(p_value(*given_, 0.9), rel=1e-6, abs=1e-9)
