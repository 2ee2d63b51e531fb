"""Every way in: files of ours and of others, on the disk, in the zoo or on the Hub. None is unpickled."""

from potstill.teachers.load import checksum, load, load_all
from potstill.teachers.names import find

__all__ = ["checksum", "find", "load", "load_all"]
