"""Commands that make policies: a dataclass each, its fields the flags, its docstring the help.

PyTorch is imported only when a command runs, so that `--help` answers at once.
"""

import shutil
import sys
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from potstill.choices import Act, Device
from potstill.cli.common import Flat, Several, resumable, say_other_task
from potstill.distill.options import DistillOptions
from potstill.errors import PotstillError
from potstill.fit.options import Goal
from potstill.learners.options import DQNOptions

if TYPE_CHECKING:
    from potstill.distill.plan import Plan


def _say_other_tasks(planned: "Plan") -> None:
    """On stderr, which teachers are to play another task than their files say."""
    for lesson in planned.lessons:
        if lesson.teacher:
            say_other_task(lesson.teacher, lesson.task, lesson.teacher_record["name"])


@dataclass(frozen=True)
class Distill:
    """Distil a teacher into one student or several, score them all, and write a report.

        potstill distill --teacher my.zip --task ALE/Pong-v5 --student net1 net3 --out runs/pong

    Teachers of several tasks become one network, with a trunk for all and a head for each (multi-task distillation):

        potstill distill --teacher zoo:pong breakout.zip qbert.zip --student multitask-3 --out runs/three
    """

    out: Path
    """The run directory; must be empty, unless --resume."""
    options: Flat[DistillOptions] = field(default_factory=DistillOptions)
    resume: bool = False
    """Go on with the run in --out from its last checkpoint (repeat its other options), or begin it. Once all is learnt,
    the scoring can go on on another machine, with its --device and --threads, from config.json, learnt.json,
    students/ and, where there is one, scored.json. With more --episodes a finished run is scored anew."""
    video: bool = True
    """Film each student beside its teacher in the end, for the report."""

    def run(self, command: list[str]) -> None:
        from potstill.cli.show import show_progress, show_result
        from potstill.distill.plan import plan
        from potstill.distill.run import run
        from potstill.distill.videos import film
        from potstill.report import write_report

        planned = plan(self.options)
        _say_other_tasks(planned)
        with resumable(command):
            finished = show_progress(run(planned, self.out, self.resume, command))
            if self.video:
                show_progress(film(planned, self.out))
        if finished:
            print(f"{self.out} was finished already", file=sys.stderr)
        page = write_report(self.out)
        show_result(self.out, page)


@dataclass(frozen=True)
class Fit:
    """Find the smallest student that surely keeps a share of its teacher, 95 % unless you say otherwise.

        potstill fit --teacher zoo:pong --keep 0.95 --confidence 0.95 --out runs/fit

    Students of many sizes, from the paper's largest to a few thousand parameters (or yours: --student), learn from one
    stream of play; those surely far behind are dropped on the way. At the end comes a statement such as "net3 keeps at
    least 95 % of the score above chance, shown with 95 % confidence", made on episodes that no choice was made by; or
    that no size qualifies.
    """

    out: Path
    """The run directory; must be empty, unless --resume."""
    goal: Flat[Goal] = field(default_factory=Goal)
    options: Flat[DistillOptions] = field(default_factory=DistillOptions)
    resume: bool = False
    """Go on with the run in --out from its last checkpoint (repeat its other options), or begin it. Once all is learnt,
    the scoring can go on on another machine, with its --device and --threads, from config.json, learnt.json,
    looks.json, students/ and, where there is one, scored.json."""

    def run(self, command: list[str]) -> None:
        from potstill.cli.show import show_fit, show_progress
        from potstill.distill.videos import film
        from potstill.files import read_json
        from potstill.fit.run import fit, prepare
        from potstill.report import write_report

        planned = prepare(self.options, self.goal)
        _say_other_tasks(planned)
        with resumable(command):
            show_progress(fit(planned, self.goal, self.out, self.resume, command))
            if chosen := read_json(self.out / "result.json")["fit"]["chosen"]:
                show_progress(film(planned, self.out, chosen))
        page = write_report(self.out)
        show_fit(self.out, page)


@dataclass(frozen=True)
class Demo:
    """Distil the bundled Pong player into net1, net2 and net3: 25 %, 7 % and 4 % of its size. Takes minutes."""

    out: Path = Path("runs/demo")
    """The run directory. An unfinished demo in it is gone on with, a finished one replaced."""
    seed: int = 0
    """Of everything."""
    threads: int = 0
    """Threads for emulators and arithmetic; 0: one a core."""
    device: Device = "cpu"
    """Where networks are computed."""

    def run(self, command: list[str]) -> None:
        from potstill.distill.plan import check_memory, plan
        from potstill.run_directory import check_empty

        config = self.out / "config.json"
        if not _is_demo(config):
            check_empty(self.out, "it holds something else than a demo; choose another folder")
        options = replace(demo_options(), seed=self.seed, threads=self.threads, device=self.device)
        if (self.out / "report.html").exists():  # what is written last
            check_memory(plan(options))  # what can't be done must not cost a finished demo
            shutil.rmtree(self.out)
        Distill(self.out, options, resume=config.exists()).run(command)


def demo_options() -> DistillOptions:
    """What `potstill demo` distils."""
    return DistillOptions(
        teacher=(Path("zoo:pong"),),
        student=("net1", "net2", "net3"),
        hours=2.0,
        updates=1000,
        envs=40,  # 2,700 steps each: whole episodes, with the scoreboard up to 21
        play_epsilon=0.15,  # students see what to do after a mistake: docs/log.md
    )


def _is_demo(config: Path) -> bool:
    from potstill.files import read_json

    try:
        return read_json(config)["command"][1] == "demo"
    except (PotstillError, LookupError, TypeError):
        return False


@dataclass(frozen=True)
class Record:
    """Record a teacher's play with its labels: a sealed file an hour, for `potstill distill --data`.

    Interrupted, it keeps the hours that were complete; run again with --resume it goes on after them, to the same bits.

        potstill record --teacher my.zip --task ALE/Pong-v5 --hours 10 --out data/pong
        potstill distill --data data/pong --hours 10 --student net3 --out runs/pong
    """

    teacher: Path
    """Who plays and labels."""
    out: Path
    """The recording's folder; must be empty, unless --resume."""
    task: str | None = None
    """What to play; default: what the teacher's file says."""
    teacher_sees: str | None = None
    """What the teacher sees of longer vectors or of a Dict of them: keys or slices, as in goal,position or 0:4,6:."""
    trust: bool = False
    """The teacher may be a program (TorchScript, torch.export), and is run: only for files of people you trust."""
    hours: float = 3.0
    """Hours of play; one is 54,000 control steps."""
    envs: int = 60
    """Copies of the task played in step."""
    play_epsilon: float = 0.05
    """Probability of a random action."""
    act: Act = "greedy"
    """Take the best action, or draw from the teacher's distribution."""
    seed: int = 0
    """Of everything."""
    device: Device = "cpu"
    """Where the network is computed."""
    threads: int = 0
    """Threads for emulators and arithmetic; 0: one a core."""
    resume: bool = False
    """Go on with what is in --out (repeat its other options), or begin."""

    def run(self, command: list[str]) -> None:
        from potstill.cli.show import show_progress
        from potstill.distill.plan import plan
        from potstill.distill.run import record

        own = ("out", "teacher", "task", "resume")
        given = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in own}
        task = () if self.task is None else (self.task,)
        options = DistillOptions(teacher=(self.teacher,), task=task, **given)
        planned = plan(options, may_play_ahead=False)
        _say_other_tasks(planned)
        with resumable(command):
            show_progress(record(planned, self.out, self.resume, command))
        print(self.out)


@dataclass(frozen=True)
class Train:
    """Train a teacher by reinforcement learning; score it by protocol on the way, keep the best.

    Run again with --resume it goes on where it was, to the same bits; with more --steps it goes on from its end.
    On another machine config.json, portable.safetensors and best.safetensors are enough: the memory is played full
    again first.

        potstill train ALE/Pong-v5 --steps 2000000 --out runs/pong-dqn
        potstill distill --teacher runs/pong-dqn/best.safetensors --student net1 net3 --out runs/pong
        potstill train ALE/Pong-v5 ALE/Freeway-v5 --out runs/both            # one network, a head each
        potstill train ALE/Pong-v5 --distill-online net1 net1 --out runs/online
    """

    task: Several[str]
    """What to play: ALE/Pong-v5, CartPole-v1, … Several are learnt by one network, a head each (Multi-DQN)."""
    out: Path
    """The run directory; must be empty, unless --resume."""
    options: Flat[DQNOptions] = field(default_factory=DQNOptions)
    algo: Literal["dqn"] = "dqn"
    """How to learn."""
    distill_online: tuple[str, ...] = ()
    """Students that learn all the while from the best policy so far, as in net1 net1. The report shows their curves
    beside the learner's."""
    online_updates: int = 2500
    """Their minibatch updates after each score, from an hour of the best policy's play."""
    eval_every: int = 250_000
    """Steps between two scores, each followed by a checkpoint."""
    eval_episodes: int = 10
    """Episodes of a score on the way."""
    episodes: int = 100
    """Episodes of the best policy's score in the end; others than those that chose it."""
    resume: bool = False
    """Go on with the run in --out from its last checkpoint (repeat its other options), or begin it."""

    def run(self, command: list[str]) -> None:
        from potstill.cli.show import show_progress, show_training
        from potstill.report import write_report
        from potstill.train.online import Following
        from potstill.train.plan import plan
        from potstill.train.run import run

        following = Following(self.distill_online, self.online_updates)
        planned = plan(self.options, self.task, self.eval_every, self.eval_episodes, self.episodes, following)
        with resumable(command):
            show_progress(run(planned, self.out, self.resume, command))
        page = write_report(self.out)
        show_training(self.out, page)
