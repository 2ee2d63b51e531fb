"""Replay memory of labelled observations, each frame stored once.

A stack of four frames shares three with its predecessor. So only the newest frame of each
observation is kept, with how many of the frames before it belong to the same episode (`depth`);
`sample` rebuilds stacks, zeros where the episode had not begun, as ALE's vector env fills them.
"""

from pathlib import Path
from typing import BinaryIO
from zipfile import BadZipFile, ZipFile

import numpy as np
import torch
import zstandard
from jaxtyping import Float32, Int64, Shaped
from numpy.typing import DTypeLike
from torch import Tensor
from zstandard import ZstdError

from potstill.errors import PotstillError
from potstill.files import atomic_write

Sample = tuple[Int64[np.ndarray, " batch"], Int64[np.ndarray, " batch"]]
"""Rows, counted from the first ever added, and environments."""


class Replay:
    """A ring of rows; a row is one control step of every environment.

    `capacity` rows of `num_envs` steps. The oldest rows are overwritten; of what is left, the
    `stack - 1` oldest rows are never sampled, because frames of their stacks may be gone.
    """

    def __init__(
        self,
        capacity: int,
        num_envs: int,
        observation_shape: tuple[int, ...],
        stack: int,
        dtype: DTypeLike,
        num_labels: int,
    ) -> None:
        if capacity < stack:
            raise ValueError(f"a memory of {capacity} rows can't hold a stack of {stack}")
        self.capacity, self.num_envs, self.stack = capacity, num_envs, stack
        frame_shape = observation_shape[1:] if stack > 1 else observation_shape
        # Memory is committed as rows are written, not here.
        self.frames = np.empty((capacity, num_envs, *frame_shape), dtype)
        self.depth = np.empty((capacity, num_envs), np.uint8)
        self.labels = np.empty((capacity, num_envs, num_labels), np.float32)
        self.rows = 0
        """Rows ever added."""

    def __len__(self) -> int:
        """Control steps held."""
        return min(self.rows, self.capacity) * self.num_envs

    @property
    def nbytes(self) -> int:
        """Bytes when full."""
        return self.frames.nbytes + self.depth.nbytes + self.labels.nbytes

    def add(
        self,
        observations: Shaped[np.ndarray, "envs ..."],
        age: Int64[np.ndarray, " envs"],
        labels: Float32[Tensor, "envs labels"],
    ) -> None:
        """Add one row.

        Args:
            observations: (num_envs, stack, …), or (num_envs, …) where stack is 1.
            age: control steps since each episode began. In the first row ever added it must be 0
                everywhere: the frames before it are not in the memory.
            labels: the teacher's outputs.
        """
        row = self.rows % self.capacity
        self.frames[row] = observations[:, -1] if self.stack > 1 else observations
        self.depth[row] = np.minimum(age, self.stack - 1)
        self.labels[row] = labels.numpy()
        self.rows += 1

    def draw(self, batch: int, rng: np.random.Generator, rows: int | None = None, held: int | None = None) -> Sample:
        """Draw rows and environments uniformly, with replacement: what `take` takes.

        Args:
            batch: how many.
            rng: of the draw.
            rows: only from the first so many rows ever added; default: all.
            held: only from the newest so many of these; default: as many as the ring has.
        """
        rows = self.rows if rows is None else rows
        held = min(rows, held or self.capacity)
        complete = self.stack - 1 if rows > held else 0
        offsets = rng.integers(complete, held, batch)  # rows, from the oldest held
        envs = rng.integers(0, self.num_envs, batch)
        return rows - held + offsets, envs

    def sample(
        self, batch: int, rng: np.random.Generator
    ) -> tuple[Shaped[Tensor, "batch ..."], Float32[Tensor, "batch labels"]]:
        """Draw observations and labels uniformly, with replacement."""
        return self.take(*self.draw(batch, rng))

    def take(
        self, rows: Int64[np.ndarray, " batch"], envs: Int64[np.ndarray, " batch"]
    ) -> tuple[Shaped[Tensor, "batch ..."], Float32[Tensor, "batch labels"]]:
        """The observations and labels at these rows (counted from the first ever added) and environments."""
        flat = (rows % self.capacity) * self.num_envs + envs
        labels = self.labels.reshape(-1, self.labels.shape[-1])[flat]
        frames = self.frames.reshape(-1, *self.frames.shape[2:])
        if self.stack == 1:
            return torch.as_tensor(frames[flat]), torch.as_tensor(labels)
        back = np.arange(self.stack - 1, -1, -1)  # oldest frame first
        stacked = ((rows[:, None] - back) % self.capacity) * self.num_envs + envs[:, None]
        observations = np.take(frames, stacked, axis=0)  # 20 times as fast as torch's or NumPy's indexing
        observations[back > self.depth.reshape(-1)[flat][:, None]] = 0
        return torch.as_tensor(observations), torch.as_tensor(labels)

    def seal(self, path: Path, first_row: int, end_row: int) -> None:
        """Write the rows from `first_row` until before `end_row` (counted from the first ever added), atomically.

        Frames are compressed by Zstandard: 40 to 200 times on Atari (docs/log.md).

        Raises:
            PotstillError: the file can't be written.
        """
        rows = np.arange(first_row, end_row) % self.capacity
        if len(rows) and rows[-1] - rows[0] == len(rows) - 1:
            rows = slice(int(rows[0]), int(rows[-1]) + 1)  # a view: no copy of some hundred megabytes
        packed = zstandard.ZstdCompressor(level=1).compress(self.frames[rows].data)
        with atomic_write(path) as file:
            np.savez(
                file,
                frames=np.frombuffer(packed, np.uint8),
                depth=self.depth[rows],
                labels=self.labels[rows],
            )

    def unseal(self, path: Path, rows: int | None = None) -> None:
        """Add the rows of a file that `seal` wrote, all or the first `rows`.

        Raises:
            PotstillError: it is missing or damaged (each array has a checksum), or of another shape.
        """
        try:
            with path.open("rb") as file:
                self._unseal(file, rows)
        except (OSError, ValueError, KeyError, EOFError, NotImplementedError, BadZipFile, ZstdError) as error:
            raise PotstillError(f"{path} is missing, damaged or of another shape ({error})") from error

    def _unseal(self, file: BinaryIO, rows: int | None) -> None:
        largest = self.nbytes // self.capacity * max(self.capacity, rows or 0) + 10_000
        if sum(member.file_size for member in ZipFile(file).infolist()) > largest:
            raise ValueError("it is too large")
        with np.load(file, allow_pickle=False) as shard:
            depth, labels, packed = shard["depth"], shard["labels"], shard["frames"]
        rows = len(depth) if rows is None else rows
        if depth.shape[1:] != (self.num_envs,) or labels.shape != (*depth.shape, self.labels.shape[-1]):
            raise ValueError(f"{labels.shape} labels")
        if not rows <= min(len(depth), self.capacity):
            raise ValueError(f"{len(depth)} rows, not {rows}")
        start = self.rows % self.capacity
        before_seam = min(rows, self.capacity - start)
        with zstandard.ZstdDecompressor().stream_reader(packed.data) as frames:
            _read_into(self.frames[start : start + before_seam], frames)
            _read_into(self.frames[: rows - before_seam], frames)
            if rows == len(depth) and frames.read(1):
                raise ValueError("its frames are larger")
        ring = np.arange(self.rows, self.rows + rows) % self.capacity
        self.depth[ring], self.labels[ring] = depth[:rows], labels[:rows]
        self.rows += rows


def _read_into(array: np.ndarray, stream: zstandard.ZstdDecompressionReader) -> None:
    """Fill a contiguous array."""
    left = array.reshape(-1).view(np.uint8).data
    while left:
        if not (read := stream.readinto(left)):  # pyright: ignore[reportUnknownMemberType]
            raise EOFError("its frames end early")
        left = left[read:]
