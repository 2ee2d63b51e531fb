"""The point a run goes on from: weights, optimisers, random states, environments and the memory.

One hour's rows of a task's memory are one sealed file; the rest is the state file that names them.
"""

from pathlib import Path

from torch import Tensor

from potstill import saved_state
from potstill.distill.options import DistillOptions
from potstill.distill.schedule import num_hours, rows_until
from potstill.distill.state import State

STATE = "state.safetensors"


def save(folder: Path, state: State, options: DistillOptions) -> None:
    """Save `state` at the end of an hour.

    Raises:
        PotstillError: the disk is full or can't be written; the last checkpoint is as it was.
    """
    oldest = max(0, state.memories[0].rows - state.memories[0].capacity)
    shards = [hour for hour in range(1, _hours_played(state, options) + 1) if rows_until(hour, options) > oldest]
    for hour in shards:
        for index, memory in enumerate(state.memories):
            if not (folder / _shard(hour, index)).exists():
                memory.seal(folder / _shard(hour, index), rows_until(hour - 1, options), rows_until(hour, options))
    content = {
        "hours": state.hours,
        "updates": state.updates,
        "seconds": state.seconds | {"total": state.elapsed},
        "play_rng": state.play_rng.bit_generator.state,
        "sample_rng": state.sample_rng.bit_generator.state,
        "envs": [envs.snapshot() for envs in state.envs],
        "shards": shards,
    }
    tensors: dict[str, Tensor] = {}
    for student in state.students:
        tensors |= saved_state.pack(student.name, student.learner, student.optimizer)
    saved_state.write(folder / STATE, content, tensors)
    saved_state.remove_strays(folder, _named(shards, state))


def exists(folder: Path) -> bool:
    return (folder / STATE).exists()


def load(folder: Path, state: State, options: DistillOptions, mend: str) -> None:
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
        shards: list[int] = content["shards"]
        for index, memory in enumerate(state.memories):
            memory.rows = rows_until(shards[0] - 1, options)
            for hour in shards:
                memory.unseal(folder / _shard(hour, index))
    saved_state.remove_strays(folder, _named(shards, state))
    for envs, snapshot in zip(state.envs, content["envs"], strict=True):
        envs.restore(snapshot)


def _hours_played(state: State, options: DistillOptions) -> int:
    """Hours of play in the memory, those overwritten included; the last may be a fraction."""
    return next(hour for hour in range(num_hours(options) + 1) if rows_until(hour, options) >= state.memories[0].rows)


def _shard(hour: int, index: int) -> str:
    return f"memory-{hour:04}-{index}.npz"


def _named(shards: list[int], state: State) -> set[str]:
    return {STATE, *(_shard(hour, index) for hour in shards for index in range(len(state.memories)))}
