"""From options to a plan: the teachers read, their tasks made, everything checked before any work starts."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from potstill.choices import Device
from potstill.distill.options import DistillOptions, name_students
from potstill.distill.recording import Recording
from potstill.distill.schedule import STEPS_PER_HOUR, capacity, num_hours, rows_until, updates_until
from potstill.errors import PotstillError
from potstill.machine import cores, learns_in_bf16, memory_bytes, prepare_device
from potstill.memory import step_bytes
from potstill.networks import NetworkSpec
from potstill.policies import check_plays, id_of_task, sees_time
from potstill.policy import TEMPERATURE, Meaning, Policy
from potstill.tasks import Protocol, Task, check_share_a_trunk, make_task
from potstill.tasks.starts import Starts
from potstill.teachers import checksum, find, load

THREADS_TO_PLAY_AHEAD = 4
"""From how many threads on the next hour is played while one is learnt. Two are busy without it: docs/log.md."""


@dataclass(frozen=True)
class Lesson:
    """A task and who teaches it."""

    task: Task
    teacher: Policy | None
    """None: learn from recorded play, and score nothing."""
    teacher_record: dict[str, Any]
    """The teacher's name, sha256, network, parameters and outputs; of a Gaussian its actions, too."""
    recording: Recording | None
    temperature: float
    bf16: bool
    starts: Starts | None
    """Where scored episodes begin; None: as the protocol says."""
    size: int | None
    """Bytes of the teacher's file; None: there is none."""

    @property
    def labeller(self) -> Policy | None:
        """The teacher, as it is now, as it plays for its students and labels; it is scored as it is."""
        frames = self.task.observation_dtype == "uint8"
        if self.teacher and self.bf16 and frames and self.teacher.outputs_are == "logits":
            return self.teacher.in_bfloat16()
        return self.teacher

    @property
    def source(self) -> Policy | Recording:
        """Where play and labels come from."""
        source = self.recording or self.labeller
        assert source is not None
        return source


@dataclass(frozen=True)
class Plan:
    """The options with every default resolved."""

    options: DistillOptions
    lessons: tuple[Lesson, ...]
    """One a task; a student has a head for each."""
    students: dict[str, NetworkSpec]
    student_sees: tuple[tuple[int, int], ...] | None
    """Which parts of vectors the students see; None: all."""
    threads: int
    ahead: bool
    """Whether an hour is played while the one before it is learnt."""

    @property
    def bf16(self) -> bool:
        """Whether students learn in bfloat16."""
        return self.lessons[0].bf16

    @property
    def protocol(self) -> Protocol:
        """How every task is played."""
        return self.lessons[0].task.protocol

    @property
    def scored_by(self) -> Protocol:
        """How every score is measured."""
        task, starts = self.lessons[0].task, "expert" if self.lessons[0].starts else None
        return task.under(starts=starts).protocol

    @property
    def temperatures(self) -> list[float]:
        return [lesson.temperature for lesson in self.lessons]

    @property
    def losses(self) -> dict[str, str]:
        """By which loss each student learns."""
        given = self.options.loss
        return dict(zip(self.students, given * len(self.students) if len(given) == 1 else given, strict=True))

    def teaching(self, students: tuple[str, ...]) -> "Plan":
        """The same for other students, of which it is known that they can see the task."""
        return replace(self, options=replace(self.options, student=students), students=_specs(students))

    def record(self) -> dict[str, Any]:
        """What decides the weights, as JSON: `config.json`'s part that a resumed run must share."""
        recordings = [lesson.recording for lesson in self.lessons]
        return {
            **self.options.record(),
            "student": {name: str(spec) for name, spec in self.students.items()},
            "task": [lesson.task.id for lesson in self.lessons],
            "temperature": self.temperatures,
            "precision": "bf16" if self.bf16 else "fp32",
            "threads": self.threads,
            "teacher_sha256": [lesson.teacher_record["sha256"] for lesson in self.lessons],
            "data_sha256": [recording and recording.checksum(num_hours(self.options)) for recording in recordings],
            "starts_sha256": [lesson.starts and lesson.starts.sha256 for lesson in self.lessons],
            "protocol": self.protocol.record(),
        }


def plan(options: DistillOptions, *teachers: Policy, may_play_ahead: bool = True) -> Plan:
    """Resolve the options and check them against the teachers and their tasks, before any work starts.

    Args:
        options: of the run.
        teachers: where they are no files, as of `Policy.from_callable`.
        may_play_ahead: whether an hour may be played before the one before it is learnt; not where the teacher changes.

    Raises:
        PotstillError: something doesn't fit; the message names it.
    """
    options.check()
    prepare_device(options.device)
    recordings = [Recording.open(folder) for folder in options.data]
    if recordings:
        options = _as_recorded(options, recordings)
    lessons = _lessons(options, teachers, recordings)
    if len({lesson.task.id for lesson in lessons}) < len(lessons):
        raise PotstillError("two teachers of one task: a student has a head a task; distil them one by one")
    first = lessons[0].task
    check_share_a_trunk([lesson.task for lesson in lessons])
    if options.batch_norm and options.batch < 2 * len(lessons):
        raise PotstillError(f"--batch {options.batch}: batch normalisation needs two samples of each task")
    students = _specs(options.student, options.loss)
    if len(options.loss) not in {1, len(students)}:
        raise PotstillError(f"--loss {' '.join(options.loss)}: name one, or one for each of {len(students)} students")
    student_sees = None
    if options.student_sees is not None:
        parts = {lesson.task.parts("--student-sees", options.student_sees) for lesson in lessons}
        if len(parts) > 1:
            raise PotstillError(f"--student-sees {options.student_sees}: it lies elsewhere in each task; name slices")
        [student_sees] = parts
    for spec in students.values():
        sketch(spec, first, student_sees)
    flag = min("hours", "memory_hours", key=lambda name: getattr(options, name))
    last = rows_until(options.hours, options) - rows_until(num_hours(options) - 1, options)
    if rows_until(hours := getattr(options, flag), options) < 4 * first.protocol.stack or last < 1:
        raise PotstillError(f"--{flag.replace('_', '-')} {hours:g}: too small for {options.envs} environments")
    if updates_until(options.hours, options, len(lessons)) < 1:
        raise PotstillError(f"--updates {options.updates}: none in {options.hours:g} hours of play; name more")
    threads = cores(options.threads)
    ahead = may_play_ahead and plays_ahead(options, threads)
    return Plan(options, lessons, students, student_sees, threads, ahead)


def sketch(spec: NetworkSpec, task: Task, sees: tuple[tuple[int, int], ...] | None) -> Policy:
    """A student without memory for its weights.

    Raises:
        PotstillError: such a network can't see the task.
    """
    with torch.device("meta"):
        return Policy.new(spec, "logits", task.observation_shape, task.observation_dtype, task.num_outputs, sees)


def _specs(students: tuple[str, ...], losses: tuple[str, ...] = ()) -> dict[str, NetworkSpec]:
    return {name: NetworkSpec.parse(spec) for name, spec in name_students(students, losses).items()}


def plays_ahead(options: DistillOptions, threads: int) -> bool:
    """Whether an hour can be played while the one before it is learnt: what is learnt is the same, sooner."""
    return options.student_share == 0 and (options.device == "cuda" or threads >= THREADS_TO_PLAY_AHEAD)


def hours_that_fit(tasks: Sequence[str], device: Device, threads: int, besides: float = 0) -> float:
    """Hours of play that two thirds of a device's memory hold of each task besides others: one at least, which a plan
    refuses where it doesn't fit, and ten at most."""
    an_hour = STEPS_PER_HOUR * sum(step_bytes(make_task(task)) for task in tasks)
    ahead = plays_ahead(DistillOptions(device=device), cores(threads))
    return min(10.0, max(1.0, memory_bytes(device) * 2 / 3 // an_hour - ahead - besides))


def check_memory(plan: Plan) -> None:
    """Check that a device holds the play to learn from; once all is learnt, it needn't.

    Raises:
        PotstillError: it doesn't, with the mend.
    """
    options = plan.options
    rows, hours = capacity(options, plan.ahead), min(options.memory_hours, options.hours)
    needed = rows * options.envs * sum(step_bytes(lesson.task) for lesson in plan.lessons)
    if needed > (there := memory_bytes(options.device)):
        fits = int(hours * there / needed * 0.7)
        mend = f"add --memory-hours {fits}" if fits else "an hour is the least; name --hours below 1, or fewer teachers"
        raise PotstillError(
            f"the play to remember takes {needed / 2**30:.0f} GB, this machine has {there / 2**30:.0f}: {mend}"
        )


def check_students(plan: Plan) -> None:
    """Check that somebody is to learn.

    Raises:
        PotstillError: nobody is.
    """
    if not plan.students:
        raise PotstillError("--student: name at least one network to distil into, as in --student net1 net3")


def _as_recorded(options: DistillOptions, recordings: list[Recording]) -> DistillOptions:
    """The options as the play was recorded."""
    first = recordings[0]
    for folder, recording in zip(options.data, recordings, strict=True):
        if options.hours > recording.hours:
            raise PotstillError(
                f"--hours {options.hours}: {folder} holds {recording.hours:g}; add --hours {recording.hours:g}"
            )
        if (recording.envs, recording.play_epsilon) != (first.envs, first.play_epsilon):
            raise PotstillError(f"--data {folder}: recorded with other --envs or --play-epsilon than {options.data[0]}")
    recorded = {"envs": first.envs, "play_epsilon": first.play_epsilon, "act": first.task.protocol.act}
    for name, value in recorded.items():
        if (given := getattr(options, name)) not in (value, getattr(DistillOptions, name)):
            flag = name.replace("_", "-")
            raise PotstillError(f"--{flag} {given}: --data {options.data[0]} was recorded with {value}; leave it out")
    return replace(options, **recorded)


def _lessons(options: DistillOptions, teachers: tuple[Policy, ...], recordings: list[Recording]) -> tuple[Lesson, ...]:
    count = len(teachers or options.teacher or recordings)
    if not count:
        raise PotstillError("name the policy to distil with --teacher, or recorded play with --data")
    for flag, given in (("task", options.task), ("data", options.data)):
        if given and len(given) != count:
            raise PotstillError(f"--{flag} {' '.join(map(str, given))}: name one for each of {count} teachers")
    return tuple(
        _lesson(options, index, teachers[index] if teachers else None, recordings[index] if recordings else None)
        for index in range(count)
    )


def _lesson(options: DistillOptions, index: int, teacher: Policy | None, recording: Recording | None) -> Lesson:
    """The options' lesson of this number, taught by `teacher`, by the options' file, or by recorded play alone."""
    wanted = options.task[index] if options.task else None
    record: dict[str, Any]
    name, size = "", None
    if teacher:
        name = str(teacher.spec)
        record = {"name": name, "sha256": None}
    elif options.teacher:
        name, path = str(options.teacher[index]), find(options.teacher[index])
        teacher, size = load(path, wanted, options.trust), path.stat().st_size
        record = {"name": path.stem, "sha256": checksum(path, teacher)}
    else:
        assert recording is not None
        record = recording.teacher
    if teacher:
        teacher, task = _playing(options, teacher, wanted, name, recording)
        if recording and record["sha256"] != recording.teacher["sha256"]:
            raise PotstillError(f"--teacher {name} is not the one that played --data {recording.folder}")
        if recording and not _same_play(task, recording.task):
            raise PotstillError(f"--data {recording.folder} is play of {recording.task.id}, or by another protocol")
        record = {**record, **describe(teacher)}
    else:
        assert recording is not None
        task = recording.task
        if wanted not in (None, task.id):
            raise PotstillError(f"--task {wanted}: {recording.folder} is play of {task.id}")
    outputs_are: Meaning = record["outputs"]
    if options.act == "sample" and outputs_are == "q":
        raise PotstillError("--act sample: Q-values are no distribution to draw from; use --act greedy")
    if options.starts != "noop" and teacher is None:
        raise PotstillError(f"--starts {options.starts}: nothing is scored without --teacher; leave it out")
    return Lesson(
        task,
        teacher,
        record,
        recording,
        temperature=options.temperature or TEMPERATURE[outputs_are],
        bf16=learns_in_bf16(options.precision, options.device, frames=task.is_atari),
        starts=Starts.read(options.starts, task, options.episodes) if options.starts != "noop" else None,
        size=size,
    )


def _same_play(task: Task, recorded: Task) -> bool:
    """Whether a task is the recorded one; names and bounds of actions are its library's, and not recorded exactly."""
    return all(
        getattr(task, name) == getattr(recorded, name)
        for name in ("id", "protocol", "observation_shape", "num_actions")
    )


def _playing(
    options: DistillOptions, teacher: Policy, wanted: str | None, name: str, recording: Recording | None
) -> tuple[Policy, Task]:
    """A teacher, seeing what it is to see, and what it plays."""
    task_id = id_of_task(teacher, recording.task.id if wanted is None and recording else wanted, name)
    task = make_task(task_id)
    task = task.under(act=options.act, time_feature=sees_time(teacher, task))
    if options.teacher_sees is not None:
        teacher = teacher.seeing(task.parts("--teacher-sees", options.teacher_sees), task.observation_shape)
    check_plays(teacher, task, name)
    return teacher, task


def describe(teacher: Policy) -> dict[str, Any]:
    """What a result says of a teacher, its name, checksum and score apart."""
    record: dict[str, Any] = {
        "network": str(teacher.spec),
        "parameters": teacher.num_parameters,
        "outputs": teacher.outputs_are,
    }
    return record if teacher.actions is None else {**record, "actions": asdict(teacher.actions)}
