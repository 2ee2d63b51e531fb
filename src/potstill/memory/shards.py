"""The rows of memories as sealed files in a folder: each time those that are new, a file of each memory."""

from collections.abc import Sequence
from pathlib import Path

from potstill.files import TEMPORARY_SUFFIX
from potstill.memory.replay import Replay

Shards = list[tuple[int, int]]
"""From and until before which row, one after the other."""


def seal(folder: Path, memories: Sequence[Replay], shards: Shards) -> Shards:
    """Write those rows that no shard holds; returns the shards that hold all that isn't overwritten.

    Raises:
        PotstillError: the disk is full or can't be written.
    """
    rows = memories[0].rows
    oldest = max(0, rows - memories[0].capacity)
    shards = [shard for shard in shards if shard[1] > oldest]
    sealed = shards[-1][1] if shards else oldest  # rows gone before they were saved are not missed
    if sealed < rows:
        shards.append((sealed, rows))
        for index, memory in enumerate(memories):
            memory.seal(folder / _file(shards[-1], index), sealed, rows)
    return shards


def unseal(folder: Path, memories: Sequence[Replay], shards: Shards) -> None:
    """Bring fresh memories to where they were sealed.

    Raises:
        PotstillError: a file is missing or damaged.
    """
    for index, memory in enumerate(memories):
        memory.rows = shards[0][0]
        for shard in shards:
            memory.unseal(folder / _file(shard, index))


def remove_strays(folder: Path, memories: Sequence[Replay], shards: Shards) -> None:
    """Delete what a killed process left behind, and files whose rows the rings have overwritten."""
    keep = {_file(shard, index) for shard in shards for index in range(len(memories))}
    for path in folder.iterdir():
        if path.name not in keep and path.suffix in (".npz", TEMPORARY_SUFFIX):
            path.unlink()


def _file(shard: tuple[int, int], index: int) -> str:
    return f"memory-{shard[0]:08}-{shard[1]:08}-{index}.npz"
