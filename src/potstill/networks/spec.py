"""Spec strings: `net1`, `cnn:16-16-16:64`, `mlp:64-64`, `mlp:64-64:tanh`, `linear`."""

import re
from dataclasses import dataclass
from typing import Literal

from potstill.errors import PotstillError

Activation = Literal["relu", "tanh"]

PAPER = {
    "dqn": "cnn:32-64-64:512",
    "net1": "cnn:16-32-32:256",
    "net2": "cnn:16-16-16:128",
    "net3": "cnn:16-16-16:64",
}
"""The networks of Rusu et al. 2016, table 3: the teacher and its 25 %, 7 % and 4 % students."""

MAX_WIDTH = 16_384
MAX_DEPTH = 32


@dataclass(frozen=True)
class NetworkSpec:
    """A network's sizes; its inputs and outputs come from the task."""

    kind: Literal["cnn", "mlp"]
    convs: tuple[int, ...]
    """Channels of the three convolutions (8×8 stride 4, 4×4 stride 2, 3×3 stride 1); () for an MLP."""
    hidden: tuple[int, ...]
    """Widths of the fully connected layers before the outputs."""
    activation: Activation = "relu"

    @classmethod
    def parse(cls, text: str) -> "NetworkSpec":
        """Read a spec string.

        Raises:
            PotstillError: it is none.
        """
        if text == "linear":
            return cls("mlp", (), ())
        kind, *parts = PAPER.get(text, text).split(":")
        if kind == "cnn" and len(parts) == 2 and len(convs := _sizes(parts[0])) == 3 and (hidden := _sizes(parts[1])):
            return cls("cnn", convs, hidden)
        if kind == "mlp" and len(parts) in (1, 2) and (hidden := _sizes(parts[0])):
            activation = parts[1] if len(parts) == 2 else "relu"
            if activation == "relu" or activation == "tanh":
                return cls("mlp", (), hidden, activation)
        raise PotstillError(
            f"{text!r} is no network: use {', '.join(PAPER)}, cnn:16-16-16:64 (three convolutions, then layers)"
            f", mlp:64-64[:tanh] or linear, widths from 1 to {MAX_WIDTH}"
        )

    def __str__(self) -> str:
        hidden = "-".join(map(str, self.hidden))
        if self.kind == "cnn":
            text = f"cnn:{'-'.join(map(str, self.convs))}:{hidden}"
        elif not self.hidden:
            text = "linear"
        else:
            text = f"mlp:{hidden}" + (":tanh" if self.activation == "tanh" else "")
        return next((name for name, spec in PAPER.items() if spec == text), text)


def _sizes(text: str) -> tuple[int, ...]:
    """`"16-32"` → (16, 32); () for anything else."""
    if not re.fullmatch(r"[1-9][0-9]{0,4}(-[1-9][0-9]{0,4})*", text):
        return ()
    sizes = tuple(map(int, text.split("-")))
    return sizes if max(sizes) <= MAX_WIDTH and len(sizes) <= MAX_DEPTH else ()
