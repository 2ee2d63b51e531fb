"""The loop on small real tasks."""

import json
import threading
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any, TypeVar

import numpy as np
import pytest
import torch

from potstill import Policy, PotstillError, load
from potstill.distill import learning
from potstill.distill.learning import cooled, update
from potstill.distill.loop import _side_by_side, distill, label
from potstill.distill.options import DistillOptions, name_students
from potstill.distill.plan import Lesson, plan
from potstill.distill.run import run
from potstill.distill.schedule import learning_rate, updates_until
from potstill.distill.state import LoopProgress, new_state
from potstill.learners.options import DQNOptions
from potstill.losses import kl
from potstill.machine import arithmetic_threads
from potstill.networks import NetworkSpec
from potstill.policies import as_one
from potstill.report import write_report
from potstill.tasks import make_task
from potstill.train import plan as training
from potstill.train.run import fresh_state

T = TypeVar("T")
SMALL = {"envs": 20, "updates": 4000, "threads": 2, "episodes": 20}


def finish(options: DistillOptions, out: Path, resume: bool = False) -> dict:
    for _ in run(plan(options), out, resume, ["potstill", "distill"]):
        pass
    return json.loads((out / "result.json").read_text())


def test_a_student_learns_cartpole_and_the_teacher_does_not_change(cartpole_file, tmp_path):
    before = {name: tensor.clone() for name, tensor in load(cartpole_file).network.state_dict().items()}
    options = DistillOptions(("mlp:16-16", "mlp:8", "mlp:8"), (cartpole_file,), hours=0.5, **SMALL)
    planned = plan(options)
    for _ in run(planned, tmp_path / "run", False, ["potstill"]):
        pass
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    for name, tensor in planned.lessons[0].teacher.network.state_dict().items():
        assert torch.equal(tensor, before[name])
    assert [student["name"] for student in result["students"]] == ["mlp_16-16", "mlp_8", "mlp_8-2"]
    played = result["students"][0]["tasks"][0]
    assert played["normalised"]["mean"] > 0.95
    assert played["agreement"] > 0.6  # this teacher, upright, is near indifferent
    by_action = played["agreement_by_action"]
    assert [(of["action"], of["name"]) for of in by_action] == [(0, "0"), (1, "1")]
    assert sum(of["agreed"] for of in by_action) / sum(of["states"] for of in by_action) == played["agreement"]
    assert result["teachers"][0]["score"]["mean"] == 500
    assert result["students"][1]["tasks"] != result["students"][2]["tasks"], "each student has a start of its own"
    student = load(tmp_path / "run" / "students" / "mlp_8.safetensors")
    assert (student.task, student.outputs_are) == ("CartPole-v1", "logits")
    assert student.provenance["teacher_sha256"] == result["teachers"][0]["sha256"]
    assert not (tmp_path / "run" / "checkpoint").exists(), "a finished run needs no gigabytes to go on from"


def test_students_learn_each_by_its_loss_from_the_same_play_and_by_the_papers_optimiser(cartpole_file, tmp_path):
    options = DistillOptions(
        ("nll=mlp:16", "mse=mlp:16"),
        (cartpole_file,),
        loss=("nll", "mse"),
        optimizer="rmsprop",
        schedule="constant",
        learning_rate=2.5e-3,
        hours=0.1,
        **{**SMALL, "updates": 6000, "episodes": 10},
    )
    result = finish(options, tmp_path / "run")
    for student in result["students"]:
        assert student["tasks"][0]["normalised"]["mean"] > 0.5
        policy = load(tmp_path / "run" / "students" / f"{student['name']}.safetensors")
        assert policy.provenance["loss"] == student["loss"] == student["name"]
    first = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[0])["loss"]
    assert 0 < first["nll"] < 1.0 < first["mse"]


def test_losses_are_one_or_one_for_each_student(cartpole_file):
    with pytest.raises(PotstillError, match="--loss kl nll: name one, or one for each of 1 students"):
        plan(DistillOptions(("mlp:4",), (cartpole_file,), loss=("kl", "nll")))


def test_updates_and_steps_are_counted_exactly(cartpole_file, short_hours):
    options = DistillOptions(("mlp:4",), (cartpole_file,), hours=1.5, updates=100, envs=36, threads=1)
    planned = plan(options)
    state = new_state(planned)
    steps = {"n": 0}
    optimizer = state.students[0].optimizer
    optimizer.register_step_post_hook(lambda *_: steps.update(n=steps["n"] + 1))
    threads = torch.get_num_threads()
    torch.set_num_threads(3)
    reports = list(distill(planned, state))
    assert torch.get_num_threads() == 3, "the caller's are as they were"
    torch.set_num_threads(threads)
    hours = [report for report in reports if report.stage == "hour"]
    assert [report for report in reports if report.stage == "play"][-1].done == 1.5 * short_hours
    assert hours == [LoopProgress("hour", 1, 2, 1), LoopProgress("hour", 2, 2, 2)]
    assert steps["n"] == state.updates == updates_until(2, options) == 150
    assert state.memories[0].rows * options.envs == 1.5 * short_hours


def test_the_learning_rate_rises_then_falls_to_nothing(cartpole_file):
    options = DistillOptions(("mlp:4",), (cartpole_file,), learning_rate=1.0)
    rates = [learning_rate(update, 1000, options) for update in range(1000)]
    assert rates[0] == pytest.approx(0.01)
    assert max(rates) == pytest.approx(0.976, abs=2e-3)
    assert rates.index(max(rates)) == 99
    assert rates[-1] < 1e-5
    constant = DistillOptions(("mlp:4",), (cartpole_file,), schedule="constant", optimizer="rmsprop")
    assert {learning_rate(update, 10, constant) for update in range(10)} == {2.5e-4}


@pytest.mark.parametrize(("driver", "short"), [("teacher", 0), ("mix:0.5", 10), ("student", 20)])
def test_students_drive_their_share_from_the_second_hour_on(cartpole_file, short_hours, driver, short):
    # After a single update a student can't hold the pole up: its environments' episodes are short.
    options = DistillOptions(
        ("mlp:4", "mlp:3"), (cartpole_file,), hours=2.0, updates=1, driver=driver, envs=20, play_epsilon=0.0,
        batch_norm=False,
    )  # fmt: skip
    planned = plan(options)
    state = new_state(planned)
    after = [state.envs[0].episode.copy() for progress in distill(planned, state) if progress.stage == "hour"]
    assert after[0].max() <= 1
    assert (after[1] - after[0] > 1).sum() == short


def returned(steps: Generator[Any, None, T]) -> T:
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


def test_who_plays_on_the_way_has_cooled_down_and_the_run_goes_on_as_if_nobody_had(cartpole_file, short_hours):
    options = DistillOptions(("mlp:8", "mlp:4"), (cartpole_file,), hours=3.0, updates=400, envs=20, threads=2)
    planned = plan(options)
    looked, alone = new_state(planned), new_state(planned)

    def an_hour(state):
        loop = distill(planned, state)
        next(progress for progress in loop if progress.stage == "hour")

    an_hour(looked)
    with arithmetic_threads(3):
        copies, again = (returned(cooled(planned, looked)) for _ in range(2))
        assert torch.get_num_threads() == 3, "the caller's are as they were"
    batch = looked.memories[0].sample(4096, np.random.default_rng(0))
    for student in looked.students:
        [warm], [cool], [same] = student.policies, copies[student.name], again[student.name]
        losses = [kl(policy.outputs(batch[0].numpy()), batch[1], 1.0).mean() for policy in (warm, cool)]
        assert losses[1] < losses[0], "a rate that falls settles"
        assert all(torch.equal(a, b) for a, b in zip(cool.network.parameters(), same.network.parameters(), strict=True))
    an_hour(looked)
    an_hour(alone)
    an_hour(alone)
    for student, other in zip(looked.students, alone.students, strict=True):
        for name, tensor in student.learner.state_dict().items():
            assert torch.equal(tensor, other.learner.state_dict()[name])


def test_those_that_drive_are_the_cooled_copies(cartpole_file, short_hours, monkeypatch):
    def copies(plan, state):
        yield LoopProgress("cool", 1, 1, 1)
        return {student.name: [load(cartpole_file)] for student in state.students}

    monkeypatch.setattr("potstill.distill.loop.cooled", copies)
    options = DistillOptions(
        ("mlp:4",), (cartpole_file,), hours=2.0, updates=1, driver="student", envs=20, play_epsilon=0.0
    )
    planned = plan(options)
    state = new_state(planned)
    stages = [progress.stage for progress in distill(planned, state)]
    assert stages.count("cool") == 1
    assert state.envs[0].episode.max() <= 1, "a student of one update would have let the pole fall"


def test_stages_run_at_once_and_one_that_fails_ends_them_all():
    both = Barrier(2, timeout=10)  # broken, unless both stages are under way at once

    def stage(name: str, total: int) -> Iterator[LoopProgress]:
        both.wait()
        yield from (LoopProgress(name, done, total, 1) for done in range(total))

    def failing() -> Iterator[LoopProgress]:
        both.wait()
        yield LoopProgress("learn", 0, 1, 1)
        raise PotstillError("no more")

    reports = list(_side_by_side("cpu", stage("play", 3), stage("learn", 5)))
    assert [report.done for report in reports if report.stage == "play"] == list(range(3))
    assert [report.done for report in reports if report.stage == "learn"] == list(range(5))
    with pytest.raises(PotstillError, match="no more"):
        list(_side_by_side("cpu", stage("play", 10**9), failing()))


@pytest.mark.parametrize(("students", "left", "threads"), [(1, 1, [4, 4, 4]), (4, 2, [1, 1, 2])])
def test_threads_of_an_update_depend_on_the_students_alone(
    short_hours, cartpole_file, monkeypatch, students, left, threads
):
    """Other threads of arithmetic give other bits; the player's, who plays ahead, mustn't reach the learners."""

    def watched(*given: Any) -> tuple[torch.Tensor, ...]:
        seen[state.hours].add(torch.get_num_threads())
        return update(*given)

    seen: list[set[int]] = [set(), set(), set()]
    monkeypatch.setattr(learning, "update", watched)
    options = DistillOptions(("mlp:256-128",) * students, (cartpole_file,), hours=3.0, updates=5, envs=20, threads=4)
    planned = plan(options)
    assert planned.ahead
    state = new_state(planned)
    for progress in distill(planned, state):
        if progress.stage == "hour" and progress.done == 2:
            state.students = state.students[:left]
    assert seen == [{count} for count in threads]


def test_without_batch_norm_the_network_learns_as_it_is(cartpole_file, tmp_path):
    options = DistillOptions(("mlp:16",), (cartpole_file,), batch_norm=False, hours=0.1, **{**SMALL, "updates": 20})
    state = new_state(plan(options))
    student = state.students[0]
    assert student.learner.state_dict().keys() == as_one(student.policies).state_dict().keys()
    assert learning_rate(0, 1, options) == 1.5e-3


@pytest.mark.usefixtures("short_games")
def test_a_small_atari_run_end_to_end(tmp_path, teacher_pong):
    options = DistillOptions(
        ("net3", "small=cnn:4-4-4:8:2f"), (teacher_pong,), hours=0.01, updates=2000, envs=9, episodes=1, threads=2
    )
    result = finish(options, tmp_path / "run")
    assert result["teachers"][0]["parameters"] == 1_687_206
    assert result["students"][0]["parameters"] == 61_174
    assert result["budget"] == {"teacher_steps": 540, "updates": 20, "seconds": result["budget"]["seconds"]}
    assert result["protocol"]["name"] == "rusu2016"
    assert len(result["students"][1]["tasks"][0]["score"]["returns"]) == 1


def test_repeated_students_are_numbered_and_names_are_kept():
    named = name_students(("net3", "net3", "a=net3", "mlp:8-8"))
    assert named == {"net3": "net3", "net3-2": "net3", "a": "net3", "mlp_8-8": "mlp:8-8"}


def test_students_of_several_losses_are_named_by_them():
    named = name_students(("net3", "net3", "a=net3"), ("kl", "nll", "mse"))
    assert named == {"net3-kl": "net3", "net3-nll": "net3", "a": "net3"}


@pytest.mark.parametrize("spec", ["=net3", "../x=net3", ".x=net3", "a b=net3", "x/y=net3"])
def test_a_name_that_would_leave_the_folder_is_refused(spec):
    with pytest.raises(PotstillError, match="a name is letters"):
        name_students((spec,))


def test_logits_may_be_sampled_and_q_values_may_not(cartpole_file, cartpole_teacher: Policy, tmp_path):
    options = DistillOptions(("mlp:8",), (cartpole_file,), act="sample", hours=0.1, **{**SMALL, "updates": 300})
    result = finish(options, tmp_path / "run")
    assert result["protocol"]["act"] == "sample"
    assert result["teachers"][0]["other_act"]["act"] == "greedy"
    cartpole_teacher.outputs_are = "q"
    cartpole_teacher.save(tmp_path / "q.safetensors")
    with pytest.raises(PotstillError, match="Q-values are no distribution"):
        plan(DistillOptions(("mlp:8",), (tmp_path / "q.safetensors",), act="sample"))


def test_labels_are_those_of_the_teacher_as_it_is_now():
    one, other = (Policy.new(NetworkSpec.parse("cnn:4-4-4:8"), "logits", (4, 84, 84), "uint8", 6) for _ in range(2))
    lesson = Lesson(make_task("ALE/Pong-v5"), one, {}, None, 1.0, True, None, None)
    frames = np.random.default_rng(0).integers(0, 256, (2, 4, 84, 84), dtype=np.uint8)
    first = lesson.source.outputs(frames)
    torch.testing.assert_close(first, one.outputs(frames), rtol=0.1, atol=0.1)  # in bfloat16
    one.network = other.network
    assert not torch.equal(lesson.source.outputs(frames), first)
    torch.testing.assert_close(lesson.source.outputs(frames), other.outputs(frames), rtol=0.1, atol=0.1)


@pytest.mark.parametrize("kind", ["callable", "onnx or nearly"])
def test_a_users_own_code_is_called_by_one_thread_and_a_large_network_of_ours_by_all(kind):
    callers: set[int] = set()
    arithmetic: list[int] = []

    def function(seen: np.ndarray) -> np.ndarray:
        callers.add(threading.get_ident())
        arithmetic.append(torch.get_num_threads())
        return np.zeros(len(seen), np.int64)

    own = Policy.from_callable(function, "CartPole-v1", kind=kind, num_parameters=10**6)
    parts: list[int] = []
    ours = Policy.new(NetworkSpec.parse("mlp:400-400"), "q", (4,), "float32", 2)
    ours.network.register_forward_hook(lambda module, given, said: parts.append(len(said)))
    callers.clear()
    with ThreadPoolExecutor(3) as pool:
        for policy in (own, ours):
            assert label(policy, np.zeros((60, 4), np.float32), pool, 3).shape == (60, 2)
    assert callers == {threading.get_ident()}
    assert arithmetic[-1] == 3, "and may use all cores itself"
    assert parts == [20, 20, 20]


@pytest.mark.parametrize("said", [np.nan, np.inf])
def test_labels_that_are_no_numbers_are_the_teachers_fault_not_the_learning_rates(said):
    def function(seen: np.ndarray) -> np.ndarray:
        return np.where(seen[:, :2] > 1, said, seen[:, :2])

    teacher = Policy.from_callable(function, "CartPole-v1")
    observations = np.zeros((4, 4), np.float32)
    with ThreadPoolExecutor(1) as pool:
        assert label(teacher, observations, pool, 1).shape == (4, 2)
        observations[2, 1] = 2.0
        with pytest.raises(PotstillError, match="the teacher says what is no finite number"):
            label(teacher, observations, pool, 1)


def test_actions_that_a_teacher_forbids_are_learnt_not_to_be_taken():
    teacher = Policy.from_callable(lambda seen: np.where([[True, False]], -np.inf, seen[:, :2]), "CartPole-v1")
    with ThreadPoolExecutor(1) as pool:
        labels = label(teacher, np.ones((4, 4), np.float32), pool, 1)
    student = torch.zeros(4, 2, requires_grad=True)
    loss = kl(student, labels, 0.01).mean()
    loss.backward()
    assert loss.item() == pytest.approx(np.log(2))
    assert (student.grad[:, 0] > 0).all()


def test_a_student_does_not_begin_as_a_teacher_of_the_same_seed_and_network_did(cartpole_file):
    options = DQNOptions(network="mlp:8", steps=20_000, learn_after=1000, memory=2000, envs=2, threads=1, seed=3)
    [learner] = fresh_state(training.plan(options, ("CartPole-v1",), 10_000, 1, 1)).games
    [student] = new_state(plan(DistillOptions(("mlp:8",), (cartpole_file,), seed=3, **SMALL))).students
    first = [next(of.network.parameters()).detach().flatten() for of in (learner.policy, student.policies[0])]
    assert abs(float(torch.cosine_similarity(first[0], first[1], dim=0))) < 0.9


def test_a_teacher_that_is_only_a_function_is_distilled(tmp_path):
    def balance(seen: np.ndarray) -> np.ndarray:
        if np.abs(seen[:, 2]).max() > 1:
            raise ValueError("the pole lies on the ground")
        return (seen @ np.float32([0.1, 0.3, 1.0, 1.0]) > 0).astype(np.int64)

    teacher = Policy.from_callable(balance, "CartPole-v1")
    planned = plan(DistillOptions(("mlp:8",), hours=0.5, **{**SMALL, "episodes": 10}), teacher)
    for _ in run(planned, tmp_path / "run", False, ["python"]):
        pass
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["students"][0]["tasks"][0]["normalised"]["mean"] > 0.95
    assert (result["teachers"][0]["name"], result["teachers"][0]["sha256"]) == ("callable", None)
    assert "cost" not in result["teachers"][0], "which is measured on observations that it won't have"
    assert result["students"][0]["cost"]["macs"] == 4 * 8 + 8 * 2
    assert "callable" in write_report(tmp_path / "run").read_text(), "whose parameters nobody knows"


def test_teacher_and_student_see_what_is_theirs(cartpole_file, tmp_path):
    options = DistillOptions(
        ("mlp:16",), (cartpole_file,), hours=0.5, teacher_sees="0:4", student_sees="2:", **{**SMALL, "episodes": 10}
    )
    result = finish(options, tmp_path / "run")
    student = load(tmp_path / "run" / "students" / "mlp_16.safetensors")
    assert (student.sees, student.observation_shape) == (((2, 4),), (4,))
    assert student.num_parameters == 2 * 16 + 16 + 16 * 2 + 2
    assert result["students"][0]["tasks"][0]["normalised"]["mean"] > 0.3, "the pole is enough to balance it for a while"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"teacher_sees": "0:2"}, r"sees \(4,\), the chosen parts are 2 numbers"),
        ({"teacher_sees": "goal"}, "--teacher-sees goal: CartPole-v1 shows 4 numbers"),
        ({"student_sees": "goal"}, "--student-sees goal: CartPole-v1 shows 4 numbers"),
        ({"teacher_sees": "0:4", "teacher": (), "data": (Path("data"),)}, "--teacher-sees: there is no --teacher"),
    ],
)
def test_parts_that_do_not_fit_are_one_line(cartpole_file, changes, message):
    with pytest.raises(PotstillError, match=message):
        plan(DistillOptions(("mlp:8",), **{"teacher": (cartpole_file,), **changes}))


def test_actions_that_a_teacher_forbids_are_not_learnt_by_squares(cartpole_file, tmp_path):
    def forbids(seen: np.ndarray) -> np.ndarray:
        return np.stack([seen[:, 2], np.full(len(seen), -np.inf)], axis=1)

    teacher = Policy.from_callable(forbids, "CartPole-v1")
    options = DistillOptions(("mlp:4",), loss=("mse",), hours=0.1, **SMALL)
    with pytest.raises(PotstillError, match="--loss mse: the teacher forbids actions by -inf"):
        for _ in run(plan(options, teacher), tmp_path / "run", False, ["potstill"]):
            pass
