"""Play recorded once, learnt from without an environment."""

import hashlib
import json
import shutil
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from potstill import Policy, PotstillError, load
from potstill.distill.options import DistillOptions
from potstill.distill.plan import plan
from potstill.distill.run import record, run
from potstill.networks import NetworkSpec
from potstill.report import write_report

COMMAND = ["potstill", "record"]
PLAY = {"hours": 2.5, "envs": 20, "threads": 2}
pytestmark = pytest.mark.usefixtures("short_hours_throughout")


def finish(options: DistillOptions, out: Path, resume: bool = False) -> dict:
    for _ in run(plan(options), out, resume, COMMAND):
        pass
    return json.loads((out / "result.json").read_text())


@pytest.fixture(scope="module")
def recorded_once(
    short_hours_throughout: int, cartpole_file_once: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    out = tmp_path_factory.mktemp("recorded") / "data"
    for _ in record(plan(DistillOptions((), (cartpole_file_once,), **PLAY)), out, False, COMMAND):
        pass
    return out


@pytest.fixture
def recorded(recorded_once: Path, tmp_path: Path) -> Path:
    return shutil.copytree(recorded_once, tmp_path / "data")


def changed(recorded: Path, **changes: object) -> Path:
    manifest = json.loads((recorded / "manifest.json").read_text())
    (recorded / "manifest.json").write_text(json.dumps({**manifest, **changes}))
    return recorded


def test_recorded_play_teaches_to_the_same_bits_as_playing(cartpole_file, recorded, tmp_path):
    choice = {"updates": 60, "episodes": 3, "memory_hours": 2.0, "threads": 2}
    played = finish(DistillOptions(("mlp:8",), (cartpole_file,), hours=2.5, envs=20, **choice), tmp_path / "played")
    learnt = finish(
        DistillOptions(("mlp:8",), (cartpole_file,), data=(recorded,), hours=2.5, **choice), tmp_path / "learnt"
    )
    one, other = (load_file(tmp_path / name / "students" / "mlp_8.safetensors") for name in ("played", "learnt"))
    assert all((one[key] == other[key]).all() for key in one)
    for student in (*played["students"], *learnt["students"]):
        del student["cost"]  # seconds are others in each run
    assert played["students"] == learnt["students"]
    assert played["budget"]["teacher_steps"] == learnt["budget"]["teacher_steps"] == 13_500


def test_without_teacher_or_environment_students_are_learnt_and_not_scored(recorded, short_hours_throughout, tmp_path):
    script = f"""
import sys
class Missing:
    def find_spec(self, name, *rest):
        if name.split(".")[0] in ("ale_py", "gymnasium", "stable_baselines3"): raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Missing())
import potstill.distill.schedule as schedule
schedule.STEPS_PER_HOUR = {short_hours_throughout}
from potstill.cli.main import main
main(["distill", "--data", {str(recorded)!r}, "--student", "mlp:8", "--hours", "2", "--updates", "40", "--out", "run"])
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    assert "not scored: no --teacher" in done.stdout
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["students"][0]["tasks"][0]["score"] is None
    assert result["teachers"][0]["outputs"] == "logits"
    assert "not scored" in write_report(tmp_path / "run").read_text()
    assert load(tmp_path / "run" / "students" / "mlp_8.safetensors").task == "CartPole-v1"


def test_learning_from_recorded_play_is_resumed_to_the_same_bits(recorded, tmp_path):
    choice = DistillOptions(("mlp:8",), data=(recorded,), hours=2.5, updates=40, memory_hours=1.5, threads=2)
    finish(choice, tmp_path / "whole")
    for progress in run(plan(choice), tmp_path / "cut", False, COMMAND):
        if progress.stage == "learn" and progress.hour == 2:
            break
    finish(choice, tmp_path / "cut", resume=True)
    one, other = (load_file(tmp_path / name / "students" / "mlp_8.safetensors") for name in ("whole", "cut"))
    assert all((one[key] == other[key]).all() for key in one)


def test_an_interrupted_recording_holds_the_hours_that_were_complete(cartpole_file, tmp_path):
    for progress in record(plan(DistillOptions((), (cartpole_file,), **PLAY)), tmp_path / "data", False, COMMAND):
        if progress.stage == "play" and progress.hour == 2:
            break
    finish(DistillOptions(("mlp:8",), data=(tmp_path / "data",), hours=1.0, updates=5), tmp_path / "run")
    with pytest.raises(PotstillError, match=r"--hours 2.0: .* holds 1; add --hours 1"):
        plan(DistillOptions(("mlp:8",), data=(tmp_path / "data",), hours=2.0))


@pytest.mark.parametrize(("stage", "times"), [("play", 1), ("hour", 1), ("hour", 2), ("hour", 3)])
def test_a_recording_is_resumed_to_the_same_bits(cartpole_file, recorded, tmp_path, stage, times):
    planned, out = plan(DistillOptions((), (cartpole_file,), **PLAY)), tmp_path / "cut"
    seen = 0
    for progress in record(planned, out, True, COMMAND):
        seen += progress.stage == stage
        if seen == times:
            break
    for _ in record(planned, out, True, COMMAND):
        pass
    names = {path.name for path in out.iterdir()}
    assert names == {path.name for path in recorded.iterdir()}
    for name in names - {"config.json"}:  # which names the teacher's file, another one here
        assert (out / name).read_bytes() == (recorded / name).read_bytes(), name
    assert not list(record(planned, out, True, COMMAND)), "there is nothing left to do"


def test_an_hour_that_a_kill_left_without_its_checkpoint_is_recorded_again(cartpole_file, recorded, tmp_path):
    planned, out = plan(DistillOptions((), (cartpole_file,), **PLAY)), tmp_path / "cut"
    for progress in record(planned, out, False, COMMAND):
        if progress.stage == "hour" and progress.done == 1:
            before = shutil.copytree(out / "checkpoint", tmp_path / "before")
        if progress.stage == "hour" and progress.done == 2:
            break
    shutil.rmtree(out / "checkpoint")
    before.rename(out / "checkpoint")
    for _ in record(planned, out, True, COMMAND):
        pass
    for name in ("manifest.json", "play-0002.npz", "play-0003.npz"):
        assert (out / name).read_bytes() == (recorded / name).read_bytes()


def test_a_recording_may_grow_while_it_is_learnt_from(cartpole_file, tmp_path):
    planned, data = plan(DistillOptions((), (cartpole_file,), **PLAY)), tmp_path / "data"
    for progress in record(planned, data, False, COMMAND):
        if progress.stage == "hour" and progress.done == 2:
            break
    choice = DistillOptions(("mlp:8",), data=(data,), hours=2.0, updates=40, threads=2)
    for progress in run(plan(choice), tmp_path / "run", False, COMMAND):
        if progress.stage == "hour":
            break
    for _ in record(planned, data, True, [*COMMAND, "--resume"]):
        pass
    manifest = json.loads((data / "manifest.json").read_text())
    assert (manifest["hours"], manifest["command"]) == (2.5, COMMAND)
    finish(choice, tmp_path / "run", resume=True)


def test_a_recording_is_not_gone_on_with_by_other_play(cartpole_file, recorded):
    with pytest.raises(PotstillError, match="was begun with seed 0, not 1"):
        next(record(plan(DistillOptions((), (cartpole_file,), seed=1, **PLAY)), recorded, True, COMMAND))


def test_one_process_at_a_time_records_to_a_folder(cartpole_file, tmp_path, locked_elsewhere):
    planned = plan(DistillOptions((), (cartpole_file,), **PLAY))
    with (
        locked_elsewhere(tmp_path / "data"),
        pytest.raises(PotstillError, match="is being worked on by another process"),
    ):
        next(record(planned, tmp_path / "data", False, COMMAND))


def test_an_hour_is_whole_however_many_environments_share_it(cartpole_file, tmp_path):
    threads = torch.get_num_threads()
    for _ in record(
        plan(DistillOptions((), (cartpole_file,), hours=2.0, envs=7, threads=1)), tmp_path / "data", False, COMMAND
    ):
        pass
    assert torch.get_num_threads() == threads, "the caller's are as they were"
    shards = json.loads((tmp_path / "data" / "manifest.json").read_text())["shards"]
    assert [shard["rows"] for shard in shards] == [771, 772]
    finish(
        DistillOptions(("mlp:8",), data=(tmp_path / "data",), hours=2.0, memory_hours=0.5, updates=5), tmp_path / "run"
    )


def test_an_hour_too_short_to_be_played_is_refused(cartpole_file):
    with pytest.raises(PotstillError, match=r"--hours 1.005: too small for 600 environments"):
        plan(DistillOptions((), (cartpole_file,), hours=1.005, envs=600, threads=1))


@pytest.mark.parametrize(("name", "value"), [("envs", 30), ("play_epsilon", 0.5), ("act", "sample")])
def test_options_of_play_that_was_recorded_otherwise_are_refused(recorded, name, value):
    choice = DistillOptions(("mlp:8",), data=(recorded,), hours=1.0, updates=5)
    assert plan(replace(choice, envs=20)).options.envs == 20
    with pytest.raises(PotstillError, match=f"--{name.replace('_', '-')} {value}: .* was recorded with .*; leave it"):
        plan(replace(choice, **{name: value}))


@pytest.mark.parametrize("hours", [0.1, 1.1])
def test_a_part_of_a_recorded_hour_can_be_learnt(recorded, hours, tmp_path):
    finish(DistillOptions(("mlp:8",), data=(recorded,), hours=hours, memory_hours=0.1, updates=50), tmp_path / "run")


@pytest.mark.usefixtures("short_games")
def test_the_teacher_of_recorded_games_may_be_named_to_score_the_students(tmp_path):
    policy = Policy.new(NetworkSpec.parse("cnn:4-4-4:8"), "logits", (4, 84, 84), "uint8", 6, task="ALE/Pong-v5")
    policy.save(tmp_path / "pong.safetensors")
    for _ in record(
        plan(DistillOptions((), (tmp_path / "pong.safetensors",), hours=0.1, envs=8)), tmp_path / "data", False, COMMAND
    ):
        pass
    planned = plan(DistillOptions(("net3",), (tmp_path / "pong.safetensors",), data=(tmp_path / "data",), hours=0.1))
    assert planned.lessons[0].task.action_names[0] == "NOOP"


def test_recorded_play_of_another_task_is_refused(recorded):
    with pytest.raises(PotstillError, match=r"--task Acrobot-v1: .*data is play of CartPole-v1"):
        plan(DistillOptions(("mlp:8",), data=(recorded,), task=("Acrobot-v1",), hours=1.0))


def test_another_teacher_is_refused(recorded, cartpole_teacher, tmp_path):
    cartpole_teacher.task = None
    cartpole_teacher.save(tmp_path / "other.safetensors")
    with pytest.raises(PotstillError, match="is not the one that played"):
        plan(DistillOptions(("mlp:8",), (tmp_path / "other.safetensors",), data=(recorded,), hours=1.0))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schema": 2}, "is of schema 2, this potstill reads 1"),
        ({"envs": 10**12}, "does not describe recorded play"),
        ({"observation_shape": [-4]}, "does not describe recorded play"),
        ({"observation_shape": [], "keys": [["a", 4]]}, "does not describe recorded play"),
        ({"protocol": {"nmae": "gymnasium"}}, "does not describe recorded play"),
        ({"teacher": None}, "does not describe recorded play"),
        ({"hours": float("nan")}, "is not a JSON file .NaN is no number"),
        ({"hours": 4}, "does not describe recorded play"),
        ({"shards": []}, "does not describe recorded play"),
        ({"task": 7}, "does not describe recorded play"),
        ({"protocol": {"name": "gymnasium", "stack": 0}}, "does not describe recorded play"),
        ({"shards": [{"file": "../data/play-0001.npz", "rows": 2700, "sha256": ""}]}, "does not describe"),
        ({"hours": 10**400}, "does not describe recorded play"),
        ({"task": "this:CartPole-v1"}, "does not describe recorded play"),
        ({"play_epsilon": float("inf")}, "is not a JSON file .Infinity is no number"),
        ({"play_epsilon": 10**400}, "does not describe recorded play"),
        ({"protocol": {"name": "gymnasium", "act": "worst"}}, "does not describe recorded play"),
        ({"shards": [{"file": "a\0b", "rows": 2700, "sha256": ""}]}, "does not describe"),
        ({"shards": [{"file": "play-0001.npz", "rows": 2700}]}, "does not describe"),
        ({"num_actions": 3}, "of another shape"),
        ({"envs": 40}, "of another shape"),
    ],
)
def test_a_manifest_that_is_wrong_is_one_line(recorded, tmp_path, changes, message):
    with pytest.raises(PotstillError, match=message) as error:
        finish(DistillOptions(("mlp:8",), data=(changed(recorded, **changes),), hours=1.0, updates=5), tmp_path / "run")
    assert "\n" not in str(error.value)


def test_a_damaged_shard_is_one_line(recorded, tmp_path):
    path = recorded / "play-0001.npz"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(PotstillError, match="its checksum is not the manifest's"):
        finish(DistillOptions(("mlp:8",), data=(recorded,), hours=1.0, updates=5), tmp_path / "run")


def npy(claim: str) -> bytes:
    """An array's file whose header claims something, without what it claims."""
    header = claim.encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + bytes(64)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("depth", bytes(200_000_000), "it is too large"),
        ("depth", npy(str({"descr": "<U1", "fortran_order": False, "shape": (4, 4)})), "arrays of other kinds"),
        ("depth", npy(str({"descr": "<c8", "fortran_order": False, "shape": (2, 4)})), "arrays of other kinds"),
        ("labels", npy(str({"descr": "<f8", "fortran_order": False, "shape": (2, 2, 2)})), "arrays of other kinds"),
        ("frames", npy(str({"descr": "|u1", "fortran_order": True, "shape": (8, 8)})), "arrays of other kinds"),
        ("frames", npy(str({"descr": "|u1", "fortran_order": False, "shape": (2**46,)})), "is missing, damaged or"),
        ("frames", npy(str({"descr": "|u1", "fortran_order": False, "shape": (2**80,)})), "is missing, damaged or"),
        ("frames", npy("(" * 40), "is missing, damaged or"),
    ],
)
def test_a_shard_that_a_stranger_made_is_refused_in_one_line(recorded, tmp_path, name, content, message):
    path = recorded / "play-0001.npz"
    with zipfile.ZipFile(path) as archive:
        arrays = {member: archive.read(member) for member in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for member, array in {**arrays, f"{name}.npy": content}.items():
            archive.writestr(member, array)
    manifest = json.loads((recorded / "manifest.json").read_text())
    manifest["shards"][0]["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    data = changed(recorded, shards=manifest["shards"])
    with pytest.raises(PotstillError, match=message) as error:
        finish(DistillOptions(("mlp:8",), data=(data,), hours=1.0, updates=5), tmp_path / "run")
    assert "\n" not in str(error.value)


def test_what_was_learnt_from_a_recording_is_scored_once_its_teacher_is_named(cartpole_file, recorded, tmp_path):
    learnt = DistillOptions(("mlp:8",), data=(recorded,), hours=2.0, updates=20, threads=2, episodes=3)
    assert finish(learnt, tmp_path / "run")["teachers"][0]["score"] is None
    (tmp_path / "lacking").mkdir()
    for name in ("config.json", "result.json"):
        shutil.copy(tmp_path / "run" / name, tmp_path / "lacking")
    taught = replace(learnt, teacher=(cartpole_file,))
    assert finish(taught, tmp_path / "run", resume=True)["teachers"][0]["score"]["episodes"] == 3
    with pytest.raises(PotstillError, match=r"lacks learnt.json to be scored anew by: leave out --teacher"):
        finish(taught, tmp_path / "lacking", resume=True)


def test_starts_of_scores_that_there_will_be_none_of_are_refused(recorded):
    with pytest.raises(PotstillError, match="--starts expert: nothing is scored without --teacher"):
        plan(DistillOptions(("mlp:8",), data=(recorded,), hours=2.0, starts="expert"))


def test_a_recording_that_is_stopped_ends_its_environments(cartpole_file, tmp_path, monkeypatch):
    closed = []
    monkeypatch.setattr("potstill.tasks.envs.Envs.close", lambda self: closed.append(self))
    playing = record(plan(DistillOptions((), (cartpole_file,), **PLAY)), tmp_path / "data", False, COMMAND)
    next(playing)
    playing.close()
    assert len(closed) == 1
