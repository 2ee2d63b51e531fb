from inspect import unwrap

import numpy as np
import pytest
import torch

from potstill import Policy, PotstillError, artifact, load
from potstill.actions import choose
from potstill.networks import NetworkSpec


def test_a_network_sees_what_its_kind_takes():
    with pytest.raises(PotstillError, match="can't see float32: a CNN takes frames as bytes"):
        Policy.new(NetworkSpec.parse("net3"), "q", (4, 84, 84), "float32", 6)
    with pytest.raises(PotstillError, match="mlp:8 can't see uint8"):
        Policy.new(NetworkSpec.parse("mlp:8"), "q", (4,), "uint8", 2)


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


def test_scaled_frames_are_refused_and_turned_ones_are_not():
    policy = Policy.new(NetworkSpec.parse("cnn:4-4-4:8"), "q", (4, 84, 84), "uint8", 6)
    frames = np.random.default_rng(0).integers(0, 256, (3, 4, 84, 84), dtype=np.uint8)
    with pytest.raises(PotstillError, match="bytes from 0 to 255, not as float64"):
        policy.outputs(frames / 255)
    torch.testing.assert_close(policy.outputs(frames[::-1]), policy.outputs(frames).flip(0))


@pytest.mark.parametrize("odd", [np.nan, np.inf])
def test_observations_that_are_no_numbers_are_refused(cartpole_teacher, odd):
    with pytest.raises(PotstillError, match="is shown what is no finite number: mend the environment"):
        cartpole_teacher.outputs(np.array([[0.0, odd, 0.0, 0.0]]))


def test_a_policy_is_not_saved_under_a_name_it_would_not_be_read_by(cartpole_teacher, tmp_path):
    with pytest.raises(PotstillError, match=r"policies are \.safetensors files"):
        cartpole_teacher.save(tmp_path / "policy.zip")


def test_epsilon_is_the_share_of_random_actions():
    actions = choose(torch.tensor([[0.0, 0.0, 9.0, 0.0]]).repeat(20_000, 1), 0.2, np.random.default_rng(0))
    shares = np.bincount(actions, minlength=4) / len(actions)
    np.testing.assert_allclose(shares, [0.05, 0.05, 0.85, 0.05], atol=0.01)


@pytest.mark.parametrize("epsilon", [-0.1, 7.0, float("nan")])
def test_an_epsilon_that_is_no_probability_is_refused(cartpole_teacher, epsilon):
    with pytest.raises(PotstillError, match="a probability is from 0 to 1"):
        cartpole_teacher.act(np.zeros((1, 4), np.float32), epsilon)


def test_what_cannot_be_drawn_is_refused(cartpole_teacher):
    seen = np.zeros((1, 4), np.float32)
    with pytest.raises(PotstillError, match="'best': greedy or sample"):
        unwrap(Policy.act)(cartpole_teacher, seen, act="best")  # past the tests' own check of types
    values = Policy.from_callable(lambda seen: seen[:, :2], "CartPole-v1", "q")
    with pytest.raises(PotstillError, match="Q-values are no distribution"):
        values.act(seen, act="sample")
    with pytest.raises(PotstillError, match="outputs can't be 'Q', but q, logits, gaussian"):
        unwrap(Policy.from_callable)(Policy, lambda seen: seen[:, :2], "CartPole-v1", "Q")


@pytest.mark.parametrize("odd", [-1, 256])
def test_frames_that_are_no_bytes_are_refused(odd):
    policy = Policy.new(NetworkSpec.parse("cnn:4-4-4:8"), "logits", (4, 84, 84), "uint8", 4)
    frames = np.full((1, 4, 84, 84), 255)
    policy.outputs(frames)
    frames[0, 0, 0, 0] = odd
    with pytest.raises(PotstillError, match="sees frames as bytes, not numbers from"):
        policy.outputs(frames)


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


def lean(observations):
    """Pushes toward where CartPole's pole leans and falls."""
    side = observations @ np.float32([0.1, 0.3, 1.0, 1.0])
    return np.stack([-side, side], 1)


class Lean(torch.nn.Module):
    def forward(self, observations):
        return torch.from_numpy(lean(observations.numpy()))


@pytest.mark.parametrize("function", [lean, Lean(), lambda seen: lean(seen).argmax(1)])
def test_anything_that_can_be_called_is_a_policy(function):
    policy = Policy.from_callable(function, "CartPole-v1")
    observations = np.random.default_rng(0).normal(size=(9, 4)).astype(np.float32)
    np.testing.assert_array_equal(policy.act(observations), lean(observations).argmax(1))
    assert (policy.num_actions, policy.task, policy.outputs_are, policy.device) == (2, "CartPole-v1", "logits", "cpu")


def test_a_callable_of_continuous_actions_plays_within_the_tasks_bounds():
    policy = Policy.from_callable(lambda seen: 10 * seen[:, :1], "Pendulum-v1")
    assert policy.act(np.float32([[1, 0, 0], [0.1, 0, 0]])).tolist() == [[2.0], [1.0]]


@pytest.mark.parametrize(
    ("function", "task", "outputs_are", "message"),
    [
        (lambda seen: seen, "CartPole-v1", None, r"\(2, 4\) outputs for 2 observations, not 2 each"),
        (lambda seen: 1 / 0, "CartPole-v1", None, "ZeroDivisionError"),
        (lambda: None, "CartPole-v1", None, "TypeError"),
        (lean, "CartPole-v1", "gaussian", "can't be gaussian, CartPole-v1 has discrete actions"),
        (lean, "Pendulum-v1", "q", "can't be q, Pendulum-v1 has continuous actions"),
    ],
)
def test_what_cannot_be_called_so_is_one_line(function, task, outputs_are, message):
    with pytest.raises(PotstillError, match=message) as error:
        Policy.from_callable(function, task, outputs_are)
    assert "\n" not in str(error.value)


def test_a_callable_cannot_be_saved(tmp_path):
    with pytest.raises(PotstillError, match="no network of ours to save"):
        Policy.from_callable(lean, "CartPole-v1").save(tmp_path / "p.safetensors")


def test_a_policy_that_sees_parts_says_so_in_its_file(tmp_path):
    policy = Policy.new(
        NetworkSpec.parse("mlp:8"), "logits", (6,), "float32", 2, sees=((4, 6), (0, 1)), clip=10.0, task="Acrobot-v1"
    )
    policy.save(tmp_path / "p.safetensors")
    again = load(tmp_path / "p.safetensors")
    observations = np.random.default_rng(0).normal(size=(5, 6)).astype(np.float32)
    assert (again.observation_shape, again.sees, again.num_parameters) == (
        (6,),
        ((4, 6), (0, 1)),
        3 * 8 + 8 + 8 * 2 + 2,
    )
    assert torch.equal(policy.outputs(observations), again.outputs(observations))
    observations[:, 1:4] = 0  # what it doesn't see
    assert torch.equal(policy.outputs(observations), again.outputs(observations))


@pytest.mark.parametrize("callable_", [False, True])
def test_a_policy_made_for_fewer_numbers_is_shown_those(cartpole_teacher, callable_):
    policy = Policy.from_callable(lean, "CartPole-v1") if callable_ else cartpole_teacher
    seen = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    expected = policy.outputs(seen)
    shown = np.concatenate([np.full((5, 3), 9, np.float32), seen], 1)
    of_more = policy.seeing(((3, 7),), (7,))
    torch.testing.assert_close(of_more.outputs(shown), expected)
    assert torch.equal(policy.outputs(seen), expected), "the policy itself sees what it saw"
    with pytest.raises(PotstillError, match="says already which parts it sees"):
        of_more.seeing(((0, 7),), (9,))


def test_parts_must_be_as_long_as_what_is_seen(cartpole_teacher):
    with pytest.raises(PotstillError, match=r"sees \(4,\), the chosen parts are 2 numbers"):
        cartpole_teacher.seeing(((0, 2),), (9,))


def test_a_callable_that_fails_later_is_one_line():
    policy = Policy.from_callable(lambda seen: (seen[:, 0] * 120).astype(np.int64), "CartPole-v1")
    with pytest.raises(PotstillError, match="callable failed on an observation: RuntimeError") as error:
        policy.outputs(np.ones((2, 4), np.float32))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("sees", [[[0, 7]], [[0, 1.5]], [["0", "2"]], [], [[0, 1]] * 65, 3])
def test_parts_in_a_strangers_header_are_checked(tmp_path, sees):
    policy = Policy.new(NetworkSpec.parse("mlp:8"), "logits", (6,), "float32", 2, sees=((0, 2),))
    policy.sees = sees
    artifact.write(
        tmp_path / "p.safetensors",
        {"network": "mlp:8", "outputs": "logits", "num_actions": 2, "task": None, "provenance": {},
         "observation": {"shape": [6], "dtype": "float32"}, "sees": sees},
        dict(policy.network.state_dict()),
    )  # fmt: skip
    with pytest.raises(PotstillError, match="does not describe a policy"):
        load(tmp_path / "p.safetensors")
