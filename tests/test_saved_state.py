"""State files, interrupted while they are read."""

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from potstill import artifact, saved_state


def write_policy(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    artifact.write(path, {}, tensors)


def write_state(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    saved_state.write(path, {}, tensors)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # a file opened, not yet in its `with`
@pytest.mark.parametrize(
    ("write", "read"), [(write_policy, artifact.read_tensors), (write_state, saved_state.read)], ids=["policy", "state"]
)
def test_ctrl_c_is_no_damaged_file(
    write: Callable[[Path, dict[str, torch.Tensor]], None], read: Callable[[Path], Any], tmp_path: Path
):
    """PyTorch turns a pending KeyboardInterrupt into a ValueError; who believes it removes a checkpoint of hours."""
    path, interrupted = tmp_path / "a.safetensors", 0
    write(path, {f"{n}.weight": torch.zeros(64) for n in range(200)})
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    try:
        for seconds in np.linspace(2e-5, 5e-3, 150).tolist():
            try:
                signal.setitimer(signal.ITIMER_REAL, seconds)
                with saved_state.restoring(path, "remove it"):
                    read(path)
                signal.setitimer(signal.ITIMER_REAL, 0)
            except KeyboardInterrupt:
                interrupted += 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert interrupted > 10
