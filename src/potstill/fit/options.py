"""What is asked of a student, and which sizes are tried."""

from dataclasses import asdict, dataclass
from typing import Any

from potstill.errors import must_be
from potstill.tasks import Task

ATARI = ("net1", "net2", "net3", "cnn:16-16-16:64:2f", "cnn:8-16-16:32", "cnn:8-8-8:16", "cnn:8-8-8:16:2f",
         "cnn:4-8-8:16", "cnn:4-4-4:8")  # fmt: skip
"""The paper's three, and below: 424,000 to 3,000 parameters, 3.2 to 0.4 million multiplications."""
VECTORS = ("mlp:128-128", "mlp:64-64", "mlp:32-32", "mlp:16-16", "mlp:8-8", "mlp:16", "mlp:8", "mlp:4", "linear")


@dataclass(frozen=True)
class Goal:
    """What the student must keep, and how surely."""

    keep: float = 0.95
    """The share of the teacher's score above chance (`normalised`) that it must keep."""
    confidence: float = 0.95
    """Of the statement that it does, one-sided."""
    power: float = 0.9
    """With which probability a student that is as good as it seemed shall be shown to be: says how many episodes."""
    max_episodes: int = 1000
    """A student that would need more episodes for the statement isn't tested."""

    def check(self) -> None:
        """Refuse values that can't work.

        Raises:
            PotstillError: naming the flag.
        """
        must_be("above 0 and below 1", self, "keep", "confidence", "power")
        must_be("above 0", self, "max_episodes")

    def record(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


def ladder(task: Task) -> tuple[str, ...]:
    """The sizes that are tried, largest first."""
    return ATARI if task.is_atari else VECTORS
