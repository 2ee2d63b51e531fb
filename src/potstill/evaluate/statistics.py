"""Means and ratios of episode returns with bootstrap confidence intervals."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import bootstrap, norm, t

RESAMPLES = 9999
MOST_DRAWN = 2_000_000
"""Values drawn at a time."""
TINY = 1e-9


@dataclass(frozen=True)
class Estimate:
    """A number and its 95 % confidence interval."""

    mean: float
    ci95: tuple[float, float]

    def record(self) -> dict[str, Any]:
        return {"mean": self.mean, "ci95": list(self.ci95)}


@dataclass(frozen=True)
class Score:
    """The returns of a policy's episodes."""

    returns: tuple[float, ...]

    @property
    def mean(self) -> float:
        return float(np.mean(self.returns))

    def record(self) -> dict[str, Any]:
        """Mean, 95 % CI, number of episodes and every return, as JSON."""
        estimate = _bootstrap([self], lambda sample, axis=-1: sample.mean(axis))
        return {**estimate.record(), "episodes": len(self.returns), "returns": list(self.returns)}


def relative(student: Score, teacher: Score) -> Estimate | None:
    """student / teacher, the paper's measure; None where the teacher's mean isn't surely positive, or of a single
    episode: it would say nothing."""
    if len(student.returns) < 2 or not _surely_positive(teacher):
        return None
    return _bootstrap([student, teacher], lambda s, t, axis=-1: s.mean(axis) / _above_zero(t.mean(axis)))


def difference(one: Score, other: Score) -> Estimate:
    """one − other."""
    return _bootstrap([one, other], lambda a, b, axis=-1: a.mean(axis) - b.mean(axis))


def geometric_mean(pairs: Sequence[tuple[Score, Score]]) -> Estimate | None:
    """The geometric mean over games of student / teacher, as Rusu et al. 2016 average; None where a score isn't
    surely positive: it would say nothing."""
    if not pairs or not all(_surely_positive(score) for pair in pairs for score in pair):
        return None

    def statistic(*samples: np.ndarray, axis: int = -1) -> np.ndarray:
        means = [_above_zero(sample.mean(axis)) for sample in samples]
        logs = [np.log(s) - np.log(t) for s, t in zip(means[::2], means[1::2], strict=True)]
        return np.exp(np.mean(logs, axis=0))

    return _bootstrap([score for pair in pairs for score in pair], statistic)


def normalised(student: Score, teacher: Score, random: Score) -> Estimate | None:
    """(student − random) / (teacher − random): 1 plays as well as the teacher, 0 as well as chance.

    None where the teacher isn't surely better than chance, or of a single episode.
    """
    if len(student.returns) < 2 or not _surely_positive(teacher, random):
        return None
    return _bootstrap(
        [student, teacher, random],
        lambda s, t, r, axis=-1: (s.mean(axis) - r.mean(axis)) / _above_zero(t.mean(axis) - r.mean(axis)),
    )


def _surely_positive(score: Score, zero: Score | None = None) -> bool:
    """Whether a mean, less another's, lies above 0 with its whole interval: what is divided by it has one then. Of a
    single episode nothing is sure."""
    zero = zero or Score((0.0, 0.0))
    if min(len(score.returns), len(zero.returns)) < 2:
        return False
    return difference(score, zero).ci95[0] > 0


def _above_zero(means: np.ndarray) -> np.ndarray:
    """A rare resample of what is surely positive may not be; it then counts as next to nothing."""
    return np.maximum(means, TINY)


def _bootstrap(scores: list[Score], statistic: Any) -> Estimate:
    """Percentile bootstrap, expanded for few episodes (Hesterberg 2015): of ten a plain one of 95 % covers the truth in
    88 %. The samples are resampled independently, the seed is fixed. Equal returns give an interval of no width; one
    alone beside others that vary can't be resampled."""
    samples = [np.asarray(score.returns, dtype=np.float64) for score in scores]
    value = float(statistic(*samples))
    if all(np.ptp(sample) == 0 for sample in samples):
        return Estimate(value, (value, value))
    number = min(len(sample) for sample in samples if np.ptp(sample) > 0)
    level = 1 - 2 * float(norm.cdf(-math.sqrt(number / (number - 1)) * t.ppf(0.975, number - 1)))
    at_a_time = max(1, MOST_DRAWN // max(map(len, samples)))
    result = bootstrap(
        samples, statistic, n_resamples=RESAMPLES, batch=at_a_time, vectorized=True, paired=False,
        confidence_level=level, method="percentile", rng=0,
    )  # fmt: skip
    low, high = result.confidence_interval
    return Estimate(value, (float(low), float(high)))
