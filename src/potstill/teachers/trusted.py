"""TorchScript and torch.export files: they are programs, run only where the user trusts them."""

import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from potstill.errors import PotstillError, named
from potstill.policy import Meaning, Policy
from potstill.tasks import Task, make_task
from potstill.teachers.outputs import choose_output
from potstill.teachers.task_name import task_in_name


class Program(nn.Module):
    """A file's module: floats for those that take no bytes, one tensor out of several."""

    def __init__(self, module: nn.Module, floats: bool, task: Task) -> None:
        super().__init__()
        self.module, self.floats, self.task = module, floats, task
        self.outputs_are: Meaning | None = None

    def train(self, mode: bool = True) -> "Program":
        return self  # a program of torch.export has no other mode, and says so by an error

    def forward(self, observations: Tensor) -> Tensor:
        said: Any = self.module(observations.float() if self.floats else observations)
        if isinstance(said, dict):
            name, self.outputs_are = choose_output(list(said), self.task)
            return said[name]
        return said[0] if isinstance(said, tuple | list) else said


def kind_of(names: list[str]) -> str | None:
    """What a zip with files of these names is a program of."""
    if any("/code/" in name for name in names):
        return "TorchScript"
    if any(name.endswith((".json", ".pt2")) and ("model" in name or "exported_program" in name) for name in names):
        return "torch.export"
    return None


def load(path: Path, kind: str, task_id: str | None, trust: bool) -> Policy:
    """The policy of a TorchScript or torch.export file; its first output, or of a dict the one with a telling name.

    Raises:
        PotstillError: it isn't trusted, can't be loaded, or is no policy for the task.
    """
    if not trust:
        raise PotstillError(
            f"{path} is a program ({kind}), which runs code when loaded: add --trust if you trust whoever made it"
            " (export, which needs to know its network, has no --trust: distil it first)"
        )
    provenance: dict[str, object] = {"format": kind}
    if (named_task := task_id or task_in_name(path, provenance)) is None:
        raise PotstillError(f"{path} doesn't say what it plays: add --task, for example --task ALE/Pong-v5")
    task = make_task(named_task)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PyTorch's advice to whoever made the file
            module = torch.jit.load(path, "cpu") if kind == "TorchScript" else torch.export.load(path).module()
    except Exception as error:  # a stranger's program may raise anything
        reason = named(error)
        raise PotstillError(f"{path} can't be loaded as {kind} ({reason})") from error
    complaint: PotstillError | None = None
    for floats in (False, True) if task.observation_dtype == "uint8" else (False,):
        program = Program(module, floats, task)
        try:
            policy = Policy.from_callable(program, task, kind=kind)
        except PotstillError as error:
            complaint = complaint or error
            continue
        if program.outputs_are is not None:
            policy.outputs_are = program.outputs_are
        policy.provenance |= provenance | ({"frames": "as floats from 0 to 255"} if floats else {})
        return policy
    raise PotstillError(f"{path}: {complaint}") from complaint
