"""The parts of a checkpoint that every run has: networks with their optimisers, and one file that says it all.

Sealed rows of the memory lie beside it. The file is replaced atomically after them and names them: a process killed
at any moment leaves the last complete checkpoint.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load as deserialize
from safetensors.torch import save as serialize
from torch import Tensor

from potstill.errors import PotstillError, in_a_line
from potstill.files import write_bytes

FORMAT = "2"
"""Of checkpoints: another whenever what is in them, or what it is called, changes."""


def pack(name: str, network: torch.nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """A network's and its optimiser's tensors, named."""
    tensors = {f"{name}/network/{key}": tensor for key, tensor in network.state_dict().items()}
    for index, slots in optimizer.state_dict()["state"].items():
        tensors |= {f"{name}/optimizer/{index}/{slot}": tensor for slot, tensor in slots.items()}
    return tensors


def unpack(name: str, network: torch.nn.Module, optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Give a network and its optimiser what `pack` named."""
    weights, slots = f"{name}/network/", f"{name}/optimizer/"
    network.load_state_dict({k.removeprefix(weights): v for k, v in tensors.items() if k.startswith(weights)})
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        if key.startswith(slots):
            index, slot = key.removeprefix(slots).split("/")
            state.setdefault(int(index), {})[slot] = tensor
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})


def write(path: Path, content: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    """Write a state file, atomically.

    Raises:
        PotstillError: the disk is full or can't be written; the file is as it was.
    """
    ready = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    write_bytes(path, serialize(ready, {"format": FORMAT, "state": json.dumps(content)}))


def read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read what `write` wrote. Raises whatever a damaged file makes its readers raise: see `restoring`.

    Raises:
        PotstillError: a potstill of another format wrote it.
    """
    with safe_open(path, framework="pt") as file:
        said = file.metadata() or {}
        if said.get("format") != FORMAT:
            raise PotstillError(f"{path} was written by another version of potstill")
    return json.loads(said["state"]), deserialize(path.read_bytes())  # get_tensor takes Ctrl-C for a ValueError


@contextmanager
def restoring(path: Path, mend: str) -> Iterator[None]:
    """Whatever a damaged state file, or what it names, raises where it is read and used, in one line with the mend.

    Raises:
        PotstillError: it did.
    """
    try:
        yield
    except PotstillError as error:
        raise PotstillError(f"{error}; {mend}") from error
    except torch.OutOfMemoryError:  # the file is as it was
        raise
    except (SafetensorError, OSError, LookupError, ValueError, ArithmeticError, TypeError, RuntimeError) as error:
        raise PotstillError(f"{path} is damaged ({in_a_line(error, 100)}); {mend}") from error
