"""Shared by all tests: shapes are checked at run time, and small real teachers are made here."""

import os
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib import resources
from pathlib import Path

from jaxtyping import install_import_hook

# Before potstill is imported: every annotated shape becomes an assertion.
CHECKED = (
    "losses", "memory", "networks.build", "networks.foreign", "actions", "policy", "learners.dqn", "distill.loop",
    "teachers.vecnormalize",
)  # fmt: skip
install_import_hook([f"potstill.{room}" for room in CHECKED], "beartype.beartype")

import imageio_ffmpeg  # noqa: E402
import numpy as np  # noqa: E402
import pytest  # noqa: E402
import torch  # noqa: E402
from hypothesis import settings  # noqa: E402

from potstill import Policy, load  # noqa: E402
from potstill.networks import NetworkSpec  # noqa: E402
from potstill.tasks import make_task  # noqa: E402
from potstill.tasks.spec import RUSU2016  # noqa: E402

settings.register_profile("potstill", deadline=None, derandomize=True)
settings.load_profile("potstill")


@pytest.fixture(autouse=True)
def tiny_numbers() -> Iterator[None]:
    """What learns takes them for 0, in its whole process; hypothesis draws them."""
    yield
    torch.set_flush_denormal(False)


def _short_hours() -> Iterator[int]:
    """The steps of an hour, a tenth of them here: what matters are its boundaries."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("potstill.distill.schedule.STEPS_PER_HOUR", 5_400)
        yield 5_400


short_hours = pytest.fixture(_short_hours)
short_hours_throughout = pytest.fixture(scope="module")(_short_hours)


@pytest.fixture
def short_games(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Atari games end after 400 frames: for tests that don't ask who wins."""
    monkeypatch.setattr("potstill.tasks.spec.RUSU2016", replace(RUSU2016, max_frames=400))
    make_task.cache_clear()
    yield
    make_task.cache_clear()


@pytest.fixture(scope="session")
def teachers_folder() -> Path:
    """Third-party teachers, which are no part of the repository."""
    folder = os.environ.get("POTSTILL_TEACHERS")
    if not folder:
        pytest.skip("POTSTILL_TEACHERS is not set: a folder of third-party teachers")
    return Path(folder)


@pytest.fixture(scope="session")
def cartpole_file_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Balances CartPole for 500 steps: push toward where the pole leans and falls."""
    policy = Policy.new(NetworkSpec.parse("mlp:2"), "logits", (4,), "float32", 2, task="CartPole-v1")
    lean = torch.tensor([0.1, 0.3, 1.0, 1.0])
    with torch.no_grad():
        hidden, head = policy.network.trunk[0], policy.network.head
        hidden.weight.copy_(torch.stack([lean, -lean]))
        head.weight.copy_(10 * torch.tensor([[0.0, 1.0], [1.0, 0.0]]))
    path = tmp_path_factory.mktemp("teacher") / "cartpole.safetensors"
    policy.save(path)
    return path


@pytest.fixture
def cartpole_file(cartpole_file_once: Path, tmp_path: Path) -> Path:
    """A copy that a test may spoil."""
    return Path(shutil.copy(cartpole_file_once, tmp_path))


@pytest.fixture
def cartpole_teacher(cartpole_file: Path) -> Policy:
    return load(cartpole_file)


@pytest.fixture(scope="session")
def teacher_pong() -> Path:
    """The Pong DQN that ships with the package."""
    return Path(str(resources.files("potstill") / "assets" / "pong-dqn.safetensors"))


@pytest.fixture(scope="session")
def read_film() -> Callable[[Path], tuple[dict, list[np.ndarray]]]:
    """Reads a film's facts and its pictures."""

    def read(path: Path) -> tuple[dict, list[np.ndarray]]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)  # the library leaves its pipes open
            film = imageio_ffmpeg.read_frames(str(path))
            facts = next(film)
            width, height = facts["size"]
            return facts, [np.frombuffer(picture, np.uint8).reshape(height, width, 3) for picture in film]

    return read


@pytest.fixture
def locked_elsewhere():
    """`with locked_elsewhere(folder):` another process has locked it within; it is killed in the end."""

    @contextmanager
    def locked(folder: Path) -> Iterator[None]:
        script = f"from pathlib import Path; from potstill.run_directory import lock; lock(Path({str(folder)!r}))\n" \
                 "print('locked', flush=True); input()"  # fmt: skip
        with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
            assert other.stdout is not None
            assert other.stdout.readline() == b"locked\n"
            yield
            other.kill()

    return locked
