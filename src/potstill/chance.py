"""One seed, a stream of chance for each purpose: what one draws changes nothing that another does."""

from enum import IntEnum, unique


@unique
class Stream(IntEnum):
    """Goes beside the seed. A number that changes changes every result of its purpose."""

    SCORE = 1
    """Actions in scored episodes, and in films of them."""
    PLAY = 2
    """Actions in play that is learnt from."""
    SAMPLE = 3
    """Which samples are learnt."""
    LEARNER = 4
    """A learner's first weights."""
    EXPERT = 5
    """Actions of the expert whose play gives starts."""
    STARTS = 6
    """How far into its episodes they lie."""
    ASIDE = 7
    """What is looked at beside a run: copies of students that cool down, states for exports and pictures."""
    STUDENTS = 8
    """Students' first weights; not the learner's: a teacher of the same seed began there."""
