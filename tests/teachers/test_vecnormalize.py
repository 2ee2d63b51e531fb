"""VecNormalize's statistics: against Stable-Baselines3's own, and out of hostile files."""

import pickle
import random
import shutil
import warnings
from collections import OrderedDict
from dataclasses import replace
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch

import potstill
from potstill import PotstillError
from potstill.distill.options import DistillOptions
from potstill.distill.plan import plan
from potstill.files import sha256
from potstill.teachers import checksum, vecnormalize

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from stable_baselines3 import PPO
    from stable_baselines3.common.vec_env import DummyVecEnv, VecFrameStack, VecNormalize


@pytest.fixture(scope="module")
def normalised(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, PPO, VecNormalize]:
    """A model trained for a moment behind VecNormalize, with its statistics beside it."""
    folder = tmp_path_factory.mktemp("normalised")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        env = VecNormalize(DummyVecEnv([lambda: gymnasium.make("Acrobot-v1")]), clip_obs=2.0)
        model = PPO("MlpPolicy", env, n_steps=64, batch_size=64, n_epochs=1, seed=0, device="cpu").learn(256)
        model.save(folder / "Acrobot-v1.zip")
        env.save(str(folder / "vecnormalize.pkl"))
    return folder / "Acrobot-v1.zip", model, env


def test_a_policy_behind_vecnormalize_sees_what_sb3_shows_it(normalised):
    path, model, env = normalised
    policy = potstill.load(path)
    observations = np.random.default_rng(0).normal(0, 5, (64, 6)).astype(np.float32)
    seen = env.normalize_obs(observations)
    assert np.abs(seen).max() == 2.0, "some are clipped"
    with torch.no_grad():
        logits = model.policy.get_distribution(torch.as_tensor(seen)).distribution.logits
    torch.testing.assert_close(policy.outputs(observations).log_softmax(-1), logits, rtol=1e-4, atol=1e-5)
    assert policy.task == "Acrobot-v1"
    assert policy.provenance["observations"] == "normalised by vecnormalize.pkl"


def test_the_checksum_of_such_a_policy_is_of_its_statistics_too(normalised, tmp_path):
    path = shutil.copy(normalised[0], tmp_path / "Acrobot-v1.zip")
    alone = checksum(path, potstill.load(path))
    assert alone == sha256(path)
    statistics = shutil.copy(normalised[0].parent / "vecnormalize.pkl", tmp_path / "vecnormalize.pkl")
    beside = checksum(path, potstill.load(path))
    assert beside != alone
    given = DistillOptions(("mlp:4",), (path,))
    assert plan(given).record()["teacher_sha256"] == [beside]
    potstill.load(path).save(tmp_path / "copy.safetensors")
    copied = tmp_path / "copy.safetensors"
    assert checksum(copied, potstill.load(copied)) == sha256(copied), "which holds them"
    statistics.unlink()
    assert plan(given).record()["teacher_sha256"] == [alone], "another function"


@pytest.mark.parametrize("end", [".data", "_data"])
def test_the_checksum_of_an_onnx_file_is_of_the_weights_beside_it_too(end, normalised, tmp_path):
    path, policy = tmp_path / "a.onnx", potstill.load(normalised[0])
    path.write_bytes(b"graph")
    seen = {checksum(path, replace(policy, provenance={}))}
    for weights in (b"some", b"others"):
        (tmp_path / f"a.onnx{end}").write_bytes(weights)
        seen.add(checksum(path, replace(policy, provenance={})))
    assert len(seen) == 3


def test_such_a_policy_is_saved_and_read_back_whole(normalised, tmp_path):
    policy = potstill.load(normalised[0])
    policy.save(tmp_path / "copy.safetensors")
    observations = np.random.default_rng(0).normal(0, 5, (16, 6)).astype(np.float32)
    assert torch.equal(potstill.load(tmp_path / "copy.safetensors").outputs(observations), policy.outputs(observations))


def test_statistics_are_found_in_the_folder_that_rl_zoo_makes(normalised, tmp_path):
    path = tmp_path / "Acrobot-v1.zip"
    path.write_bytes(normalised[0].read_bytes())
    assert potstill.load(path).clip is None
    (tmp_path / "Acrobot-v1").mkdir()
    (tmp_path / "Acrobot-v1" / "vecnormalize.pkl").write_bytes((normalised[0].parent / "vecnormalize.pkl").read_bytes())
    assert potstill.load(path).clip == 2.0
    best = tmp_path / "best_model.zip"
    best.write_bytes(path.read_bytes())
    assert potstill.load(best).clip == 2.0, "it shares them with the task's own zip"


def test_checkpoints_find_the_statistics_of_their_task_or_of_their_step(normalised, tmp_path):
    path, statistics = normalised[0], normalised[0].parent / "vecnormalize.pkl"
    zoo, callback = tmp_path / "zoo", tmp_path / "callback"
    (zoo / "Acrobot-v1").mkdir(parents=True)
    callback.mkdir()
    shutil.copy(statistics, zoo / "Acrobot-v1" / "vecnormalize.pkl")
    shutil.copy(path, zoo / "rl_model_1000_steps.zip")
    for steps in (1000, 2000):
        shutil.copy(path, callback / f"rl_model_{steps}_steps.zip")
        shutil.copy(statistics, callback / f"rl_model_vecnormalize_{steps}_steps.pkl")
    assert potstill.load(zoo / "rl_model_1000_steps.zip").clip == 2.0
    found = potstill.load(callback / "rl_model_2000_steps.zip").provenance["observations"]
    assert found == "normalised by rl_model_vecnormalize_2000_steps.pkl"


def test_another_tasks_zip_does_not_take_them(normalised, tmp_path):
    (tmp_path / "HalfCheetah-v4").mkdir()
    shutil.copy(normalised[0].parent / "vecnormalize.pkl", tmp_path / "HalfCheetah-v4" / "vecnormalize.pkl")
    shutil.copy(normalised[0], tmp_path / "Acrobot-v1.zip")
    shutil.copy(normalised[0], tmp_path / "agent.zip")
    assert potstill.load(tmp_path / "Acrobot-v1.zip").clip is None
    assert potstill.load(tmp_path / "agent.zip").clip is None


def test_statistics_that_are_called_otherwise_are_asked_about(normalised, tmp_path):
    shutil.copy(normalised[0], tmp_path / "agent.zip")
    shutil.copy(normalised[0].parent / "vecnormalize.pkl", tmp_path / "final_vecnorm.pkl")
    with pytest.raises(PotstillError, match=r"is final_vecnorm.pkl of it\? Call it vecnormalize.pkl"):
        potstill.load(tmp_path / "agent.zip")
    shutil.copy(normalised[0], tmp_path / "final.zip")  # now they are somebody's
    assert potstill.load(tmp_path / "agent.zip").clip is None
    assert potstill.load(tmp_path / "final.zip").clip == 2.0


@pytest.mark.parametrize("protocol", range(3, pickle.HIGHEST_PROTOCOL + 1))
def test_every_protocol_that_pythons_write_is_read(protocol, normalised, tmp_path):
    _, _, env = normalised
    (tmp_path / "vecnormalize.pkl").write_bytes(pickle.dumps(env, protocol))
    statistics = vecnormalize.read(tmp_path / "vecnormalize.pkl")
    assert statistics is not None
    np.testing.assert_allclose(statistics.mean, env.obs_rms.mean, rtol=1e-6)


def test_statistics_without_a_clip_are_kept_in_a_file_of_ours(normalised, tmp_path, monkeypatch):
    path, _, env = normalised
    shutil.copy(path, tmp_path / "Acrobot-v1.zip")
    monkeypatch.setattr(env, "clip_obs", np.inf)
    env.save(str(tmp_path / "vecnormalize.pkl"))
    policy = potstill.load(tmp_path / "Acrobot-v1.zip")
    policy.save(tmp_path / "copy.safetensors")
    observations = np.full((1, 6), 1e6, np.float32)
    copied = potstill.load(tmp_path / "copy.safetensors")
    torch.testing.assert_close(copied.outputs(observations), policy.outputs(observations))


class Goals(gymnasium.Env):
    """Observations by key, each of a size of its own."""

    observation_space = gymnasium.spaces.Dict(
        {name: gymnasium.spaces.Box(-np.inf, np.inf, (2,)) for name in ("achieved", "desired", "observation")}
    )
    action_space = gymnasium.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        return {name: np.full(2, n * 10, np.float32) for n, name in enumerate(self.observation_space)}, {}

    def step(self, action):
        return self.reset()[0], 0.0, False, False, {}


@pytest.mark.parametrize("kind", [dict, OrderedDict], ids=["now", "before Gymnasium 1"])
def test_statistics_of_a_dict_are_in_the_order_in_which_it_is_seen(kind, tmp_path):
    keys = ["observation", "achieved", "desired"]
    env = VecNormalize(DummyVecEnv([Goals]), norm_obs_keys=keys)
    env.obs_spaces = kind(env.obs_spaces)
    for n, key in enumerate(keys):
        env.obs_rms[key].mean[:] = n
    env.save(str(tmp_path / "vecnormalize.pkl"))
    statistics = vecnormalize.read(tmp_path / "vecnormalize.pkl")
    assert statistics is not None
    assert statistics.mean.tolist() == [1, 1, 2, 2, 0, 0]


def test_statistics_of_a_part_of_a_dict_are_refused(tmp_path):
    VecNormalize(DummyVecEnv([Goals]), norm_obs_keys=["observation"]).save(str(tmp_path / "vecnormalize.pkl"))
    with pytest.raises(PotstillError, match="doesn't normalise achieved: it is all or nothing here"):
        vecnormalize.read(tmp_path / "vecnormalize.pkl")


def test_statistics_where_only_rewards_were_normalised_are_none(tmp_path):
    env = VecNormalize(DummyVecEnv([lambda: gymnasium.make("Acrobot-v1")]), norm_obs=False)
    env.save(str(tmp_path / "vecnormalize.pkl"))
    assert vecnormalize.read(tmp_path / "vecnormalize.pkl") is None


@pytest.mark.parametrize("name", ["ppo-HalfCheetah-v3", "a2c-Acrobot-v1", "ppo-Walker2d-v3"])
def test_old_statistics_are_read(name, teachers_folder):
    statistics = vecnormalize.read(teachers_folder / "sb3" / name / "vecnormalize.pkl")
    assert statistics is not None
    assert statistics.clip == 10.0
    assert (statistics.std > 0).all()


class Bomb:
    """Unpickling this makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_nothing_in_the_pickle_is_run(tmp_path):
    target = tmp_path / "vecnormalize.pkl"
    target.write_bytes(pickle.dumps({"obs_rms": Bomb(tmp_path / "made")}))
    with pytest.raises(PotstillError, match="not what Stable-Baselines3's VecNormalize writes"):
        vecnormalize.read(target)
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x80\x05\x96" + (2**40).to_bytes(8, "little") + b".",  # a bytearray of a terabyte
        b"\x80\x04]r\xff\xff\xff\x7f.",  # a memo of two milliards of places
        b"\x80\x02Pid\n.",  # a persistent id
        b"\x80\x04" + b"(" * 100_000 + b".",
        b"\x80\x04]" + b"\x94h\x00h\x00\x86" * 1000 + b".",
        b"\x80\x04})\x940" + b"".join(b"h%ch%c\x86\x940" % (i, i) for i in range(64)) + b"h@Ns.",  # a hash without end
        b"\x80\x04X\x00\x01\x00\x00" + b"m" * 256 + b"\x94" + b"h\x00h\x00\x930" * 100 + b".",  # long names
        b"\x80\x04\x8c\x01m\x94h\x00\x93\x94C\xff" + bytes(255) + b"R.",  # a call with bytes for arguments
        b"\x80\x04" + b"N0" * 10_000 + b"N.",
        # statistics that are two lists, each of twice the one before: to compare them takes for ever
        b"\x80\x02cm\nC\n)\x81}X\x07\x00\x00\x00obs_rms("
        + b"".join(
            b"]q%c" % first + b"".join(b"]q%c(h%ch%ce" % (n + 1, n, n) for n in range(first, first + 60))
            for first in (0, 100)
        )
        + b"lsb.",
    ],
)
def test_crafted_pickles_are_one_line_and_no_memory(content, tmp_path):
    target = tmp_path / "vecnormalize.pkl"
    target.write_bytes(content)
    with pytest.raises(PotstillError, match="not what Stable-Baselines3's VecNormalize writes") as error:
        vecnormalize.read(target)
    assert "\n" not in str(error.value)


def test_mutated_statistics_are_read_or_refused(normalised, tmp_path):
    content = (normalised[0].parent / "vecnormalize.pkl").read_bytes()
    chance, target = random.Random(0), tmp_path / "vecnormalize.pkl"
    refused = 0
    for _ in range(500):
        mutated = bytearray(content)
        for _ in range(chance.choice((1, 1, 2, 8))):
            mutated[chance.randrange(len(mutated))] = chance.randrange(256)
        target.write_bytes(mutated[: chance.choice((len(mutated), chance.randrange(len(mutated))))])
        try:
            vecnormalize.read(target)
        except PotstillError:
            refused += 1
    assert refused > 250
    assert [path.name for path in tmp_path.iterdir()] == ["vecnormalize.pkl"]


def test_a_file_that_names_one_array_a_thousand_times_is_refused(tmp_path):
    env = VecNormalize(DummyVecEnv([lambda: gymnasium.make("Acrobot-v1")]))
    env.obs_rms = dict.fromkeys(map(str, range(1000)), env.obs_rms)
    env.save(str(tmp_path / "vecnormalize.pkl"))
    with pytest.raises(PotstillError, match="1000 keys"):
        vecnormalize.read(tmp_path / "vecnormalize.pkl")


def test_a_large_array_that_many_keys_name_is_refused(tmp_path):
    env = VecNormalize(DummyVecEnv([lambda: gymnasium.make("Acrobot-v1")]))
    env.obs_rms.mean = env.obs_rms.var = np.zeros(2**18)
    env.obs_rms = dict.fromkeys(map(str, range(60)), env.obs_rms)
    env.save(str(tmp_path / "vecnormalize.pkl"))
    with pytest.raises(PotstillError, match="not what Stable-Baselines3's VecNormalize writes"):
        vecnormalize.read(tmp_path / "vecnormalize.pkl")


def test_a_pointer_to_statistics_is_said(normalised, tmp_path):
    shutil.copy(normalised[0], tmp_path / "Acrobot-v1.zip")
    (tmp_path / "vecnormalize.pkl").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\n")
    with pytest.raises(PotstillError, match="git lfs pull"):
        potstill.load(tmp_path / "Acrobot-v1.zip")


def test_a_best_model_between_two_tasks_statistics_asks_which(normalised, tmp_path):
    (tmp_path / "best_model.zip").write_bytes(normalised[0].read_bytes())
    for task in ("Acrobot-v1", "HalfCheetah-v3"):
        (tmp_path / task).mkdir()
        (tmp_path / task / "vecnormalize.pkl").write_bytes(b"")
    with pytest.raises(PotstillError, match="Remove the one that doesn't belong"):
        potstill.load(tmp_path / "best_model.zip")


def test_numbers_that_numpy_made_are_read(tmp_path):
    made_by_numpy = {"clip_obs": np.float64(2.5), "epsilon": np.float32(0.5)}
    env = VecNormalize(DummyVecEnv([lambda: gymnasium.make("Acrobot-v1")]), **made_by_numpy)
    env.save(str(tmp_path / "vecnormalize.pkl"))
    statistics = vecnormalize.read(tmp_path / "vecnormalize.pkl")
    assert statistics is not None
    assert statistics.clip == 2.5
    np.testing.assert_allclose(statistics.std, np.sqrt(env.obs_rms.var + 0.5), rtol=1e-6)


def test_stacks_of_normalised_vectors_are_refused_as_such(tmp_path):
    env = VecNormalize(DummyVecEnv([lambda: gymnasium.make("Acrobot-v1")]))
    PPO("MlpPolicy", VecFrameStack(env, 2), device="cpu").save(tmp_path / "model.zip")
    env.save(str(tmp_path / "vecnormalize.pkl"))
    with pytest.raises(PotstillError, match=r"sees several observations at once, normalised by .*: not played here"):
        potstill.load(tmp_path / "model.zip")
