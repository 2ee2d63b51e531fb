"""Spec strings: `net1`, `cnn:16-16-16:64`, `cnn:8-8-8:16:2f`, `cnn:32-64-64:512/128`, `mlp:64-64:tanh`, `linear`."""

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
    "multitask-3": "cnn:32-64-64:512/128",
    "multitask-10": "cnn:64-64-64:1500/128",
}
"""The networks of Rusu et al. 2016, table 3: the teacher, its 25 %, 7 % and 4 % students, those of 3 and 10 games."""

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
    controller: tuple[int, ...] = ()
    """Widths of those that come after them and are each task's own, where several share the rest."""
    frames: int | None = None
    """How many of the newest frames a CNN looks at; None: all."""

    @classmethod
    def parse(cls, text: str) -> "NetworkSpec":
        """Read a spec string.

        Raises:
            PotstillError: it is none.
        """
        if text == "linear":
            return cls("mlp", (), ())
        kind, *parts = PAPER.get(text, text).split(":")
        frames = None
        if kind == "cnn" and len(parts) == 3 and re.fullmatch("[1-9][0-9]?f", parts[2]):
            frames = int(parts.pop()[:-1])
        if kind == "cnn" and len(parts) == 2 and len(convs := _sizes(parts[0])) == 3 and (dense := _dense(parts[1])):
            return cls("cnn", convs, dense[0], "relu", dense[1], frames)
        if kind == "mlp" and len(parts) in (1, 2) and (dense := _dense(parts[0])):
            activation = parts[1] if len(parts) == 2 else "relu"
            if activation == "relu" or activation == "tanh":
                return cls("mlp", (), dense[0], activation, dense[1])
        raise PotstillError(
            f"{text!r} is no network: use {', '.join(PAPER)}, cnn:16-16-16:64 (three convolutions, then layers;"
            f" :2f after them for the two newest frames alone)"
            f", mlp:64-64[:tanh] or linear, with /128 after its layers for those each of several tasks has to itself;"
            f" widths from 1 to {MAX_WIDTH}"
        )

    def __str__(self) -> str:
        hidden = "/".join("-".join(map(str, widths)) for widths in (self.hidden, self.controller) if widths)
        if self.kind == "cnn":
            text = f"cnn:{'-'.join(map(str, self.convs))}:{hidden}" + (f":{self.frames}f" if self.frames else "")
        elif not self.hidden:
            text = "linear"
        else:
            text = f"mlp:{hidden}" + (":tanh" if self.activation == "tanh" else "")
        return next((name for name, spec in PAPER.items() if spec == text), text)


def _dense(text: str) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    """`"512/128"` → ((512,), (128,)); `"64-64"` → ((64, 64), ()); None for anything else."""
    shared, slash, own = text.partition("/")
    sizes = _sizes(shared), _sizes(own)
    return sizes if sizes[0] and (sizes[1] or not slash) else None


def _sizes(text: str) -> tuple[int, ...]:
    """`"16-32"` → (16, 32); () for anything else."""
    if not re.fullmatch(r"[1-9][0-9]{0,4}(-[1-9][0-9]{0,4})*", text):
        return ()
    sizes = tuple(map(int, text.split("-")))
    return sizes if max(sizes) <= MAX_WIDTH and len(sizes) <= MAX_DEPTH else ()
