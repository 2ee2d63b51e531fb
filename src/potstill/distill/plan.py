"""From options to a plan: the teacher read, the task made, everything checked before any work starts."""

import os
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch

from potstill.actions import read_actions
from potstill.distill.loop import State, Student, new_student, plays_ahead, rows_until, window
from potstill.distill.options import STEPS_PER_HOUR, Options, name_students
from potstill.distill.recording import MANIFEST, Recording
from potstill.errors import PotstillError
from potstill.files import sha256
from potstill.machine import check_device, has_bf16
from potstill.memory import Replay
from potstill.networks import NetworkSpec
from potstill.policy import TEMPERATURE, Meaning, Policy
from potstill.tasks import Envs, EpisodeSeeds, Task, make_task
from potstill.teachers import find, load
from potstill.version import __version__


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
    student_sees: tuple[tuple[int, int], ...] | None
    """Which parts of vectors the students see; None: all."""
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


def plan(options: Options, teacher: Policy | None = None) -> Plan:
    """Resolve the options and check them against the teacher and its task, before any work starts.

    Args:
        options: of the run.
        teacher: where it is no file, as of `Policy.from_callable`.

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
    teacher, teacher_record, task = _teacher(options, teacher, recording)
    outputs_are: Meaning = teacher_record["outputs"]
    if options.act == "sample" and (outputs_are == "q" or (options.loss == "mse" and outputs_are == "logits")):
        raise PotstillError("--act sample: Q-values are no distribution to draw from; use --act greedy")
    students = {name: NetworkSpec.parse(spec) for name, spec in name_students(options.student).items()}
    student_sees = None if options.student_sees is None else task.parts("--student-sees", options.student_sees)
    for spec in students.values():
        with torch.device("meta"):  # refuses a network that can't see the task, and takes no memory
            Policy.new(
                spec, "logits", task.observation_shape, task.observation_dtype, task.num_outputs, sees=student_sees
            )
    if min(options.memory_hours, options.hours) * STEPS_PER_HOUR < options.envs * 4 * task.protocol.stack:
        raise PotstillError(f"--memory-hours {options.memory_hours}: too small for {options.envs} environments")
    bf16 = options.precision == "bf16" or (options.precision == "auto" and task.is_atari and has_bf16(options.device))
    return Plan(
        options=options,
        teacher=teacher,
        teacher_record=teacher_record,
        recording=recording,
        task=task,
        students=students,
        student_sees=student_sees,
        temperature=options.temperature or TEMPERATURE[outputs_are],
        bf16=bf16,
        threads=options.threads or os.cpu_count() or 1,
    )


def _teacher(
    options: Options, teacher: Policy | None, recording: Recording | None
) -> tuple[Policy | None, dict[str, Any], Task]:
    """The teacher, what a result says of it, and what it plays."""
    if teacher is not None:
        name, record = str(teacher.spec), {"name": str(teacher.spec), "sha256": None}
    elif options.teacher is not None:
        name, path = str(options.teacher), find(options.teacher)
        teacher, record = load(path, options.task, options.trust), {"name": path.stem, "sha256": sha256(path)}
    elif recording is not None:
        return None, recording.teacher, recording.task
    else:
        raise PotstillError("name the policy to distil with --teacher, or recorded play with --data")
    if recording and record["sha256"] != recording.teacher["sha256"]:
        raise PotstillError(f"--teacher {name} is not the one that played --data {options.data}")
    task_id = options.task or (recording.task.id if recording else teacher.task)
    if task_id is None:
        raise PotstillError(f"{name} doesn't say what it plays: add --task, for example --task ALE/Pong-v5")
    task = make_task(task_id).under(act=options.act, time_feature=teacher.time_feature)
    if options.teacher_sees is not None:
        teacher.seeing(task.parts("--teacher-sees", options.teacher_sees), task.observation_shape)
    check_plays(teacher, task, name)
    if recording and task != recording.task:
        raise PotstillError(f"--data {options.data} is play of {recording.task.id}, or by another protocol")
    return teacher, {**record, **describe(teacher)}, task


def describe(teacher: Policy) -> dict[str, Any]:
    """What a result says of a teacher, its name, checksum and score apart."""
    record: dict[str, Any] = {
        "network": str(teacher.spec),
        "parameters": teacher.num_parameters,
        "outputs": teacher.outputs_are,
    }
    return record if teacher.actions is None else {**record, "actions": asdict(teacher.actions)}


def check_plays(policy: Policy, task: Task, name: str) -> None:
    """Check that a policy fits a task.

    Raises:
        PotstillError: its observations or actions are others than the task's.
    """
    bounds = policy.actions and (policy.actions.low, policy.actions.high)
    if (policy.actions is None) != (task.bounds is None):
        kinds = {True: "discrete", False: "continuous"}
        raise PotstillError(
            f"{name} has {kinds[policy.actions is None]} actions, {task.id} {kinds[task.bounds is None]} ones: name its"
            " own task with --task"
        )
    if bounds and task.bounds and policy.num_actions == task.num_actions and not np.allclose(bounds, task.bounds):
        raise PotstillError(
            f"{name} acts within {bounds}, {task.id} within {task.bounds}: name its own task with --task"
        )
    if policy.observation_shape != task.observation_shape or policy.num_actions != task.num_actions:
        part = policy.num_actions == task.num_actions and len(policy.observation_shape) == 1 == len(
            task.observation_shape
        )
        raise PotstillError(
            f"{name} sees {policy.observation_shape} and has {policy.num_actions} actions,"
            f" {task.id} shows {task.observation_shape} and has {task.num_actions}: name its own task with --task"
            + (", or what it sees of this one with --teacher-sees (evaluate: --sees)" if part else "")
        )


def new_state(plan: Plan) -> State:
    """Environments, an empty memory and fresh students, all from the seed."""
    options, task = plan.options, plan.task
    ahead = rows_until(1, options) if plays_ahead(options, plan.threads) else 0
    rows = max(min(window(options) + ahead, rows_until(options.hours, options)), task.protocol.stack)
    play_rng, sample_rng = (np.random.default_rng([options.seed, stream]) for stream in (2, 3))
    students: list[Student] = []
    actions = plan.teacher_record.get("actions")
    actions = actions and read_actions(actions, task.num_actions)
    outputs_are = plan.teacher_record["outputs"] if options.loss == "mse" or actions else "logits"
    for index, (name, spec) in enumerate(plan.students.items()):
        provenance: dict[str, Any] = {
            "method": "policy distillation (Rusu et al. 2016)",
            "teacher": plan.teacher_record["name"],
            "teacher_sha256": plan.teacher_record["sha256"],
            "loss": options.loss,
            "temperature": plan.temperature,
            "hours": options.hours,
            "seed": options.seed,
            "potstill": __version__,
        }
        if task.protocol.time_feature:
            provenance["time_feature"] = True
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(np.random.SeedSequence([options.seed, 4, index]).generate_state(1)[0]))
            policy = Policy.new(
                spec, outputs_are, task.observation_shape, task.observation_dtype, task.num_actions,
                plan.student_sees, task=task.id, provenance=provenance, actions=actions,
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
            getattr(torch, task.observation_dtype),
            task.num_outputs,
            options.device,
        ),
        students=students,
        play_rng=play_rng,
        sample_rng=sample_rng,
    )
