"""ONNX exports: onnxruntime says what the policy says, and `load` plays the file like any policy."""

import json

import numpy as np
import onnxruntime
import pytest
import torch

from potstill import Policy, PotstillError, load, policies
from potstill import actions as actions_module
from potstill.actions import Actions
from potstill.export.onnx import to_int8, to_onnx
from potstill.networks import NetworkSpec
from potstill.teachers import load_all
from potstill.teachers.onnx import _described as described

RNG = np.random.default_rng(0)
FRAMES = RNG.integers(0, 256, (300, 4, 84, 84), dtype=np.uint8)
VECTORS = RNG.normal(size=(300, 3)).astype(np.float32)
BOUNDS = {"low": (-2.0,), "high": (2.0,)}


def policy_of(spec, outputs_are, observations, num_actions, seed=0, **rest):
    torch.manual_seed(seed)
    shape = observations.shape[1:]
    return Policy.new(NetworkSpec.parse(spec), outputs_are, shape, str(observations.dtype), num_actions, **rest)


def sessions(path, graph):
    path.write_bytes(graph.SerializeToString())
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


@pytest.fixture(scope="module")
def atari():
    policy = policy_of("net3", "logits", FRAMES, 6, task="ALE/Pong-v5", provenance={"teacher": "x"})
    return policy, to_onnx([policy])


def test_frames_go_in_as_bytes_any_number_at_a_time(atari, tmp_path):
    policy, graph = atari
    session = sessions(tmp_path / "a.onnx", graph)
    for number in (1, 5):
        logits, actions = session.run(["logits", "actions"], {"observations": FRAMES[:number]})
        np.testing.assert_allclose(logits, policy.outputs(FRAMES[:number]), atol=1e-4)
        np.testing.assert_array_equal(actions, policy.act(FRAMES[:number]))


def test_load_plays_it_like_any_policy(atari, tmp_path):
    policy, graph = atari
    sessions(tmp_path / "a.onnx", graph)
    loaded = load(tmp_path / "a.onnx")
    assert (loaded.task, loaded.outputs_are, loaded.num_actions) == ("ALE/Pong-v5", "logits", 6)
    assert (loaded.num_parameters, str(loaded.spec)) == (policy.num_parameters, "onnx")
    assert loaded.provenance == {"teacher": "x", "format": "onnx", "network": "net3"}
    np.testing.assert_allclose(loaded.outputs(FRAMES), policy.outputs(FRAMES), atol=1e-4)


def test_int8_is_a_third_of_the_bytes_and_says_nearly_the_same(atari, tmp_path):
    policy, graph = atari
    small = to_int8(graph, FRAMES[:200])
    sessions(tmp_path / "a.onnx", small)
    assert (tmp_path / "a.onnx").stat().st_size < 0.4 * len(graph.SerializeToString())
    kept = {tensor.name for tensor in small.graph.initializer if tensor.name.endswith("weight")}
    assert kept == {"network.trunk.0.weight", "network.heads.0.head.weight"}
    loaded = load(tmp_path / "a.onnx")
    wrong = (loaded.outputs(FRAMES[200:]) - policy.outputs(FRAMES[200:])).abs()
    assert 0 < wrong.mean() < 0.02 * policy.outputs(FRAMES[200:]).std(0).mean() * 3
    assert str(loaded.spec) == "onnx, int8"


@pytest.mark.parametrize("squashed", [True, False])
def test_continuous_actions_are_those_that_are_played(squashed, tmp_path):
    actions_module._on.cache_clear()
    actions = Actions(**BOUNDS, squashed=squashed)
    policy = policy_of("mlp:8:tanh", "gaussian", VECTORS, 1, task="Pendulum-v1", actions=actions)
    session = sessions(tmp_path / "a.onnx", to_onnx([policy]))
    said, played = session.run(["gaussian", "actions"], {"observations": VECTORS})
    np.testing.assert_allclose(said, policy.outputs(VECTORS), atol=1e-5)
    np.testing.assert_allclose(played, policy.act(VECTORS), atol=1e-5)
    assert load(tmp_path / "a.onnx").actions == actions


def test_what_a_policy_normalises_and_selects_is_in_the_graph(tmp_path):
    policy = policy_of("mlp:8", "q", VECTORS[:, :2], 2, clip=5.0)
    policy.ours.trunk[0].mean.copy_(torch.tensor([0.5, -0.5]))
    policy = policy.seeing(((0, 1), (2, 3)), (3,))
    session = sessions(tmp_path / "a.onnx", to_onnx([policy]))
    (said,) = session.run(["q_values"], {"observations": VECTORS})
    np.testing.assert_allclose(said, policy.outputs(VECTORS), atol=1e-5)
    assert load(tmp_path / "a.onnx").sees == ((0, 1), (2, 3))


@pytest.fixture(scope="module")
def two():
    names = (("CartPole-v1", 2), ("Acrobot-v1", 3))
    both = [policy_of("mlp:8/4", "logits", VECTORS, n, seed, task=t) for seed, (t, n) in enumerate(names)]
    policies.use(both, policies.as_one(both))
    return both


def test_heads_are_named_by_their_tasks(two, tmp_path):
    session = sessions(tmp_path / "a.onnx", to_onnx(two))
    named = [output.name for output in session.get_outputs()]
    assert named == ["CartPole-v1/logits", "CartPole-v1/actions", "Acrobot-v1/logits", "Acrobot-v1/actions"]
    for policy, loaded in zip(two, load_all(tmp_path / "a.onnx"), strict=True):
        assert loaded.task == policy.task
        assert loaded.num_parameters == policies.count_parameters(two), "of the whole file"
        np.testing.assert_allclose(loaded.outputs(VECTORS), policy.outputs(VECTORS), atol=1e-5)
    with pytest.raises(PotstillError, match="name one of them with --task"):
        load(tmp_path / "a.onnx")


def test_a_foreign_network_is_not_exported():
    policy = Policy.from_callable(lambda seen: seen[:, 0] > 0, "CartPole-v1")
    with pytest.raises(PotstillError, match="no network of ours"):
        to_onnx([policy])


SPOILT = {
    "other outputs": lambda d: d["graph"].update(outputs=["value"]),
    "no outputs": lambda d: d.update(graph=7),
    "another shape": lambda d: d["observation"].update(shape=[4]),
    "a task that would be imported": lambda d: d.update(task="os:system"),
    "a huge network": lambda d: d.update(network="mlp:99999"),
    "another schema": lambda d: d.update(schema=2),
    "too many heads": lambda d: d.update(heads=[{"task": str(n)} for n in range(999)]),
}


@pytest.mark.parametrize("spoil", SPOILT.values(), ids=SPOILT)
def test_a_description_that_lies_is_refused_in_one_line(two, spoil, tmp_path):
    description = {"schema": 1, **two[0].describe(), "graph": {"outputs": ["logits"], "int8": False}}
    spoil(description)
    tried = {"input": "observations", "dtype": "float32", "shape": [3], "outputs": ["logits", "actions"]}
    tried["parameters"] = two[0].num_parameters
    with pytest.raises(PotstillError) as refused:
        described(tmp_path / "a.onnx", {**tried, "described": json.dumps(description)})
    assert "\n" not in str(refused.value)


def test_outputs_that_are_others_than_described_are_refused(two, tmp_path):
    graph = to_onnx([two[0]])
    description = json.loads(graph.metadata_props[0].value)
    graph.metadata_props[0].value = json.dumps({**description, "num_actions": 5})
    sessions(tmp_path / "a.onnx", graph)
    with pytest.raises(PotstillError, match="not 5 each"):
        load(tmp_path / "a.onnx").outputs(VECTORS)


def test_more_weights_than_are_described_are_refused(two, tmp_path):
    description = {"schema": 1, **two[0].describe(), "graph": {"outputs": ["logits"], "int8": False}}
    tried = {"input": "observations", "dtype": "float32", "shape": [3], "outputs": ["logits"], "parameters": 10**7}
    with pytest.raises(PotstillError, match="has 10000000 parameters"):
        described(tmp_path / "a.onnx", {**tried, "described": json.dumps(description)})
