"""Where training goes on from: exactly, from a folder with the memory's rows, or anywhere, from one small file.

The portable file holds the network, its optimiser and how far it had come (Adam's moments in bfloat16); what goes on
from it plays its memory full again first.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from potstill import saved_state
from potstill.errors import PotstillError
from potstill.learners.dqn import State

STATE = "state.safetensors"
NAME = "dqn"


def save(folder: Path, state: State, run: dict[str, Any]) -> None:
    """Save everything; `run` is what its driver wants back.

    Raises:
        PotstillError: the disk is full or can't be written; the last checkpoint is as it was.
    """
    memory = state.memory
    oldest = max(0, memory.rows - memory.capacity)
    shards = [(first, end) for first, end in _shards(folder) if end > oldest]
    sealed = shards[-1][1] if shards else oldest  # rows gone before they were saved are not missed
    if sealed < memory.rows:
        shards.append((sealed, memory.rows))
        memory.seal(folder / _shard(*shards[-1]), *shards[-1])
    content = {
        **_progress(state, run),
        "play_rng": state.play_rng.bit_generator.state,
        "sample_rng": state.sample_rng.bit_generator.state,
        "envs": state.envs.snapshot(),
        "shards": shards,
        "largest_priority": state.priorities and state.priorities.largest,
    }
    tensors = saved_state.pack(NAME, state.policy.network, state.optimizer)
    tensors |= {f"target/{name}": tensor for name, tensor in state.target.state_dict().items()}
    if state.priorities:
        tensors["priorities"] = torch.from_numpy(state.priorities.weights)
    saved_state.write(folder / STATE, content, tensors)
    saved_state.remove_strays(folder, {STATE, *(_shard(*shard) for shard in shards)})


def load(folder: Path, state: State) -> dict[str, Any]:
    """Bring a fresh state to where `save` saved it; returns its `run`.

    Raises:
        PotstillError: the checkpoint is damaged.
    """
    path = folder / STATE
    try:
        content, tensors = saved_state.read(path)
        run = _restore(state, content, tensors)
        state.target.load_state_dict({n[7:]: tensor for n, tensor in tensors.items() if n.startswith("target/")})
        state.play_rng.bit_generator.state = content["play_rng"]
        state.sample_rng.bit_generator.state = content["sample_rng"]
        shards = [(int(first), int(end)) for first, end in content["shards"]]
        if state.priorities:
            state.priorities.weights[:] = tensors["priorities"].numpy()
            state.priorities.largest = content["largest_priority"]
    except saved_state.DAMAGED as error:
        raise saved_state.damaged(path, error) from error
    saved_state.remove_strays(folder, {STATE, *(_shard(*shard) for shard in shards)})
    state.memory.rows = shards[0][0]
    for shard in shards:
        try:
            state.memory.unseal(folder / _shard(*shard))
        except PotstillError as error:
            raise PotstillError(f"{error}; remove {folder} to go on from the portable checkpoint") from error
    state.envs.restore(content["envs"])
    return run


def save_portable(path: Path, state: State, run: dict[str, Any]) -> None:
    """Save what can't be played again, in one file of 14 MB for the paper's DQN.

    Raises:
        PotstillError: the disk is full or can't be written; the file is as it was.
    """
    tensors = saved_state.pack(NAME, state.policy.network, state.optimizer)
    small = {name: t.bfloat16() if "/exp_avg" in name else t for name, t in tensors.items()}
    saved_state.write(path, _progress(state, run), small)


def load_portable(path: Path, state: State) -> dict[str, Any]:
    """Bring a fresh state to where `save_portable` saved it, its memory empty; returns its `run`.

    Raises:
        PotstillError: the file is damaged.
    """
    try:
        content, tensors = saved_state.read(path)
        run = _restore(state, content, {name: tensor.float() for name, tensor in tensors.items()})
    except saved_state.DAMAGED as error:
        raise saved_state.damaged(path, error) from error
    state.target.load_state_dict(state.policy.network.state_dict())
    return run


def _progress(state: State, run: dict[str, Any]) -> dict[str, Any]:
    return {
        "steps": state.steps,
        "updates": state.updates,
        "seconds": state.seconds,
        "scores": list(state.scores),
        "run": run,
    }


def _restore(state: State, content: dict[str, Any], tensors: dict[str, Tensor]) -> dict[str, Any]:
    saved_state.unpack(NAME, state.policy.network, state.optimizer, tensors)
    state.steps, state.updates, state.seconds = content["steps"], content["updates"], content["seconds"]
    state.scores.extend(content["scores"])
    return content["run"]


def _shards(folder: Path) -> list[tuple[int, int]]:
    """The shards that the folder's state file names."""
    if not (folder / STATE).exists():
        return []
    content, _ = saved_state.read(folder / STATE)
    return [(int(first), int(end)) for first, end in content["shards"]]


def _shard(first: int, end: int) -> str:
    return f"memory-{first:08}-{end:08}.npz"
