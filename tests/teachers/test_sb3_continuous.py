"""Continuous policies of Stable-Baselines3 and sb3-contrib against themselves."""

import io
import warnings
import zipfile
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch

from potstill import PotstillError, load

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from sb3_contrib import ARS, TQC, TRPO
    from stable_baselines3 import A2C, DDPG, PPO, SAC, TD3
    from stable_baselines3.common.base_class import BaseAlgorithm


class BoundedEnv(gymnasium.Env):
    """Two continuous actions with bounds of their own."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (5,), np.float32)
    action_space = gymnasium.spaces.Box(np.array([-0.5, -2.0], np.float32), np.array([1.5, 0.25], np.float32))

    def reset(self, *, seed=None, options=None):
        return self.observation_space.sample(), {}

    def step(self, action):
        return self.observation_space.sample(), 0.0, False, False, {}


CASES = {
    "ppo": (PPO, "MlpPolicy", {}),
    "ppo-wide": (PPO, "MlpPolicy", {"net_arch": [16], "log_std_init": -1.5}),
    "ppo-gsde": (PPO, "MlpPolicy", {"use_sde": True}),
    "ppo-gsde-far": (PPO, "MlpPolicy", {"use_sde": True, "log_std_init": 1.0}),
    "ppo-gsde-one-std": (PPO, "MlpPolicy", {"use_sde": True, "full_std": False}),
    "a2c": (A2C, "MlpPolicy", {}),
    "trpo": (TRPO, "MlpPolicy", {}),
    "sac": (SAC, "MlpPolicy", {"net_arch": [32, 16]}),
    "sac-gsde": (SAC, "MlpPolicy", {"use_sde": True, "net_arch": [16, 16]}),
    "sac-no-hidden": (SAC, "MlpPolicy", {"net_arch": []}),
    "sac-gsde-no-hidden": (SAC, "MlpPolicy", {"use_sde": True, "net_arch": []}),
    "sac-gsde-far": (SAC, "MlpPolicy", {"use_sde": True, "net_arch": [16, 16], "log_std_init": 1.0}),
    "tqc": (TQC, "MlpPolicy", {"net_arch": [32], "n_critics": 3}),
    "td3": (TD3, "MlpPolicy", {"net_arch": [32, 16]}),
    "ddpg": (DDPG, "MlpPolicy", {"net_arch": [16]}),
    "ars": (ARS, "MlpPolicy", {"net_arch": [16]}),
    "ars-unsquashed": (ARS, "MlpPolicy", {"net_arch": [16], "squash_output": False}),
    "ars-no-hidden": (ARS, "MlpPolicy", {"net_arch": []}),
    "ars-linear": (ARS, "LinearPolicy", {}),
    "ars-linear-bias": (ARS, "LinearPolicy", {"with_bias": True}),
    "ars-linear-squashed": (ARS, "LinearPolicy", {"squash_output": True}),
}


def save(case: str, path: Path) -> BaseAlgorithm:
    algorithm, policy, kwargs = CASES[case]
    kwargs = dict(kwargs)
    extra = {"use_sde": True} if kwargs.pop("use_sde", False) else {}
    if algorithm in (SAC, TQC, TD3, DDPG):
        extra["buffer_size"] = 10
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = algorithm(policy, BoundedEnv(), policy_kwargs=kwargs or None, seed=0, device="cpu", **extra)
        with torch.no_grad():  # a fresh policy hardly moves: let it reach its bounds
            for parameter in model.policy.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.5)
        model.save(path)
    return model


def spread(model: BaseAlgorithm, observations: np.ndarray) -> torch.Tensor | None:
    """The library's own standard deviations, before squashing."""
    tensor = torch.as_tensor(observations)
    with torch.no_grad():
        if isinstance(model, PPO | A2C | TRPO):
            return model.policy.get_distribution(tensor).distribution.stddev
        if isinstance(model, SAC | TQC):
            actor = model.policy.actor
            mean, log_std, extra = actor.get_action_dist_params(tensor)
            if actor.use_sde:
                return actor.action_dist.proba_distribution(mean, log_std, **extra).distribution.stddev
            return log_std.exp()
    return None


@pytest.mark.parametrize("case", CASES)
def test_actions_and_spreads_are_the_librarys(case, tmp_path):
    model = save(case, tmp_path / "model.zip")
    policy = load(tmp_path / "model.zip")
    observations = np.random.default_rng(0).normal(size=(256, 5)).astype(np.float32)
    theirs, _ = model.predict(observations, deterministic=True)
    np.testing.assert_allclose(policy.act(observations), theirs, rtol=1e-4, atol=1e-5)
    assert len(np.unique(theirs)) > 10
    expected = spread(model, observations)
    if expected is None:
        expected = torch.full((256, 2), 0.1)
    stds = policy.outputs(observations)[:, 2:].exp()
    torch.testing.assert_close(stds, expected, rtol=1e-3, atol=1e-5)
    assert policy.outputs_are == "gaussian"
    assert policy.num_actions == 2
    assert policy.provenance["algorithm"] == case.partition("-")[0].upper()


@pytest.mark.parametrize("case", ["ppo", "sac", "td3"])
def test_a_continuous_policy_is_saved_and_read_back(case, tmp_path):
    save(case, tmp_path / "model.zip")
    policy = load(tmp_path / "model.zip")
    policy.save(tmp_path / "copy.safetensors")
    copied = load(tmp_path / "copy.safetensors")
    observations = np.random.default_rng(0).normal(size=(16, 5)).astype(np.float32)
    assert torch.equal(copied.outputs(observations), policy.outputs(observations))
    assert copied.actions == policy.actions


def test_what_a_file_of_ours_cannot_hold_is_said(tmp_path):
    save("sac-gsde", tmp_path / "model.zip")
    with pytest.raises(PotstillError, match="gSDE's standard deviations have no place in such a file: distil it first"):
        load(tmp_path / "model.zip").save(tmp_path / "copy.safetensors")


def test_old_continuous_zips_equal_a_fresh_policy_given_the_same_tensors(teachers_folder):
    path = teachers_folder / "sb3" / "sac-Pendulum-v1.zip"
    with zipfile.ZipFile(path) as archive:
        tensors = torch.load(io.BytesIO(archive.read("policy.pth")), weights_only=True, map_location="cpu")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = SAC("MlpPolicy", "Pendulum-v1", policy_kwargs={"net_arch": [64, 64]}, use_sde=True, buffer_size=10)
    actor = {name.removeprefix("actor."): tensor for name, tensor in tensors.items() if name.startswith("actor.")}
    model.policy.actor.load_state_dict(actor)
    observations = np.random.default_rng(0).normal(size=(64, 3)).astype(np.float32)
    theirs, _ = model.predict(observations, deterministic=True)
    np.testing.assert_allclose(load(path).act(observations), theirs, rtol=1e-4, atol=1e-5)


def test_old_ppo_behind_vecnormalize_equals_a_fresh_policy_given_the_same_tensors(teachers_folder):
    path = teachers_folder / "sb3" / "ppo-HalfCheetah-v3" / "HalfCheetah-v3.zip"
    policy = load(path)
    with zipfile.ZipFile(path) as archive:
        t = torch.load(io.BytesIO(archive.read("policy.pth")), weights_only=True, map_location="cpu")
    observations = np.random.default_rng(0).normal(0, 3, (64, 17)).astype(np.float32)
    layer = policy.network.trunk[0]
    x = ((torch.as_tensor(observations) - layer.mean) / layer.std).clamp(-10, 10)
    for name in ("mlp_extractor.policy_net.0", "mlp_extractor.policy_net.2"):
        x = torch.relu(x @ t[f"{name}.weight"].T + t[f"{name}.bias"])
    expected = (x @ t["action_net.weight"].T + t["action_net.bias"]).clamp(-1, 1)
    np.testing.assert_allclose(policy.act(observations), expected, rtol=1e-4, atol=1e-4)
    assert policy.task == "HalfCheetah-v4"


def test_the_time_feature_is_recognised_and_played(teachers_folder):
    policy = load(teachers_folder / "sb3" / "ppo-Walker2d-v3" / "Walker2d-v3.zip")
    assert policy.time_feature
    assert policy.observation_shape == (18,)
    assert load(teachers_folder / "sb3" / "ppo-HalfCheetah-v3" / "HalfCheetah-v3.zip").time_feature is None


def test_an_old_torch_file_that_claims_more_than_it_holds_is_refused(tmp_path):
    path = tmp_path / "model.pth"
    torch.save({"net.0.weight": torch.zeros(4, 4)}, path, _use_new_zipfile_serialization=False)
    content = path.read_bytes()
    assert content.count(b"K\x10") >= 1  # the storage's sixteen numbers
    path.write_bytes(content.replace(b"K\x10", b"J\x00\x00\x00\x70"))
    with pytest.raises(PotstillError, match="no plain state dict"):
        load(path)
