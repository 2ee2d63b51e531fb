"""Commands that take files as they are: look into them, hand them on.

PyTorch is imported only when a command runs, so that `--help` answers at once.
"""

import json
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import tyro

from potstill.cli.common import Flat, printable
from potstill.errors import PotstillError
from potstill.export.options import Options as ExportOptions

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
    """Write report.html, one self-contained page, from the result.json of a finished run or of several.

    potstill report runs/pong
    potstill report runs/* --out all.html
    """

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Run directories."""
    out: Path | None = None
    """The page; default: report.html in the run's folder, or in the current one for several runs."""

    def run(self, command: list[str]) -> None:
        from potstill.report import write_report

        if not self.runs:
            raise PotstillError("report: name at least one of RUNS, a run directory")
        print(write_report(*self.runs, out=self.out))


@dataclass(frozen=True)
class Export:
    """Write a policy in another format, once it is shown to say the same on 10,000 states of its own play.

    onnx: takes uint8 frames (or float32 vectors), any number at a time; gives logits or Q-values, and the best actions.
    sb3: a zip that Stable-Baselines3 loads, plays and scores.

    potstill export runs/demo/students/net3.safetensors --out net3.onnx
    potstill export runs/demo/students/net3.safetensors --int8 --verify --out net3-int8.onnx
    potstill export runs/demo/students/net3.safetensors --to sb3 --out net3.zip
    """

    policy: Annotated[Path, tyro.conf.Positional]
    """A student, or a teacher whose network is known: anything but ONNX files and programs."""
    out: Path
    """The file; one that is there is replaced."""
    options: Flat[ExportOptions] = field(default_factory=ExportOptions)
    task: str | None = None
    """What it plays; default: what the file says. Of a multi-task student, only this task."""
    json: bool = False
    """Print one JSON object instead of lines."""

    def run(self, command: list[str]) -> None:
        from potstill.cli.show import show_export, show_progress
        from potstill.distill.plan import id_of_task
        from potstill.export.run import export
        from potstill.machine import versions
        from potstill.policies import of_task
        from potstill.teachers import load_all

        suffix = {"onnx": ".onnx", "sb3": ".zip"}[self.options.to]
        if self.out.suffix != suffix:
            raise PotstillError(f"--out {self.out}: name a file that ends in {suffix}")
        policies = load_all(self.policy, self.task)
        if self.task is not None:
            policies = [of_task(policies, self.task, self.policy)]
        policies = [replace(policy, task=id_of_task(policy, self.task, self.policy)) for policy in policies]
        record = show_progress(export(policies, self.out, self.options))
        if self.json:
            print(json.dumps({"schema": 1, "command": command, "versions": versions(), **record}))
        else:
            show_export(record)


@dataclass(frozen=True)
class Push:
    """Upload a student of a finished run to the Hugging Face Hub, in one commit: its file, a model card with its scores
    (README.md), result.json, and the report and videos where there are some. Never the teacher.

    hf auth login
    potstill push runs/pong --student net3 --to me/pong-net3 --license apache-2.0
    """

    folder: Annotated[Path, tyro.conf.Positional]
    """The run's folder."""
    student: str
    """Which student, by its name."""
    to: str
    """The repository, owner/name; it is made where there is none, and its README.md replaced."""
    private: bool = False
    """Make the repository private, if it is made now."""
    license: str | None = None
    """The student's licence, as the Hub calls it: apache-2.0, mit, cc-by-4.0, …; default: the card names none."""
    card_only: bool = False
    """Upload nothing: print the card."""

    def run(self, command: list[str]) -> None:
        from potstill.report import make_card, push

        if self.card_only:
            print(make_card(self.folder, self.student, self.to, self.license), end="")
            return
        url = push(self.folder, self.student, self.to, self.license, self.private, quiet=not sys.stderr.isatty())
        print(f"{url}\npotstill evaluate hf://{self.to}/{self.student}.safetensors")
