"""What an export is to be, and how near to its policy."""

from dataclasses import dataclass
from typing import Literal

from potstill.errors import PotstillError, must_be


@dataclass(frozen=True)
class ExportOptions:
    """How to export."""

    to: Literal["onnx", "sb3"] = "onnx"
    """onnx: a graph that onnxruntime plays anywhere, `potstill evaluate` too. sb3: a zip for Stable-Baselines3."""
    int8: bool = False
    """In eight bits, by the ranges met in play: about a third of the bytes (onnx)."""
    verify: bool = False
    """Also play both by protocol, the same number of episodes, and refuse an export that scores surely less."""
    episodes: int = 100
    """Of each, with --verify."""
    tolerance: float = 1e-4
    """How far outputs may differ, as a share of the largest one; not asked of int8."""
    min_agreement: float = 0.9
    """The share of best actions that int8 must keep (a twentieth of states are near ties); others must keep all."""
    seed: int = 0
    """Of the play it is compared on."""
    threads: int = 0
    """Threads for emulators and arithmetic; 0: one a core."""

    def check(self) -> None:
        """Refuse values that can't work.

        Raises:
            PotstillError: naming the flag.
        """
        if self.int8 and self.to != "onnx":
            raise PotstillError(f"--int8 is for --to onnx, not {self.to}")
        must_be("at least 2", self, "episodes")
        must_be("above 0 and below 1", self, "tolerance")
        must_be("from 0 to 1", self, "min_agreement")
        must_be("at least 0", self, "seed", "threads")
