"""A folder to type commands in, and the command itself."""

import os
import pickle
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def executable() -> str:
    """The command as it is installed."""
    return str(Path(sys.executable).parent / "potstill")


@pytest.fixture
def potstill(executable: str, workplace: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """The command, typed in the workplace."""

    def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [executable, *arguments], cwd=workplace, capture_output=True, text=True, timeout=200,
            env={**os.environ, **environment},
        )  # fmt: skip

    return run


@pytest.fixture
def workplace(tmp_path: Path, cartpole_file: Path) -> Path:
    """A folder with a good teacher and many bad files."""
    (tmp_path / "text.zip").write_text("hello")
    (tmp_path / "cut.safetensors").write_bytes(cartpole_file.read_bytes()[:300])
    (tmp_path / "pickle.pkl").write_bytes(pickle.dumps({"a": 1}))
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "text.onnx").write_text("hello")
    with zipfile.ZipFile(tmp_path / "program.pt", "w") as archive:
        archive.writestr("program/code/__torch__.py", "import os")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "precious.txt").write_text("keep me")
    return tmp_path
