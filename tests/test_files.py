import os

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


def test_a_full_disk_is_one_line():
    if not os.path.exists("/dev/full"):
        pytest.skip("no /dev/full on this system")

    class Full:
        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

    with (
        pytest.raises(PotstillError, match=r"cannot write .*: No space left on device"),
        open("/dev/full", "wb") as full,
    ):
        from pathlib import Path
        from unittest.mock import patch

        real = full
        with (
            patch("potstill.files.tempfile.NamedTemporaryFile", lambda **_: real),
            atomic_write(Path("/tmp/x")) as file,
        ):
            file.write(b"0" * 1_000_000)
            file.flush()


def test_the_mode_is_the_one_a_plain_open_would_give(tmp_path):
    write_json(tmp_path / "a.json", 1)
    (tmp_path / "b").write_text("")
    assert (tmp_path / "a.json").stat().st_mode == (tmp_path / "b").stat().st_mode


@pytest.mark.parametrize("content", ["", "{", '{"a": NaN', "[" * 100_000])
def test_what_is_not_json_is_one_line(tmp_path, content):
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(PotstillError, match="is not a JSON file"):
        read_json(tmp_path / "a.json")
