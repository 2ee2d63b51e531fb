"""Commands that take files as they are: look into them, hand them on.

PyTorch is imported only when a command runs, so that `--help` answers at once.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from potstill.cli.common import printable
from potstill.errors import PotstillError

OUTPUTS = {"q": "Q-values", "logits": "logits", "gaussian": "means and log standard deviations"}


@dataclass(frozen=True)
class Inspect:
    """Say what a policy file is. Exit status 0 only if it can be loaded.

    Nothing in it is run, but an ONNX file's graph, on a few zeros and with little memory; and what --trust allows.
    """

    file: Annotated[Path, tyro.conf.Positional]
    """The file: a path, zoo:pong, or hf://owner/repository[/file]."""
    task: str | None = None
    """What it plays: .onnx files and programs aren't read without."""
    trust: bool = False
    """It may be a program (TorchScript, torch.export), and is run: only for files of people you trust."""
    json: bool = False
    """Print one JSON object."""

    def run(self, command: list[str]) -> None:
        from potstill.files import sha256
        from potstill.networks import num_parameters
        from potstill.policies import as_one
        from potstill.teachers import find, load_all

        path = find(self.file)
        policies = load_all(path, self.task, self.trust)
        policy, several = policies[0], len(policies) > 1
        facts: dict[str, Any] = {
            "file": str(self.file),
            "sha256": sha256(path),
            "network": str(policy.spec),
            "parameters": num_parameters(as_one(policies)) if several else policy.num_parameters,
            "observations": f"{policy.observation_dtype} {list(policy.observation_shape)}",
            "outputs": ", ".join(f"{each.num_actions} {OUTPUTS[each.outputs_are]}" for each in policies),
            "task": [each.task for each in policies] if several else policy.task,
            "temperature": policy.temperature,
            "provenance": policy.provenance,
        }
        if self.json:
            print(json.dumps(facts))
            return
        for name, value in facts.items():
            if isinstance(value, dict | list):
                value = json.dumps(value)
            shown = value if value is not None else "not said: use --task"
            print(f"{name:13}{printable(str(shown))}")


@dataclass(frozen=True)
class Report:
    """Write report.html, one self-contained page, from the result.json of finished runs."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Run directories."""

    def run(self, command: list[str]) -> None:
        from potstill.report import write_report

        if not self.runs:
            raise PotstillError("report: name at least one of RUNS, a run directory")
        for folder in self.runs:
            print(write_report(folder))
