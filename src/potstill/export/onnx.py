"""ONNX: uint8 frames or float32 vectors in, each task's outputs and best actions out; in float32 or int8."""

import copy
import json
import logging
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from potstill.artifact import KEY, SCHEMA
from potstill.errors import PotstillError, need
from potstill.networks import FramesConv
from potstill.policies import as_one, describe
from potstill.policy import Meaning, Policy

INPUT = "observations"
NAMES: dict[Meaning, str] = {"q": "q_values", "logits": "logits", "gaussian": "gaussian"}
"""What outputs are called; "gaussian" is means, then the logs of standard deviations."""
CALIBRATION_BATCH = 128


class Graph(nn.Module):
    """What is exported."""

    def __init__(self, policies: Sequence[Policy]) -> None:
        super().__init__()
        self.network = copy.deepcopy(as_one(policies)).eval()
        self.actions = [policy.actions for policy in policies]
        for actions in filter(None, self.actions):
            # Its bounds are cached, and those made while this is traced would be no tensors.
            actions.of(torch.zeros(1, len(actions.low)))
        if policies[0].observation_dtype == "uint8":
            layers = self.network.trunk
            index, first = next((i, layer) for i, layer in enumerate(layers) if isinstance(layer, FramesConv))
            layers[index] = first.divided()

    def forward(self, observations: Tensor) -> tuple[Tensor, ...]:
        features = self.network.trunk(observations.float())
        said: list[Tensor] = []
        for index, actions in enumerate(self.actions):
            outputs = self.network.head(index)(features)
            if actions is None:
                said += [outputs, outputs.argmax(-1)]
            else:
                means, log_stds = outputs.chunk(2, -1)
                said += [torch.cat([means, log_stds.clamp(*actions.log_std)], -1), actions.of(means)]
        return tuple(said)


def output_names(policies: Sequence[Policy]) -> list[str]:
    """What each policy's outputs are called; its best actions are the output after it."""
    several = len(policies) > 1
    return [f"{policy.task}/" * several + NAMES[policy.outputs_are] for policy in policies]


def actions_name(outputs: str) -> str:
    """What the best actions are called, where outputs are called so."""
    task, slash, _ = outputs.rpartition("/")
    return f"{task}{slash}actions"


def to_onnx(policies: Sequence[Policy]) -> Any:
    """A graph (`onnx.ModelProto`) of policies that share a trunk, for any number of observations at a time.

    Its outputs are `logits`, `q_values` or `gaussian`, and `actions`, the best ones; of several tasks with the task
    before the name, as in `ALE/Pong-v5/logits`. What `Policy.describe` says is in its metadata.

    Raises:
        PotstillError: a package is missing, or a network is of a kind that only other files hold.
    """
    need("--to onnx", "onnx", "onnxruntime", "onnxscript", install="potstill[onnx]")
    description = {"schema": SCHEMA, **describe(policies), "graph": {"outputs": output_names(policies), "int8": False}}
    first = policies[0]
    example = torch.zeros(2, *first.observation_shape, dtype=getattr(torch, first.observation_dtype))
    names = [name for outputs in output_names(policies) for name in (outputs, actions_name(outputs))]
    with _quiet():
        program = torch.onnx.export(
            Graph(policies),
            (example,),
            dynamo=True,
            verbose=False,
            dynamic_shapes={INPUT: {0: torch.export.Dim("batch")}},
            input_names=[INPUT],
            output_names=names,
        )
    assert program is not None
    model = program.model_proto
    _describe_in(model, description)
    return model


def to_int8(model: Any, observations: np.ndarray) -> Any:
    """A graph of `to_onnx` in int8: weights per channel, what is between the layers by the ranges met on observations.

    The first and the last layers stay as they are: what counts in frames, which are nearly constant, are small
    differences of large sums, and what the last ones add up decides. Weights and activations are unsigned: signed
    weights would be faster where the processor has VNNI, and wrong where it hasn't (docs/decisions/0013).

    Args:
        model: the graph.
        observations: (n, *observation_shape), what the ranges are taken from.

    Raises:
        PotstillError: there are no other layers, or no room for temporary files.
    """
    import onnx
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

    layers = [node for node in model.graph.node if node.op_type in ("Conv", "Gemm")]
    kept = {layers[0].name, *(node.name for node in layers if node.input[1].endswith("head.weight"))}
    if len(kept) == len(layers):
        raise PotstillError("--int8: the network has no layers between its first and its last, which stay as they are")
    try:
        with _quiet(), tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "int8.onnx"
            quantize_static(
                copy.deepcopy(model),
                path,
                cast(Any, _Batches(observations)),
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                op_types_to_quantize=["Conv", "Gemm", "Relu", "Reshape"],
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QUInt8,
                nodes_to_exclude=list(kept),
            )
            quantised = onnx.load(path)
    except OSError as error:
        reason = error.strerror or error
        raise PotstillError(f"--int8 can't write to {tempfile.gettempdir()}: {reason}; TMPDIR names another") from error
    description = json.loads(next(entry.value for entry in model.metadata_props if entry.key == KEY))
    description["graph"]["int8"] = True
    _describe_in(quantised, description)
    return quantised


class _Batches:
    """What `quantize_static` reads observations from (a CalibrationDataReader)."""

    def __init__(self, observations: np.ndarray) -> None:
        self.batches: Iterator[np.ndarray] = iter(
            np.array_split(observations, max(1, len(observations) // CALIBRATION_BATCH))
        )

    def get_next(self) -> dict[str, np.ndarray] | None:
        batch = next(self.batches, None)
        return None if batch is None else {INPUT: batch}


def _describe_in(model: Any, description: dict[str, Any]) -> None:
    del model.metadata_props[:]
    model.metadata_props.add(key=KEY, value=json.dumps(description, ensure_ascii=False, allow_nan=False))


@contextmanager
def _quiet() -> Iterator[None]:
    """Neither library's advice: of operators that aren't used, of steps that change nothing here."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
