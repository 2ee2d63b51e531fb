"""What several commands need."""

import sys
from collections.abc import Generator
from contextlib import contextmanager
from typing import Annotated, TypeVar

import tyro

T = TypeVar("T")
Flat = Annotated[T, tyro.conf.arg(name="")]
"""Options that stand among a command's own in its help."""


@contextmanager
def resumable(command: list[str]) -> Generator[None]:
    """On Ctrl-C, say how to go on."""
    try:
        yield
    except KeyboardInterrupt:
        goes_on = "--resume" in command or command[1:2] == ["demo"]  # the demo does by itself
        mend = command if goes_on else [*command, "--resume"]
        print(f"\npotstill: interrupted; go on with: {' '.join(mend)}", file=sys.stderr)
        sys.exit(130)


def printable(text: str) -> str:
    """Words out of a stranger's file, without what would command the terminal."""
    return "".join(character if character.isprintable() else "?" for character in text)
