"""Replay memory of labelled observations, each frame stored once.

A stack of four frames shares three with its predecessor. So only the newest frame of each
observation is kept, with how many of the frames before it belong to the same episode (`depth`);
`take` rebuilds stacks, zeros where the episode had not begun, as ALE's vector env fills them.
"""

import math
from pathlib import Path
from tokenize import TokenError
from typing import BinaryIO
from zipfile import BadZipFile, ZipFile

import numpy as np
import torch
import zstandard
from jaxtyping import Float32, Int64, Shaped
from torch import Tensor
from zstandard import ZstdError

from potstill.errors import PotstillError
from potstill.files import atomic_write
from potstill.tasks import Task

DAMAGED = (OSError, LookupError, ValueError, ArithmeticError, EOFError, MemoryError, NotImplementedError, TokenError,
           BadZipFile, ZstdError)  # fmt: skip
"""What the readers of an .npz raise of one that is cut off, or that claims what it doesn't hold."""

Sample = tuple[Int64[np.ndarray, " batch"], Int64[np.ndarray, " batch"]]
"""Rows, counted from the first ever added, and environments."""


def step_bytes(task: Task) -> int:
    """What a control step of a task takes, nearly."""
    frame = math.prod(task.observation_shape) // task.protocol.stack
    return frame * (1 if task.is_atari else 4) + 4 * task.num_outputs


class Replay:
    """A ring of rows; a row is one control step of every environment.

    `capacity` rows of `num_envs` steps. The oldest rows are overwritten; of what is left, the
    `stack - 1` oldest rows are never sampled, because frames of their stacks may be gone. It lies on `device`, where
    samples come out: a frame crosses to a GPU once.
    """

    def __init__(
        self,
        capacity: int,
        num_envs: int,
        observation_shape: tuple[int, ...],
        stack: int,
        dtype: torch.dtype,
        num_labels: int,
        device: str = "cpu",
    ) -> None:
        if capacity < stack:
            raise ValueError(f"a memory of {capacity} rows can't hold a stack of {stack}")
        self.capacity, self.num_envs, self.stack, self.device = capacity, num_envs, stack, device
        frame_shape = observation_shape[1:] if stack > 1 else observation_shape
        # On the CPU memory is committed as rows are written, not here.
        self.frames = torch.empty((capacity, num_envs, *frame_shape), dtype=dtype, device=device)
        self.depth = torch.empty((capacity, num_envs), dtype=torch.uint8, device=device)
        self.labels = torch.empty((capacity, num_envs, num_labels), device=device)
        self.rows = 0
        """Rows ever added."""

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
        self.frames[row] = torch.as_tensor(observations[:, -1] if self.stack > 1 else observations)
        self.depth[row] = torch.as_tensor(np.minimum(age, self.stack - 1))
        self.labels[row] = labels
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
        flat = self._index((rows % self.capacity) * self.num_envs + envs)
        labels, frames = (held.flatten(0, 1) for held in (self.labels, self.frames))
        if self.stack == 1:
            return frames.index_select(0, flat), labels.index_select(0, flat)
        back = np.arange(self.stack - 1, -1, -1)  # oldest frame first
        stacked = self._index(((rows[:, None] - back) % self.capacity) * self.num_envs + envs[:, None])
        before = self._index(back) > self.depth.flatten().index_select(0, flat)[:, None]
        # index_select and index_fill_: by brackets it takes ten times as long, on the CPU.
        observations = frames.index_select(0, stacked.flatten())
        if self.device == "cpu":
            observations.index_fill_(0, before.flatten().nonzero()[:, 0], 0)
        else:  # how many there are is nothing to wait for
            observations.masked_fill_(before.view(-1, *(1 for _ in frames.shape[1:])), 0)
        observations = observations.view(*stacked.shape, *frames.shape[1:])
        return observations, labels.index_select(0, flat)

    def labels_at(
        self, rows: Int64[np.ndarray, " batch"], envs: Int64[np.ndarray, " batch"]
    ) -> Float32[Tensor, "batch labels"]:
        """The labels alone."""
        return self.labels.flatten(0, 1).index_select(0, self._index((rows % self.capacity) * self.num_envs + envs))

    def _index(self, index: np.ndarray) -> Tensor:
        on_cpu = torch.as_tensor(index)  # from pinned memory it crosses while the GPU is at work
        return on_cpu if self.device == "cpu" else on_cpu.pin_memory().to(self.device, non_blocking=True)

    def seal(self, path: Path, first_row: int, end_row: int) -> None:
        """Write the rows from `first_row` until before `end_row` (counted from the first ever added), atomically.

        Frames are compressed by Zstandard: 40 to 200 times on Atari (docs/log.md).

        Raises:
            PotstillError: the file can't be written.
        """
        if not 0 < end_row - first_row <= self.capacity:
            raise ValueError(f"{end_row - first_row} rows of a memory of {self.capacity}")
        start, end = first_row % self.capacity, (end_row - 1) % self.capacity + 1
        parts = [slice(start, end)] if start < end else [slice(start, None), slice(0, end)]  # views: gigabytes uncopied
        packer = zstandard.ZstdCompressor(level=1).compressobj()
        packed = b"".join([packer.compress(self.frames[part].cpu().numpy().data) for part in parts] + [packer.flush()])
        depth, labels = (torch.cat([held[part] for part in parts]).cpu().numpy() for held in (self.depth, self.labels))
        with atomic_write(path) as file:
            np.savez(file, frames=np.frombuffer(packed, np.uint8), depth=depth, labels=labels)

    def unseal(self, path: Path, rows: int | None = None, most: int = 0) -> None:
        """Add the rows of a file that `seal` wrote, all or the first `rows`; it may hold `most`, if that is more.

        Raises:
            PotstillError: it is missing or damaged (each array has a checksum), or of another shape.
        """
        try:
            with path.open("rb") as file:
                self._unseal(file, rows, most)
        except DAMAGED as error:
            raise PotstillError(f"{path} is missing, damaged or of another shape ({error})") from error

    def _unseal(self, file: BinaryIO, rows: int | None, most: int) -> None:
        largest = self.nbytes // self.capacity * max(self.capacity, most) + 10_000
        if sum(member.file_size for member in ZipFile(file).infolist()) > largest:
            raise ValueError("it is too large")
        file.seek(0)
        with np.load(file, allow_pickle=False) as shard:
            depth, labels, packed = shard["depth"], shard["labels"], shard["frames"]
        if [(of.dtype, of.ndim) for of in (depth, labels, packed)] != [(np.uint8, 2), (np.float32, 3), (np.uint8, 1)]:
            raise ValueError("arrays of other kinds")
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
        ring = self._index(np.arange(self.rows, self.rows + rows) % self.capacity)
        self.depth[ring] = torch.as_tensor(depth[:rows], device=self.device)
        self.labels[ring] = torch.as_tensor(labels[:rows], device=self.device)
        self.rows += rows


def _read_into(tensor: Tensor, stream: zstandard.ZstdDecompressionReader) -> None:
    """Fill a contiguous tensor."""
    on_cpu = tensor.cpu()  # itself, where it is there
    left = on_cpu.flatten().view(torch.uint8).numpy().data
    while left:
        if not (read := stream.readinto(left)):  # pyright: ignore[reportUnknownMemberType]
            raise EOFError("its frames end early")
        left = left[read:]
    tensor.copy_(on_cpu)
