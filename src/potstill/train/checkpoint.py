"""Where training goes on from: exactly, from a folder with the memory's rows, or anywhere, from one small file.

The portable file holds the network, its optimiser and how far it had come (Adam's moments in bfloat16); what goes on
from it plays its memory full again first.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from potstill import saved_state
from potstill.learners.dqn import State

STATE = "state.safetensors"
NAME = "dqn"


def save(folder: Path, state: State, run: dict[str, Any]) -> None:
    """Save everything; `run` is what its driver wants back.

    Raises:
        PotstillError: the disk is full or can't be written; the last checkpoint is as it was.
    """
    memory = state.games[0].memory
    oldest = max(0, memory.rows - memory.capacity)
    shards = [(first, end) for first, end in _shards(folder) if end > oldest]
    sealed = shards[-1][1] if shards else oldest  # rows gone before they were saved are not missed
    if sealed < memory.rows:
        shards.append((sealed, memory.rows))
        for index, game in enumerate(state.games):
            game.memory.seal(folder / _shard(*shards[-1], index), *shards[-1])
    content = {
        **_progress(state, run),
        "play_rng": state.play_rng.bit_generator.state,
        "sample_rng": state.sample_rng.bit_generator.state,
        "envs": [game.envs.snapshot() for game in state.games],
        "shards": shards,
        "largest_priority": [game.priorities and game.priorities.largest for game in state.games],
    }
    tensors = saved_state.pack(NAME, state.network, state.optimizer)
    tensors |= {f"target/{name}": tensor for name, tensor in state.target.state_dict().items()}
    for index, game in enumerate(state.games):
        tensors[f"held/{index}"] = torch.from_numpy(game.held)
        if game.priorities:
            tensors[f"priorities/{index}"] = torch.from_numpy(game.priorities.weights)
    saved_state.write(folder / STATE, content, tensors)
    saved_state.remove_strays(folder, _named(shards, state))


def load(folder: Path, state: State, mend: str) -> dict[str, Any]:
    """Bring a fresh state to where `save` saved it; returns its `run`.

    Raises:
        PotstillError: the checkpoint is damaged, with the mend.
    """
    path = folder / STATE
    with saved_state.restoring(path, mend):
        content, tensors = saved_state.read(path)
        run = _restore(state, content, tensors)
        state.target.load_state_dict({n[7:]: tensor for n, tensor in tensors.items() if n.startswith("target/")})
        state.play_rng.bit_generator.state = content["play_rng"]
        state.sample_rng.bit_generator.state = content["sample_rng"]
        shards = [(int(first), int(end)) for first, end in content["shards"]]
        for index, game in enumerate(state.games):
            game.held[:] = tensors[f"held/{index}"].numpy()
            if game.priorities:
                game.priorities.weights[:] = tensors[f"priorities/{index}"].numpy()
                game.priorities.largest = content["largest_priority"][index]
            game.memory.rows = shards[0][0]
            for shard in shards:
                game.memory.unseal(folder / _shard(*shard, index))
    for game, snapshot in zip(state.games, content["envs"], strict=True):
        game.envs.restore(snapshot)
    saved_state.remove_strays(folder, _named(shards, state))
    return run


def save_portable(path: Path, state: State, run: dict[str, Any]) -> None:
    """Save what can't be played again, in one file of 14 MB for the paper's DQN.

    Raises:
        PotstillError: the disk is full or can't be written; the file is as it was.
    """
    tensors = saved_state.pack(NAME, state.network, state.optimizer)
    small = {name: t.bfloat16() if "/exp_avg" in name else t for name, t in tensors.items()}
    saved_state.write(path, _progress(state, run), small)


def load_portable(path: Path, state: State, mend: str) -> dict[str, Any]:
    """Bring a fresh state to where `save_portable` saved it, its memory empty; returns its `run`.

    Raises:
        PotstillError: the file is damaged, with the mend.
    """
    with saved_state.restoring(path, mend):
        content, tensors = saved_state.read(path)
        run = _restore(state, content, {name: tensor.float() for name, tensor in tensors.items()})
    state.target.load_state_dict(state.network.state_dict())
    return run


def _progress(state: State, run: dict[str, Any]) -> dict[str, Any]:
    return {
        "steps": state.steps,
        "updates": state.updates,
        "seconds": state.seconds,
        "scores": [list(game.scores) for game in state.games],
        "run": run,
    }


def _restore(state: State, content: dict[str, Any], tensors: dict[str, Tensor]) -> dict[str, Any]:
    saved_state.unpack(NAME, state.network, state.optimizer, tensors)
    state.steps, state.updates, state.seconds = content["steps"], content["updates"], content["seconds"]
    for game, scores in zip(state.games, content["scores"], strict=True):
        game.scores.extend(scores)
    return content["run"]


def _shards(folder: Path) -> list[tuple[int, int]]:
    """The shards that the folder's state file names."""
    if not (folder / STATE).exists():
        return []
    content, _ = saved_state.read(folder / STATE)
    return [(int(first), int(end)) for first, end in content["shards"]]


def _shard(first: int, end: int, index: int) -> str:
    return f"memory-{first:08}-{end:08}-{index}.npz"


def _named(shards: list[tuple[int, int]], state: State) -> set[str]:
    return {STATE, *(_shard(*shard, index) for shard in shards for index in range(len(state.games)))}
