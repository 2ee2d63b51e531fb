import json
from pathlib import Path

import pytest

from potstill.distill import videos
from potstill.distill.options import DistillOptions
from potstill.distill.plan import plan
from potstill.distill.run import complete, run
from potstill.errors import PotstillError
from potstill.report import write_report

SMALL = {"hours": 0.02, "envs": 20, "updates": 50, "threads": 1, "episodes": 1}


@pytest.fixture(autouse=True)
def short(monkeypatch):
    monkeypatch.setattr(videos, "SECONDS", 0.4)


def finished(out: Path, *choice, **options):
    planned = plan(DistillOptions(*choice, **{**SMALL, **options}))
    for _ in run(planned, out, False, ["potstill"]):
        pass
    return planned


def result(out: Path) -> dict:
    return json.loads((out / "result.json").read_text())


def said_of(out: Path) -> str:
    return write_report(out).read_text()


def test_each_student_is_filmed_once_beside_its_teacher(cartpole_file, read_film, tmp_path):
    planned = finished(tmp_path / "run", ("mlp:8", "mlp:4"), (cartpole_file,))
    before = result(tmp_path / "run")
    (tmp_path / "run" / "videos").mkdir()
    (tmp_path / "run" / "videos" / "mlp_8.mp4.0.partial").touch()  # a killed process was writing it
    stages = [(progress.stage, progress.done, progress.total) for progress in videos.film(planned, tmp_path / "run")]
    assert stages == [("film", 0, 2), ("film", 1, 2), ("film", 2, 2)]
    assert sorted(path.name for path in (tmp_path / "run" / "videos").iterdir()) == ["mlp_4.mp4", "mlp_8.mp4"]
    after = result(tmp_path / "run")
    for student in after["students"]:
        assert student["tasks"][0].pop("video") == f"videos/{student['name']}.mp4"
        facts, pictures = read_film(tmp_path / "run" / "videos" / f"{student['name']}.mp4")
        assert (facts["size"], facts["fps"], len(pictures)) == ((676, 322), 25, 10)
    assert after == before, "nothing else has changed"
    assert [progress.total for progress in videos.film(planned, tmp_path / "run")] == [0]
    films = {path: path.stat().st_ino for path in (tmp_path / "run" / "videos").iterdir()}
    (tmp_path / "run" / "result.json").write_text(json.dumps(before))  # as when it was scored anew
    for _ in videos.film(planned, tmp_path / "run"):
        pass
    assert [student["tasks"][0]["video"] for student in result(tmp_path / "run")["students"]] == [
        "videos/mlp_8.mp4", "videos/mlp_4.mp4"
    ]  # fmt: skip
    assert {path: path.stat().st_ino for path in films} == films, "they are what they were"


def test_a_task_each_for_a_student_of_several(cartpole_file, tmp_path):
    planned = finished(
        tmp_path / "run", ("mlp:8/4",), (cartpole_file, cartpole_file), task=("CartPole-v1", "CartPole-v0")
    )
    for _ in videos.film(planned, tmp_path / "run"):
        pass
    [student] = result(tmp_path / "run")["students"]
    assert [task["video"] for task in student["tasks"]] == ["videos/mlp_8_4-1.mp4", "videos/mlp_8_4-2.mp4"]
    assert all((tmp_path / "run" / task["video"]).exists() for task in student["tasks"])


def test_what_cannot_be_drawn_is_left_out_and_the_report_says_why(cartpole_file, tmp_path, monkeypatch):
    def no_renderer(*_, **__):
        raise PotstillError("CartPole-v1 can't be drawn here")

    monkeypatch.setattr(videos, "frames", no_renderer)
    planned = finished(tmp_path / "run", ("mlp:8",), (cartpole_file,))
    for _ in videos.film(planned, tmp_path / "run"):
        pass
    assert "video" not in result(tmp_path / "run")["students"][0]["tasks"][0]
    assert "Not all of it could be filmed (CartPole-v1 can&#39;t be drawn here)." in said_of(tmp_path / "run")
    monkeypatch.undo()
    for _ in videos.film(planned, tmp_path / "run"):  # where it can be drawn
        pass
    assert "could be filmed" not in said_of(tmp_path / "run")


def test_it_does_not_take_longer_than_its_patience(cartpole_file, tmp_path, monkeypatch):
    monkeypatch.setattr(videos, "PATIENCE", 0.0)
    planned = finished(tmp_path / "run", ("mlp:8",), (cartpole_file,))
    for _ in videos.film(planned, tmp_path / "run"):
        pass
    assert "video" not in result(tmp_path / "run")["students"][0]["tasks"][0]
    assert not (tmp_path / "run" / "videos").exists()


@pytest.mark.parametrize("made", [videos.film, complete])
def test_a_strangers_names_of_students_are_no_names_of_files(cartpole_file, tmp_path, made):
    out = tmp_path / "deep" / "run"
    planned = finished(out, ("mlp:8",), (cartpole_file,))
    said = result(out)
    said["students"][0]["name"] = "../../stranger"
    del said["students"][0]["cost"]
    (out / "result.json").write_text(json.dumps(said))
    with pytest.raises(PotstillError, match=r"not what a run writes \(ValueError: students \.\./\.\./stranger\)"):
        for _ in made(planned, out):
            pass
    assert not (tmp_path / "stranger.mp4").exists()
