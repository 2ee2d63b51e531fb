import numpy as np
import pytest
import torch

from potstill import Policy, PotstillError, load
from potstill.actions import choose
from potstill.networks import NetworkSpec


def test_a_policy_reads_back_what_it_saved(tmp_path):
    torch.manual_seed(0)
    policy = Policy.new(
        NetworkSpec.parse("net3"), "q", (4, 84, 84), "uint8", 6, task="ALE/Pong-v5", provenance={"by": "test"}
    )
    policy.save(tmp_path / "p.safetensors")
    again = load(tmp_path / "p.safetensors")
    frames = np.random.default_rng(0).integers(0, 256, (5, 4, 84, 84), dtype=np.uint8)
    assert torch.equal(policy.outputs(frames), again.outputs(frames))
    for field in (
        "spec",
        "outputs_are",
        "observation_shape",
        "observation_dtype",
        "task",
        "provenance",
        "num_actions",
    ):
        assert getattr(again, field) == getattr(policy, field)


def test_outputs_and_actions_have_the_promised_types(cartpole_teacher):
    observations = np.zeros((7, 4))  # float64, as some environments give
    assert cartpole_teacher.outputs(observations).dtype == torch.float32
    actions = cartpole_teacher.act(observations)
    assert (actions.dtype, actions.shape) == (np.int64, (7,))


def test_greedy_takes_the_best_action(cartpole_teacher):
    leaning = np.array([[0, 0, 0.1, 0], [0, 0, -0.1, 0]], np.float32)
    assert cartpole_teacher.act(leaning).tolist() == [1, 0]


def test_one_observation_without_a_batch_is_one_line(cartpole_teacher):
    with pytest.raises(PotstillError, match=r"pass a batch: \(N, 4\)"):
        cartpole_teacher.act(np.zeros(4, np.float32))


def test_epsilon_is_the_share_of_random_actions():
    actions = choose(torch.tensor([[0.0, 0.0, 9.0, 0.0]]).repeat(20_000, 1), 0.2, np.random.default_rng(0))
    shares = np.bincount(actions, minlength=4) / len(actions)
    np.testing.assert_allclose(shares, [0.05, 0.05, 0.85, 0.05], atol=0.01)


def test_sampling_draws_from_the_softmax():
    logits = torch.tensor([0.1, 0.2, 0.7]).log().repeat(20_000, 1)
    actions = choose(logits, 0.0, np.random.default_rng(0), "sample")
    np.testing.assert_allclose(np.bincount(actions) / len(actions), [0.1, 0.2, 0.7], atol=0.015)


def test_the_same_generator_gives_the_same_actions(cartpole_teacher):
    observations = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)
    one, other = (cartpole_teacher.act(observations, 0.5, np.random.default_rng(1)) for _ in range(2))
    np.testing.assert_array_equal(one, other)


def test_temperature_sharpens_q_values_only(cartpole_teacher):
    assert cartpole_teacher.temperature == 1.0
    assert Policy.new(NetworkSpec.parse("mlp:2"), "q", (4,), "float32", 2).temperature == 0.01
