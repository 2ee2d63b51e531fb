"""A whole run: from the teacher's file to students, their scores and `result.json`.

runs/<name>/config.json    what to run again       metrics.jsonl   one JSON object a line
           /checkpoint/    where to go on from     students/       policy files
           /result.json    the numbers            events.out.*    the metrics for TensorBoard, where it is installed
"""

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from potstill.distill import checkpoint
from potstill.distill.loop import Progress, distill, num_hours, play, rows_until
from potstill.distill.plan import Plan, new_state
from potstill.distill.recording import Recording, seal_hour
from potstill.distill.result import SCHEMA, machine, results, score, versions
from potstill.errors import PotstillError
from potstill.files import read_json, write_json


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
    else:
        shutil.rmtree(out / "checkpoint", ignore_errors=True)  # a killed run's, without its last file
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
    scores, agreement = yield from score(plan, students)
    seconds["evaluate"] = time.perf_counter() - evaluation
    seconds["total"] = before + time.perf_counter() - begun
    result = {
        "schema": SCHEMA,
        "command": command,
        "seed": plan.options.seed,
        "versions": versions(),
        "machine": machine(plan.threads),
        "protocol": plan.task.protocol.record(),
        **results(plan, students, scores, agreement),
        "budget": {**budget, "seconds": seconds},
    }
    write_json(out / "result.json", result)
    shutil.rmtree(out / "checkpoint", ignore_errors=True)


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
            yield from play(teacher, state, hour, options, pool, plan.threads)
            seal_hour(recording, state.memory, hour, first_row)
            recording = replace(recording, hours=min(hour, options.hours))
            recording.write(command)
            yield Progress("hour", hour, num_hours(options), hour)
    state.envs.close()


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
