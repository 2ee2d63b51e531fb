"""The one error that is the user's to mend."""


class PotstillError(Exception):
    """A mistake its user can mend: one line that names the file or flag, and the mend.

    The command line prints the message alone and exits with status 2.
    """
