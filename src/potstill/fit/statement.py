"""Non-inferiority: whether a student surely keeps a share of what its teacher has above chance.

With means S, T, R of the student's, the teacher's and the random policy's returns, `normalised` is (S − R) / (T − R),
and where T > R it is at least k exactly if S − k T − (1 − k) R ≥ 0: a sum of means, which Welch's t-test is for
(Fieller 1954 of the ratio; Pigeot et al. 2003 of non-inferiority with a third, placebo arm).

Returns that never fell short don't say how often they will: who plays n episodes without a failure may fail in 3 of n
more (the rule of three, Hanley & Lippman-Hand 1983), and their spread, which the test goes by, shows nothing of it. So
the student's episodes are joined by one that chance might have played (docs/decisions/0014).
"""

import math
from bisect import bisect_left
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy.stats import norm, t

from potstill.errors import PotstillError
from potstill.evaluate import RANDOM_SHARE, Score

MIN_EPISODES = 8
"""Of a student, to choose it by or to state anything: of fewer, how much its returns vary isn't known."""
MOST_EPISODES = 10**9
"""More are never played."""
FAR = 10.0
"""Below the measured share nothing less than this is looked for."""


@dataclass(frozen=True)
class Statement:
    """What episodes say of a student."""

    keep: float
    """The share asked for, k."""
    share: float | None
    """`normalised` as measured; None where the teacher isn't above chance: then nothing is shown."""
    p: float
    """How probable episodes that speak as well for it are, if it kept less than k."""
    at_least: float | None
    """The largest share that is shown at this confidence, one-sided; None: none is."""
    episodes: int
    """Of the student; of the teacher as many or more."""
    holds: bool
    """Whether k is shown."""

    def record(self) -> dict[str, Any]:
        return asdict(self)


def statement(student: Score, teacher: Score, random: Score, keep: float, confidence: float) -> Statement:
    """Test whether a student, its episodes joined by one of chance's, keeps at least `keep`, one-sided at level 1 −
    `confidence`."""
    gap = teacher.mean - random.mean
    doubted = with_doubt(student, random)
    p = p_value(doubted, teacher, random, keep)
    if gap <= 0:
        return Statement(keep, None, p, None, len(student.returns), holds=False)
    share = (student.mean - random.mean) / gap
    # The test's p grows with k: the largest k it still rejects is found by halving.
    low, high = share - FAR, share
    if p_value(doubted, teacher, random, low) > 1 - confidence:
        return Statement(keep, share, p, None, len(student.returns), holds=False)
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if p_value(doubted, teacher, random, middle) <= 1 - confidence else (low, middle)
    return Statement(keep, share, p, low, len(student.returns), p <= 1 - confidence)


def with_doubt(student: Score, random: Score) -> Score:
    """A student's episodes, and one more that chance might have played."""
    return Score((*student.returns, random.mean))


def p_value(student: Score, teacher: Score, random: Score, keep: float) -> float:
    """Of Welch's one-sided test that S − k T − (1 − k) R is at most 0, with k = `keep`."""
    sides = ((student, 1.0), (teacher, -keep), (random, keep - 1.0))
    difference = sum(weight * score.mean for score, weight in sides)
    parts = [weight**2 * float(np.var(score.returns, ddof=1)) / len(score.returns) for score, weight in sides]
    if (variance := sum(parts)) == 0:
        return 0.0 if difference >= 0 else 1.0
    freedom = variance**2 / sum(
        part**2 / (len(score.returns) - 1) for part, (score, _) in zip(parts, sides, strict=True)
    )
    return float(t.sf(difference / math.sqrt(variance), freedom))


def fewest_episodes(keep: float, confidence: float) -> int:
    """Of a student that plays as its teacher does, always alike: of fewer, nothing is ever shown."""
    # Of n ones and a zero the mean is n / (n + 1), and its standard error 1 / (n + 1).
    return bisect_left(
        range(MOST_EPISODES), True, lo=MIN_EPISODES, key=lambda n: (1 - keep) * (n + 1) - 1 >= t.ppf(confidence, n)
    )


def check_episodes(flag: str, number: int, keep: float, confidence: float) -> None:
    """Refuse numbers of episodes that never show anything.

    Raises:
        PotstillError: naming the flag.
    """
    if number < (fewest := fewest_episodes(keep, confidence)):
        raise PotstillError(
            f"{flag} {number}: fewer than {fewest:,} never show --keep {keep:g} at --confidence {confidence:g}"
        )


def episodes_needed(
    student: Score, teacher: Score, random: Score, keep: float, confidence: float, power: float
) -> int | None:
    """Episodes of student and teacher (a quarter as many of the random policy) after which a student that is as good as
    these episodes show, though no better than its teacher, is shown to keep `keep` with probability `power`.

    None where it isn't above `keep`, or nearly so: no number would do.
    """
    gap = teacher.mean - random.mean
    if gap <= 0:
        return None
    kept = min(gap, student.mean - random.mean)
    margin = kept - keep * gap
    if margin <= 0:
        return None
    variance = sum(
        weight**2 * float(np.var(score.returns, ddof=1)) / share
        for score, weight, share in ((student, 1.0, 1.0), (teacher, keep, 1.0), (random, 1 - keep, RANDOM_SHARE))
    )

    def enough(number: int) -> bool:
        # The doubted episode lowers the mean by the first, and adds the second to the student's variance.
        lost, spread = kept / (number + 1), kept**2 / (number + 1)
        tested = math.sqrt((variance + spread) / number)
        return bool(margin - lost >= norm.ppf(confidence) * tested + norm.ppf(power) * math.sqrt(variance / number))

    number = bisect_left(range(MOST_EPISODES), True, lo=fewest_episodes(keep, confidence), key=enough)
    return number if number < MOST_EPISODES else None
