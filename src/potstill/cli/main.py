"""`potstill …`: read the arguments, run the command, turn errors into one line and an exit status."""

import contextlib
import io
import os
import sys
from typing import Annotated, Protocol

import tyro

from potstill.cli.common import printable
from potstill.cli.files import Export, Inspect, Play, Push, Report
from potstill.cli.learn import Demo, Distill, Fit, Record, Train
from potstill.cli.measure import Bench, Cost, Evaluate, Reproduce, Starts
from potstill.errors import PotstillError
from potstill.version import __version__

Command = (
    Annotated[Demo, tyro.conf.subcommand("demo")]
    | Annotated[Distill, tyro.conf.subcommand("distill")]
    | Annotated[Fit, tyro.conf.subcommand("fit")]
    | Annotated[Record, tyro.conf.subcommand("record")]
    | Annotated[Train, tyro.conf.subcommand("train")]
    | Annotated[Evaluate, tyro.conf.subcommand("evaluate")]
    | Annotated[Cost, tyro.conf.subcommand("cost")]
    | Annotated[Play, tyro.conf.subcommand("play")]
    | Annotated[Reproduce, tyro.conf.subcommand("reproduce")]
    | Annotated[Starts, tyro.conf.subcommand("starts")]
    | Annotated[Bench, tyro.conf.subcommand("bench")]
    | Annotated[Export, tyro.conf.subcommand("export")]
    | Annotated[Inspect, tyro.conf.subcommand("inspect")]
    | Annotated[Report, tyro.conf.subcommand("report")]
    | Annotated[Push, tyro.conf.subcommand("push")]
)


class Runnable(Protocol):
    """A command with its arguments."""

    def run(self, command: list[str]) -> None: ...


DESCRIPTION = """Distil a trained reinforcement-learning policy into a small, fast one that plays as well, and prove it.

Start with `potstill demo`: a bundled Pong player becomes three students, 25 %, 7 % and 4 % of its size."""


def main(argv: list[str] | None = None) -> None:
    """The entry point. Exit status: 0 done, 2 the user's mistake (one line on stderr), 130 interrupted."""
    argv = sys.argv[1:] if argv is None else argv
    try:
        if argv == ["--version"]:
            print(f"potstill {__version__}")
            return
        parse(argv).run(["potstill", *argv])
    except PotstillError as error:
        print(f"potstill: {printable(str(error))}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("potstill: interrupted", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:  # `potstill … | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


def parse(
    argv: list[str],
) -> Runnable:
    """The command that was typed.

    Raises:
        PotstillError: it can't be read; the message is the parser's, on one line.
    """
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            return tyro.cli(
                Command,  # pyright: ignore[reportArgumentType]  # a union of types, which tyro takes
                prog="potstill",
                description=DESCRIPTION,
                args=argv or ["--help"],
                config=(tyro.conf.OmitArgPrefixes, tyro.conf.FlagCreatePairsOff),
            )
    except SystemExit as stop:
        if stop.code == 2:
            raise PotstillError(_one_line(complaint.getvalue())) from None
        raise


def _one_line(box: str) -> str:
    """The words of tyro's framed message, up to its advice about --help."""
    lines = [line.strip(" │╭╮╰╯─\t") for line in box.splitlines()]
    words = " ".join(line for line in lines if line)
    words, _, _ = words.partition("For full helptext")
    title = box.splitlines()[0].strip(" ╭╮─") if box else ""
    words = words.removeprefix(title).strip() or "wrong arguments"
    return f"{words.rstrip('. ')}; see potstill --help"
