"""The one error that is the user's to mend."""


class PotstillError(Exception):
    """A mistake its user can mend: one line that names the file or flag, and the mend.

    The command line prints the message alone and exits with status 2.
    """


def in_a_line(error: object, limit: int = 300) -> str:
    """What another library says, on one line and no longer than so many characters."""
    return " ".join(str(error).split())[:limit]
