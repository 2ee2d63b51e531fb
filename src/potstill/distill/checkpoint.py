"""The point a run goes on from: weights, optimisers, random states, environments and the memory.

An hour's rows of a task's memory are a sealed file; the rest is the state file that names them.
"""

from pathlib import Path

from torch import Tensor

from potstill import saved_state
from potstill.distill.state import State
from potstill.memory import shards

STATE = "state.safetensors"


def save(folder: Path, state: State) -> None:
    """Save `state` at the end of an hour.

    Raises:
        PotstillError: the disk is full or can't be written; the last checkpoint is as it was.
    """
    state.shards = shards.seal(folder, state.memories, state.shards)
    content = {
        "hours": state.hours,
        "updates": state.updates,
        "seconds": state.seconds | {"total": state.elapsed},
        "play_rng": state.play_rng.bit_generator.state,
        "sample_rng": state.sample_rng.bit_generator.state,
        "envs": [envs.snapshot() for envs in state.envs],
        "shards": state.shards,
    }
    tensors: dict[str, Tensor] = {}
    for student in state.students:
        tensors |= saved_state.pack(student.name, student.learner, student.optimizer)
    saved_state.write(folder / STATE, content, tensors)
    shards.remove_strays(folder, state.memories, state.shards)


def exists(folder: Path) -> bool:
    return (folder / STATE).exists()


def load(folder: Path, state: State, mend: str) -> None:
    """Bring a freshly made `state` to where the checkpoint was saved.

    Raises:
        PotstillError: the checkpoint is damaged or belongs to another run, with the mend.
    """
    path = folder / STATE
    with saved_state.restoring(path, mend):
        content, tensors = saved_state.read(path)
        for student in state.students:
            saved_state.unpack(student.name, student.learner, student.optimizer, tensors)
            student.keep()
        state.hours, state.updates = content["hours"], content["updates"]
        state.began -= content["seconds"].pop("total")
        state.seconds = content["seconds"]
        state.play_rng.bit_generator.state = content["play_rng"]
        state.sample_rng.bit_generator.state = content["sample_rng"]
        state.shards = [(int(first), int(end)) for first, end in content["shards"]]
        snapshots = content["envs"]
        shards.unseal(folder, state.memories, state.shards)
    shards.remove_strays(folder, state.memories, state.shards)
    for envs, snapshot in zip(state.envs, snapshots, strict=True):
        envs.restore(snapshot)
