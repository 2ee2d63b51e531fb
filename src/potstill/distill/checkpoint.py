"""The point a run goes on from: weights, optimisers, random states, environments and the memory.

One hour's rows of the memory are one sealed file; the rest is one file that names them and is
replaced atomically after them. A process killed at any moment leaves the last complete checkpoint.
"""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialize
from torch import Tensor

from potstill.distill.loop import State, hours_played, rows_until
from potstill.distill.options import Options
from potstill.errors import PotstillError
from potstill.files import TEMPORARY_SUFFIX, atomic_write

STATE = "state.safetensors"


def save(folder: Path, state: State, options: Options) -> None:
    """Save `state` at the end of an hour.

    Raises:
        PotstillError: the disk is full or can't be written; the last checkpoint is as it was.
    """
    oldest = max(0, state.memory.rows - state.memory.capacity)
    shards = [hour for hour in range(1, hours_played(state, options) + 1) if rows_until(hour, options) > oldest]
    for hour in shards:
        if not (folder / _shard(hour)).exists():
            state.memory.seal(folder / _shard(hour), rows_until(hour - 1, options), rows_until(hour, options))
    content = {
        "hours": state.hours,
        "updates": state.updates,
        "seconds": state.seconds,
        "play_rng": state.play_rng.bit_generator.state,
        "sample_rng": state.sample_rng.bit_generator.state,
        "envs": state.envs and state.envs.snapshot(),
        "shards": shards,
    }
    tensors: dict[str, Tensor] = {}
    for student in state.students:
        for name, tensor in student.learner.state_dict().items():
            tensors[f"{student.name}/network/{name}"] = tensor
        for index, slots in student.optimizer.state_dict()["state"].items():
            for slot, tensor in slots.items():
                tensors[f"{student.name}/optimizer/{index}/{slot}"] = tensor
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with atomic_write(folder / STATE) as file:
        file.write(serialize(tensors, {"state": json.dumps(content)}))
    _remove_strays(folder, shards)


def exists(folder: Path) -> bool:
    return (folder / STATE).exists()


def load(folder: Path, state: State, options: Options) -> None:
    """Bring a freshly made `state` to where the checkpoint was saved.

    Raises:
        PotstillError: the checkpoint is damaged or belongs to another run.
    """
    path = folder / STATE
    try:
        with safe_open(path, framework="pt") as file:
            content: dict[str, Any] = json.loads((file.metadata() or {})["state"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}
        for student in state.students:
            _load_student(student.learner, student.optimizer, student.name, tensors)
            student.keep()
        state.hours, state.updates = content["hours"], content["updates"]
        state.seconds = content["seconds"]
        state.play_rng.bit_generator.state = content["play_rng"]
        state.sample_rng.bit_generator.state = content["sample_rng"]
        shards: list[int] = content["shards"]
    except (SafetensorError, OSError, KeyError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:100]
        raise PotstillError(f"{path} is damaged; start again without --resume ({reason})") from error
    _remove_strays(folder, shards)
    state.memory.rows = rows_until(shards[0] - 1, options)
    for hour in shards:
        try:
            state.memory.unseal(folder / _shard(hour))
        except PotstillError as error:
            raise PotstillError(f"{error}; start again without --resume") from error
    if state.envs is not None:
        state.envs.restore(content["envs"])


def _load_student(
    network: torch.nn.Module, optimizer: torch.optim.Optimizer, name: str, tensors: dict[str, Tensor]
) -> None:
    weights, slots = f"{name}/network/", f"{name}/optimizer/"
    network.load_state_dict({k.removeprefix(weights): v for k, v in tensors.items() if k.startswith(weights)})
    optimizer_state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        if key.startswith(slots):
            index, slot = key.removeprefix(slots).split("/")
            optimizer_state.setdefault(int(index), {})[slot] = tensor
    optimizer.load_state_dict({**optimizer.state_dict(), "state": optimizer_state})


def _shard(hour: int) -> str:
    return f"memory-{hour:04}.npz"


def _remove_strays(folder: Path, shards: list[int]) -> None:
    """Delete what a killed process left behind, and shards whose rows the ring has overwritten."""
    keep = {STATE, *map(_shard, shards)}
    for path in folder.iterdir():
        if path.name not in keep and (path.suffix in (".npz", TEMPORARY_SUFFIX)):
            path.unlink()
