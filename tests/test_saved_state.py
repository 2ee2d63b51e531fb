"""State files, interrupted while they are read."""

import json
import subprocess
import sys

import pytest

INTERRUPTED = """
import json, pathlib, signal, sys, torch
from potstill import artifact, saved_state

kind, path = sys.argv[1], pathlib.Path(sys.argv[2])
of = {"policy": (artifact.write, artifact.read_tensors), "state": (saved_state.write, saved_state.read)}
write, read = of[kind]
write(path, {}, {f"{n}.weight": torch.zeros(64) for n in range(200)})
signal.signal(signal.SIGALRM, signal.default_int_handler)
ended = {}
for number in range(1, 151):
    try:
        signal.setitimer(signal.ITIMER_REAL, number * 3e-5)
        with saved_state.restoring(path, "remove it"):
            read(path)
        signal.setitimer(signal.ITIMER_REAL, 0)
        end = "read"
    except BaseException as error:
        end = type(error).__name__
    ended[end] = ended.get(end, 0) + 1
print(json.dumps(ended))
"""


@pytest.mark.parametrize("kind", ["policy", "state"])
def test_ctrl_c_is_no_damaged_file(kind, tmp_path):
    """PyTorch turns a pending KeyboardInterrupt into a ValueError; who believes it removes a checkpoint of hours."""
    command = [sys.executable, "-c", INTERRUPTED, kind, str(tmp_path / "a.safetensors")]  # it leaves PyTorch unwell
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=True)
    ended = json.loads(done.stdout)
    assert ended.keys() <= {"read", "KeyboardInterrupt"}
    assert ended["KeyboardInterrupt"] > 10
