"""ONNX files: computed as onnxruntime computes them, refused in one line, whatever they ask for."""

import random
import warnings
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from potstill import PotstillError, load
from potstill.distill.options import DistillOptions
from potstill.distill.plan import plan
from potstill.export.onnx import to_onnx

RNG = np.random.default_rng(0)
WEIGHT, BIAS = RNG.normal(size=(4, 2)).astype(np.float32), np.float32([0.5, -0.5])
OBSERVATIONS = RNG.normal(size=(7, 4)).astype(np.float32)


def write(
    path: Path, nodes: list, shape: tuple, outputs: tuple[str, ...] = ("logits",), external: bool = False, **constants
) -> Path:
    """A graph of one input, `seen`."""
    tensors = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("seen", TensorProto.FLOAT, shape)],
        [helper.make_empty_tensor_value_info(name) for name in outputs],
        tensors,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    extra = {"save_as_external_data": True, "location": path.name + ".data", "size_threshold": 0} if external else {}
    onnx.save(model, path, **extra)
    return path


def linear(path: Path, batch: int | str = "batch", output: str = "logits", **rest) -> Path:
    nodes = [helper.make_node("Gemm", ["seen", "weight", "bias"], [output])]
    return write(path, nodes, (batch, 4), (output,), weight=WEIGHT, bias=BIAS, **rest)


@pytest.mark.parametrize("batch", ["batch", 1])
@pytest.mark.parametrize("external", [False, True])
def test_outputs_are_the_graphs(tmp_path, batch, external):
    policy = load(linear(tmp_path / "CartPole-v1.onnx", batch, external=external))
    np.testing.assert_allclose(policy.outputs(OBSERVATIONS), OBSERVATIONS @ WEIGHT + BIAS, rtol=1e-5)
    assert (policy.num_parameters, policy.task, str(policy.spec)) == (10, "CartPole-v1", "onnx")
    assert policy.thread_safe


def test_a_file_that_says_nothing_of_its_task_asks_for_it(tmp_path):
    nodes = [helper.make_node("Gemm", ["seen", "weight", "bias"], ["logits"])]
    path = write(tmp_path / "a.onnx", nodes, ("batch", "n"), weight=WEIGHT, bias=BIAS)
    empty = onnx.load(path)
    empty.metadata_props.add(key="potstill", value="")
    onnx.save(empty, tmp_path / "empty.onnx")
    for file in (path, tmp_path / "empty.onnx"):
        with pytest.raises(PotstillError, match="it doesn't say what it plays: add --task"):
            load(file)
    assert load(path, task="CartPole-v1").observation_shape == (4,)


def test_a_name_that_is_no_task_is_said_so_unless_the_file_says_itself_what_it_plays(tmp_path, cartpole_teacher):
    plain = linear(tmp_path / "NoSuch-v7.onnx")
    with pytest.raises(PotstillError, match="NoSuch-v7"):
        load(plain)
    onnx.save(to_onnx([cartpole_teacher]), plain)
    assert load(plain).task == "CartPole-v1"


@pytest.mark.parametrize(("output", "meaning"), [("q_values", "q"), ("logits", "logits"), ("output", "logits")])
def test_an_outputs_name_says_what_it_means(tmp_path, output, meaning):
    policy = load(linear(tmp_path / "a.onnx", output=output), task="CartPole-v1")
    assert policy.outputs_are == meaning
    assert policy.provenance["output"] == f"{output}, taken for {meaning}"


def test_the_output_is_found_among_others_and_chosen_actions_are_sure(tmp_path):
    nodes = [
        helper.make_node("Gemm", ["seen", "weight", "bias"], ["value"]),
        helper.make_node("ArgMax", ["value"], ["actions"], axis=1, keepdims=0),
    ]
    path = write(tmp_path / "a.onnx", nodes, ("batch", 4), ("value", "actions"), weight=WEIGHT, bias=BIAS)
    policy = load(path, task="CartPole-v1")
    np.testing.assert_array_equal(policy.act(OBSERVATIONS), (OBSERVATIONS @ WEIGHT + BIAS).argmax(1))
    assert set(policy.outputs(OBSERVATIONS).flatten().tolist()) == {0.0, 10.0}


@pytest.mark.parametrize("algorithm", ["PPO", "DQN"])
def test_an_export_by_stable_baselines3s_own_recipe_plays_as_it_does(tmp_path, algorithm):
    import stable_baselines3

    model = getattr(stable_baselines3, algorithm)("MlpPolicy", "CartPole-v1", device="cpu")

    class Exported(nn.Module):
        def __init__(self):
            super().__init__()
            self.policy = model.policy

        def forward(self, observation):
            return self.policy(observation, deterministic=True)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch's advice to use its newer exporter
        torch.onnx.export(
            Exported(), (torch.zeros(1, 4),), tmp_path / "ppo-CartPole-v1.onnx", input_names=["input"], dynamo=False
        )
    observations = (3 * RNG.normal(size=(50, 4))).astype(np.float32)
    actions, _ = model.predict(observations, deterministic=True)
    np.testing.assert_array_equal(load(tmp_path / "ppo-CartPole-v1.onnx").act(observations), actions)


def exported(path: Path, module: nn.Module, inputs: int) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch's advice to use its newer exporter
        torch.onnx.export(module.eval(), (torch.zeros(1, inputs),), path, input_names=["input"], dynamo=False)
    return path


@pytest.mark.parametrize("algorithm", ["SAC", "TD3"])
def test_what_that_recipe_leaves_between_minus_one_and_one_is_scaled_to_the_bounds(tmp_path, algorithm):
    import stable_baselines3

    model = getattr(stable_baselines3, algorithm)("MlpPolicy", "Pendulum-v1", device="cpu", buffer_size=10)
    actor = model.policy.actor
    chain = nn.Sequential(actor.latent_pi, actor.mu, nn.Tanh()) if algorithm == "SAC" else actor.mu
    policy = load(exported(tmp_path / "Pendulum-v1.onnx", chain, 3))
    observations = (3 * RNG.normal(size=(50, 3))).astype(np.float32)
    actions, _ = model.predict(observations, deterministic=True)
    np.testing.assert_allclose(policy.act(observations), actions, rtol=1e-4, atol=1e-5)
    assert policy.provenance["actions"] == "from -1 to 1, scaled to the task's bounds"


def test_weights_are_counted_whatever_they_are_of(tmp_path):
    nodes = [
        helper.make_node("DequantizeLinear", ["weight", "scale"], ["floats"]),
        helper.make_node("Constant", [], ["bias"], value=numpy_helper.from_array(BIAS)),
        helper.make_node("Gemm", ["seen", "floats", "bias"], ["logits"]),
    ]
    path = write(tmp_path / "a.onnx", nodes, ("batch", 4), weight=np.ones((4, 2), np.int8), scale=np.float32(0.5))
    assert load(path, task="CartPole-v1").num_parameters == 4 * 2 + 2 + 1


def test_continuous_actions_get_a_spread(tmp_path):
    nodes = [helper.make_node("MatMul", ["seen", "weight"], ["mean"])]
    path = write(tmp_path / "a.onnx", nodes, ("batch", 3), ("mean",), weight=WEIGHT[:3, :1])
    policy = load(path, task="Pendulum-v1")
    seen = OBSERVATIONS[:, :3]
    np.testing.assert_allclose(policy.act(seen), (seen @ WEIGHT[:3, :1]).clip(-2, 2), rtol=1e-5)
    np.testing.assert_allclose(policy.outputs(seen)[:, 1].exp(), 0.2, rtol=1e-5)


def test_float_frames_are_given_from_0_to_255(tmp_path):
    nodes = [
        helper.make_node("ReduceMax", ["seen"], ["brightest"], axes=[2, 3], keepdims=0),
        helper.make_node("Concat", ["brightest", "none"], ["logits"], axis=1),
    ]
    path = write(tmp_path / "a.onnx", nodes, (1, 4, "height", "width"), none=np.zeros((1, 2), np.float32))
    frames = np.full((3, 4, 84, 84), 255, np.uint8)
    np.testing.assert_array_equal(load(path, task="ALE/Pong-v5").outputs(frames), [[255.0] * 4 + [0.0] * 2] * 3)


def test_it_may_see_a_part_of_what_the_task_shows(tmp_path):
    nodes = [helper.make_node("Gemm", ["seen", "weight", "bias"], ["logits"])]
    path = write(tmp_path / "CartPole-v1.onnx", nodes, ("batch", 2), weight=WEIGHT[2:], bias=BIAS)
    policy = load(path)
    assert policy.observation_shape == (2,)
    with pytest.raises(PotstillError, match="--teacher-sees"):
        plan(DistillOptions(("mlp:8",), (path,)))
    teacher = plan(DistillOptions(("mlp:8",), (path,), teacher_sees="2:")).lessons[0].teacher
    np.testing.assert_allclose(teacher.outputs(OBSERVATIONS), OBSERVATIONS[:, 2:] @ WEIGHT[2:] + BIAS, rtol=1e-5)


def bomb(path: Path) -> None:
    nodes = [
        helper.make_node("ConstantOfShape", ["size"], ["zeros"]),
        helper.make_node("ReduceSum", ["zeros"], ["sum"], keepdims=0),
        helper.make_node("Add", ["seen", "sum"], ["logits"]),
    ]
    write(path, nodes, ("batch", 4), size=np.int64([2**40]))


def outside(path: Path) -> None:
    """Weights in a file of somebody else's folder."""
    linear(path, external=True)
    model = onnx.load(path, load_external_data=False)
    for entry in model.graph.initializer[0].external_data:
        if entry.key == "location":
            entry.value = "../secret"
    (path.parent.parent / "secret").write_bytes(Path(f"{path}.data").read_bytes())
    onnx.save(model, path)


WRONG = {
    "empty": (lambda path: path.write_bytes(b""), "can't be played as an ONNX file"),
    "text": (lambda path: path.write_text("hello"), "can't be played as an ONNX file"),
    "bomb": (bomb, "it takes over 1024 MB"),
    "outside its folder": (outside, "can't be played as an ONNX file"),
    "weights missing": (
        lambda path: Path(f"{linear(path, external=True)}.data").unlink(),
        "can't be played as an ONNX file",
    ),
    "too many outputs": (
        lambda path: write(path, [helper.make_node("Relu", ["seen"], ["logits"])], ("batch", 4)),
        r"\(2, 4\) outputs for 2 observations, not 2 each",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_cannot_be_played_is_one_line(tmp_path, case):
    (tmp_path / "folder").mkdir()
    path = tmp_path / "folder" / "CartPole-v1.onnx"
    spoil, message = WRONG[case]
    spoil(path)
    with pytest.raises(PotstillError, match=message) as error:
        load(path)
    assert "\n" not in str(error.value)


def test_mutated_files_are_loaded_or_refused_in_one_line(tmp_path):
    content, chance = linear(tmp_path / "good.onnx").read_bytes(), random.Random(0)
    path, refused = tmp_path / "CartPole-v1.onnx", 0
    for _ in range(24):
        mutated = bytearray(content)
        for _ in range(chance.choice((1, 4, 16))):
            mutated[chance.randrange(len(mutated))] = chance.randrange(256)
        path.write_bytes(mutated)
        try:
            load(path)
        except PotstillError as error:
            refused += 1
            if "\n" in str(error):
                pytest.fail(str(error))
    assert refused > 20


def test_probabilities_are_no_logits(tmp_path):
    nodes = [
        helper.make_node("Gemm", ["seen", "weight", "bias"], ["said"]),
        helper.make_node("Softmax", ["said"], ["p"]),
    ]
    policy = load(write(tmp_path / "CartPole-v1.onnx", nodes, ("batch", 4), ("p",), weight=WEIGHT, bias=BIAS))
    expected = torch.from_numpy(OBSERVATIONS @ WEIGHT + BIAS).softmax(-1)
    torch.testing.assert_close(policy.outputs(OBSERVATIONS).softmax(-1), expected)
    assert policy.provenance["output"] == "p, probabilities, whose logs are logits"
    assert policy.outputs(1e9 * OBSERVATIONS).isfinite().all()
