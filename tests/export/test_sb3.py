"""Zips for Stable-Baselines3: it plays them as the policy plays, and so do we."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import stable_baselines3
import torch

from potstill import Policy, PotstillError, load
from potstill.actions import Actions
from potstill.export import sb3
from potstill.export.options import ExportOptions
from potstill.export.run import export
from potstill.networks import NetworkSpec
from potstill.tasks import make_task

CASES = {
    "Q-values": ("mlp:16-8", "q", "Acrobot-v1", None, "DQN"),
    "logits": ("mlp:16:tanh", "logits", "CartPole-v1", None, "PPO"),
    "no layers": ("linear", "logits", "CartPole-v1", None, "PPO"),
    "squashed": ("mlp:16-8", "gaussian", "Pendulum-v1", True, "SAC"),
    "clipped": ("mlp:16-8:tanh", "gaussian", "Pendulum-v1", False, "PPO"),
    "frames, Q-values": ("net3", "q", "ALE/Pong-v5", None, "DQN"),
    "frames, logits": ("cnn:4-4-4:16-8", "logits", "ALE/Pong-v5", None, "PPO"),
}


def observations_of(task):
    rng = np.random.default_rng(0)
    if task.is_atari:
        return rng.integers(0, 256, (40, *task.observation_shape), dtype=np.uint8)
    return rng.normal(size=(40, *task.observation_shape)).astype(np.float32)


def policy_for(spec, outputs_are, task, squashed, **rest):
    torch.manual_seed(0)
    actions = None if squashed is None else Actions(*task.bounds, squashed)
    shape, dtype = task.observation_shape, task.observation_dtype
    policy = Policy.new(
        NetworkSpec.parse(spec), outputs_are, shape, dtype, task.num_actions, task=task.id, actions=actions, **rest
    )
    if actions is not None:  # a spread that is another in each state
        torch.nn.init.normal_(policy.ours.head.weight, std=0.3)
    return policy


@pytest.mark.parametrize(("spec", "outputs_are", "task_id", "squashed", "algorithm"), CASES.values(), ids=CASES)
def test_it_plays_there_and_comes_back_the_same(spec, outputs_are, task_id, squashed, algorithm, tmp_path):
    task = make_task(task_id)
    seen = observations_of(task)
    policy = policy_for(spec, outputs_are, task, squashed)
    path = tmp_path / f"{task_id.rpartition('/')[2]}.zip"
    path.write_bytes(sb3.to_bytes(sb3.to_sb3(policy, task, seen)))
    model = getattr(stable_baselines3, algorithm).load(path, device="cpu")
    np.testing.assert_allclose(model.predict(seen, deterministic=True)[0], policy.act(seen), atol=1e-5)
    outputs = policy.outputs(seen)
    if outputs_are == "logits":
        outputs = torch.log_softmax(outputs, -1)
    theirs = sb3.outputs_of(model, policy, seen)
    np.testing.assert_allclose(theirs, outputs[:, : theirs.shape[1]], atol=1e-4)
    ours = load(path)
    assert ours.outputs_are == outputs_are
    np.testing.assert_allclose(ours.act(seen), policy.act(seen), atol=1e-5)
    if outputs_are == "gaussian":
        spread = ours.outputs(seen)[:, 1:] - policy.outputs(seen)[:, 1:]
        assert (spread.abs().max() < 1e-5) == squashed
        assert spread.mean().abs() < 1e-5


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
def test_a_network_of_frames_can_be_traced_there():
    task = make_task("ALE/Pong-v5")
    seen = observations_of(task)
    model = sb3.to_sb3(policy_for("net3", "q", task, None), task, seen)
    frames, _ = model.policy.obs_to_tensor(seen)
    traced = torch.jit.trace(model.q_net, frames)
    torch.testing.assert_close(traced(frames), model.q_net(frames))


def test_another_process_scores_it_with_stable_baselines3_alone(cartpole_teacher, tmp_path):
    task = make_task("CartPole-v1")
    path = tmp_path / "cartpole.zip"
    path.write_bytes(sb3.to_bytes(sb3.to_sb3(cartpole_teacher, task, observations_of(task))))
    program = f"""
import gymnasium, stable_baselines3
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor
model = stable_baselines3.PPO.load({str(path)!r}, env=Monitor(gymnasium.make("CartPole-v1")))
print(*evaluate_policy(model, model.get_env(), n_eval_episodes=3))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "500.0 0.0"


@pytest.mark.parametrize("rest", [{"clip": 5.0}, {"provenance": {"time_feature": True}}])
def test_what_has_no_place_there_is_refused(rest):
    with pytest.raises(PotstillError, match="has no place there"):
        sb3.check(policy_for("mlp:4", "logits", make_task("CartPole-v1"), None, **rest))


def test_a_dict_of_observations_has_no_place_there(tmp_path, monkeypatch):
    shown = replace(make_task("CartPole-v1"), keys=(("all", 0, 4),))
    monkeypatch.setattr("potstill.export.run.make_task", lambda task_id: shown)
    policy = policy_for("mlp:4", "logits", shown, None)
    with pytest.raises(PotstillError, match="--to sb3: CartPole-v1 shows a Dict, a student sees one vector: use onnx"):
        next(export([policy], tmp_path / "a.zip", ExportOptions(to="sb3")))


def test_fewer_frames_than_are_shown_have_no_place_there():
    with pytest.raises(PotstillError, match="looks at fewer frames"):
        sb3.check(policy_for("cnn:4-4-4:8:2f", "logits", make_task("ALE/Pong-v5"), None))


def test_a_missing_package_is_named_before_anything_is_played(cartpole_teacher, tmp_path, monkeypatch):
    monkeypatch.setattr("potstill.errors.find_spec", lambda name: None)
    with pytest.raises(PotstillError, match="pip install 'stable-baselines3'"):
        next(export([cartpole_teacher], tmp_path / "a.zip", ExportOptions(to="sb3")))
