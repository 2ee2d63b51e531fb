"""Another library's tensors under our names."""

import re
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor

from potstill.actions import Actions
from potstill.errors import PotstillError, in_a_line
from potstill.networks import NetworkSpec
from potstill.networks.spec import Activation
from potstill.policy import Meaning, Policy


def layers(prefix: str, names: Iterable[str]) -> list[str]:
    """The layers `prefix.0`, `prefix.2`, … among tensor names, in the order they are run."""
    found = {m[1] for name in names if (m := re.fullmatch(rf"({re.escape(prefix)}\.[0-9]{{1,4}})\.weight", name))}
    return sorted(found, key=lambda layer: int(layer.rpartition(".")[2]))


def to_policy(
    path: Path,
    tensors: dict[str, Tensor],
    chain: list[str],
    outputs_are: Meaning,
    activation: Activation,
    task: str | None,
    provenance: dict[str, object],
    biasless: bool = False,
    actions: Actions | None = None,
) -> Policy:
    """The policy that a chain of layers is.

    Args:
        path: the file, for messages.
        tensors: by their names in the file.
        chain: the layers from observation to outputs; the last is the head.
        outputs_are: what the outputs mean.
        activation: between the layers.
        task: the task's id, if known.
        provenance: where the file came from.
        biasless: layers may have no bias; it is 0 then.
        actions: of a Gaussian policy.

    Raises:
        PotstillError: the chain isn't a network of ours.
    """
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    weights = [shapes.get(f"{layer}.weight", ()) for layer in chain]
    convs = [shape for shape in weights if len(shape) == 4]
    linear = [shape for shape in weights if len(shape) == 2]
    sizes = [side for shape in weights for side in shape]
    dense = len(linear) >= (2 if convs else 1)
    if len(convs) + len(linear) != len(chain) or not dense or len(convs) not in (0, 3) or 0 in sizes:
        said = in_a_line(weights, 100)
        raise PotstillError(f"{path}: its layers are neither a Nature CNN nor an MLP (weights {said})")
    spec = NetworkSpec(
        "cnn" if convs else "mlp",
        tuple(shape[0] for shape in convs),
        tuple(shape[0] for shape in linear[:-1]),
        "relu" if convs else activation,
    )
    try:
        NetworkSpec.parse(str(spec))
    except PotstillError as error:
        raise PotstillError(f"{path}: its layers are more, or wider, than are read ({in_a_line(spec, 60)})") from error
    observation_shape = (convs[0][1], 84, 84) if convs else (linear[0][1],)
    with torch.device("meta"):
        policy = Policy.new(
            spec,
            outputs_are,
            observation_shape,
            "uint8" if convs else "float32",
            linear[-1][0] // (1 if actions is None else 2),
            task=task,
            provenance=provenance,
            actions=actions,
        )
    ours = [name for name, module in policy.network.named_modules() if hasattr(module, "weight")]
    names = {
        f"{theirs}.{kind}": f"{our}.{kind}"
        for theirs, our in zip(chain, ours, strict=True)
        for kind in ("weight", "bias")
    }
    expected = {name: tuple(tensor.shape) for name, tensor in policy.network.state_dict().items()}
    for theirs, our in list(names.items()):
        if biasless and theirs.endswith(".bias") and theirs not in shapes:
            continue
        if shapes.get(theirs) != expected[our]:
            raise PotstillError(f"{path}: tensor {theirs} is {shapes.get(theirs, 'missing')}, expected {expected[our]}")
    state = {
        our: tensors[theirs].to(torch.float32).contiguous() if theirs in tensors else torch.zeros(expected[our])
        for theirs, our in names.items()
    }
    policy.network.load_state_dict(state, assign=True)
    policy.network.requires_grad_(False)
    return policy
