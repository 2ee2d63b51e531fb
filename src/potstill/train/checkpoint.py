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
from potstill.memory import shards

STATE = "state.safetensors"
NAME = "dqn"


def save(folder: Path, state: State, run: dict[str, Any]) -> None:
    """Save everything; `run` is what its driver wants back.

    Raises:
        PotstillError: the disk is full or can't be written; the last checkpoint is as it was.
    """
    memories = [game.memory for game in state.games]
    state.shards = shards.seal(folder, memories, state.shards)
    content = {
        **_progress(state, run),
        "play_rng": state.play_rng.bit_generator.state,
        "sample_rng": state.sample_rng.bit_generator.state,
        "envs": [game.envs.snapshot() for game in state.games],
        "shards": state.shards,
        "largest_priority": [game.priorities and game.priorities.largest.item() for game in state.games],
    }
    tensors = saved_state.pack(NAME, state.network, state.optimizer)
    tensors |= {f"target/{name}": tensor for name, tensor in state.target.state_dict().items()}
    for index, game in enumerate(state.games):
        tensors[f"held/{index}"] = torch.from_numpy(game.held)
        if game.priorities:
            tensors[f"priorities/{index}"] = game.priorities.weights
    saved_state.write(folder / STATE, content, tensors)
    shards.remove_strays(folder, memories, state.shards)


def load(folder: Path, state: State, mend: str) -> dict[str, Any]:
    """Bring a fresh state to where `save` saved it; returns its `run`.

    Raises:
        PotstillError: the checkpoint is damaged, with the mend.
    """
    path, memories = folder / STATE, [game.memory for game in state.games]
    with saved_state.restoring(path, mend):
        content, tensors = saved_state.read(path)
        run = _restore(state, content, tensors)
        state.target.load_state_dict({n[7:]: tensor for n, tensor in tensors.items() if n.startswith("target/")})
        state.play_rng.bit_generator.state = content["play_rng"]
        state.sample_rng.bit_generator.state = content["sample_rng"]
        state.shards = [(int(first), int(end)) for first, end in content["shards"]]
        snapshots = content["envs"]
        shards.unseal(folder, memories, state.shards)
        for index, game in enumerate(state.games):
            game.held[:] = tensors[f"held/{index}"].numpy()
            if game.priorities:
                game.priorities.weights.copy_(tensors[f"priorities/{index}"])
                game.priorities.largest.fill_(content["largest_priority"][index])
    for game, snapshot in zip(state.games, snapshots, strict=True):
        game.envs.restore(snapshot)
    shards.remove_strays(folder, memories, state.shards)
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
