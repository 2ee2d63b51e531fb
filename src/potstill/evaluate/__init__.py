"""How well a policy plays, and how sure that is."""

from potstill.evaluate.parallel import evaluate, scores
from potstill.evaluate.play import RANDOM_SHARE, Player, play_episodes, play_threads, random_episodes, random_player
from potstill.evaluate.starts import record_starts
from potstill.evaluate.statistics import Score, difference, geometric_mean, normalised, relative

__all__ = [
    "RANDOM_SHARE",
    "Player",
    "Score",
    "difference",
    "evaluate",
    "geometric_mean",
    "normalised",
    "play_episodes",
    "play_threads",
    "random_episodes",
    "random_player",
    "record_starts",
    "relative",
    "scores",
]
