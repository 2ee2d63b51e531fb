"""Commands that take files as they are: look into them, watch them play, hand them on.

PyTorch is imported only when a command runs, so that `--help` answers at once.
"""

import json
import sys
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import tyro

from potstill.choices import Act
from potstill.cli.common import Flat, Several, check_out, load_players, printable
from potstill.errors import PotstillError, must_be
from potstill.export.options import ExportOptions

OUTPUTS = {"q": "Q-values", "logits": "logits", "gaussian": "means and log standard deviations"}


@dataclass(frozen=True)
class Inspect:
    """Say what a policy file is. Exit status 0 only if it can be loaded.

    Nothing in it is run, but an ONNX file's graph, on a few zeros and with little memory; and what --trust allows.
    """

    file: Annotated[Path, tyro.conf.Positional]
    """The file: a path, zoo:pong, or hf://owner/repository[/file]."""
    task: str | None = None
    """What it plays, for ONNX files and programs whose names don't say it; others are read without it."""
    trust: bool = False
    """It may be a program (TorchScript, torch.export), and is run: only for files of people you trust."""
    json: bool = False
    """Print one JSON object."""

    def run(self, command: list[str]) -> None:
        from potstill.policies import count_parameters
        from potstill.teachers import checksum, find, load_all

        path = find(self.file)
        policies = load_all(path, self.task, self.trust)
        policy, several = policies[0], len(policies) > 1
        if self.task is not None and self.task not in (known := [each.task for each in policies]):
            said = f"says {', '.join(map(str, known))}" if any(known) else "is read without it"
            raise PotstillError(f"--task {self.task}: {self.file} {said}; leave it out")
        facts: dict[str, Any] = {
            "file": str(self.file),
            "sha256": checksum(path, policy),
            "network": str(policy.spec),
            "parameters": count_parameters(policies),
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
            shown = value if value is not None else "not said: evaluate and distill take --task"
            print(f"{name:13}{printable(str(shown))}")


@dataclass(frozen=True)
class Play:
    """Watch policies play: in a window where there is a display, as a film where there is none.

    Several are shown side by side, from the same seed, and below each what it says of its actions.

        potstill play runs/demo/students/net3.safetensors
        potstill play zoo:pong runs/demo/students/net3.safetensors --out both.mp4
    """

    policy: Several[Path]
    """Policies: students, teachers, zoo:pong, hf://owner/repository, anything that `potstill inspect` can read. Several
    of one task are shown side by side, from the same start. Below each is what it says of its actions."""
    task: str | None = None
    """What to play; default: what the files say. Of a multi-task student, which task."""
    out: Path | None = None
    """The film to write, .mp4 or .gif; default: a window, or, without a display, an .mp4 called as the policies in the
    current folder."""
    episodes: int = 1
    """How many, one after another."""
    seconds: float | None = None
    """Of play after which the film ends; default: when the episodes are over."""
    seed: int = 0
    """Of starts and chance. Episodes are those of evaluation, never those of training."""
    epsilon: float | None = None
    """Probability of a random action; default: 0.05 on Atari, 0 elsewhere."""
    act: Act = "greedy"
    """Take the best action, or draw from the policy's distribution."""
    sees: str | None = None
    """What the policies see of longer vectors or of a Dict of them, where their files don't say it: keys or slices,
    as in goal,position or 0:4,6:."""
    trust: bool = False
    """The files may be programs (TorchScript, torch.export), and are run: only for files of people you trust."""

    def run(self, command: list[str]) -> None:
        from potstill.cli.show import write_under_bar
        from potstill.teachers import find
        from potstill.watch import Actor, check_name, frames, has_display, pace, show

        if not self.policy:
            raise PotstillError("play: name at least one POLICY file")
        must_be("at least 1", self, "episodes")
        must_be("above 0", self, "seconds")
        must_be("at least 0", self, "seed")
        if self.out is not None:
            check_name(self.out)
        files = [find(path) for path in self.policy]
        players = load_players(files, self.task, self.act, self.epsilon, self.sees, self.trust)
        if len(tasks := {task.id: None for _, _, task in players}) > 1:
            raise PotstillError(f"play: the policies play {', '.join(tasks)}: name one of them with --task")
        names = [path.stem for path, _, _ in players]
        actors = [Actor(name, policy, task) for name, (_, policy, task) in zip(names, players, strict=True)]
        rate, _ = pace(actors[0].task)
        at_most = None if self.seconds is None else max(1, round(rate * self.seconds))
        pictures = islice(frames(actors, self.seed, self.episodes), at_most)
        if self.out is None and has_display():
            show(pictures, rate, f"{', '.join(names)}: {actors[0].task.id}")
        else:
            out = self.out or Path("-".join(names) + ".mp4")
            write_under_bar(pictures, out, rate)
            print(out)


@dataclass(frozen=True)
class Report:
    """Write report.html, one self-contained page, from the result.json of a finished run or of several.

    Nothing in it is fetched from elsewhere.

        potstill report runs/pong
        potstill report runs/* --out all.html
    """

    runs: Several[Path]
    """Run directories."""
    out: Path | None = None
    """The page; default: report.html in the run's folder, or in the current one for several runs."""

    def run(self, command: list[str]) -> None:
        from potstill.report import write_report

        if not self.runs:
            raise PotstillError("report: name at least one of RUNS, a run directory")
        if self.out is not None:
            check_out(self.out, ".html")
        finished = [run for run in self.runs if (run / "result.json").exists()]
        if len(self.runs) > 1 and finished:
            for run in self.runs:
                if run not in finished:
                    print(f"potstill: left out, not finished: {run}", file=sys.stderr)
        print(write_report(*(finished or self.runs), out=self.out))


@dataclass(frozen=True)
class Export:
    """Write a policy in another format, once it is shown to do the same on 10,000 states of its own play.

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
    sees: str | None = None
    """What it sees of longer vectors, where its file doesn't say it: slices, as in 0:4,6:."""
    json: bool = False
    """Print one JSON object instead of lines."""

    def run(self, command: list[str]) -> None:
        from potstill.cli.show import print_json, show_export, show_progress
        from potstill.export.run import export

        check_out(self.out, {"onnx": ".onnx", "sb3": ".zip"}[self.options.to], self.policy)
        players = load_players([self.policy], self.task, "greedy", None, self.sees, trust=False)
        policies = [replace(policy, task=task.id) for _, policy, task in players]
        record = show_progress(export(policies, self.out, self.options))
        if self.json:
            print_json(command, self.options.threads, **record)
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
