"""The Hub, by the real client, from a server here that answers as the Hub does."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import warnings
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import gymnasium
import pytest

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from stable_baselines3 import PPO
    from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

EXECUTABLE = str(Path(sys.executable).parent / "potstill")
COMMIT = "c" * 40


class Hub(BaseHTTPRequestHandler):
    """Repositories are folders: /api/models/OWNER/NAME lists one's files, /OWNER/NAME/resolve/REVISION/FILE is one."""

    root: Path

    def do_GET(self) -> None:
        self.answer(with_body=True)

    def do_HEAD(self) -> None:
        self.answer(with_body=False)

    def answer(self, with_body: bool) -> None:
        parts = self.path.partition("?")[0].strip("/").split("/")
        api = parts[:2] == ["api", "models"]
        folder = self.root.joinpath(*(parts[2:4] if api else parts[:2]))
        file = folder.joinpath(*parts[4:])
        if api and folder.is_dir():
            self.send(self.listing(folder, tree="tree" in parts), with_body)
        elif not api and parts[2:3] == ["resolve"] and file.is_file():
            content = file.read_bytes()
            digest = hashlib.sha256(content).hexdigest()
            self.send(content, with_body, {"ETag": f'"{digest}"', "X-Repo-Commit": COMMIT})
        else:
            missing = "EntryNotFound" if folder.is_dir() else "RepoNotFound"
            self.send(b"{}", with_body, {"X-Error-Code": missing}, status=404)

    def listing(self, folder: Path, tree: bool) -> bytes:
        files = {p.relative_to(folder).as_posix(): p.stat().st_size for p in folder.rglob("*") if p.is_file()}
        if tree:
            return json.dumps(
                [{"type": "file", "path": n, "size": s, "oid": "0" * 40} for n, s in files.items()]
            ).encode()
        name = f"{folder.parent.name}/{folder.name}"
        siblings = [{"rfilename": n, "size": s, "blobId": "0" * 40} for n, s in files.items()]
        return json.dumps({"id": name, "modelId": name, "sha": COMMIT, "siblings": siblings}).encode()

    def send(self, content: bytes, with_body: bool, headers: dict[str, str] | None = None, status: int = 200) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if with_body:
            self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None: ...


@pytest.fixture
def hub(tmp_path: Path, cartpole_file: Path) -> Iterator[dict[str, str]]:
    """The environment of a user whose Hub is here, with a few repositories on it."""
    repositories = tmp_path / "hub"
    for name in ("sb3/mine-CartPole-v1/mine-CartPole-v1.safetensors", "sb3/mine-CartPole-v1/train_eval_metrics.zip",
                 "me/two/one.safetensors", "me/two/other.safetensors"):  # fmt: skip
        (repositories / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(cartpole_file, repositories / name)
    (repositories / "me" / "none").mkdir()
    (repositories / "me" / "none" / "README.md").write_text("nothing here")
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("HubHere", (Hub,), {"root": repositories}))
    thread = Thread(target=server.serve_forever)
    thread.start()
    yield {
        **os.environ,
        "HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}",
        "HF_HOME": str(tmp_path / "cache"),
        "HF_HUB_DISABLE_XET": "1",
    }
    server.shutdown()
    server.server_close()
    thread.join()


def inspect(name: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [EXECUTABLE, "inspect", name], env=environment, capture_output=True, text=True, timeout=120, check=False
    )


def test_a_policy_is_downloaded_once_and_then_found_without_the_hub(hub):
    for environment in (hub, {**hub, "HF_HUB_OFFLINE": "1"}, {**hub, "HF_ENDPOINT": "http://127.0.0.1:9"}):
        done = inspect("hf://sb3/mine-CartPole-v1", environment)
        assert done.returncode == 0, done.stderr
        assert "CartPole-v1" in done.stdout


def test_statistics_come_with_a_zip_as_rl_zoo_uploads_them(hub, tmp_path):
    repository = tmp_path / "hub" / "sb3" / "ppo-Acrobot-v1"
    repository.mkdir()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        env = VecNormalize(DummyVecEnv([lambda: gymnasium.make("Acrobot-v1")]))
        PPO("MlpPolicy", env, device="cpu").save(repository / "ppo-Acrobot-v1.zip")
        env.save(str(repository / "vec_normalize.pkl"))
    (repository / "train_eval_metrics.zip").write_bytes(b"PK")
    done = inspect("hf://sb3/ppo-Acrobot-v1", hub)
    assert "normalised by vec_normalize.pkl" in done.stdout, done.stderr
    assert "Acrobot-v1" in done.stdout


def test_a_file_and_a_revision_can_be_named(hub):
    for name in ("hf://me/two/one.safetensors", f"hf://me/two@{COMMIT}/other.safetensors"):
        assert inspect(name, hub).returncode == 0


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("hf://me/two", "name the policy's file, hf://me/two/FILE, of one.safetensors, other.safetensors"),
        ("hf://me/none", "of README.md"),
        ("hf://me/two/third.zip", "the repository has one.safetensors, other.safetensors"),
        ("hf://me/nobody", "hf://me/nobody: "),
        ("hf://me", "the Hub's names look like hf://owner/repository"),
        ("hf://me/two/../../../etc/passwd", "the repository has"),
    ],
)
def test_what_is_not_there_is_one_line(hub, name, message):
    done = inspect(name, hub)
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_cache_that_does_not_have_it_says_so(hub):
    done = inspect("hf://sb3/mine-CartPole-v1", {**hub, "HF_HUB_OFFLINE": "1"})
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
