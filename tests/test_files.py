import subprocess
import sys

import pytest

from potstill import PotstillError
from potstill.files import atomic_write, read_json, write_json


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"old": 1})
    with pytest.raises(RuntimeError, match="killed"), atomic_write(path) as file:
        file.write(b"half a fi")
        raise RuntimeError("killed")
    assert read_json(path) == {"old": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_a_write_the_system_refuses_is_one_line_and_leaves_the_old_file(tmp_path):
    write_json(tmp_path / "a.json", {"old": 1})
    # A limit on file sizes stands in for a full disk: the same OSError from the same call.
    script = f"""
import resource, signal
from pathlib import Path
from potstill.files import atomic_write
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
with atomic_write(Path({str(tmp_path / "a.json")!r})) as file:
    file.write(bytes(1_000_000))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert "PotstillError: cannot write" in done.stderr
    assert "File too large" in done.stderr
    assert read_json(tmp_path / "a.json") == {"old": 1}
    assert list(tmp_path.iterdir()) == [tmp_path / "a.json"]


def test_the_mode_is_the_one_a_plain_open_would_give(tmp_path):
    write_json(tmp_path / "a.json", 1)
    (tmp_path / "b").write_text("")
    assert (tmp_path / "a.json").stat().st_mode == (tmp_path / "b").stat().st_mode


@pytest.mark.parametrize("content", ["", "{", '{"a": NaN', "[" * 100_000])
def test_what_is_not_json_is_one_line(tmp_path, content):
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(PotstillError, match="is not a JSON file"):
        read_json(tmp_path / "a.json")
