"""How well a policy plays, and how sure that is."""

from potstill.evaluate.play import Moment, play_episodes, random_policy
from potstill.evaluate.statistics import Score, normalised, relative

__all__ = ["Moment", "Score", "normalised", "play_episodes", "random_policy", "relative"]
