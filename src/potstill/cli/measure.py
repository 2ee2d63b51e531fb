"""Commands that measure: scores, tables, speed.

PyTorch is imported only when a command runs, so that `--help` answers at once.
"""

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from potstill.choices import Act, Device
from potstill.cli.common import Flat, Several, check_out, load_players, resumable
from potstill.cli.learn import demo_options
from potstill.distill.options import DistillOptions
from potstill.errors import PotstillError, must_be
from potstill.fit.options import Goal
from potstill.reproduce.options import ReproduceOptions, Table

if TYPE_CHECKING:
    from potstill.evaluate import Score
    from potstill.policy import Policy
    from potstill.tasks import Task


@dataclass(frozen=True)
class Evaluate:
    """Play episodes with a policy and print its mean return with a 95 % confidence interval.

    With --teacher also which share of that policy's score above chance it has, and with --keep whether it surely keeps
    as much. That is a test of each policy by itself. It holds for episodes that nobody has seen the policy play, so it
    wants another --seed than the policy was distilled with, and for a number of them that was fixed beforehand.

        potstill evaluate runs/demo/students/net3.safetensors --episodes 100
        potstill evaluate net3-int8.onnx --teacher zoo:pong --keep 0.95 --seed 1
    """

    policy: Several[Path]
    """Policies: students, teachers, zoo:pong, hf://owner/repository, anything that `potstill inspect` can read."""
    task: str | None = None
    """What to play; default: what the files say, all tasks of a multi-task student."""
    sees: str | None = None
    """What the policies, and the teacher, see of longer vectors or of a Dict of them, where their files don't say it:
    keys or slices, as in goal,position or 0:4,6:."""
    trust: bool = False
    """The files may be programs (TorchScript, torch.export), and are run: only for files of people you trust."""
    episodes: int = 100
    """How many episodes."""
    starts: str = "noop"
    """noop: a random number of no-ops first (Atari), the task's own starts elsewhere; expert: within another expert's
    play, from recorded starts; or a file that `potstill starts` recorded, or a folder of them."""
    epsilon: float | None = None
    """Probability of a random action; default: 0.05 on Atari, 0 elsewhere."""
    act: Act = "greedy"
    """Take the best action, or draw from the policy's distribution."""
    teacher: Path | None = None
    """Whom to compare them with: it plays as many episodes, and chance a quarter of them, ten at least or as many."""
    keep: float | None = None
    """The share of the teacher's score above chance that is to be shown, one-sided."""
    confidence: float = 0.95
    """Of what --keep shows."""
    seed: int = 0
    """Of starts and chance. Evaluation's episodes are never training's. Two policies of one seed don't meet the same
    starts, unless --starts names some."""
    threads: int = 0
    """Threads for emulators and arithmetic; 0: one a core."""
    device: Device = "cpu"
    """Where the network is computed."""
    json: bool = False
    """Print one JSON object instead of lines."""

    def run(self, command: list[str]) -> None:
        from potstill.cli.show import print_json, show_progress, show_score
        from potstill.evaluate import Player, random_episodes, random_player, scores
        from potstill.machine import cores, prepare_device
        from potstill.tasks.starts import Starts

        self._check()
        prepare_device(self.device)
        by_task: dict[Task, list[tuple[Path, Policy]]] = {}
        players = load_players(self.policy, self.task, self.act, self.epsilon, self.sees, self.trust, self.device)
        for path, policy, task in players:
            if self.keep is not None and policy.provenance.get("seed") == self.seed:
                mend = f"--keep wants others, as in --seed {self.seed + 1}"
                raise PotstillError(f"--seed {self.seed}: {path} was scored on these episodes when it was made; {mend}")
            by_task.setdefault(task, []).append((path, policy))
        if self.teacher is not None:
            for task, named in by_task.items():
                named.insert(0, self._load_teacher(self.teacher, task, named[0][0]))
        if self.sees is not None and not any(policy.sees for named in by_task.values() for _, policy in named):
            raise PotstillError(f"--sees {self.sees}: what is named here sees all that its task shows; leave it out")
        starts = {
            task: None if self.starts == "noop" else Starts.read(self.starts, task, self.episodes) for task in by_task
        }
        records: list[dict[str, Any]] = []
        for task, named in by_task.items():
            players = [Player.by_protocol(policy, task, self.episodes) for _, policy in named]
            if self.teacher is not None:
                players.append(random_player(task, random_episodes(self.episodes)))
            recorded = starts[task]
            playing = scores(players, task, self.seed, cores(self.threads), recorded and recorded.starts)
            found = show_progress(playing)
            protocol = task.under(starts="expert" if recorded else None).protocol.record()
            of_task: list[dict[str, Any]] = [
                {"file": str(path), "task": task.id, "protocol": protocol, "score": score.record()}
                for (path, _), score in zip(named, found, strict=False)  # chance has no file
            ]
            if self.teacher is not None:
                teacher, *students, random = found
                of_task[0]["random"] = random.record()
                for record, student in zip(of_task[1:], students, strict=True):
                    record |= self._compared(student, teacher, random)
            records += of_task
            if not self.json:
                for record in of_task:
                    show_score(record)
        if self.json:
            print_json(command, self.threads, seed=self.seed, policies=records)

    def _check(self) -> None:
        """Refuse values that can't work."""
        from potstill.fit.statement import check_episodes

        if not self.policy:
            raise PotstillError("evaluate: name at least one POLICY file")
        must_be("at least 1", self, "episodes")
        must_be("at least 0", self, "seed", "threads")
        if self.keep is not None:
            Goal(self.keep, self.confidence).check()
            if self.teacher is None:
                raise PotstillError("--keep: name the policy of whose score with --teacher")
            check_episodes("--episodes", self.episodes, self.keep, self.confidence)
            if self.starts != "noop":
                raise PotstillError(f"--starts {self.starts}: there are too few starts for --keep's test, leave it out")
        elif self.confidence != Goal.confidence:
            raise PotstillError(f"--confidence {self.confidence}: it is of what --keep shows; add --keep")

    def _load_teacher(self, teacher: Path, task: "Task", student: Path) -> "tuple[Path, Policy]":
        """The teacher, which must play the student's task and see what it shows to the student."""
        how = (task.id, self.act, self.epsilon, self.sees, self.trust, self.device)
        [(path, policy, plays)] = load_players([teacher], *how)
        if self.task is None and policy.task not in (None, task.id):
            mend = "name what both shall play with --task"
            raise PotstillError(f"--teacher {path} plays {policy.task}, {student} {task.id}: {mend}")
        if plays != task:
            raise PotstillError(f"--teacher {path} doesn't see of {task.id} what {student} sees")
        return path, policy

    def _compared(self, student: "Score", teacher: "Score", random: "Score") -> dict[str, Any]:
        """What a score is of the teacher's, and what that shows, as JSON."""
        from potstill.evaluate import normalised
        from potstill.fit.statement import statement

        share = normalised(student, teacher, random)
        said: dict[str, Any] = {"normalised": share and share.record()}
        if self.keep is not None:
            shown = statement(student, teacher, random, self.keep, self.confidence)
            said["statement"] = share and {**shown.record(), "confidence": self.confidence}
        return said


@dataclass(frozen=True)
class Starts:
    """Record starts for `evaluate --starts` and `distill --starts`: moments of an expert's play.

    Each lies in the first fifth of one of the expert's episodes (Rusu et al. 2016 score from such moments of human
    play). The file holds seeds and actions, so that everybody starts from the same ones.

        potstill starts expert.safetensors --task ALE/Pong-v5 --out pong-starts.json
    """

    expert: Annotated[Path, tyro.conf.Positional]
    """Who plays: best another policy than those that will be scored."""
    out: Path
    """The file; a file there is replaced."""
    task: str | None = None
    """What to play; default: what the expert's file says."""
    number: int = 100
    """How many starts."""
    epsilon: float = 0.05
    """Probability of a random action."""
    act: Act = "greedy"
    """Take the best action, or draw from the expert's distribution."""
    sees: str | None = None
    """What the expert sees of longer vectors or of a Dict of them, where its file doesn't say it: keys or slices, as in
    goal,position or 0:4,6:."""
    trust: bool = False
    """The file may be a program (TorchScript, torch.export), and is run: only for files of people you trust."""
    seed: int = 0
    """Of the episodes and of the draw."""
    threads: int = 0
    """Threads for emulators and arithmetic; 0: one a core."""

    def run(self, command: list[str]) -> None:
        from potstill.cli.show import show_progress
        from potstill.evaluate import Player, record_starts
        from potstill.files import sha256
        from potstill.machine import cores
        from potstill.tasks import starts
        from potstill.teachers import find

        if not 1 <= self.number <= starts.MAX_STARTS:
            raise PotstillError(f"--number {self.number}: must be from 1 to {starts.MAX_STARTS}")
        must_be("at least 0", self, "seed", "threads")
        check_out(self.out, ".json", self.expert)
        path = find(self.expert)
        played = load_players([path], self.task, self.act, self.epsilon, self.sees, self.trust)
        if len(played) > 1:
            raise PotstillError(f"starts: {self.expert} plays {len(played)} tasks: name one of them with --task")
        [(_, policy, task)] = played
        if task.bounds is not None or task.num_actions > len(starts.DIGITS):
            raise PotstillError(f"starts: {task.id} has too many actions, or continuous ones")
        player = Player(policy, self.act, self.epsilon, self.number)
        recorded = show_progress(record_starts(player, task, self.seed, cores(self.threads)))
        expert = {"name": path.stem, "sha256": sha256(path)}
        protocol = starts.dynamics(task.protocol)
        starts.Starts(task.id, expert, protocol, tuple(recorded)).write(self.out, command)
        print(self.out)


@dataclass(frozen=True)
class Reproduce:
    """Measure a table of Policy Distillation (Rusu et al. 2016) here, beside what was published.

    losses: MSE, NLL and KL for students of the teacher's size (table 1). compression: net1, net2, net3 (table B1).
    multitask-3: Multi-DQN, NLL and KL for several games in one network (table B2). multitask-10: every game there is in
    one network (table B1). online: students of a DQN that is still learning (figure 5).

        potstill reproduce compression --teachers zoo ~/teachers --quick --out runs/quick

    Run again with --resume it goes on: finished runs aren't made again.
    """

    table: Annotated[Table, tyro.conf.Positional]
    """Which."""
    out: Path
    """The folder of its runs; must be empty, unless --resume."""
    options: Flat[ReproduceOptions] = field(default_factory=ReproduceOptions)
    resume: bool = False
    """Go on with what is in --out (repeat its other options), or begin. Finished runs may be another machine's (name
    its --memory-hours). With more --episodes they are scored anew."""

    def run(self, command: list[str]) -> None:
        from potstill.cli.show import show_progress, show_table
        from potstill.report import write_report
        from potstill.reproduce.run import collect, prepare, run
        from potstill.run_directory import FILES, OF_THE_MACHINE, open_run

        reproduction = prepare(self.table, self.options)
        if reproduction.missing:
            print(f"left out, no teacher: {', '.join(reproduction.missing)}", file=sys.stderr)
        record = {"table": self.table, **reproduction.options.record(), "games": reproduction.games}
        may_differ = ("teachers", "episodes", *FILES, *OF_THE_MACHINE)  # its runs check theirs
        open_run(self.out, self.resume, command, record, may_differ)
        with resumable(command):
            for number, (name, progress) in enumerate(run(reproduction, self.out, command), 1):
                if sys.stderr.isatty():
                    print(f"{name} ({number} of {len(reproduction.jobs)})", file=sys.stderr)
                show_progress(progress)
            collect(reproduction, self.out, command)
        page = write_report(self.out)
        show_table(self.out, page)


@dataclass(frozen=True)
class Bench:
    """Measure each stage of the loop against its own limit on this machine, in turns. Takes two to ten minutes.

    play: environments stepped and remembered, against ale-py's bare vector env. label: the teacher's outputs, against
    its network's forward on a resident batch. sample: stacks out of the memory, against copying as many bytes. learn:
    the students' updates, against their training steps on a resident batch. loop: all of it, against the sum of these
    limits.
    """

    options: Flat[DistillOptions] = field(default_factory=demo_options)
    rounds: int = 5
    """Each stage and its limit are measured once a round; rates, limits and fractions are medians over the rounds."""
    json: bool = False
    """Print one JSON object instead of a table."""

    def run(self, command: list[str]) -> None:
        from potstill.bench import bench
        from potstill.cli.show import print_json, show_bench, show_progress
        from potstill.distill.plan import plan

        must_be("at least 1", self, "rounds")
        if self.options.data:
            raise PotstillError("bench: it plays, and takes no --data")
        if self.options.driver != "teacher":
            raise PotstillError("bench: the teacher plays throughout; leave out --driver")
        planned = plan(self.options)
        measured = show_progress(bench(planned, self.rounds))
        stages = {stage: figures.record() for stage, figures in measured.items()}
        if self.json:
            print_json(command, planned.threads, **stages)
        else:
            show_bench(stages)


@dataclass(frozen=True)
class Cost:
    """Say what policies cost: parameters, multiplications, bytes, latency and throughput on one thread.

    Bytes are the file's: a Stable-Baselines3 zip holds its critic and optimiser, too. Of a file of several tasks the
    multiplications and times are those of --task, or of its first.

    Each is measured in PyTorch and, if `potstill[onnx]` is installed, in onnxruntime; all of them in turns. The
    teacher first, the others are compared with it:

        potstill cost zoo:pong runs/demo/students/net3.safetensors net3-int8.onnx
    """

    policy: Several[Path]
    """Policies, as for `potstill evaluate`."""
    task: str | None = None
    """What they play, where files don't say it."""
    trust: bool = False
    """The files may be programs (TorchScript, torch.export), and are run: only for files of people you trust."""
    json: bool = False
    """Print one JSON object instead of a table."""

    def run(self, command: list[str]) -> None:
        from potstill.cli.show import print_json, show_costs, show_progress
        from potstill.cost import costs

        if not self.policy:
            raise PotstillError("cost: name at least one POLICY file")
        measured = show_progress(costs(self.policy, self.task, self.trust))
        if self.json:
            print_json(command, 1, policies=measured)
        else:
            show_costs(measured)
