"""The memory against a naive copy that keeps every stack whole."""

import resource

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from potstill import PotstillError
from potstill.memory import Replay


class Stream:
    """Environments that show frame numbers, and stack them as ALE's vector env does: zeros before an episode."""

    def __init__(self, num_envs: int, stack: int, ends: np.random.Generator, end_rate: float) -> None:
        self.num_envs, self.stack, self.rng, self.end_rate = num_envs, stack, ends, end_rate
        self.frame = 0
        self.observations = np.zeros((num_envs, stack, 2, 2), np.uint8)
        self.age = np.zeros(num_envs, np.int64)
        self._show()

    def step(self) -> None:
        ended = self.rng.random(self.num_envs) < self.end_rate
        self.observations = np.roll(self.observations, -1, axis=1)
        self.observations[ended] = 0
        self.age = np.where(ended, 0, self.age + 1)
        self._show()

    def _show(self) -> None:
        for env in range(self.num_envs):
            self.frame += 1
            self.observations[env, -1] = np.array([[self.frame % 251 + 1, self.frame // 251], [env, 7]])


def label(row: int, num_envs: int) -> torch.Tensor:
    return torch.stack([torch.full((num_envs,), float(row)), torch.arange(num_envs).float()], 1)


@settings(max_examples=60, deadline=None)
@given(
    capacity=st.integers(4, 12),
    num_envs=st.integers(1, 3),
    rows=st.integers(1, 40),
    end_rate=st.sampled_from([0.0, 0.1, 0.5]),
    seed=st.integers(0, 1000),
)
def test_what_comes_out_is_what_was_seen(capacity, num_envs, rows, end_rate, seed):
    memory = Replay(capacity, num_envs, (4, 2, 2), 4, torch.uint8, 2)
    stream = Stream(num_envs, 4, np.random.default_rng(seed), end_rate)
    seen = []
    for row in range(rows):
        seen.append(stream.observations.copy())
        memory.add(stream.observations, stream.age, label(row, num_envs))
        stream.step()
    observations, labels = memory.sample(200, np.random.default_rng(seed))
    for observation, (row, env) in zip(observations.numpy(), labels.int().tolist(), strict=True):
        np.testing.assert_array_equal(observation, seen[row][env])
    drawn = {int(row) for row in labels[:, 0]}
    oldest = max(0, rows - capacity)
    whole = oldest if oldest == 0 else oldest + 3
    assert drawn <= set(range(whole, rows))


def test_every_step_that_can_be_drawn_is_drawn_alike():
    memory = Replay(10, 2, (4, 2, 2), 4, torch.uint8, 2)
    stream = Stream(2, 4, np.random.default_rng(0), 0.2)
    for row in range(25):
        memory.add(stream.observations, stream.age, label(row, 2))
        stream.step()
    _, labels = memory.sample(14_000, np.random.default_rng(0))
    counts = np.unique(labels.numpy(), axis=0, return_counts=True)[1]
    assert len(counts) == 7 * 2  # ten rows, less three whose stacks are cut
    assert counts.min() > 850
    assert counts.max() < 1150


def test_vectors_are_kept_as_they_are():
    memory = Replay(5, 3, (4,), 1, torch.float32, 2)
    rng = np.random.default_rng(0)
    seen = rng.normal(size=(8, 3, 4)).astype(np.float32)
    for row in range(8):
        memory.add(seen[row], np.zeros(3, np.int64), label(row, 3))
    observations, labels = memory.sample(100, rng)
    for observation, (row, env) in zip(observations.numpy(), labels.int().tolist(), strict=True):
        assert row >= 3
        np.testing.assert_array_equal(observation, seen[row, env])


def test_sealed_rows_come_back_and_a_changed_byte_is_noticed(tmp_path):
    memory = Replay(6, 2, (4, 2, 2), 4, torch.uint8, 2)
    stream = Stream(2, 4, np.random.default_rng(0), 0.2)
    for row in range(9):
        memory.add(stream.observations, stream.age, label(row, 2))
        stream.step()
        if row % 3 == 2:
            memory.seal(tmp_path / f"{row // 3}.npz", row - 2, memory.rows)
    again = Replay(6, 2, (4, 2, 2), 4, torch.uint8, 2)
    again.rows = 3
    again.unseal(tmp_path / "1.npz")
    again.unseal(tmp_path / "2.npz")
    for one, other in zip(
        memory.sample(50, np.random.default_rng(1)), again.sample(50, np.random.default_rng(1)), strict=True
    ):
        assert torch.equal(one, other)
    content = (tmp_path / "1.npz").read_bytes()
    refused = 0
    for place in range(0, len(content), 7):
        (tmp_path / "1.npz").write_bytes(content[:place] + bytes([content[place] ^ 0xFF]) + content[place + 1 :])
        changed = Replay(6, 2, (4, 2, 2), 4, torch.uint8, 2)
        changed.rows = 3
        try:
            changed.unseal(tmp_path / "1.npz")
        except PotstillError:
            refused += 1
        else:  # a time stamp or padding of the zip: nothing that was saved
            for name in ("frames", "depth", "labels"):
                np.testing.assert_array_equal(getattr(changed, name)[3:6], getattr(memory, name)[3:6])
    assert refused > 20


def test_ten_hours_of_atari_fit_in_four_gigabytes():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    memory = Replay(9000, 60, (4, 84, 84), 4, torch.uint8, 18)
    assert memory.capacity * memory.num_envs == 540_000
    assert memory.nbytes <= 4.0e9
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 100_000, "memory is taken when rows are written, not before"


def test_a_ring_smaller_than_a_stack_is_refused():
    with pytest.raises(ValueError, match="can't hold a stack"):
        Replay(3, 1, (4, 2, 2), 4, torch.uint8, 2)
