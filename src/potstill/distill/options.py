"""Everything that decides what a distillation run computes."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

from potstill.choices import Act, Device, Loss, Precision
from potstill.errors import PotstillError, must_be

MAX_NAME = 200
"""Bytes of a student's name: file systems take 255, its suffix and that of an unfinished file included."""


@dataclass(frozen=True)
class DistillOptions:
    """What to distil, and how."""

    student: tuple[str, ...] = ()
    """Networks to distil into, all from one stream of play, or NAME=NETWORK. For frames: net1, net2, net3 (25, 7 and
    4 % of the DQN), dqn, or cnn:16-16-16:64, three convolutions' channels and a dense layer, with :2f more one that
    sees only the two newest frames. For vectors: mlp:64-64, mlp:64-64:tanh or linear. For several teachers:
    multitask-3, multitask-10, or cnn:16-32-32:256/64, where layers that each task has to itself follow the slash."""
    teacher: tuple[Path, ...] = ()
    """The policy to distil: a potstill file, a Stable-Baselines3 zip, a state dict, an .onnx file, zoo:pong or
    hf://owner/repository. `potstill inspect` says whether a file is one. Several, a task each, are distilled into one
    student: a trunk, and a head for each."""
    data: tuple[Path, ...] = ()
    """Learn from play that `potstill record` recorded, instead of playing. With --teacher (the one that played) the
    students are then scored; without it nothing is played at all, and no environment is needed. One a teacher, in
    their order."""
    task: tuple[str, ...] = ()
    """What to play: ALE/Pong-v5, CartPole-v1, LunarLander-v3?gravity=-5, … Default: what the teacher's file says. One
    a teacher, in their order."""
    teacher_sees: str | None = None
    """What the teacher sees of longer vectors or of a Dict of them: keys or slices, as in goal,position or 0:4,6:."""
    student_sees: str | None = None
    """What the students see, likewise. By default both see everything."""
    trust: bool = False
    """The teacher may be a program (TorchScript, torch.export), and is run: only for files of people you trust."""
    loss: tuple[Loss, ...] = ("kl",)
    """kl: match the sharpened distribution; nll: the teacher's best action; mse: its outputs. One, or one for each
    student in their order, as in --student net3 net3 --loss kl nll."""
    temperature: float | None = None
    """Divides the teacher's outputs in the KL loss. Default: 0.01 for Q-values, 1 for logits."""
    hours: float = 3.0
    """Hours of play to learn from, of each task; one is 54,000 control steps."""
    updates: int = 2500
    """Minibatch updates after each hour of play, for each task (the paper: 10,000); a fraction of an hour gets that
    fraction of them."""
    driver: str = "teacher"
    """Who acts while the teacher labels: teacher, student, or mix:SHARE of the environments driven by the students in
    turn (DAgger), from the second hour on."""
    batch: int = 256
    """Samples in a minibatch."""
    optimizer: Literal["adam", "rmsprop"] = "adam"
    """rmsprop is the paper's."""
    learning_rate: float | None = None
    """The highest. Default: 0.02 for adam (1.5e-3 with --no-batch-norm), 2.5e-4 for rmsprop."""
    batch_norm: bool = True
    """Students learn with batch normalisation, which goes into their weights when they are saved; without it the
    networks stay as they are named."""
    schedule: Literal["cosine", "constant"] = "cosine"
    """cosine: a short rise, then down to 0; constant: none of it."""
    envs: int = 60
    """Copies of a task played in step."""
    play_epsilon: float = 0.05
    """Probability of a random action while the teacher plays for its students."""
    act: Act = "greedy"
    """Whether policies take their best action or draw from their distribution, in play and in evaluation."""
    memory_hours: float = 10.0
    """Hours of play held in memory, of each task."""
    episodes: int = 100
    """Episodes a score is measured on, for the teacher and each student, of each task."""
    starts: str = "noop"
    """Where scored episodes begin. noop: after a random number of no-ops (Atari; the task's own starts elsewhere);
    expert: within another expert's play, from recorded starts; or a file that `potstill starts` recorded, or a folder
    of them."""
    seed: int = 0
    """Of everything: the same seed, machine and threads give the same weights."""
    precision: Precision = "auto"
    """Arithmetic of the students' updates and of labels that are logits. auto: bf16 for CNNs on hardware with it."""
    device: Device = "cpu"
    """Where networks are computed and play is remembered."""
    threads: int = 0
    """Threads for emulators and arithmetic; 0: one a core."""

    def check(self) -> None:
        """Refuse values that can't work.

        Raises:
            PotstillError: naming the flag.
        """
        must_be("above 0", self, "hours", "updates", "batch", "envs", "memory_hours", "episodes", "temperature")
        must_be("above 0", self, "learning_rate")
        must_be("from 0 to 1", self, "play_epsilon")
        must_be("at least 0", self, "seed", "threads")
        if self.batch_norm and self.batch < 2:
            raise PotstillError("--batch 1: batch normalisation needs two samples; add --no-batch-norm")
        if self.student_share and self.hours <= 1:
            raise PotstillError(f"--driver {self.driver}: students drive from the second hour on; add --hours 2")
        if self.data and self.driver != "teacher":
            raise PotstillError(f"--driver {self.driver}: nobody drives in recorded play; leave out --data or --driver")
        if not self.teacher and self.data and self.teacher_sees is not None:
            raise PotstillError("--teacher-sees: there is no --teacher; in --data it has seen already")

    @property
    def student_share(self) -> float:
        """Share of the environments that students drive.

        Raises:
            PotstillError: `driver` is none of the three.
        """
        kind, _, share = self.driver.partition(":")
        try:
            value = {"teacher": 0.0, "student": 1.0}[self.driver] if kind != "mix" else float(share)
        except (KeyError, ValueError):
            value = -1.0
        if not 0 <= value <= 1:
            raise PotstillError(f"--driver {self.driver}: must be teacher, student or mix:SHARE, as in mix:0.5")
        return value

    def record(self) -> dict[str, Any]:
        """The options as JSON; `trust` decides nothing of what is computed."""
        named = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "trust"}
        return {name: list(map(str, value)) if isinstance(value, tuple) else value for name, value in named.items()}


def name_students(specs: tuple[str, ...], losses: tuple[str, ...] = ()) -> dict[str, str]:
    """`net3 net3 small=net1` → {"net3": "net3", "net3-2": "net3", "small": "net1"}; where each has a loss of its own,
    `net3 net3` → {"net3-kl": "net3", "net3-nll": "net3"}.

    Raises:
        PotstillError: a name that can't be a file's name, or that is given twice.
    """
    named: dict[str, str] = {}
    of_each = [f"-{loss}" for loss in losses] if len(losses) == len(specs) > 1 else [""] * len(specs)
    for text, loss in zip(specs, of_each, strict=True):
        name, equals, spec = text.rpartition("=")
        spec, name = (spec, name) if equals else (text, text.replace(":", "_").replace("/", "_") + loss)
        if not name or not all(c.isalnum() or c in "-_." for c in name) or name.startswith("."):
            raise PotstillError(f"--student {text}: a name is letters, digits, '-', '_' and '.'")
        if len(name.encode()) > MAX_NAME:
            raise PotstillError(f"--student {text}: its file's name is too long; give it another, as in small={spec}")
        if equals and name in named:
            raise PotstillError(f"--student {text}: there is a student {name} already")
        unique, count = name, 1
        while unique in named:
            count += 1
            unique = f"{name}-{count}"
        named[unique] = spec
    return named
