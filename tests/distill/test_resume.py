"""The same seed gives the same bits, also across an interruption at any moment."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from potstill import PotstillError, saved_state
from potstill.distill.options import DistillOptions
from potstill.distill.plan import plan
from potstill.distill.run import read_learnt, run
from potstill.distill.schedule import rows_until
from potstill.distill.scoring import score
from potstill.progress import Progress
from potstill.report import write_report

COMMAND = ["potstill", "distill"]


pytestmark = pytest.mark.usefixtures("short_hours_throughout")


def options(teacher: Path, **changes: object) -> DistillOptions:
    small = {"hours": 3.0, "updates": 30, "envs": 20, "episodes": 4, "threads": 2, "memory_hours": 2.0}
    return DistillOptions(("mlp:8", "mlp:4:tanh"), (teacher,), **{**small, **changes})  # pyright: ignore[reportArgumentType]


def weights(out: Path) -> dict[str, dict[str, torch.Tensor]]:
    return {path.name: load_file(path) for path in sorted((out / "students").iterdir())}


def assert_same_bits(one: Path, other: Path) -> None:
    first, second = weights(one), weights(other)
    assert first.keys() == second.keys()
    for name, tensors in first.items():
        for key, tensor in tensors.items():
            assert torch.equal(tensor, second[name][key]), (name, key)


def run_until(out: Path, choice: DistillOptions, stage: str, done: int, resume: bool = False) -> None:
    """Run to a progress record, then drop everything that isn't on disk."""
    for progress in run(plan(choice), out, resume, COMMAND):
        if progress.stage == stage and progress.done >= done:
            return
    raise AssertionError("the run ended before")


def run_all(out: Path, choice: DistillOptions, resume: bool = False) -> dict:
    for _ in run(plan(choice), out, resume, COMMAND):
        pass
    return json.loads((out / "result.json").read_text())


@pytest.fixture(scope="module")
def whole(short_hours_throughout: int, cartpole_file_once: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("whole")
    run_all(out, options(cartpole_file_once))
    return out


@pytest.fixture(scope="module")
def begun_once(short_hours_throughout: int, cartpole_file_once: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("begun") / "run"
    run_until(out, options(cartpole_file_once), "hour", 2)
    return out


@pytest.fixture
def begun(begun_once: Path, tmp_path: Path) -> Path:
    """A run that was dropped after its second hour; a copy that a test may spoil."""
    return Path(shutil.copytree(begun_once, tmp_path / "run"))


@pytest.fixture(scope="module")
def whole_driven(
    short_hours_throughout: int, cartpole_file_once: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Three hours with a memory of two: the ring has wrapped, shards have been dropped. Students drive, too."""
    out = tmp_path_factory.mktemp("whole")
    run_all(out, options(cartpole_file_once, driver="mix:0.5"))
    return out


def test_a_full_gpu_is_no_damaged_file():
    with pytest.raises(torch.OutOfMemoryError), saved_state.restoring(Path("state"), "remove it"):
        raise torch.OutOfMemoryError


def test_the_same_seed_gives_the_same_bits_and_another_does_not(cartpole_file, tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        run_until(tmp_path / name, options(cartpole_file, hours=0.5, seed=seed), "evaluate", 0)
    assert_same_bits(tmp_path / "a", tmp_path / "b")
    with pytest.raises(AssertionError):
        assert_same_bits(tmp_path / "a", tmp_path / "c")


@pytest.mark.parametrize(
    ("stage", "done"), [("play", 1000), ("play", 8000), ("learn", 90), ("hour", 3), ("evaluate", 1)]
)
def test_a_resumed_run_ends_in_the_same_bits(cartpole_file, whole_driven, tmp_path, stage, done):
    choice = options(cartpole_file, driver="mix:0.5")
    run_until(tmp_path / "cut", choice, stage, done)
    resumed = run_all(tmp_path / "cut", choice, resume=True)
    assert_same_bits(whole_driven, tmp_path / "cut")
    assert (whole_driven / "metrics.jsonl").read_text() == (tmp_path / "cut" / "metrics.jsonl").read_text()
    expected = json.loads((whole_driven / "result.json").read_text())
    for policy in (policy for of in (expected, resumed) for policy in of["students"] + of["teachers"]):
        del policy["cost"]  # seconds are others in each run
    for key in ("students", "teachers", "protocol"):
        assert expected[key] == resumed[key]
    seconds = resumed["budget"]["seconds"]
    assert 0 < sum(seconds[stage] for stage in ("play", "label", "learn", "evaluate")) <= seconds["total"]


@pytest.mark.parametrize(("stage", "done"), [("learn", 60), ("evaluate", 1)])
def test_playing_ahead_learns_the_same_bits_also_across_a_resume(
    cartpole_file, whole, tmp_path, monkeypatch, stage, done
):
    monkeypatch.setattr("potstill.distill.plan.THREADS_TO_PLAY_AHEAD", 2)
    choice = options(cartpole_file)
    run_until(tmp_path / "cut", choice, stage, done)
    if done == 60:
        [rows] = [int(path.stem.split("-")[2]) for path in (tmp_path / "cut" / "checkpoint").glob("memory-*.npz")]
        assert rows == rows_until(2, choice), "the second hour was played in the first"
    run_all(tmp_path / "cut", choice, resume=True)
    assert_same_bits(whole, tmp_path / "cut")
    assert (whole / "metrics.jsonl").read_text() == (tmp_path / "cut" / "metrics.jsonl").read_text()


def test_atari_resumes_to_the_same_bits(teacher_pong, tmp_path, monkeypatch):
    # An hour is a hundred control steps here, so that boundaries fall within episodes.
    monkeypatch.setattr("potstill.distill.schedule.STEPS_PER_HOUR", 400)
    monkeypatch.setattr("potstill.distill.run.score", lambda *_: iter([Progress("evaluate", 0, 1)]))
    choice = DistillOptions(("net3",), (teacher_pong,), hours=2.0, updates=8, envs=4, threads=2)
    run_until(tmp_path / "whole", choice, "evaluate", 0)
    run_until(tmp_path / "cut", choice, "hour", 1)
    run_until(tmp_path / "cut", choice, "evaluate", 0, resume=True)
    assert_same_bits(tmp_path / "whole", tmp_path / "cut")


@pytest.mark.parametrize("threads", [1, 4])  # four play ahead
def test_a_memory_of_less_than_an_hour_resumes_to_the_same_bits(cartpole_file, tmp_path, threads):
    choice = options(cartpole_file, memory_hours=0.5, envs=7, threads=threads)  # 7 don't divide an hour's steps
    run_until(tmp_path / "whole", choice, "evaluate", 0)
    run_until(tmp_path / "cut", choice, "hour", 2)
    run_until(tmp_path / "cut", choice, "evaluate", 0, resume=True)
    assert_same_bits(tmp_path / "whole", tmp_path / "cut")


def test_a_killed_process_leaves_whole_files_and_resumes_to_the_same_bits(
    cartpole_file, short_hours_throughout, whole, tmp_path
):
    choice = options(cartpole_file)
    script = f"""
import potstill.distill.schedule as schedule
schedule.STEPS_PER_HOUR = {short_hours_throughout}
from pathlib import Path
from potstill.distill.options import DistillOptions
from potstill.distill.plan import plan
from potstill.distill.run import run
from potstill.progress import Progress
options = DistillOptions(("mlp:8", "mlp:4:tanh"), (Path({str(cartpole_file)!r}),), hours=3.0, updates=30, envs=20,
    episodes=4, threads=2, memory_hours=2.0)
for _ in run(plan(options), Path({str(tmp_path / "cut")!r}), RESUME, ["potstill", "distill"]):
    print("under way", flush=True)
"""
    kills = 0
    for attempt in range(3):
        resume = (tmp_path / "cut" / "config.json").exists()
        process = subprocess.Popen(
            [sys.executable, "-c", script.replace("RESUME", str(resume))], stdout=subprocess.PIPE
        )
        with process:
            process.stdout.readline()
            time.sleep(0.05 + 0.15 * attempt)
            if process.poll() is None:
                os.kill(process.pid, signal.SIGKILL)
                kills += 1
            process.stdout.read()
        for path in (tmp_path / "cut").rglob("*.json"):
            json.loads(path.read_text())
        for path in (tmp_path / "cut").rglob("*.safetensors"):
            load_file(path)
    run_all(tmp_path / "cut", choice, resume=True)
    assert kills >= 2
    assert_same_bits(whole, tmp_path / "cut")


@pytest.fixture(scope="module")
def learnt_once(
    short_hours_throughout: int, cartpole_file_once: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    out = tmp_path_factory.mktemp("learnt") / "run"
    run_until(out, options(cartpole_file_once), "evaluate", 1)
    return out


@pytest.fixture
def learnt(learnt_once: Path, tmp_path: Path) -> Path:
    """What another machine needs of a run that was killed while it scored; a copy that a test may spoil."""
    (tmp_path / "run").mkdir()
    for name in ("config.json", "learnt.json"):
        shutil.copy(learnt_once / name, tmp_path / "run")
    shutil.copytree(learnt_once / "students", tmp_path / "run" / "students")
    return tmp_path / "run"


def never(*given: object) -> None:
    raise AssertionError("nothing is to be learnt")


def test_a_run_killed_while_scoring_needs_no_checkpoint(cartpole_file, learnt_once, learnt, whole, monkeypatch):
    assert not (learnt_once / "checkpoint").exists()
    (learnt / "checkpoint").mkdir()  # killed before all of it was removed
    (learnt / "checkpoint" / "state.safetensors").write_bytes(b"half")
    monkeypatch.setattr("potstill.distill.run.new_state", never)
    resumed = run_all(learnt, options(cartpole_file), resume=True)
    expected = json.loads((whole / "result.json").read_text())
    assert not (learnt / "checkpoint").exists()
    for policy in (policy for of in (expected, resumed) for policy in of["students"] + of["teachers"]):
        del policy["cost"]
    budget, before = resumed["budget"], json.loads((learnt / "learnt.json").read_text())
    assert {**resumed, "budget": 0} == {**expected, "budget": 0}
    assert {**budget, "seconds": 0} == {**expected["budget"], "seconds": 0}
    assert budget["seconds"]["total"] == before["seconds"]["total"] + budget["seconds"]["evaluate"]


def test_what_was_learnt_is_scored_on_another_machine(cartpole_file, learnt, monkeypatch):
    monkeypatch.setattr("potstill.distill.run.new_state", never)
    monkeypatch.setattr("potstill.distill.plan.memory_bytes", lambda device: 1)  # too small a one to learn on
    config, before = ((learnt / name).read_text() for name in ("config.json", "learnt.json"))
    with pytest.raises(PotstillError, match="was begun with seed 0, not 5"):
        run_all(learnt, options(cartpole_file, threads=1, seed=5), resume=True)
    result = run_all(learnt, options(cartpole_file, threads=1, precision="bf16"), resume=True)
    assert (learnt / "config.json").read_text() == config
    assert result["machine"] == json.loads(before)["machine"]
    assert result["machine"]["threads"] == 2
    assert [of["threads"] for of in result["scored_on"]] == [1]
    assert [student["tasks"][0]["score"]["episodes"] for student in result["students"]] == [4, 4]
    assert "scored on: " in write_report(learnt).read_text()


def test_too_little_memory_to_learn_is_one_line_before_anything_is_written(cartpole_file, tmp_path, monkeypatch):
    monkeypatch.setattr("potstill.distill.plan.memory_bytes", lambda device: 1)
    with pytest.raises(PotstillError, match=r"the play to remember takes .* an hour is the least"):
        run_all(tmp_path / "run", options(cartpole_file))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("learnt.json", b"{"),
        ("learnt.json", b"[]"),
        ("learnt.json", b'{"students": 3}'),
        ("learnt.json", b'{"students": {"mlp_8": 0, "mlp_4_tanh": 0}}'),
        ("students/mlp_8.safetensors", b"half"),
        ("students/mlp_8.safetensors", None),
    ],
)
def test_a_damaged_file_of_what_was_learnt_is_one_line(cartpole_file, learnt, name, content):
    (learnt / name).unlink()
    if content is not None:
        (learnt / name).write_bytes(content)
    (learnt / "checkpoint").mkdir()
    with pytest.raises(PotstillError, match=r"or remove .*learnt.json, and --resume learns again") as error:
        run_all(learnt, options(cartpole_file), resume=True)
    assert "\n" not in str(error.value)
    assert (learnt / "checkpoint").exists(), "it goes when nothing needs it"
    (learnt / "learnt.json").unlink()
    run_until(learnt, options(cartpole_file), "play", 0, resume=True)


@pytest.mark.parametrize("key", ["versions", "machine", "updates", "seconds"])
def test_what_a_result_would_lack_is_missed_before_it_is_scored(cartpole_file, learnt, key):
    said = json.loads((learnt / "learnt.json").read_text())
    for odd in ({**said, key: None}, {name: value for name, value in said.items() if name != key}):
        (learnt / "learnt.json").write_text(json.dumps(odd))
        with pytest.raises(PotstillError, match=r"learnt.json is damaged .*; copy it again from where it was learnt"):
            run_until(learnt, options(cartpole_file), "evaluate", 0, resume=True)


def test_a_finished_run_is_left_alone(cartpole_file, whole):
    before = (whole / "result.json").read_bytes()
    run_all(whole, options(cartpole_file), resume=True)
    assert (whole / "result.json").read_bytes() == before


def test_a_finished_run_of_another_machine_is_left_alone(cartpole_file, whole):
    before = [(whole / name).read_bytes() for name in ("result.json", "config.json")]
    run_all(whole, options(cartpole_file, threads=1, precision="bf16"), resume=True)
    assert [(whole / name).read_bytes() for name in ("result.json", "config.json")] == before


def test_a_finished_run_is_scored_anew_on_more_episodes_and_not_on_fewer(cartpole_file, learnt, monkeypatch):
    monkeypatch.setattr("potstill.distill.run.new_state", never)
    run_all(learnt, options(cartpole_file), resume=True)
    run_until(learnt, options(cartpole_file, episodes=6), "evaluate", 1, resume=True)
    assert json.loads((learnt / "result.json").read_text())["teachers"][0]["score"]["episodes"] == 4
    result = run_all(learnt, options(cartpole_file, episodes=6), resume=True)
    assert len(result["students"][1]["tasks"][0]["score"]["returns"]) == 6
    assert "cost" in result["students"][1]
    planned = plan(options(cartpole_file))
    _, students = read_learnt(planned, planned.students, learnt)
    for _ in score(planned, students, learnt):  # killed before its result was there
        pass
    result = run_all(learnt, options(cartpole_file, episodes=7), resume=True)
    assert result["teachers"][0]["score"]["episodes"] == 7
    run_until(learnt, options(cartpole_file, episodes=9), "evaluate", 1, resume=True)
    (learnt / "scored.json").write_text("[]")
    assert run_all(learnt, options(cartpole_file), resume=True) == result, "there are more already"
    assert (learnt / "scored.json").exists(), "of those that another command goes on with"
    (learnt / "learnt.json").unlink()
    with pytest.raises(PotstillError, match=r"lacks learnt.json to be scored anew by: add --episodes 7"):
        run_all(learnt, options(cartpole_file, episodes=8), resume=True)


@pytest.mark.parametrize("odd", ["[]", "{}", '{"students": 3, "run": 3}', '{"students": [3], "run": []}'])
@pytest.mark.parametrize("name", ["config.json", "result.json"])
def test_odd_files_of_a_run_are_one_line(cartpole_file, begun, name, odd):
    (begun / name).write_text(odd)
    with pytest.raises(PotstillError, match=rf"{name} is not what a run writes"):
        run_all(begun, options(cartpole_file), resume=True)
    assert (begun / "checkpoint").exists()


def test_where_files_lie_may_change(cartpole_file, begun):
    moved = cartpole_file.rename(cartpole_file.with_name("moved.safetensors"))
    run_until(begun, options(moved), "learn", 90, resume=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 5}, "was begun with seed 0, not 5"),
        ({"batch": 64}, "was begun with batch 256, not 64"),
        ({"threads": 1}, "was begun with threads 2, not 1"),
        ({"loss": ("nll",)}, "was begun with loss kl, not nll"),
    ],
)
def test_a_run_is_not_resumed_under_other_options(cartpole_file, begun, change, message):
    with pytest.raises(PotstillError, match=message):
        run_all(begun, options(cartpole_file, **change), resume=True)


def test_a_run_is_not_written_over(cartpole_file, begun):
    with pytest.raises(PotstillError, match="is not empty: add --resume"):
        run_all(begun, options(cartpole_file))


def test_a_run_that_is_not_begun_is_begun_by_resume_too(cartpole_file, tmp_path):
    (tmp_path / "empty").mkdir()
    for name in ("empty", "nowhere"):
        run_until(tmp_path / name, options(cartpole_file), "play", 100, resume=True)
        assert (tmp_path / name / "config.json").exists()


@pytest.mark.parametrize("damage", ["truncate", "remove", "state"])
def test_a_damaged_checkpoint_is_one_line(cartpole_file, begun, damage):
    folder = begun / "checkpoint"
    path = next(folder.glob("state.safetensors" if damage == "state" else "memory-*.npz"))
    if damage == "remove":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(PotstillError, match="checkpoint, and --resume begins anew") as error:
        run_all(begun, options(cartpole_file), resume=True)
    assert "\n" not in str(error.value)
    shutil.rmtree(folder)
    run_all(begun, options(cartpole_file), resume=True)
    assert (begun / "result.json").exists()


def test_a_checkpoint_of_another_version_is_not_called_damaged(cartpole_file, begun, monkeypatch):
    monkeypatch.setattr(saved_state, "FORMAT", "another")
    with pytest.raises(PotstillError, match=r"written by another version of potstill; remove .* begins anew"):
        run_all(begun, options(cartpole_file), resume=True)


def test_a_run_stopped_while_costs_were_measured_is_completed(cartpole_file, whole, tmp_path):
    out = Path(shutil.copytree(whole, tmp_path / "run"))
    result = json.loads((out / "result.json").read_text())
    macs = result["students"][0].pop("cost")["macs"]
    (out / "result.json").write_text(json.dumps(result))
    run_all(out, options(cartpole_file), resume=True)
    again = json.loads((out / "result.json").read_text())
    assert again["students"][0]["cost"]["macs"] == macs
    assert again["students"][0]["tasks"] == result["students"][0]["tasks"]


def test_a_full_disk_keeps_the_last_checkpoint(cartpole_file, whole, tmp_path, monkeypatch):
    choice = options(cartpole_file)
    real = os.fsync

    def full(descriptor: int) -> None:
        if list((tmp_path / "cut" / "checkpoint").glob("memory-*.npz")):
            raise OSError(28, "No space left on device")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(PotstillError, match=r"cannot write .*: No space left on device"):
        run_all(tmp_path / "cut", choice)
    monkeypatch.undo()
    assert not list((tmp_path / "cut").rglob("*.partial"))
    run_all(tmp_path / "cut", choice, resume=True)
    assert_same_bits(whole, tmp_path / "cut")
    shutil.rmtree(tmp_path / "cut")


def test_a_disk_that_tensorboard_fills_is_one_line(cartpole_file, tmp_path, monkeypatch):
    def full(*given: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("torch.utils.tensorboard.writer.SummaryWriter.add_scalar", full)
    with pytest.raises(PotstillError, match=r"cannot write .*: No space left on device"):
        run_all(tmp_path / "run", options(cartpole_file))


def test_tensorboard_shows_the_metrics_once_also_after_a_resume(cartpole_file, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    choice = options(cartpole_file, updates=100)
    run_until(tmp_path / "run", choice, "learn", 150)  # hour 2 begins at 100 and is interrupted
    run_all(tmp_path / "run", choice, resume=True)
    events = EventAccumulator(str(tmp_path / "run")).Reload()
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    shown = [(event.step, event.value) for event in events.Scalars("loss/mlp_8")]
    assert [step for step, _ in shown] == [line["update"] for line in lines] == list(range(50, 301, 50))
    assert [value for _, value in shown] == pytest.approx([line["loss"]["mlp_8"] for line in lines])
