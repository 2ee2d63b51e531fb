"""`potstill …`: read the arguments, run the command, turn errors into one line and an exit status."""

import contextlib
import errno
import inspect
import io
import logging
import os
import re
import sys
from importlib import import_module
from typing import Annotated, Any, Protocol, Union

import tyro

from potstill.cli.common import printable
from potstill.cli.files import Export, Inspect, Play, Push, Report
from potstill.cli.learn import Demo, Distill, Fit, Record, Train
from potstill.cli.measure import Bench, Cost, Evaluate, Reproduce, Starts
from potstill.errors import PotstillError, in_a_line, named
from potstill.version import __version__

COMMANDS = {
    "demo": Demo,
    "distill": Distill,
    "fit": Fit,
    "record": Record,
    "train": Train,
    "evaluate": Evaluate,
    "cost": Cost,
    "play": Play,
    "reproduce": Reproduce,
    "starts": Starts,
    "bench": Bench,
    "export": Export,
    "inspect": Inspect,
    "report": Report,
    "push": Push,
}


class Runnable(Protocol):
    """A command with its arguments."""

    def run(self, command: list[str]) -> None: ...


ENVIRONMENT = re.compile(r"(--task=)?([\w.]+):(\w[\w/-]*-v\d+(?:\?.*)?)")
"""An environment's id behind the module that registers it."""
DESCRIPTION = """Distil a trained reinforcement-learning policy into a small, fast one that plays as well, and prove it.

Start with `potstill demo`: a bundled Pong player becomes three students, 25 %, 7 % and 4 % of its size.
`potstill COMMAND --help` explains a command and all its options, `potstill --version` says which this is."""


def main(argv: list[str] | None = None) -> None:
    """Run a command. Exit status: 0 done, 2 the user's mistake (one line on stderr)."""
    argv = sys.argv[1:] if argv is None else argv
    if sys.stderr is None:  # closed: print would write to stdout instead, and the next file opened would be libraries'
        sys.stderr = open(os.devnull, "w", errors="replace")  # noqa: SIM115 — it is there until the end
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # of a home it can't write to it warns, and does without
    if reconfigure := getattr(sys.stdout, "reconfigure", None):  # not where it is closed
        reconfigure(errors="replace")  # tables have frames, also in ASCII
    try:
        if no_text := next((word for word in argv if re.search("[\ud800-\udfff]", word)), None):
            raise PotstillError(f"{no_text}: its name is no UTF-8: rename it")
        if argv == ["--version"]:
            print(f"potstill {__version__}")
        else:
            parse(_environments(argv)).run(["potstill", *argv])
        if sys.stdout:
            sys.stdout.flush()  # while what a full disk says can be caught
    except PotstillError as error:
        print(f"potstill: {printable(str(error))}", file=sys.stderr)
        sys.exit(2)
    except BrokenPipeError:  # `potstill … | head`
        _drop_output()
        sys.exit(1)
    except OSError as error:  # a full disk behind `>`, a folder that can't be read
        where = error.filename or ("the output" if error.errno == errno.ENOSPC else type(error).__name__)
        said = f"{error.strerror or error}: {where}"
        print(f"potstill: {printable(in_a_line(said))}", file=sys.stderr)
        _drop_output()
        sys.exit(2)


def _drop_output() -> None:
    """What can't be printed goes nowhere: the interpreter would complain of it at its end."""
    if sys.stdout is None:
        return
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def parse(
    argv: list[str],
) -> Runnable:
    """The command that was typed.

    Raises:
        PotstillError: it can't be read; the message is the parser's, on one line.
    """
    options = [word.partition("=")[0] for word in argv if word.startswith("--")]
    if twice := next((option for option in options if options.count(option) > 1), None):
        raise PotstillError(f"{twice} is given twice: name all of its values behind one")
    complaint = io.StringIO()
    command = argv[0] if argv and argv[0] in COMMANDS else None
    try:
        with contextlib.redirect_stderr(complaint):
            return tyro.cli(
                _union(in_short=command is None),
                prog="potstill",
                description=DESCRIPTION,
                args=argv or ["--help"],
                config=(tyro.conf.OmitArgPrefixes,),
            )
    except SystemExit as stop:
        if stop.code == 2:
            raise PotstillError(
                f"{_one_line(complaint.getvalue(), options)}; see potstill {command + ' ' if command else ''}--help"
            ) from None
        raise


def _environments(argv: list[str]) -> list[str]:
    """What was typed, with tasks of the form `module:Env-v0` named by their ids; whatever else has it is left alone."""
    words: list[str] = []
    option = ""
    for word in argv:
        option = word.partition("=")[0] if word.startswith("--") else option
        names_tasks = option == "--task" or (argv[0] == "train" and option != "--out")
        words.append(_environment(word) if names_tasks else word)
    return words


def _environment(word: str) -> str:
    """What `module:Env-v0` names, after its module is imported, which registers it, as `gymnasium.make` does. Only what
    was typed is, never what a file says."""
    match = ENVIRONMENT.fullmatch(word)
    if match is None:
        return word
    try:
        with contextlib.redirect_stdout(sys.stderr):  # which it may greet: stdout is for results
            import_module(match[2])
    except (Exception, SystemExit) as error:  # anybody's code
        missing = isinstance(error, ModuleNotFoundError) and match[2].startswith(str(error.name))
        mend = "; the folder it lies in must be in PYTHONPATH" if missing else ""
        raise PotstillError(f"{word}: {match[2]} can't be imported: {named(error)}{mend}") from error
    return (match[1] or "") + match[3]


def _union(in_short: bool) -> Any:
    """All commands as one type, as tyro takes them; each described in full, or by its first paragraph."""

    def choice(name: str, command: type) -> Any:
        described = str(inspect.getdoc(command)).partition("\n\n")[0] if in_short else None
        return Annotated[command, tyro.conf.subcommand(name, description=described)]

    return Union[tuple(choice(name, command) for name, command in COMMANDS.items())]  # noqa: UP007


def _one_line(box: str, typed: list[str]) -> str:
    """The words of tyro's framed message, up to its advice; of that, the likeliest option."""
    lines = [line.strip(" │╭╮╰╯─\t") for line in box.splitlines()]
    words = " ".join(line for line in lines if line.strip("-"))  # frames are of dashes where there is only ASCII
    words, _, _ = words.partition("For full helptext")
    title = box.splitlines()[0].strip(" ╭╮─") if box else ""
    words = words.removeprefix(title).strip() or "wrong arguments"
    words, _, similar = words.partition(" Perhaps you meant:")
    likely = re.search(r"--[\w-]+", similar)
    return words.rstrip(". ") + (f"; perhaps {likely[0]}" if likely and likely[0] not in typed else "")
