"""How well a policy plays, and how sure that is."""

from potstill.evaluate.play import Moment, Player, play_episodes, play_threads, random_player
from potstill.evaluate.statistics import Score, normalised, relative

__all__ = [
    "Moment",
    "Player",
    "Score",
    "normalised",
    "play_episodes",
    "play_threads",
    "random_player",
    "relative",
]
