"""Arithmetic by hand; seconds that are measured, not guessed."""

import time
import warnings

import numpy as np
import pytest
import torch
from torch import nn

from potstill import Policy, PotstillError, load, policies
from potstill.cost import _runtimes, costs
from potstill.evaluate.cost import examples, macs, speeds
from potstill.networks import GsdeHead, NetworkSpec

FRAMES = (4, 84, 84)


def policy_of(spec, shape, num_actions, outputs_are="logits", **rest):
    dtype = "uint8" if len(shape) == 3 else "float32"
    return Policy.new(NetworkSpec.parse(spec), outputs_are, shape, dtype, num_actions, **rest)


@pytest.mark.parametrize(
    ("spec", "shape", "expected"),
    [
        ("mlp:16-8", (4,), 4 * 16 + 16 * 8 + 8 * 2),
        ("linear", (4,), 4 * 2),
        # channels out × places × channels in × kernel, then the layers
        ("net3", FRAMES, 16 * 400 * 4 * 64 + 16 * 81 * 16 * 16 + 16 * 49 * 16 * 9 + 784 * 64 + 64 * 2),
    ],
)
def test_multiplications_are_those_of_the_layers(spec, shape, expected):
    assert macs(policy_of(spec, shape, 2)) == expected


def test_of_a_foreign_network_they_are_unknown():
    assert macs(Policy.from_callable(lambda seen: seen[:, 0] > 0, "CartPole-v1")) is None


def test_what_is_slow_is_measured_as_slow():
    policy = policy_of("mlp:4", (4,), 2)
    given = examples(policy)
    threads = torch.get_num_threads()

    def slow(observations: np.ndarray) -> None:
        time.sleep(0.002 if len(observations) == 1 else 0.01)

    measuring, reports = speeds({"slow": (slow, given), "policy": (policy.outputs, given)}), []
    while True:
        try:
            reports.append(next(measuring))
        except StopIteration as end:
            measured = end.value
            break
    assert [report.done for report in reports] == [1, 2, 3, 4, 5]
    assert 2.0 <= measured["slow"].p50 <= measured["slow"].p99
    assert measured["slow"].throughput <= 256 / 0.01
    assert measured["policy"].p50 < measured["slow"].p50
    assert torch.get_num_threads() == threads


def test_what_has_no_onnx_is_measured_in_pytorch_alone():
    policy = policy_of("mlp:4", (4,), 2)
    policy.ours.head = GsdeHead(4, 1, 2.0)
    assert list(_runtimes(policy)) == ["pytorch"]


@pytest.mark.parametrize(("inputs", "ends", "task"), [(4, [], "CartPole-v1"), (3, [nn.Tanh()], "Pendulum-v1")])
def test_onnx_files_of_one_observation_at_a_time_are_measured_in_onnxruntime(tmp_path, inputs, ends, task):
    path = tmp_path / f"{task}.onnx"
    module = nn.Sequential(nn.Linear(inputs, 1 if ends else 2), *ends)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch's advice to use its newer exporter
        torch.onnx.export(module, (torch.zeros(1, inputs),), path, input_names=["input"], dynamo=False)
    policy = load(path)
    [(runtime, function)] = _runtimes(policy).items()
    assert runtime == "onnxruntime"
    assert len(function(examples(policy))) == 256


def test_a_task_that_a_file_of_several_lacks_is_refused(tmp_path):
    tasks = [policy_of("mlp:4", (4,), 2, task=task) for task in ("CartPole-v1", "CartPole-v0")]
    policies.use(tasks, policies.as_one(tasks))
    policies.save(tasks, tmp_path / "two.safetensors")
    with pytest.raises(PotstillError, match="name one of them with --task, not Acrobot-v1"):
        next(costs([tmp_path / "two.safetensors"], "Acrobot-v1", False))
