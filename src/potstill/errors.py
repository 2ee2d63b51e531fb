"""The one error that is the user's to mend."""


class PotstillError(Exception):
    """A mistake its user can mend: one line that names the file or flag, and the mend.

    The command line prints the message alone and exits with status 2.
    """


def in_a_line(said: object, limit: int = 300) -> str:
    """What another library says, on one line and no longer than so many characters."""
    return " ".join(str(said).split())[:limit]


def named(error: Exception, limit: int = 300) -> str:
    """An exception of a kind that nobody expects, likewise, with its name."""
    return in_a_line(f"{type(error).__name__}: {error}", limit)
