"""ONNX files, computed by onnxruntime (`pip install potstill[onnx]`)."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from potstill import artifact
from potstill.errors import PotstillError, need
from potstill.networks import Foreign
from potstill.policies import count_parameters, skeletons
from potstill.policy import Policy
from potstill.tasks import make_task
from potstill.teachers import onnx_trial
from potstill.teachers.outputs import choose_output
from potstill.teachers.task_name import task_in_name
from potstill.teachers.tensors import MAX_WEIGHTS

TIMEOUT = 180
"""Seconds for the trial, its imports included."""


class Session(nn.Module):
    """One output of an ONNX graph."""

    def __init__(self, session: Any, input_name: str, dtype: str, output: str) -> None:
        super().__init__()
        self.session, self.input_name, self.dtype, self.output = session, input_name, dtype, output

    def forward(self, observations: Tensor) -> Tensor:
        given = observations.numpy().astype(self.dtype, copy=False)
        (said,) = self.session.run([self.output], {self.input_name: given})
        return torch.as_tensor(said)


class Said(nn.Module):
    """What an output was in the trial, in place of the graph, which nothing holds back here."""

    def __init__(self, shape: list[int], dtype: str) -> None:
        super().__init__()
        self.said = torch.zeros((), dtype=getattr(torch, dtype)).expand(shape)

    def forward(self, observations: Tensor) -> Tensor:
        if self.said.shape[:1] not in ((), observations.shape[:1]):
            raise ValueError(f"it takes {len(self.said)} at a time")
        return self.said


class Log(nn.Module):
    """Logits from probabilities."""

    def forward(self, probabilities: Tensor) -> Tensor:
        return probabilities.clamp(min=torch.finfo(torch.float32).tiny).log()


class Unscaled(nn.Module):
    """Actions from -1 to 1 within the task's bounds: Stable-Baselines3's guide exports SAC, TD3 and DDPG so."""

    def __init__(self, low: tuple[float, ...], high: tuple[float, ...]) -> None:
        super().__init__()
        self.low, self.high = torch.tensor(low), torch.tensor(high)

    def forward(self, actions: Tensor) -> Tensor:
        return self.low + (actions + 1) / 2 * (self.high - self.low)


def load(path: Path, task_id: str | None) -> list[Policy]:
    """The policies of an ONNX file: one input, the observations as the task shows them (frames from 0 to 255).

    What `potstill export` wrote says itself what its outputs are. Another's policy plays by the output named like
    logits, Q-values, means or actions, else the first: see `Policy.from_callable` for what it may be. Weights may lie
    in a file beside it. A dimension of observations that it leaves open is the task's.

    Raises:
        PotstillError: onnxruntime is missing, or refuses the file; it needs too much memory or time; or it is no policy
            for the task.
    """
    need(str(path), "onnx", "onnxruntime", install="potstill[onnx]")
    if path.stat().st_size > MAX_WEIGHTS:
        raise PotstillError(f"{path} has over {MAX_WEIGHTS} bytes and is not read")
    provenance: dict[str, object] = {"format": "onnx"}
    task, unknown = None, None
    try:
        named = task_id or task_in_name(path, provenance)
        task = make_task(named) if named else None
    except PotstillError as error:
        if task_id:
            raise
        unknown = error  # a guess, which a file that says itself what it plays doesn't need
    try:
        found = _try_out(path, task and task.observation_shape)
    except PotstillError:
        if unknown:
            raise unknown from None
        raise
    if found["described"]:
        return _described(path, found)
    assert task is not None
    output, outputs_are = choose_output(list(found["outputs"]), task)
    said = found["outputs"][output]
    task = replace(task, observation_shape=tuple(found["shape"]))  # it may see a part of what the task shows
    try:
        stand_in = Said(said["shape"], said["dtype"])
        policy = Policy.from_callable(stand_in, task, outputs_are, kind="onnx", num_parameters=found["parameters"])
    except (PotstillError, AttributeError, TypeError) as error:
        raise PotstillError(f"{path}: {error}") from error
    assert isinstance(policy.network, Foreign)
    policy.provenance |= provenance | {"output": f"{output}, taken for {outputs_are}"}
    policy.network.function = Session(_session(path), found["input"], found["dtype"], output)
    policy.network.thread_safe = True
    if task.bounds and said["by"] == "Tanh" and set(task.bounds[0] + task.bounds[1]) != {-1.0, 1.0}:
        policy.network.function = nn.Sequential(policy.network.function, Unscaled(*task.bounds))
        policy.provenance["actions"] = "from -1 to 1, scaled to the task's bounds"
    if outputs_are == "logits" and said["by"] == "Softmax":
        policy.network.function = nn.Sequential(policy.network.function, Log())
        policy.provenance["output"] = f"{output}, probabilities, whose logs are logits"
    return [policy]


def _described(path: Path, found: dict[str, Any]) -> list[Policy]:
    """The policies that `potstill export` described in a file."""
    description = artifact.read_description(path, {artifact.KEY: found["described"]})
    policies = skeletons(description, path)
    graph = description["graph"] if isinstance(description.get("graph"), dict) else {}
    outputs = graph["outputs"] if isinstance(graph.get("outputs"), list) else []
    if len(outputs) != len(policies) or not all(name in found["outputs"] for name in outputs):
        raise PotstillError(f"{path}: its description and its outputs don't fit together")
    parameters = count_parameters(policies)
    if found["parameters"] > 2 * parameters + 100_000:
        raise PotstillError(f"{path} has {found['parameters']} parameters, its description says something else")
    for policy in policies:
        if (tuple(found["shape"]), found["dtype"]) != (policy.observation_shape, policy.observation_dtype):
            raise PotstillError(f"{path} takes {found['dtype']} {found['shape']}, its description says something else")
    session = _session(path)
    for policy, output in zip(policies, outputs, strict=True):
        kind = "onnx, int8" if graph.get("int8") is True else "onnx"
        function = Session(session, found["input"], found["dtype"], output)
        policy.network = Foreign(function, policy.network.num_outputs, None, parameters, thread_safe=True)
        policy.spec, policy.provenance = kind, {**policy.provenance, "format": kind, "network": str(policy.spec)}
    return policies


def _session(path: Path) -> Any:
    import onnxruntime

    return onnx_trial.make_session(onnxruntime, str(path))


def _try_out(path: Path, shape: tuple[int, ...] | None) -> dict[str, Any]:
    # -P: a script's folder, where this module is called onnx, is not searched for the library.
    command = [sys.executable, "-P", onnx_trial.__file__, str(path), json.dumps(shape)]
    try:
        trial = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, check=False)
    except subprocess.TimeoutExpired:
        raise PotstillError(
            f"{path} takes over {TIMEOUT} s for {onnx_trial.MANY} observations and is not played"
        ) from None
    if trial.returncode == 0:
        return json.loads(trial.stdout.splitlines()[-1])
    if trial.returncode < 0:
        reason = f"a first run of it was ended by signal {-trial.returncode}"
    else:
        said = trial.stderr.strip().splitlines()
        reason = said[-1][:300] if said else f"status {trial.returncode}"
        if "MemoryError" in reason or "alloc" in reason.lower():
            reason = f"it takes over {onnx_trial.MEMORY >> 20} MB for {onnx_trial.MANY} observations"
    raise PotstillError(f"{path} can't be played as an ONNX file: {reason}")
