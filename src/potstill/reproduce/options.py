"""Everything that decides what is reproduced, and how thoroughly."""

from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from potstill.choices import Device
from potstill.errors import PotstillError, must_be

LEAST_MEMORY_HOURS = 0.1
Table = Literal["losses", "compression", "multitask-3", "multitask-10", "online"]


@dataclass(frozen=True)
class ReproduceOptions:
    """How much of what the paper did is done."""

    teachers: tuple[str, ...] = ("zoo",)
    """Where teachers are looked for, in this order: zoo, folders of policy files, or files."""
    games: tuple[str, ...] = ()
    """Which games, as in Pong Qbert. Default: the paper's that have a teacher."""
    hours: float = 10.0
    """Hours of play of each teacher (the paper: 500)."""
    steps: int = 2_000_000
    """Control steps of each game that Multi-DQN and the online learner play."""
    seeds: tuple[int, ...] = (0, 1)
    """Each run is made once for each of them (online: with the first; its three students begin from weights of their
    own and share play and minibatches)."""
    episodes: int = 100
    """Episodes a score is measured on, for each seed."""
    memory_hours: float | None = None
    """Hours of play remembered of each game. Default: ten, or what two thirds of this machine's memory hold."""
    starts: str = "noop"
    """Where scored episodes begin: noop, expert (the paper: within human play), or a folder of files of starts."""
    quick: bool = False
    """A smaller version in minutes: a quarter of an hour of play, 400 updates a game (online: after each of four
    scores), 20,000 steps, 20 episodes, one seed. Its numbers show that it works, no more."""
    device: Device = "cpu"
    """Where networks are computed."""
    threads: int = 0
    """Threads for emulators and arithmetic; 0: one a core."""

    def resolved(self) -> "ReproduceOptions":
        """What --quick stands for.

        Raises:
            PotstillError: a value can't work; the message names the flag.
        """
        if not self.seeds or min(self.seeds) < 0 or len(set(self.seeds)) < len(self.seeds):
            raise PotstillError("--seeds: name each once, from 0 on")
        must_be("above 0", self, "hours", "steps", "episodes")
        must_be("at least 0", self, "threads")
        if self.memory_hours is not None and not self.memory_hours >= LEAST_MEMORY_HOURS:
            raise PotstillError(f"--memory-hours {self.memory_hours}: must be at least {LEAST_MEMORY_HOURS}")
        if not self.quick:
            return self
        for name in ("hours", "steps", "episodes"):
            if (given := getattr(self, name)) != getattr(ReproduceOptions, name):
                raise PotstillError(f"--{name} {given}: --quick has its own; leave out one of them")
        if len(self.seeds) > 1 and self.seeds != ReproduceOptions.seeds:
            raise PotstillError(f"--seeds {' '.join(map(str, self.seeds))}: --quick takes one")
        return replace(self, hours=0.25, steps=20_000, seeds=self.seeds[:1], episodes=20)

    def record(self) -> dict[str, Any]:
        """The options as JSON."""
        return asdict(self)
