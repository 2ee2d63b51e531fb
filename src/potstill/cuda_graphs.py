"""Updates launched as CUDA graphs: kernel by kernel, networks as small as ours leave a GPU idle most of the time."""

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

Step = Callable[..., tuple[Tensor, ...]]
WARM_UP = 3
"""Calls before a step is captured: libraries prepare themselves, and optimisers make their tensors."""


@dataclass
class _Graph:
    stream: torch.cuda.Stream
    calls: int = 0
    graph: torch.cuda.CUDAGraph | None = None
    inputs: tuple[Tensor, ...] = ()
    outputs: tuple[Tensor, ...] = ()


@dataclass
class Graphs:
    """Graphs of a step, one for each kind of its inputs."""

    graphs: dict[Hashable, _Graph] = field(default_factory=dict[Hashable, _Graph])

    def __deepcopy__(self, memo: dict[int, Any]) -> "Graphs":
        return Graphs()  # a copy of what learns has tensors of its own

    def run(self, step: Step, kind: Hashable, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Do what `step(*inputs)` does; what it returns holds until the next run.

        Args:
            step: reads and changes the same tensors in every call of its kind, and never waits for the GPU.
            kind: of calls whose inputs have the same shapes.
            inputs: on the GPU.
        """
        if (of_kind := self.graphs.get(kind)) is None:
            of_kind = self.graphs[kind] = _Graph(torch.cuda.Stream())
        if of_kind.graph is None:
            of_kind.calls += 1
            if of_kind.calls <= WARM_UP:
                return _beside(of_kind.stream, step, inputs)
            of_kind.graph = _capture(of_kind, step, inputs)
        for held, given in zip(of_kind.inputs, inputs, strict=True):
            held.copy_(given)
        of_kind.graph.replay()
        return of_kind.outputs


def _beside(stream: torch.cuda.Stream, step: Step, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Run a step on another stream, as capturing asks for."""
    now = torch.cuda.current_stream()
    stream.wait_stream(now)
    with torch.cuda.stream(stream):
        outputs = step(*inputs)
    now.wait_stream(stream)
    return outputs


def _capture(of_kind: _Graph, step: Step, inputs: tuple[Tensor, ...]) -> torch.cuda.CUDAGraph:
    of_kind.inputs = tuple(torch.empty_like(given) for given in inputs)
    graph = torch.cuda.CUDAGraph()
    # Other threads, which play meanwhile, may do what would spoil a capture of theirs.
    with torch.cuda.graph(graph, stream=of_kind.stream, capture_error_mode="thread_local"):
        of_kind.outputs = step(*of_kind.inputs)
    return graph
