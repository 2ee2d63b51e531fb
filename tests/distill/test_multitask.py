"""Several tasks in one student."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from potstill import Policy, PotstillError, load
from potstill.distill.loop import distill
from potstill.distill.options import DistillOptions
from potstill.distill.plan import check_memory, plan
from potstill.distill.run import record, run
from potstill.distill.schedule import updates_until
from potstill.distill.state import new_state
from potstill.networks import NetworkSpec
from potstill.policies import as_one
from potstill.report import write_report
from potstill.teachers import load_all

TASKS = ("CartPole-v1", "CartPole-v0")
SMALL = {"hours": 0.2, "envs": 20, "updates": 5000, "threads": 2, "episodes": 10}


def finish(options: DistillOptions, out: Path, resume: bool = False) -> dict:
    for _ in run(plan(options), out, resume, ["potstill", "distill"]):
        pass
    return json.loads((out / "result.json").read_text())


@pytest.fixture
def backwards_file(cartpole_teacher: Policy, tmp_path: Path) -> Path:
    """Balances CartPole-v0 with its actions' meaning known, but says the opposite of what the other teacher says."""
    cartpole_teacher.task = "CartPole-v0"
    cartpole_teacher.network.head.weight.data *= -1
    cartpole_teacher.save(tmp_path / "backwards.safetensors")
    return tmp_path / "backwards.safetensors"


@pytest.mark.parametrize("batch_norm", [True, False])
def test_one_network_learns_what_its_teachers_contradict_each_other_in(
    cartpole_file, backwards_file, tmp_path, batch_norm
):
    options = DistillOptions(("mlp:16/8",), (cartpole_file, backwards_file), batch_norm=batch_norm, **SMALL)
    result = finish(options, tmp_path / "run")
    assert [teacher["task"] for teacher in result["teachers"]] == list(TASKS)
    assert result["teachers"][0]["score"]["mean"] == 500
    assert result["teachers"][1]["score"]["mean"] < 15, "it pushes the pole over"
    [student] = result["students"]
    assert student["parameters"] == 4 * 16 + 16 + 2 * (16 * 8 + 8 + 8 * 2 + 2)
    assert [task["task"] for task in student["tasks"]] == list(TASKS)
    assert student["tasks"][0]["normalised"]["mean"] > 0.9
    assert student["tasks"][1]["agreement"] > 0.6
    assert student["tasks"][1]["score"]["mean"] < 15
    expected = np.sqrt(np.prod([task["relative"]["mean"] for task in student["tasks"]]))
    assert student["geometric_mean"]["mean"] == pytest.approx(expected)
    assert result["budget"]["teacher_steps"] == 21_600
    assert result["budget"]["updates"] == 2000, "1,000 a task"
    page = write_report(tmp_path / "run").read_text()
    assert all(f"<h2>{task}</h2>" in page for task in TASKS)


def test_a_file_of_several_tasks_gives_the_head_of_each(cartpole_file, backwards_file, tmp_path):
    options = DistillOptions(("mlp:16/8",), (cartpole_file, backwards_file), **{**SMALL, "updates": 20, "episodes": 1})
    finish(options, tmp_path / "run")
    path = tmp_path / "run" / "students" / "mlp_16_8.safetensors"
    policies = load_all(path)
    assert [policy.task for policy in policies] == list(TASKS)
    assert policies[0].provenance["teacher"] == ["cartpole", "backwards"]
    observations = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    for task, policy in zip(TASKS, policies, strict=True):
        torch.testing.assert_close(load(path, task).outputs(observations), policy.outputs(observations))
    assert not torch.allclose(policies[0].outputs(observations), policies[1].outputs(observations))
    with pytest.raises(PotstillError, match=r"plays CartPole-v1, CartPole-v0: name one of them with --task$"):
        load(path)
    with pytest.raises(PotstillError, match="with --task, not Pendulum-v1"):
        load(path, "Pendulum-v1")
    load(path, "CartPole-v0").save(tmp_path / "alone.safetensors")
    torch.testing.assert_close(
        load(tmp_path / "alone.safetensors").outputs(observations), policies[1].outputs(observations)
    )
    again = DistillOptions(("mlp:8",), (path, path), task=TASKS, **{**SMALL, "updates": 20, "episodes": 1})
    assert [teacher["task"] for teacher in finish(again, tmp_path / "again")["teachers"]] == list(TASKS)


def test_a_multi_task_run_resumes_to_the_same_bits(short_hours, cartpole_file, backwards_file, tmp_path):
    options = DistillOptions(
        ("mlp:8/4",), (cartpole_file, backwards_file), hours=1.2, updates=30, envs=20, episodes=2, threads=1
    )
    whole = finish(options, tmp_path / "whole")
    for progress in run(plan(options), tmp_path / "cut", False, ["potstill"]):
        if progress.stage == "learn" and progress.hour == 2:
            break
    resumed = finish(options, tmp_path / "cut", resume=True)
    for student in (*resumed["students"], *whole["students"]):
        del student["cost"]  # seconds are others in each run
    assert resumed["students"] == whole["students"]
    files = [tmp_path / out / "students" / "mlp_8_4.safetensors" for out in ("whole", "cut")]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_recorded_play_of_several_tasks_is_learnt_from(cartpole_file, backwards_file, tmp_path):
    small = {"hours": 0.1, "envs": 20, "threads": 2}
    for name, file in (("a", cartpole_file), ("b", backwards_file)):
        for _ in record(plan(DistillOptions((), (file,), **small)), tmp_path / name, False, ["potstill"]):
            pass
    data = (tmp_path / "a", tmp_path / "b")
    finish(DistillOptions(("mlp:8",), data=data, updates=100, **small), tmp_path / "run")
    assert [policy.task for policy in load_all(tmp_path / "run" / "students" / "mlp_8.safetensors")] == list(TASKS)


def test_games_with_other_numbers_of_actions_share_a_trunk(teacher_pong, tmp_path):
    breakout = Policy.new(NetworkSpec.parse("cnn:4-4-4:8"), "logits", (4, 84, 84), "uint8", 4, task="ALE/Breakout-v5")
    breakout.save(tmp_path / "breakout.safetensors")
    options = DistillOptions(
        ("cnn:8-8-8:16/8",),
        (teacher_pong, tmp_path / "breakout.safetensors"),
        hours=0.01,
        updates=1000,
        envs=9,
        threads=2,
    )
    planned = plan(options)
    assert planned.temperatures == [0.01, 1.0]
    state = new_state(planned)
    for _ in distill(planned, state):
        pass
    assert state.updates == updates_until(1, options, 2) == 20
    assert [memory.rows for memory in state.memories] == [60, 60]
    [student] = state.students
    observations = np.random.default_rng(0).integers(0, 255, (2, 4, 84, 84), np.uint8)
    assert [policy.outputs(observations).shape for policy in student.policies] == [(2, 6), (2, 4)]
    assert student.num_parameters < sum(policy.num_parameters for policy in student.policies)
    assert as_one(student.policies).of(0).trunk[0] is student.policies[1].network.trunk[0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task": ("CartPole-v1",)}, "--task CartPole-v1: name one for each of 2 teachers"),
        ({"task": ("CartPole-v1", "CartPole-v1")}, "two teachers of one task"),
        ({"task": ("CartPole-v1", "Acrobot-v1")}, "sees .4,. and has 2 actions"),
        ({"data": (Path("nowhere"),)}, "has no manifest"),
        ({"batch": 3}, "--batch 3: batch normalisation needs two samples of each task"),
        ({"hours": 1e6, "memory_hours": 1e6}, r"takes .* GB, this machine has .*: add --memory-hours"),
    ],
)
def test_what_does_not_fit_several_teachers_is_one_line(cartpole_file, backwards_file, changes, message):
    with pytest.raises(PotstillError, match=message):
        check_memory(plan(DistillOptions(("mlp:8",), (cartpole_file, backwards_file), **changes)))


def test_tasks_that_show_different_things_cannot_share_a_trunk(cartpole_file, teacher_pong):
    with pytest.raises(PotstillError, match=r"CartPole-v1 shows \(4,\), ALE/Pong-v5 \(4, 84, 84\): tasks that share"):
        plan(DistillOptions(("mlp:8",), (cartpole_file, teacher_pong)))
