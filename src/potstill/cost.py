"""What policies' files cost, in PyTorch and in onnxruntime, measured in turns."""

from collections.abc import Callable, Generator, Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from potstill.errors import PotstillError
from potstill.evaluate.cost import examples, macs, speeds
from potstill.export.onnx import INPUT, output_names, to_onnx
from potstill.networks import Foreign
from potstill.policies import count_parameters, of_task
from potstill.policy import Policy
from potstill.progress import Progress
from potstill.tasks import make_task
from potstill.teachers import find, load_all
from potstill.teachers.onnx import Session
from potstill.teachers.onnx_trial import make_session

Function = Callable[[np.ndarray], Any]


def costs(
    names: Sequence[Path], task: str | None, trust: bool
) -> Generator[Progress, None, dict[str, list[dict[str, Any]]]]:
    """Measure policy files; returns, by file and then by runtime, numbers as JSON.

    Of a file of several tasks the parameters are all of its; what is computed is the wanted task's, or its first.

    Raises:
        PotstillError: a file can't be loaded, or there is no such task.
    """
    if task is not None:
        make_task(task)
    facts: dict[str, dict[str, Any]] = {}
    functions: dict[tuple[str, str], tuple[Function, np.ndarray]] = {}
    for name in dict.fromkeys(map(str, names)):
        path = find(Path(name))
        policies = load_all(path, task, trust)
        policy = policies[0] if task is None else of_task(policies, task, name)
        facts[name] = {"parameters": count_parameters(policies), "macs": macs(policy), "bytes": path.stat().st_size}
        for runtime, function in _runtimes(policy).items():
            functions[name, runtime] = function, examples(policy)
    measured = yield from speeds(functions)
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in facts}
    for (name, runtime), speed in measured.items():
        found[name].append({"runtime": runtime, **facts[name], **speed.record()})
    return found


def _runtimes(policy: Policy) -> dict[str, Function]:
    """How a policy can be computed."""
    if isinstance(policy.network, Foreign):
        function = policy.network.function
        if isinstance(function, Session) and not policy.network.one_by_one:
            return {"onnxruntime": _runs(function.session, function.output, function.input_name, function.dtype)}
        in_onnx = any(isinstance(part, Session) for part in function.modules())
        return {"onnxruntime" if in_onnx else "pytorch": policy.outputs}
    runtimes: dict[str, Function] = {"pytorch": policy.outputs}
    if policy.is_ours and all(find_spec(name) for name in ("onnx", "onnxscript", "onnxruntime")):
        import onnxruntime

        with suppress(PotstillError):  # gSDE has no ONNX
            session = make_session(onnxruntime, to_onnx([policy]).SerializeToString())
            runtimes["onnxruntime"] = _runs(session, output_names([policy])[0], INPUT, policy.observation_dtype)
    return runtimes


def _runs(session: Any, output: str, name: str, dtype: str) -> Function:
    return lambda observations: session.run([output], {name: observations.astype(dtype, copy=False)})
