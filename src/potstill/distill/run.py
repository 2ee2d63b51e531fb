"""A whole run: from the teacher's file to students, their scores and `result.json`.

runs/<name>/config.json    what to run again       metrics.jsonl   one JSON object a line
           /checkpoint/    where to go on from     students/       policy files
           /result.json    the numbers            events.out.*    the metrics for TensorBoard, where it is installed
"""

import importlib.metadata
import json
import math
import os
import platform
import shutil
import time
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch

from potstill.distill import checkpoint
from potstill.distill.loop import Progress, State, Student, distill, new_student, num_hours, play, rows_until
from potstill.distill.options import STEPS_PER_HOUR, Options, name_students
from potstill.distill.recording import MANIFEST, Recording, seal_hour
from potstill.errors import PotstillError
from potstill.evaluate import Player, Score, evaluate, normalised, random_player, relative
from potstill.files import read_json, sha256, write_json
from potstill.memory import Replay
from potstill.networks import NetworkSpec
from potstill.policy import TEMPERATURE, Meaning, Policy
from potstill.tasks import Envs, EpisodeSeeds, Task, make_task
from potstill.tasks.spec import Act
from potstill.teachers import load
from potstill.version import __version__

SCHEMA = 1
RANDOM_SHARE = 0.25
"""Episodes of the random policy to one of the teacher's: it is far away, and its returns vary little."""


@dataclass(frozen=True)
class Plan:
    """The options with every default resolved."""

    options: Options
    teacher: Policy | None
    """None: learn from recorded play, and score nothing."""
    teacher_record: dict[str, Any]
    """The teacher's name, sha256, network, parameters and outputs."""
    recording: Recording | None
    task: Task
    students: dict[str, NetworkSpec]
    temperature: float
    bf16: bool
    threads: int

    @property
    def labeller(self) -> Policy | None:
        """The teacher as it plays for its students and labels; it is scored as it is."""
        if self.teacher and self.bf16 and self.teacher.outputs_are == "logits":
            return self.teacher.in_bfloat16()
        return self.teacher

    def record(self) -> dict[str, Any]:
        """What decides the weights, as JSON: `config.json`'s part that a resumed run must share."""
        return {
            **self.options.record(),
            "student": {name: str(spec) for name, spec in self.students.items()},
            "task": self.task.id,
            "temperature": self.temperature,
            "precision": "bf16" if self.bf16 else "fp32",
            "threads": self.threads,
            "teacher_sha256": self.teacher_record["sha256"],
            "data_sha256": self.recording and sha256(self.recording.folder / MANIFEST),
            "protocol": self.task.protocol.record(),
        }


def plan(options: Options) -> Plan:
    """Resolve the options and check them against the teacher and its task, before any work starts.

    Raises:
        PotstillError: something doesn't fit; the message names it.
    """
    options.check()
    check_device(options.device)
    recording = Recording.open(options.data) if options.data else None
    if recording:
        options = replace(
            options, envs=recording.envs, play_epsilon=recording.play_epsilon, act=recording.task.protocol.act
        )
        if options.hours > recording.hours:
            raise PotstillError(
                f"--hours {options.hours}: {options.data} holds {recording.hours:g}; add --hours {recording.hours:g}"
            )
    teacher = load(options.teacher) if options.teacher else None
    if teacher and options.teacher:
        teacher_record = describe(teacher, options.teacher)
        if recording and teacher_record["sha256"] != recording.teacher["sha256"]:
            raise PotstillError(f"--teacher {options.teacher} is not the one that played --data {options.data}")
        task_id = options.task or (recording.task.id if recording else teacher.task)
        if task_id is None:
            raise PotstillError(
                f"{options.teacher} doesn't say what it plays: add --task, for example --task ALE/Pong-v5"
            )
        task = make_task(task_id).under(act=options.act)
        check_plays(teacher, task, str(options.teacher))
        if recording and task != recording.task:
            raise PotstillError(f"--data {options.data} is play of {recording.task.id}, or by another protocol")
    else:
        assert recording is not None, "checked by the options"
        task, teacher_record = recording.task, recording.teacher
    outputs_are: Meaning = teacher_record["outputs"]
    if options.act == "sample" and (outputs_are == "q" or options.loss == "mse"):
        raise PotstillError("--act sample: Q-values are no distribution to draw from; use --act greedy")
    students = {name: NetworkSpec.parse(spec) for name, spec in name_students(options.student).items()}
    for spec in students.values():
        with torch.device("meta"):  # refuses a network that can't see the task, and takes no memory
            Policy.new(spec, "logits", task.observation_shape, task.observation_dtype, task.num_actions)
    if min(options.memory_hours, options.hours) * STEPS_PER_HOUR < options.envs * 4 * task.protocol.stack:
        raise PotstillError(f"--memory-hours {options.memory_hours}: too small for {options.envs} environments")
    bf16 = options.precision == "bf16" or (options.precision == "auto" and task.is_atari and _has_bf16(options.device))
    return Plan(
        options=options,
        teacher=teacher,
        teacher_record=teacher_record,
        recording=recording,
        task=task,
        students=students,
        temperature=options.temperature or TEMPERATURE[outputs_are],
        bf16=bf16,
        threads=options.threads or os.cpu_count() or 1,
    )


def describe(teacher: Policy, path: Path) -> dict[str, Any]:
    """What a result says of a teacher, its score apart."""
    return {
        "name": path.stem,
        "sha256": sha256(path),
        "network": str(teacher.spec),
        "parameters": teacher.num_parameters,
        "outputs": teacher.outputs_are,
    }


def check_device(device: str) -> None:
    """Check that a device is there.

    Raises:
        PotstillError: it isn't.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise PotstillError("--device cuda: PyTorch sees no GPU here; use --device cpu")


def check_plays(policy: Policy, task: Task, name: str) -> None:
    """Check that a policy fits a task.

    Raises:
        PotstillError: its observations or actions are others than the task's.
    """
    if policy.observation_shape != task.observation_shape or policy.num_actions != task.num_actions:
        raise PotstillError(
            f"{name} sees {policy.observation_shape} and has {policy.num_actions} actions,"
            f" {task.id} shows {task.observation_shape} and has {task.num_actions}: name its own task with --task"
        )


def run(plan: Plan, out: Path, resume: bool, command: list[str]) -> Iterator[Progress]:
    """Distil, evaluate, write everything to `out`. Complete when the iterator ends.

    Args:
        plan: of `plan(options)`.
        out: the run directory.
        resume: go on from `out`'s checkpoint.
        command: what was typed, for the record.

    Raises:
        PotstillError: `out` holds another run, or can't be written.
    """
    begun = time.perf_counter()
    _open_run_directory(plan, out, resume, command)
    if (out / "result.json").exists():
        return
    if plan.teacher:
        plan.teacher.to(plan.options.device)
    source = plan.recording or plan.labeller
    assert source is not None
    state = new_state(plan)
    before = 0.0
    if resume and checkpoint.exists(out / "checkpoint"):
        checkpoint.load(out / "checkpoint", state, plan.options)
        before = state.seconds.get("total", 0.0)
    mode = "r+b" if (out / "metrics.jsonl").exists() else "w+b"
    with (out / "metrics.jsonl").open(mode) as metrics, _tensorboard(out, state.updates) as write_events:
        _rewind(metrics, state.hours)
        for progress in distill(source, state, plan.options, plan.temperature, plan.bf16, plan.threads):
            if progress.stage == "learn":
                line = {
                    "hour": progress.hour,
                    "update": progress.done,
                    "loss": progress.losses,
                    "agreement": progress.agreement,
                }
                metrics.write(json.dumps(line).encode() + b"\n")
                metrics.flush()
                write_events(progress)
            if progress.stage == "hour":
                state.seconds["total"] = before + time.perf_counter() - begun
                os.fsync(metrics.fileno())
                checkpoint.save(out / "checkpoint", state, plan.options)
            yield progress
    if state.envs:
        state.envs.close()
    students = {student.name: student.policy for student in state.students}
    for name, policy in students.items():
        policy.network.requires_grad_(False)
        policy.save(out / "students" / f"{name}.safetensors")
    budget = {
        "teacher_steps": rows_until(plan.options.hours, plan.options) * plan.options.envs,
        "updates": state.updates,
    }
    seconds = state.seconds
    del state  # the memory: gigabytes that evaluation doesn't need
    evaluation = time.perf_counter()
    scores, agreement = yield from _evaluate(plan, students)
    seconds["evaluate"] = time.perf_counter() - evaluation
    seconds["total"] = before + time.perf_counter() - begun
    result = {
        "schema": SCHEMA,
        "command": command,
        "seed": plan.options.seed,
        "versions": versions(),
        "machine": machine(plan.threads),
        "protocol": plan.task.protocol.record(),
        **_results(plan, students, scores, agreement),
        "budget": {**budget, "seconds": seconds},
    }
    write_json(out / "result.json", result)
    shutil.rmtree(out / "checkpoint", ignore_errors=True)


def new_state(plan: Plan) -> State:
    """Environments, an empty memory and fresh students, all from the seed."""
    options, task = plan.options, plan.task
    rows = max(rows_until(min(options.hours, options.memory_hours), options), task.protocol.stack)
    play_rng, sample_rng = (np.random.default_rng([options.seed, stream]) for stream in (2, 3))
    students: list[Student] = []
    outputs_are = plan.teacher_record["outputs"] if options.loss == "mse" else "logits"
    for index, (name, spec) in enumerate(plan.students.items()):
        provenance = {
            "method": "policy distillation (Rusu et al. 2016)",
            "teacher": plan.teacher_record["name"],
            "teacher_sha256": plan.teacher_record["sha256"],
            "loss": options.loss,
            "temperature": plan.temperature,
            "hours": options.hours,
            "seed": options.seed,
            "potstill": __version__,
        }
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(np.random.SeedSequence([options.seed, 4, index]).generate_state(1)[0]))
            policy = Policy.new(
                spec, outputs_are, task.observation_shape, task.observation_dtype, task.num_actions,
                task=task.id, provenance=provenance,
            )  # fmt: skip
        policy.to(options.device)
        students.append(new_student(name, policy, options))
    envs = None if plan.recording else Envs(task, options.envs, EpisodeSeeds(options.seed, "training"), plan.threads)
    return State(
        envs=envs,
        memory=Replay(
            rows,
            options.envs,
            task.observation_shape,
            task.protocol.stack,
            task.observation_dtype,
            task.num_actions,
        ),
        students=students,
        play_rng=play_rng,
        sample_rng=sample_rng,
    )


def _evaluate(
    plan: Plan, students: dict[str, Policy]
) -> Generator[Progress, None, tuple[dict[str, Score], dict[str, float]]]:
    """Score the teacher, the students and chance; and how often students agree with the teacher on its states."""
    options, task, teacher = plan.options, plan.task, plan.teacher
    if teacher is None:
        return {}, {}
    act, epsilon = task.protocol.act, task.protocol.epsilon
    episodes = options.episodes
    players = {"teacher": Player(teacher, act, epsilon, episodes)}
    players |= {f"student {name}": Player(policy, act, epsilon, episodes) for name, policy in students.items()}
    if teacher.outputs_are == "logits":
        players["teacher, other act"] = Player(teacher, _other(act), epsilon, episodes)
    players["random"] = random_player(task, math.ceil(episodes * RANDOM_SHARE))
    returns = [[0.0] * player.episodes for player in players.values()]
    agreed = np.zeros(len(students), np.int64)
    states = done = 0
    for tally in evaluate(list(players.values()), task, options.seed, plan.threads, list(students.values())):
        for player, episode, score in tally.finished:
            returns[player][episode] = score
        done += len(tally.finished)
        states += tally.states
        agreed += tally.agreed
        yield Progress("evaluate", done, sum(map(len, returns)), num_hours(options))
    scores = {name: Score(tuple(of)) for name, of in zip(players, returns, strict=True)}
    return scores, dict(zip(students, (agreed / states).tolist(), strict=True))


def _results(
    plan: Plan, students: dict[str, Policy], scores: dict[str, Score], agreement: dict[str, float]
) -> dict[str, Any]:
    """`result.json`'s part about policies; null where nothing was played."""
    options, task = plan.options, plan.task
    act = task.protocol.act

    def record(of: str) -> dict[str, Any] | None:
        return scores[of].record() if of in scores else None

    teacher_record = {"task": task.id, **plan.teacher_record, "score": record("teacher")}
    if "teacher, other act" in scores:
        teacher_record["other_act"] = {"act": _other(act), "score": record("teacher, other act")}
    records: list[dict[str, Any]] = []
    for name, student in students.items():
        ratio = share = None
        if scores:
            score = scores[f"student {name}"]
            ratio = relative(score, scores["teacher"])
            share = normalised(score, scores["teacher"], scores["random"])
        played = {
            "task": task.id,
            "score": record(f"student {name}"),
            "relative": ratio and ratio.record(),
            "normalised": share and share.record(),
            "random": scores["random"].mean if scores else None,
            "agreement": agreement.get(name),
        }
        records.append(
            {
                "name": name,
                "spec": str(student.spec),
                "parameters": student.num_parameters,
                "file": f"students/{name}.safetensors",
                "loss": options.loss,
                "temperature": plan.temperature,
                "seed": options.seed,
                "tasks": [played],
            }
        )
    return {"teachers": [teacher_record], "students": records, "random": record("random")}


def _other(act: Act) -> Act:
    return "sample" if act == "greedy" else "greedy"


def record(plan: Plan, out: Path, command: list[str]) -> Iterator[Progress]:
    """Play and label, and write every hour to `out`. What is written is a whole recording after each hour.

    Raises:
        PotstillError: `out` is not empty, or can't be written.
    """
    if out.exists() and any(out.iterdir()):
        raise PotstillError(f"--out {out} is not empty: choose another folder")
    options, teacher = plan.options, plan.labeller
    assert teacher is not None
    teacher.to(options.device)
    recording = Recording(out, plan.task, plan.teacher_record, options.envs, options.play_epsilon, 0.0, [])
    state = new_state(replace(plan, options=replace(options, memory_hours=min(options.hours, 1.0))))
    assert state.envs is not None
    with ThreadPoolExecutor(plan.threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        for hour in range(1, num_hours(options) + 1):
            first_row = state.memory.rows
            yield from play(teacher, state, rows_until(hour, options), hour, options, pool, plan.threads)
            seal_hour(recording, state.memory, hour, first_row)
            recording = replace(recording, hours=min(hour, options.hours))
            recording.write(command)
            yield Progress("hour", hour, num_hours(options), hour)
    state.envs.close()


def versions() -> dict[str, str]:
    """Of what the numbers depend on."""
    found = {"potstill": __version__, "python": platform.python_version()}
    for name in ("torch", "numpy", "gymnasium", "ale-py"):
        with suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def machine(threads: int) -> dict[str, Any]:
    """What the seconds were measured on."""
    return {
        "system": platform.system(),
        "processor": platform.machine(),
        "cores": os.cpu_count(),
        "threads": threads,
    }


def _open_run_directory(plan: Plan, out: Path, resume: bool, command: list[str]) -> None:
    config = out / "config.json"
    record = plan.record()
    if not resume:
        if config.exists() or (out.exists() and any(out.iterdir())):
            raise PotstillError(f"--out {out} is not empty: add --resume to go on with it, or choose another folder")
        write_json(config, {"schema": SCHEMA, "command": command, "versions": versions(), "run": record})
        return
    if not config.exists():
        raise PotstillError(f"--resume: there is no run in {out}; leave --resume out to start one")
    before = read_json(config)
    before = before.get("run", {}) if isinstance(before, dict) else {}
    now = json.loads(json.dumps(record))
    for key in {**before, **now}:
        if key != "teacher" and before.get(key) != now.get(key):
            raise PotstillError(
                f"--resume: {out} was begun with {key.replace('_', '-')} {before.get(key)}, not {now.get(key)};"
                " repeat its options, or choose another --out"
            )


@contextmanager
def _tensorboard(out: Path, updates: int) -> Iterator[Callable[[Progress], None]]:
    """Writes a learning record as TensorBoard events; writes nothing where TensorBoard is not installed."""
    if find_spec("tensorboard") is None:
        yield lambda progress: None
        return
    from torch.utils.tensorboard.writer import SummaryWriter

    with SummaryWriter(str(out), purge_step=updates + 1) as writer:

        def write(progress: Progress) -> None:
            for name in progress.losses:
                writer.add_scalar(f"loss/{name}", progress.losses[name], progress.done)
                writer.add_scalar(f"agreement/{name}", progress.agreement[name], progress.done)

        yield write


def _rewind(metrics: Any, hours: int) -> None:
    """Drop the lines of hours that will be run again."""
    lines = metrics.read().splitlines(keepends=True)
    kept = 0
    for line in lines:
        try:
            if json.loads(line)["hour"] > hours:
                break
        except (ValueError, KeyError):  # cut off by a kill
            break
        kept += len(line)
    metrics.seek(kept)
    metrics.truncate()


def _has_bf16(device: str) -> bool:
    """Whether bfloat16 arithmetic is in the hardware (elsewhere it is emulated, and slower)."""
    if device == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
