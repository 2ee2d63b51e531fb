"""How far a long job has come: what it yields, and whoever drives it shows."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Progress:
    """Of one of its stages."""

    stage: str
    done: int
    total: int
