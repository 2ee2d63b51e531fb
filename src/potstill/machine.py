"""The machine: what it can do, and what a result says of it."""

import ctypes
import importlib.metadata
import json
import os
import platform
import re
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch

from potstill.errors import PotstillError
from potstill.version import __version__

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3
"""Of malloc.h."""


def cores(wanted: int = 0) -> int:
    """Threads to use: as many as are wanted; 0: one for each core that this process may run on."""
    of_ours = getattr(os, "sched_getaffinity", None)  # not on macOS
    there = len(of_ours(0)) if of_ours else os.cpu_count() or 1
    with suppress(OSError, ValueError):  # a container's share of them; "max": all
        share, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        there = min(there, max(1, round(int(share) / int(period))))
    return wanted or there


def workers(count: int, threads: int) -> ThreadPoolExecutor:
    """So many workers, whose arithmetic shares so many threads."""
    return ThreadPoolExecutor(count, initializer=use_threads, initargs=(max(1, threads // count),))


def use_threads(count: int) -> None:
    """Let this thread's arithmetic use so many threads, whatever other threads set theirs to."""
    torch.get_num_threads()  # a thread that has computed nothing yet takes over what any thread set last: here
    torch.set_num_threads(count)


@contextmanager
def arithmetic_threads(count: int) -> Iterator[None]:
    """Within it this thread's arithmetic uses so many threads, at first; afterwards as many as before."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def own_stream(device: str) -> Iterator[None]:
    """Within it a thread's work on a GPU waits for what was asked for before, and for nobody else's; at the end it is
    done."""
    if device == "cpu":
        yield
        return
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        yield
    stream.synchronize()


def prepare_device(device: str) -> None:
    """Check that a device is there, and have it compute the same thing twice alike, in memory that is kept, and take
    numbers next to nothing (below 1e-38) for 0: to be called before anything is computed, as threads keep their ways.

    Raises:
        PotstillError: it isn't.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise PotstillError("--device cuda: PyTorch sees no GPU here; use --device cpu")
    torch.backends.cudnn.deterministic = True
    # Adam's moments of weights that have no gradients any more end there, where a CPU takes thirty times as long.
    torch.set_flush_denormal(True)
    keep_freed_memory()


def keep_freed_memory() -> None:
    """Have glibc keep what tensors of up to 32 MiB free, for the next ones.

    It gives the end of its heap back whenever 64 MiB are free, so that each update of a large minibatch asks the system
    for the same pages again: a third of DQN's learning on a CPU (docs/log.md). The heaps of other threads, of 64 MiB
    each, it gives back whatever it is told, unless it is to keep as much as that free.
    """
    with suppress(AttributeError):  # another C library
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(M_MMAP_THRESHOLD, 32 << 20)  # glibc's own largest
        mallopt(M_TRIM_THRESHOLD, -1)  # never
        mallopt(M_TOP_PAD, 64 << 20)


def has_bf16(device: str) -> bool:
    """Whether bfloat16 arithmetic is in the hardware (elsewhere it is emulated, and slower)."""
    if device == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def learns_in_bf16(precision: str, device: str, frames: bool) -> bool:
    """What a --precision of auto, bf16 or fp32 comes to; `frames`: whether the networks are CNNs."""
    return precision == "bf16" or (precision == "auto" and frames and has_bf16(device))


def memory_bytes(device: str) -> int:
    """Of memory that a device has; a container's limit, where one is set."""
    if device == "cuda":
        return torch.cuda.get_device_properties(0).total_memory
    there = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    with suppress(OSError, ValueError):
        return min(there, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    return there


def versions() -> dict[str, str]:
    """Of what the numbers depend on."""
    found = {"potstill": __version__, "python": platform.python_version()}
    for name in ("torch", "numpy", "gymnasium", "ale-py"):
        with suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def machine(threads: int) -> dict[str, Any]:
    """What the seconds were measured on."""
    return {
        "system": platform.system(),
        "processor": _processor(),
        "bfloat16": has_bf16("cpu"),
        "cores": cores(),
        "threads": threads,
        **({"gpu": torch.cuda.get_device_name()} if torch.cuda.is_available() else {}),
    }


def made_on(machines: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """A result's part about the machines that worked on it, the first one first."""
    first, *others = dict.fromkeys(json.dumps(each) for each in machines)
    also = {"also_on": [json.loads(each) for each in others]} if others else {}
    return {"machine": json.loads(first), **also}


def _processor() -> str:
    """Its model where the system tells it, else its architecture."""
    with suppress(OSError):
        told = Path("/proc/cpuinfo").read_text()
        # Virtual machines may hide all of a name but the maker's: family and model say which it is.
        if found := re.search(r"cpu family\s*: (.+)\nmodel\s*: (.+)\nmodel name\s*: (.+)\n", told):
            return f"{found[3]}, family {found[1]}, model {found[2]}"
    return platform.machine()
