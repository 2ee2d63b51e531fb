"""Stable-Baselines3 zips against Stable-Baselines3 itself."""

import io
import json
import pickle
import warnings
import zipfile
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch
from torch import nn

from potstill import PotstillError, load
from potstill.cli.common import load_players
from potstill.policies import check_plays
from potstill.tasks import make_task

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from sb3_contrib import ARS, QRDQN, TRPO
    from stable_baselines3 import A2C, DQN, PPO
    from stable_baselines3.common.base_class import BaseAlgorithm
    from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize


class FramesEnv(gymnasium.Env):
    """Atari's shapes without the emulator: SB3 needs an environment to build a policy."""

    observation_space = gymnasium.spaces.Box(0, 255, (4, 84, 84), np.uint8)
    action_space = gymnasium.spaces.Discrete(6)

    def reset(self, *, seed=None, options=None):
        return self.observation_space.sample(), {}

    def step(self, action):
        return self.observation_space.sample(), 0.0, False, False, {}


def sb3_outputs(model: BaseAlgorithm, observations: np.ndarray) -> torch.Tensor:
    tensor = model.policy.obs_to_tensor(observations)[0]
    with torch.no_grad():
        if isinstance(model, DQN):
            return model.q_net(tensor)
        if isinstance(model, QRDQN):
            return model.quantile_net(tensor).mean(1)
        if isinstance(model, ARS):
            return model.policy.action_net(model.policy.features_extractor(tensor)).log_softmax(-1)
        return model.policy.get_distribution(tensor).distribution.logits


RELU = {"activation_fn": torch.nn.ReLU}
CASES = {
    "dqn": (DQN, "MlpPolicy", "CartPole-v1", {}),
    "dqn-wide": (DQN, "MlpPolicy", "CartPole-v1", {"net_arch": [32]}),
    "dqn-tanh": (DQN, "MlpPolicy", "CartPole-v1", {"activation_fn": torch.nn.Tanh}),
    "dqn-no-images": (DQN, "MlpPolicy", "CartPole-v1", {"normalize_images": False}),
    "dqn-cnn": (DQN, "CnnPolicy", FramesEnv, {}),
    "ppo": (PPO, "MlpPolicy", "CartPole-v1", {}),
    "ppo-relu": (PPO, "MlpPolicy", "CartPole-v1", {"net_arch": {"pi": [32, 16], "vf": [8]}, **RELU}),
    "ppo-cnn": (PPO, "CnnPolicy", FramesEnv, {}),
    "ppo-cnn-apart": (PPO, "CnnPolicy", FramesEnv, {"share_features_extractor": False}),
    "ppo-narrow-cnn": (PPO, "CnnPolicy", FramesEnv, {"features_extractor_kwargs": {"features_dim": 64}}),
    "a2c": (A2C, "MlpPolicy", "Acrobot-v1", {}),
    "a2c-cnn": (A2C, "CnnPolicy", FramesEnv, {}),
    "qr-dqn": (QRDQN, "MlpPolicy", "CartPole-v1", {"n_quantiles": 7}),
    "qr-dqn-cnn": (QRDQN, "CnnPolicy", FramesEnv, {"n_quantiles": 3}),
    "trpo": (TRPO, "MlpPolicy", "CartPole-v1", {}),
    "ars": (ARS, "MlpPolicy", "CartPole-v1", {"net_arch": [16]}),
    "ars-linear": (ARS, "LinearPolicy", "CartPole-v1", {}),
}


def save(case: str, path: Path) -> BaseAlgorithm:
    algorithm, policy, env, kwargs = CASES[case]
    env = env() if callable(env) else env
    extra = {"buffer_size": 10} if algorithm in (DQN, QRDQN) else {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = algorithm(policy, env, policy_kwargs=kwargs or None, seed=0, device="cpu", **extra)
        model.save(path)
    return model


@pytest.mark.parametrize("case", CASES)
def test_outputs_equal_sb3s_on_the_same_observations(case, tmp_path):
    model = save(case, tmp_path / "model.zip")
    policy = load(tmp_path / "model.zip")
    rng = np.random.default_rng(0)
    if policy.observation_dtype == "uint8":
        observations = rng.integers(0, 256, (8, 4, 84, 84), dtype=np.uint8)
    else:
        observations = rng.normal(size=(64, *policy.observation_shape)).astype(np.float32)
    ours, theirs = policy.outputs(observations), sb3_outputs(model, observations)
    if policy.outputs_are == "logits":
        ours = ours.log_softmax(-1)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
    assert policy.outputs_are == ("q" if "dqn" in case else "logits")
    assert policy.provenance["algorithm"] == ("QR-DQN" if case.startswith("qr") else case.partition("-")[0].upper())


@pytest.mark.parametrize(
    "name",
    [
        "sb3/dqn-CartPole-v1.zip",
        "sb3/dqn-LunarLander-v2.zip",
        "sb3/ppo-LunarLander-v2.zip",
        "sb3/qrdqn-CartPole-v1.zip",
    ],
)
def test_old_zips_equal_a_fresh_sb3_policy_given_the_same_tensors(name, teachers_folder):
    path = teachers_folder / name
    policy = load(path)
    task = "CartPole-v1" if "CartPole" in name else "LunarLander-v3"
    with zipfile.ZipFile(path) as archive:
        tensors = torch.load(io.BytesIO(archive.read("policy.pth")), weights_only=True, map_location="cpu")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if "qrdqn" in name:
            kwargs = {"net_arch": [256, 256], "n_quantiles": 10}
            model = QRDQN("MlpPolicy", task, policy_kwargs=kwargs, device="cpu", buffer_size=10)
        elif "dqn" in name:
            model = DQN("MlpPolicy", task, policy_kwargs={"net_arch": [256, 256]}, device="cpu", buffer_size=10)
        else:
            model = PPO("MlpPolicy", task, device="cpu")
    model.policy.load_state_dict(tensors)
    observations = np.random.default_rng(0).normal(size=(64, *policy.observation_shape)).astype(np.float32)
    ours = policy.outputs(observations)
    if policy.outputs_are == "logits":
        ours = ours.log_softmax(-1)
    torch.testing.assert_close(ours, sb3_outputs(model, observations), rtol=1e-5, atol=1e-5)


def test_the_zip_and_the_state_dict_of_one_teacher_are_the_same(teachers_folder):
    one, other = (load(teachers_folder / "own" / name) for name in ("pong-dqn-sb3.zip", "pong-dqn.safetensors"))
    frames = np.random.default_rng(0).integers(0, 256, (4, 4, 84, 84), dtype=np.uint8)
    assert torch.equal(one.outputs(frames), other.outputs(frames))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("state_dicts/Pong-a2c-pickled-module.pth", "a pickle, which can run code when read"),
        ("sb3/a2c-Acrobot-v1/vecnormalize.pkl", "holds statistics, no policy: name the zip"),
    ],
)
def test_what_cannot_be_loaded_yet_is_refused_by_name(name, message, teachers_folder):
    with pytest.raises(PotstillError, match=message) as error:
        load(teachers_folder / name)
    assert "\n" not in str(error.value)


class ReachEnv(gymnasium.Env):
    """Observations by name, as of robots that reach for a goal."""

    observation_space = gymnasium.spaces.Dict(
        position=gymnasium.spaces.Box(-1, 1, (2,)), goal=gymnasium.spaces.Box(-1, 1, (3,))
    )  # by keywords they keep this order, which is not the alphabet's
    action_space = gymnasium.spaces.Discrete(4)

    def reset(self, *, seed=None, options=None):
        return self.observation_space.sample(), {}

    def step(self, action):
        return self.observation_space.sample(), 0.0, False, False, {}


def test_a_dict_of_observations_is_seen_as_one_vector_by_order_of_its_keys(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        env = VecNormalize(DummyVecEnv([ReachEnv]))
        model = PPO("MultiInputPolicy", env, n_steps=64, batch_size=64, n_epochs=1, seed=0, device="cpu").learn(128)
    model.save(tmp_path / "model.zip")
    env.save(str(tmp_path / "vec_normalize.pkl"))
    policy = load(tmp_path / "model.zip")
    rng = np.random.default_rng(0)
    seen = {"goal": rng.normal(size=(9, 3)).astype(np.float32), "position": rng.normal(size=(9, 2)).astype(np.float32)}
    ours = policy.outputs(np.concatenate([seen["position"], seen["goal"]], 1))
    torch.testing.assert_close(ours.log_softmax(-1), sb3_outputs(model, env.normalize_obs(seen)), rtol=1e-4, atol=1e-5)


class SortedReachEnv(ReachEnv):
    """The same observations, their keys in the alphabet's order."""

    observation_space = gymnasium.spaces.Dict(dict(ReachEnv.observation_space))


@pytest.fixture
def reach_envs(monkeypatch):
    monkeypatch.setattr(gymnasium.envs.registration, "registry", dict(gymnasium.registry))
    gymnasium.register("PotstillReachNow-v0", ReachEnv, max_episode_steps=5)
    gymnasium.register("PotstillReachSorted-v0", SortedReachEnv, max_episode_steps=5)


def test_a_dict_teachers_keys_are_the_tasks_in_order_or_it_is_said_how_to_see_them(reach_envs, tmp_path):
    model = PPO("MultiInputPolicy", ReachEnv(), device="cpu", seed=0)
    model.save(tmp_path / "model.zip")
    policy = load(tmp_path / "model.zip")
    check_plays(policy, make_task("PotstillReachNow-v0"), "model.zip")
    task = make_task("PotstillReachSorted-v0")
    with pytest.raises(
        PotstillError, match=r"sees position,goal in this order, .* shows goal,position: add --teacher-sees pos"
    ):
        check_plays(policy, task, "model.zip")
    permuted = policy.seeing(task.parts("--sees", "position,goal"), task.observation_shape)
    check_plays(permuted, task, "model.zip")
    seen = SortedReachEnv.observation_space.sample()
    flat = np.concatenate([seen["goal"], seen["position"]])[None]
    torch.testing.assert_close(
        permuted.outputs(flat).log_softmax(-1), sb3_outputs(model, {key: part[None] for key, part in seen.items()})
    )


class BatteryEnv(gymnasium.Env):
    """Its last observation looks like RL Zoo's time feature, and is its own."""

    observation_space = gymnasium.spaces.Box(np.float32([-np.inf, -np.inf, 0]), np.float32([np.inf, np.inf, 1]))
    action_space = gymnasium.spaces.Discrete(2)


def test_what_only_looks_like_the_time_is_the_tasks_own(monkeypatch, tmp_path):
    monkeypatch.setattr(gymnasium.envs.registration, "registry", dict(gymnasium.registry))
    gymnasium.register("PotstillBattery-v0", BatteryEnv, max_episode_steps=5)
    PPO("MlpPolicy", BatteryEnv(), device="cpu").save(tmp_path / "PotstillBattery-v0.zip")
    [(_, _, task)] = load_players([tmp_path / "PotstillBattery-v0.zip"], None, "greedy", None, None, False)
    assert task.observation_shape == (3,)


def test_layers_that_are_no_network_of_ours_are_refused_with_the_files_name_in_a_line(tmp_path):
    convolutions = {
        f"network.{2 * n}.{kind}": tensor
        for n, layer in enumerate((nn.Conv2d(4, 32, 8), nn.Conv2d(32, 64, 4), nn.Conv2d(64, 64, 3), nn.Linear(3136, 4)))
        for kind, tensor in layer.state_dict().items()
    }
    deep = {f"network.{n}.{kind}": torch.zeros(2, 2)[: 2 if kind == "weight" else 1].squeeze(0)
            for n in range(300) for kind in ("weight", "bias")}  # fmt: skip
    for tensors in (convolutions, deep):
        torch.save(tensors, tmp_path / "a.pth")
        with pytest.raises(PotstillError, match=r"a.pth: its layers are ") as refused:
            load(tmp_path / "a.pth")
        assert len(str(refused.value)) < len(str(tmp_path)) + 300


def test_the_first_linear_ars_policies_are_read_too(tmp_path):
    model = save("ars-linear", tmp_path / "new.zip")
    tensors = {name.replace(".0.", "."): tensor for name, tensor in model.policy.state_dict().items()}
    assert list(tensors) == ["action_net.weight"]
    path = repack(tmp_path / "new.zip", tmp_path / "old.zip", policy_pth=weights(tensors))
    observations = np.random.default_rng(0).normal(size=(16, 4)).astype(np.float32)
    assert torch.equal(load(path).outputs(observations), load(tmp_path / "new.zip").outputs(observations))


def repack(source: Path, target: Path, **members: bytes | None) -> Path:
    """A copy of a zip with some members replaced (or left out: None)."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            content = members.get(name.replace(".", "_"), old.read(name))
            if content is not None:
                new.writestr(name, content)
    return target


class Bomb:
    """Unpickling this creates a file."""

    def __reduce__(self):
        return open, ("PWNED", "w")


def changed_data(path: Path, **changes: object) -> bytes:
    with zipfile.ZipFile(path) as archive:
        return json.dumps({**json.loads(archive.read("data")), **changes}).encode()


def weights(tensors: dict) -> bytes:
    buffer = io.BytesIO()
    torch.save(tensors, buffer)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def dqn_zip(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("sb3") / "model.zip"
    save("dqn", path)
    return path


def zip_bomb() -> bytes:
    buffer = io.BytesIO()
    with (
        zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("archive/data/0", "w") as member,
    ):
        for _ in range(600):
            member.write(bytes(2**20))
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: {"policy_pth": pickle.dumps(Bomb())}, "is no plain state dict"),
        (lambda p: {"policy_pth": weights({"a": Bomb()})}, "is no plain state dict"),
        (lambda p: {"policy_pth": b""}, "no plain state dict"),
        (lambda p: {"policy_pth": weights([1, 2])}, "no state dict"),
        (lambda p: {"policy_pth": weights({1: torch.zeros(1)})}, "no state dict"),
        (lambda p: {"policy_pth": weights({"a": torch.zeros(1).expand(10**6, 10**5)})}, "without the bytes for it"),
        (lambda p: {"policy_pth": weights({"a": torch.zeros(1, dtype=torch.int64)})}, "int64, not floating point"),
        (lambda p: {"policy_pth": zip_bomb()}, "unpacks to 629145600 bytes"),
        (lambda p: {"policy_pth": None}, r"neither Stable-Baselines3's \(no data, policy.pth\)"),
        (lambda p: {"data": b"{"}, "its data is not JSON"),
        (lambda p: {"data": b"[" * 100_000}, "its data is not JSON"),
        (lambda p: {"data": b"[]"}, "not what Stable-Baselines3 writes"),
        (lambda p: {"data": b"{}"}, "its action_space is unreadable"),
        (lambda p: {"data": changed_data(p, policy_kwargs={"n_heads": 3})}, "n_heads=3 is not known"),
        (lambda p: {"data": changed_data(p, policy_kwargs={"activation_fn": "<class 'x.GELU'>"})}, "GELU is not known"),
        (lambda p: {"data": changed_data(p, policy_kwargs={"features_extractor_class": "<class 'm.Own'>"})},
         "features_extractor_class"),
        (lambda p: {"data": changed_data(p, policy_kwargs={"activation_fn": "<class '__main__.ReLU'>"})},
         "activation __main__.ReLU is not known"),
        (lambda p: {"data": changed_data(p, policy_kwargs={"features_extractor_class": "<class 'm.NatureCNN'>"})},
         "features_extractor_class"),
        (lambda p: {"data": changed_data(p, policy_class={"__module__": "__main__"})}, "class is of __main__: only"),
        (lambda p: {"data": changed_data(p, policy_class={"__module__": "sb3_contrib.crossq.policies"})},
         "normalised layers are not played"),
        (lambda p: {"data": changed_data(p, policy_class=None)}, "class is of None: only"),
        (lambda p: {"data": changed_data(p, policy_kwargs=[1])}, "policy_kwargs can't be read"),
        (lambda p: {"data": b"[" + b"{}," * 2**20 + b"{}]"}, "its data is not JSON"),
        (lambda p: {"policy_pth": weights({"a": torch.full((1,), torch.inf)})}, "a holds infinities"),
    ],
)  # fmt: skip
def test_a_hostile_or_unknown_zip_runs_nothing_and_is_one_line(dqn_zip, tmp_path, monkeypatch, change, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(PotstillError, match=message) as error:
        load(repack(dqn_zip, tmp_path / "changed.zip", **change(dqn_zip)))
    assert "\n" not in str(error.value)
    assert not (tmp_path / "PWNED").exists()


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_what_unpacks_all_at_once_is_not_unpacked(method, tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w", method) as archive:
        archive.writestr("data", b"{}")
        archive.writestr("policy.pth", b"")
    with pytest.raises(PotstillError, match="its method of compression is not read"):
        load(tmp_path / "a.zip")


@pytest.mark.parametrize("side", [88, 64])
def test_frames_of_another_size_than_ataris_are_refused(side, tmp_path, monkeypatch):
    monkeypatch.setattr(FramesEnv, "observation_space", gymnasium.spaces.Box(0, 255, (4, side, side), np.uint8))
    save("dqn-cnn", tmp_path / "model.zip")
    with zipfile.ZipFile(tmp_path / "model.zip") as archive:
        old = archive.read("data").replace(b'"_shape"', b'"shape"')  # gym's
    for path in (tmp_path / "model.zip", repack(tmp_path / "model.zip", tmp_path / "old.zip", data=old)):
        with pytest.raises(PotstillError, match=f"sees frames of 4 × {side} × {side}; only"):
            load(path)


def test_frames_that_are_not_scaled_or_seen_by_an_mlp_are_refused(tmp_path, monkeypatch):
    monkeypatch.setitem(CASES, "unscaled", (DQN, "CnnPolicy", FramesEnv, {"normalize_images": False}))
    monkeypatch.setitem(CASES, "flat", (DQN, "MlpPolicy", FramesEnv, {"net_arch": [4]}))
    for case, message in (("unscaled", "normalize_images=False is not known"), ("flat", "an MLP that sees frames")):
        save(case, tmp_path / f"{case}.zip")
        with pytest.raises(PotstillError, match=message):
            load(tmp_path / f"{case}.zip")


def test_layers_that_only_the_spread_is_computed_by_are_refused(dqn_zip, tmp_path):
    of_spread = weights({"sde_features_extractor.0.weight": torch.zeros(4, 4)})
    with pytest.raises(PotstillError, match="its spread is computed by layers of its own"):
        load(repack(dqn_zip, tmp_path / "changed.zip", policy_pth=of_spread))


def test_a_zip_bomb_in_data_is_not_unpacked(dqn_zip, tmp_path):
    bomb = repack(dqn_zip, tmp_path / "bomb.zip", data=bytes(2**26 + 1))
    assert bomb.stat().st_size < 2**20
    with pytest.raises(PotstillError, match="data unpacks to over 67108864 bytes"):
        load(bomb)


def test_every_tenth_truncation_of_a_zip_is_one_line(dqn_zip, tmp_path):
    content = dqn_zip.read_bytes()
    for tenth in range(10):
        (tmp_path / "cut.zip").write_bytes(content[: len(content) * tenth // 10])
        with pytest.raises(PotstillError) as error:
            load(tmp_path / "cut.zip")
        assert "\n" not in str(error.value)
