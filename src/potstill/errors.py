"""The one error that is the user's to mend, and the checks that most often raise it."""

from collections.abc import Callable
from importlib.util import find_spec

RANGES: dict[str, Callable[[float], bool]] = {
    "above 0": lambda value: value > 0,
    "above 0 and below 1": lambda value: 0 < value < 1,
    "from 0 to 1": lambda value: 0 <= value <= 1,
    "at least 0": lambda value: value >= 0,
    "at least 1": lambda value: value >= 1,
    "at least 2": lambda value: value >= 2,
}
MOST = {
    "threads": 1024, "envs": 10**5, "batch": 10**6, "episodes": 10**6, "eval_episodes": 10**6, "max_episodes": 10**6,
    "hours": 10**6, "memory_hours": 10**6,
}  # fmt: skip
"""What can be had, of what is made at once."""
MOST_OF_ALL = 10**15
"""Of anything: more are never done, nor counted exactly."""


class PotstillError(Exception):
    """A mistake its user can mend: one line that names the file or flag, and the mend.

    The command line prints the message alone and exits with status 2.
    """


def in_a_line(said: object, limit: int = 300) -> str:
    """What another library says, on one line and no longer than so many characters."""
    return " ".join(str(said).split())[:limit]


def named(error: BaseException, limit: int = 300) -> str:
    """An exception of a kind that nobody expects, likewise, with its name."""
    return in_a_line(f"{type(error).__name__}: {error}", limit)


def need(what: str, *packages: str, install: str) -> None:
    """Check that packages which are no part of every installation are there.

    Args:
        what: needs them.
        packages: as they are imported.
        install: what pip installs them by.

    Raises:
        PotstillError: some aren't.
    """
    if missing := [name for name in packages if find_spec(name) is None]:
        raise PotstillError(f"{what} needs {' and '.join(missing)}: pip install '{install}'")


def must_be(range: str, options: object, *names: str) -> None:
    """Check values of options; None is not given.

    Args:
        range: one of `RANGES`.
        options: their values are attributes of it.
        names: of those.

    Raises:
        PotstillError: one is outside, or above what can be (`MOST`); the message names its flag.
    """
    for name in names:
        value = getattr(options, name)
        if value is not None and not RANGES[range](value):
            raise PotstillError(f"--{name.replace('_', '-')} {value}: must be {range}")
        if value is not None and value > (most := MOST.get(name, MOST_OF_ALL)):
            raise PotstillError(f"--{name.replace('_', '-')} {value}: must be at most {most}")
