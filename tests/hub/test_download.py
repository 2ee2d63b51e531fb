"""Policies from the Hub, by the real client."""

import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import gymnasium
import pytest

from potstill import PotstillError, load
from potstill.teachers.hub import _belongs

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from stable_baselines3 import PPO
    from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

EXECUTABLE = str(Path(sys.executable).parent / "potstill")
COMMIT = "c" * 40


@pytest.fixture
def hub(hub_here: dict[str, str], tmp_path: Path, cartpole_file: Path) -> dict[str, str]:
    """A user's environment, with a few repositories on the Hub."""
    repositories = tmp_path / "hub"
    for name in ("sb3/mine-CartPole-v1/mine-CartPole-v1.safetensors", "sb3/mine-CartPole-v1/train_eval_metrics.zip",
                 "me/two/one.safetensors", "me/two/other.safetensors"):  # fmt: skip
        (repositories / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(cartpole_file, repositories / name)
    (repositories / "me" / "none").mkdir()
    (repositories / "me" / "none" / "README.md").write_text("nothing here")
    return hub_here


def inspect(name: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [EXECUTABLE, "inspect", name], env=environment, capture_output=True, text=True, timeout=120, check=False
    )


@pytest.fixture
def here(hub, monkeypatch) -> None:
    """The same in this process: interpreters that each import PyTorch take time."""
    template = hub["HF_ENDPOINT"] + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub["HF_ENDPOINT"])
    monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", f"{hub['HF_HOME']}/hub")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)


def test_a_policy_is_downloaded_once_and_then_found_without_the_hub(hub):
    for environment in (hub, {**hub, "HF_HUB_OFFLINE": "1"}, {**hub, "HF_ENDPOINT": "http://127.0.0.1:9"}):
        done = inspect("hf://sb3/mine-CartPole-v1", environment)
        assert done.returncode == 0, done.stderr
        assert "CartPole-v1" in done.stdout


@pytest.mark.usefixtures("here")
def test_statistics_come_with_a_zip_as_rl_zoo_uploads_them(tmp_path):
    repository = tmp_path / "hub" / "sb3" / "ppo-Acrobot-v1"
    repository.mkdir()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        env = VecNormalize(DummyVecEnv([lambda: gymnasium.make("Acrobot-v1")]))
        PPO("MlpPolicy", env, device="cpu").save(repository / "ppo-Acrobot-v1.zip")
        env.save(str(repository / "vec_normalize.pkl"))
    (repository / "train_eval_metrics.zip").write_bytes(b"PK")
    policy = load("hf://sb3/ppo-Acrobot-v1")
    assert policy.provenance["observations"] == "normalised by vec_normalize.pkl"
    assert policy.task == "Acrobot-v1"


def test_what_is_another_policys_is_left_there():
    files = ["a2c_final.zip", "ppo_final.zip", "ppo_final_vecnormalize.pkl", "README.md"]
    assert [file for file in files if _belongs(file, "ppo_final.zip", files)] == ["ppo_final_vecnormalize.pkl"]
    assert not any(_belongs(file, "a2c_final.zip", files) for file in files)


@pytest.mark.usefixtures("here")
def test_a_file_and_a_revision_can_be_named():
    for name in ("hf://me/two/one.safetensors", f"hf://me/two@{COMMIT}/other.safetensors"):
        assert load(name).task == "CartPole-v1"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("hf://me/two", "name the policy's file, hf://me/two/FILE, of one.safetensors, other.safetensors"),
        ("hf://me/none", "of README.md"),
        ("hf://me/two/third.zip", "the repository has one.safetensors, other.safetensors"),
        ("hf://me/nobody", "hf://me/nobody: "),
        ("hf://me/two/../../../etc/passwd", "the repository has"),
    ],
)
@pytest.mark.usefixtures("here")
def test_what_is_not_there_is_one_line(name, message):
    with pytest.raises(PotstillError) as error:
        load(name)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.usefixtures("here")
def test_a_cache_that_does_not_have_it_says_so(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(PotstillError, match="offline") as error:
        load("hf://sb3/mine-CartPole-v1")
    assert "\n" not in str(error.value)


def test_a_best_model_brings_the_statistics_of_its_tasks_folder():
    files = ["best_model.zip", "HalfCheetah-v4.zip", "HalfCheetah-v4/vecnormalize.pkl", "other/vecnormalize.pkl"]
    for name in ("best_model.zip", "HalfCheetah-v4.zip"):
        assert [file for file in files if _belongs(file, name, files)] == ["HalfCheetah-v4/vecnormalize.pkl"]
