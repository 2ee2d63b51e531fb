"""Tasks with continuous actions: played, come back to, distilled."""

import json
import warnings

import gymnasium
import numpy as np
import pytest
import torch

from potstill import Policy, PotstillError, load
from potstill.actions import Actions
from potstill.distill.options import DistillOptions
from potstill.distill.plan import plan
from potstill.distill.run import record, run
from potstill.networks import NetworkSpec
from potstill.tasks import Envs, EpisodeSeeds, make_task

BOUNDS = Actions((-2.0,), (2.0,), squashed=True)


@pytest.fixture
def pendulum_file(tmp_path):
    """Pushes as the arm's speed goes: swings up, after a while."""
    policy = Policy.new(NetworkSpec.parse("linear"), "gaussian", (3,), "float32", 1, task="Pendulum-v1", actions=BOUNDS)
    with torch.no_grad():
        policy.network.head.weight.copy_(torch.tensor([[0.0, -1.0, 0.7], [0.0, 0.0, 0.0]]))
        policy.network.head.bias.copy_(torch.tensor([0.0, -1.0]))
    policy.save(tmp_path / "pendulum.safetensors")
    return tmp_path / "pendulum.safetensors"


def test_a_snapshot_is_come_back_to(pendulum_file):
    task, rng = make_task("Pendulum-v1"), np.random.default_rng(0)
    assert (task.num_actions, task.num_outputs, task.bounds) == (1, 2, ((-2.0,), (2.0,)))
    envs = Envs(task, 3, EpisodeSeeds(0, "training"))
    for _ in range(230):
        envs.step(rng.uniform(-2, 2, (3, 1)).astype(np.float32))
    snapshot, seen = json.loads(json.dumps(envs.snapshot())), envs.observations
    again = Envs(task, 3, EpisodeSeeds(0, "training"))
    again.restore(snapshot)
    np.testing.assert_array_equal(again.observations, seen)
    np.testing.assert_array_equal(again.age, envs.age)


def test_actions_stay_within_their_bounds_and_chance_fills_them(pendulum_file):
    policy = load(pendulum_file)
    observations = np.random.default_rng(0).normal(0, 3, (4000, 3)).astype(np.float32)
    greedy, drawn, anywhere = (
        policy.act(observations, epsilon, np.random.default_rng(0), act)
        for epsilon, act in ((0.0, "greedy"), (0.0, "sample"), (1.0, "greedy"))
    )
    assert greedy.shape == drawn.shape == anywhere.shape == (4000, 1)
    assert greedy.dtype == np.float32
    assert np.abs(greedy).max() <= 2
    means = policy.outputs(observations)[:, :1].numpy()
    np.testing.assert_allclose(greedy, 2 * np.tanh(means), atol=1e-6)
    before = np.arctanh(drawn[np.abs(greedy) < 1] / 2) - means[np.abs(greedy) < 1]
    assert np.std(before) == pytest.approx(np.exp(-1), rel=0.1)
    assert np.histogram(anywhere, 4, (-2, 2))[0].min() > 900


@pytest.mark.parametrize("loss", ["kl", "nll", "mse"])
def test_a_gaussian_teacher_is_distilled(loss, pendulum_file, tmp_path):
    options = DistillOptions(
        ("mlp:16",), (pendulum_file,), loss=(loss,), hours=0.2, updates=3000, envs=20, episodes=10, threads=2,
        play_epsilon=0.2, batch=64,
    )  # fmt: skip
    for _ in run(plan(options), tmp_path / "run", False, ["potstill"]):
        pass
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["teachers"][0]["outputs"] == "gaussian"
    assert result["students"][0]["tasks"][0]["agreement"] > 0.7
    student = load(tmp_path / "run" / "students" / "mlp_16.safetensors")
    assert student.actions == BOUNDS
    assert student.outputs_are == "gaussian"


def test_recorded_continuous_play_is_learnt_from(pendulum_file, tmp_path):
    small = {"hours": 0.1, "envs": 20, "threads": 2}
    for _ in record(plan(DistillOptions((), (pendulum_file,), **small)), tmp_path / "data", False, ["potstill"]):
        pass
    options = DistillOptions(("mlp:8",), data=(tmp_path / "data",), updates=200, **small)
    for _ in run(plan(options), tmp_path / "run", False, ["potstill"]):
        pass
    assert load(tmp_path / "run" / "students" / "mlp_8.safetensors").actions == BOUNDS


@pytest.mark.parametrize(
    ("task", "message"),
    [("CartPole-v1", "has continuous actions, CartPole-v1 discrete ones"), ("MountainCarContinuous-v0", "acts within")],
)
def test_a_task_with_other_actions_is_refused(task, message, pendulum_file):
    with pytest.raises(PotstillError, match=message):
        plan(DistillOptions(("mlp:8",), (pendulum_file,), task=(task,)))


@pytest.mark.parametrize(
    "actions",
    [None, {}, {"low": [0], "high": [0], "squashed": True}, {"low": [0, 1], "high": [1, 2], "squashed": True},
     {"low": ["x"], "high": [1], "squashed": True}, {"low": [float("-inf")], "high": [1], "squashed": False}],
)  # fmt: skip
def test_a_header_without_sensible_bounds_is_refused(actions, pendulum_file, tmp_path):
    from safetensors.torch import load_file, save_file

    from potstill import artifact

    metadata, _ = artifact.read_metadata(pendulum_file)
    description = {**json.loads(metadata["potstill"]), "actions": actions}
    save_file(load_file(pendulum_file), tmp_path / "b.safetensors", {"potstill": json.dumps(description)})
    with pytest.raises(PotstillError, match=r"its header (does not describe a|holds no readable) policy"):
        load(tmp_path / "b.safetensors")


def test_a_fresh_gaussian_student_has_standard_deviations_of_one():
    policy = Policy.new(
        NetworkSpec.parse("mlp:8"), "gaussian", (3,), "float32", 2, actions=Actions((0.0,) * 2, (1.0,) * 2, False)
    )
    observations = 1000 * np.random.default_rng(0).normal(size=(16, 3)).astype(np.float32)
    assert torch.equal(policy.outputs(observations)[:, 2:], torch.zeros(16, 2))


def test_a_student_that_diverges_is_said_so(pendulum_file, tmp_path):
    options = DistillOptions(
        ("mlp:16",), (pendulum_file,), hours=0.1, updates=100, envs=20, episodes=2, threads=2, learning_rate=1e15,
        batch_norm=False, schedule="constant",
    )  # fmt: skip
    with pytest.raises(PotstillError, match=r"mlp_16 diverged: try a lower --learning-rate"):
        for _ in run(plan(options), tmp_path / "run", False, ["potstill"]):
            pass


def test_the_time_left_is_the_last_input_as_in_rl_zoos_wrapper():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from sb3_contrib.common.wrappers import TimeFeatureWrapper
    task = make_task("Pendulum-v1").under(time_feature=True)
    assert task.observation_shape == (4,)
    assert task.protocol.name == "gymnasium*"
    seeds = EpisodeSeeds(0, "training")
    envs, theirs = Envs(task, 1, seeds), TimeFeatureWrapper(gymnasium.make("Pendulum-v1"), max_steps=200)
    expected, _ = theirs.reset(seed=seeds(0, 0))
    for _ in range(199):
        np.testing.assert_allclose(envs.observations[0], expected, atol=1e-6)
        envs.step(np.full((1, 1), 0.5, np.float32))
        expected, *_ = theirs.step(np.full(1, 0.5, np.float32))
    envs.step(np.full((1, 1), 0.5, np.float32))
    assert envs.observations[0, -1] == 1.0


def test_a_teacher_that_sees_the_time_left_has_students_that_do(tmp_path):
    policy = Policy.new(
        NetworkSpec.parse("mlp:4"), "gaussian", (4,), "float32", 1, task="Pendulum-v1", actions=BOUNDS,
        provenance={"time_feature": True},
    )  # fmt: skip
    policy.save(tmp_path / "teacher.safetensors")
    small = {"hours": 0.05, "updates": 20, "envs": 20, "episodes": 4, "threads": 2}
    options = DistillOptions(("mlp:4",), (tmp_path / "teacher.safetensors",), **small)
    for _ in run(plan(options), tmp_path / "run", False, ["potstill"]):
        pass
    student = load(tmp_path / "run" / "students" / "mlp_4.safetensors")
    assert student.time_feature
    assert student.observation_shape == (4,)
