"""A first run of an ONNX file, in a process of its own with little memory and little time.

A graph can ask for any amount of either, and a damaged one can crash the library that reads it. What survives this is
then loaded. Run as a script: `onnx_trial.py FILE SHAPE`, SHAPE the observation's as JSON; says what it found as JSON.
"""

import json
import math
import sys
from typing import Any

MEMORY = 2**30
"""Bytes beyond what the process has before it reads the file (Linux)."""
SECONDS = 60
"""Of processor time (Linux)."""
FLOATS, BYTES = (1, 10, 11, 16), (2, 3)
"""ONNX's numbers for float32, float16, float64 and bfloat16; for uint8 and int8, which weights may be, too."""
BATCH, MANY = 2, 64
"""Observations given, where a file doesn't fix how many: to see what it says, and what so many take."""
MAX_DESCRIPTION = 2**20
"""Characters of what `potstill export` says of a file in it."""
DTYPES = {"tensor(float)": "float32", "tensor(double)": "float64", "tensor(uint8)": "uint8"}


def main() -> None:
    """Say what the graph's input is, what outputs it gives for one batch, and how many parameters it has."""
    import numpy as np
    import onnx
    import onnxruntime

    path, shape = sys.argv[1], json.loads(sys.argv[2])
    _limit()
    model = onnx.load(path, load_external_data=False)
    nodes = [node for node in model.graph.node if node.op_type == "Constant"]
    constants = [given.t for node in nodes for given in node.attribute if given.t.dims]
    weights = [*model.graph.initializer, *constants]
    parameters = sum(
        math.prod(tensor.dims)
        for tensor in weights
        if tensor.data_type in FLOATS or (tensor.data_type in BYTES and len(tensor.dims) > 1)
    )
    session = make_session(onnxruntime, path)
    inputs = session.get_inputs()
    if len(inputs) != 1:
        sys.exit(f"it has {len(inputs)} inputs ({', '.join(i.name for i in inputs)[:200]}), not observations alone")
    name, (batch, *seen) = inputs[0].name, inputs[0].shape or [None]
    described = next((entry.value for entry in model.metadata_props if entry.key == "potstill"), None)
    if shape is None and not described:
        sys.exit("it doesn't say what it plays: add --task, for example --task ALE/Pong-v5")
    # A dimension that it leaves open is the task's, where that is known.
    others = shape or [0] * len(seen)
    seen = [side if isinstance(side, int) else int(other) for side, other in zip(seen, others, strict=False)]
    if not seen or not all(0 < side <= 4096 for side in seen):
        sys.exit(f"its input {name[:60]} of shape {str(inputs[0].shape)[:100]} is no batch of observations")
    if inputs[0].type not in DTYPES:
        sys.exit(f"its input is of type {inputs[0].type[:60]}, not of float, double or uint8")
    dtype = DTYPES[inputs[0].type]
    observations = np.zeros((batch if isinstance(batch, int) else BATCH, *seen), dtype)
    outputs = [output.name for output in session.get_outputs()]
    if not outputs:
        sys.exit("it has no outputs")
    said = [np.asarray(each) for each in session.run(outputs, {name: observations})]
    if not isinstance(batch, int):
        session.run(outputs, {name: np.zeros((MANY, *seen), dtype)})
    last = {output: node.op_type for node in model.graph.node for output in node.output}
    found = {"input": name, "dtype": dtype, "shape": seen, "parameters": parameters}
    found["outputs"] = {
        output: {"shape": each.shape, "dtype": str(each.dtype), "by": last.get(output)}
        for output, each in zip(outputs, said, strict=True)
    }
    found["described"] = described and described[:MAX_DESCRIPTION]
    sys.stdout.write(json.dumps(found))


def make_session(onnxruntime: Any, path: str | bytes) -> Any:
    """A session on one thread that doesn't spin, for threads that share the work between them."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def _limit() -> None:
    if sys.platform != "linux":
        return
    import resource

    with open("/proc/self/statm") as statm:
        limit = int(statm.read().split()[0]) * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))


if __name__ == "__main__":
    main()
