"""Every way in: files of ours and of others, on the disk, in the zoo or on the Hub. None is unpickled."""

from potstill.teachers.load import load, load_all
from potstill.teachers.names import find

__all__ = ["find", "load", "load_all"]
