"""A run's folder: whose it is."""

import subprocess
import sys

import pytest

from potstill import PotstillError
from potstill.run_directory import open_run


def test_a_folder_is_one_processs_until_it_is_killed(tmp_path):
    out = tmp_path / "run"
    script = f"from pathlib import Path; from potstill.run_directory import open_run; out = Path({str(out)!r})\n" \
             "open_run(out, False, [], {}); print('open', flush=True); input()"  # fmt: skip
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"open\n"
        with pytest.raises(PotstillError, match="run is being worked on by another process"):
            open_run(out, True, [], {})
        other.kill()
    open_run(out, True, [], {})
    open_run(out, True, [], {})  # as one process may


def test_a_folder_of_something_else_is_left_as_it_was(tmp_path):
    (tmp_path / "precious.txt").write_text("keep me")
    with pytest.raises(PotstillError, match="is not empty"):
        open_run(tmp_path, False, [], {})
    assert list(tmp_path.iterdir()) == [tmp_path / "precious.txt"]
