"""A task's episodes, once they are played, are kept: a run stopped while it scores goes on with the next task."""

import json
import shutil
from pathlib import Path

import pytest

from potstill import PotstillError
from potstill.distill import scoring
from potstill.distill.options import DistillOptions
from potstill.distill.plan import plan
from potstill.distill.run import run
from potstill.distill.scoring import _players, _read
from potstill.report import write_report

TASKS = ("CartPole-v1", "CartPole-v0")


def options(teacher: Path) -> DistillOptions:
    return DistillOptions(
        ("mlp:8/4",), (teacher, teacher), task=TASKS, hours=0.1, envs=20, updates=100, episodes=4, threads=2
    )


def finish(teacher: Path, out: Path, resume: bool = False) -> dict:
    for _ in run(plan(options(teacher)), out, resume, ["potstill"]):
        pass
    return json.loads((out / "result.json").read_text())


@pytest.fixture(scope="module")
def stopped_once(cartpole_file_once: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stopped while the second task's episodes were played."""
    out = tmp_path_factory.mktemp("stopped") / "run"
    for progress in run(plan(options(cartpole_file_once)), out, False, ["potstill"]):
        if progress.stage == "evaluate" and progress.done > progress.total / 2:
            break
    return out


@pytest.fixture
def stopped(stopped_once: Path, tmp_path: Path) -> Path:
    """A copy that a test may spoil."""
    return Path(shutil.copytree(stopped_once, tmp_path / "stopped"))


def test_what_was_played_is_not_played_again(cartpole_file, stopped, tmp_path, monkeypatch):
    whole = finish(cartpole_file, tmp_path / "whole")
    [before] = json.loads((stopped / "scored.json").read_text())
    played: list[str] = []

    def watched(players, task, *given):
        played.append(task.id)
        return evaluate(players, task, *given)

    evaluate = scoring.evaluate
    monkeypatch.setattr(scoring, "evaluate", watched)
    resumed = finish(cartpole_file, stopped, resume=True)
    assert played == [TASKS[1]]
    assert resumed["teachers"][0]["score"]["returns"] == before["returns"]["teacher"]
    assert resumed["budget"]["seconds"]["evaluate"] > before["seconds"]
    for policy in (policy for of in (whole, resumed) for policy in of["students"] + of["teachers"]):
        del policy["cost"]  # seconds are others in each run
    assert resumed["students"] == whole["students"]
    assert resumed["teachers"] == whole["teachers"]
    assert not (stopped / "scored.json").exists()
    assert not (tmp_path / "whole" / "scored.json").exists()


def test_progress_goes_on_where_it_stopped(cartpole_file, stopped):
    first = next(p for p in run(plan(options(cartpole_file)), stopped, True, ["potstill"]) if p.stage == "evaluate")
    assert first.done >= first.total / 2


def test_other_students_are_scored_anew(cartpole_file, stopped):
    (stopped / "learnt.json").unlink()
    for progress in run(plan(options(cartpole_file)), stopped, True, ["potstill"]):
        if progress.stage == "evaluate":
            break
    assert not (stopped / "scored.json").exists()


def test_a_teacher_that_is_not_there_any_more_is_not_believed_to_have_played(cartpole_file, stopped):
    planned = plan(options(cartpole_file))
    lists = [{}, *(_players(lesson, index, {}, planned.options, True) for index, lesson in enumerate(planned.lessons))]
    assert _read(stopped / "scored.json", planned.lessons, lists, ["mlp_8_4"]) == []


def test_every_machine_that_scored_is_named(cartpole_file, stopped):
    [said] = json.loads((stopped / "scored.json").read_text())
    said["machine"]["threads"] = 7
    (stopped / "scored.json").write_text(json.dumps([said]))
    result = finish(cartpole_file, stopped, resume=True)
    assert [of["threads"] for of in result["scored_on"]] == [7], "the second task was scored where it was learnt"
    assert "threads 7" in write_report(stopped).read_text()


@pytest.mark.parametrize("content", ["{", "3", '["a"]', "[{}]", '[{"returns": {"teacher": [0, 0, 0, 0]}}]'])
def test_a_damaged_file_is_one_line_that_names_the_mend(cartpole_file, stopped, content):
    (stopped / "scored.json").write_text(content)
    with pytest.raises(PotstillError, match=r"; remove .*scored.json, and --resume scores again$") as error:
        finish(cartpole_file, stopped, resume=True)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("key", "odd"),
    [
        ("states", []),
        ("states", [10**30, 1]),
        ("agreed", {"mlp_8_4": [1, 2, 3]}),
        ("returns", {"teacher": [3.0] * 4, "student mlp_8_4": [3.0], "random": [3.0] * 4}),
        ("machine", 3),
        ("seconds", None),
    ],
)
def test_a_file_with_odd_numbers_is_one_line_too(cartpole_file, stopped, key, odd):
    [said] = json.loads((stopped / "scored.json").read_text())
    (stopped / "scored.json").write_text(json.dumps([{**said, key: odd}]))
    with pytest.raises(PotstillError, match=r"scored.json is damaged .*--resume scores again$"):
        finish(cartpole_file, stopped, resume=True)
