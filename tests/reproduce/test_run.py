"""The paper's tables: planned before any work, made of runs, collected beside what was published."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from potstill import Policy, PotstillError
from potstill.cli.main import main
from potstill.networks import PAPER, NetworkSpec
from potstill.report import write_report
from potstill.reproduce import activations
from potstill.reproduce import run as reproducing
from potstill.reproduce.options import ReproduceOptions
from potstill.reproduce.paper import GEOMETRIC_MEANS, LOSSES, TABLES, paper_mean
from potstill.reproduce.run import collect, prepare

COMMAND = ["potstill", "reproduce"]


def teacher(folder: Path, game: str, actions: int, seed: int = 0) -> Path:
    torch.manual_seed(seed)
    policy = Policy.new(
        NetworkSpec.parse("cnn:4-4-4:8"), "logits", (4, 84, 84), "uint8", actions, task=f"ALE/{game}-v5"
    )
    policy.save(folder / f"{game}.safetensors")
    return folder / f"{game}.safetensors"


@pytest.fixture(autouse=True)
def a_zoo_of_pong_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POTSTILL_ZOO", str(tmp_path / "zoo"))


@pytest.fixture
def teachers(tmp_path: Path) -> Path:
    folder = tmp_path / "teachers"
    folder.mkdir()
    teacher(folder, "Breakout", 4)
    teacher(folder, "SpaceInvaders", 6)
    (folder / "notes.zip").write_text("no policy")
    return folder


def names(table: Any, options: ReproduceOptions) -> list[str]:
    return list(prepare(table, options).jobs)


def test_an_hour_that_a_small_machine_does_not_hold_is_not_remembered(teachers, monkeypatch):
    where = ReproduceOptions(teachers=(str(teachers),))
    assert prepare("compression", where).options.memory_hours == 10
    an_hour = 54_000 * (84 * 84 + 4 * 4)  # of Breakout
    monkeypatch.setattr("potstill.distill.plan.memory_bytes", lambda device: 6 * an_hour)
    assert prepare("compression", where).options.memory_hours == 4


def test_the_published_means_are_those_of_the_published_games():
    for table, columns in GEOMETRIC_MEANS.items():
        for column, mean in columns.items():
            of_games = list(TABLES[table][column].values())
            assert np.exp(np.mean(np.log(of_games))) == pytest.approx(mean, abs=0.11)
            assert paper_mean(table, column, list(TABLES[table][column])) == mean
    assert LOSSES["kl"]["Qbert"] == 155.0


def test_of_some_games_the_papers_mean_is_over_these():
    assert paper_mean("losses", "kl", ["Pong", "Freeway"]) == 102.2
    assert paper_mean("losses", "kl", ["Pong", "SpaceInvaders"]) is None, "of which it says nothing there"


def test_every_run_of_a_table_is_planned_from_the_teachers_there_are(teachers):
    where = ReproduceOptions(teachers=("zoo", str(teachers)), seeds=(0, 1))
    assert names("compression", where) == [f"{game}-{seed}" for seed in (0, 1)
                                           for game in ("Breakout", "Pong", "SpaceInvaders")]  # fmt: skip
    assert prepare("compression", where).missing == [
        "BeamRider", "Enduro", "Freeway", "MsPacman", "Qbert", "Riverraid", "Seaquest",
    ]  # fmt: skip
    quick = ReproduceOptions(teachers=("zoo", str(teachers)), seeds=(0, 1), quick=True)
    assert names("losses", quick) == [f"{game}-0" for game in ("Breakout", "Pong")]
    assert prepare("losses", quick).options.hours == 0.25
    games = ReproduceOptions(teachers=("zoo", str(teachers)), seeds=(3,), games=("SpaceInvaders", "Breakout"))
    assert prepare("losses", games).missing == [], "nobody asked for others"
    assert names("multitask-3", games) == ["distilled-3", "multi-dqn-3"]
    assert names("multitask-10", games) == ["distilled-3"]
    assert names("online", ReproduceOptions(games=("Pong",))) == ["Pong-online"]


@pytest.mark.parametrize(("hours", "envs"), [(0.25, 10), (1.0, 20), (10.0, 60)])
def test_each_copy_of_a_game_comes_to_its_late_games(teachers, hours, envs):
    job: Any = prepare("losses", ReproduceOptions(teachers=(str(teachers),), hours=hours)).jobs["Breakout-0"]
    [planned] = job.args
    assert planned.options.envs == envs
    assert planned.losses == {"mse": "mse", "nll": "nll", "kl": "kl"}


@pytest.mark.parametrize(
    ("table", "options", "message"),
    [
        ("losses", {"games": ("Qbert",)}, "--games Qbert: no teacher in --teachers, which has Pong"),
        ("losses", {"games": ("Tetris",)}, "--games Tetris: the paper's games are BeamRider"),
        ("multitask-3", {}, "Pong is the only game with a teacher"),
        ("losses", {"teachers": ("nowhere.zip",)}, "cannot read nowhere.zip"),
        ("losses", {"seeds": (1, 1)}, "--seeds"),
        ("losses", {"episodes": 0}, "--episodes 0"),
        ("losses", {"hours": 0.0}, "--hours 0.0"),
        ("losses", {"hours": 2.0, "quick": True}, "--hours 2.0: --quick has its own; leave out one of them"),
        ("losses", {"seeds": (3, 4), "quick": True}, "--seeds 3 4: --quick takes one"),
        ("compression", {"starts": "nowhere.json"}, "--starts nowhere.json: no starts of ALE/Pong-v5"),
        ("online", {"memory_hours": 0.01}, "--memory-hours 0.01: must be at least 0.1"),
        ("online", {"games": ("Tetris",)}, "--games Tetris"),
        ("online", {"steps": 8000}, "--steps 8000: a training takes 20000 at least"),
        ("online", {"hours": 5.0}, "--hours: online has no use for it"),
        ("online", {"teachers": ("a.zip",)}, "--teachers: online has no use for it"),
        ("compression", {"steps": 30_000}, "--steps: compression has no use for it"),
        ("online", {"starts": "expert"}, "--starts expert: online trains, and trainings are scored from no-op starts"),
    ],
)
def test_what_cannot_run_is_said_before_any_work(table, options, message):
    with pytest.raises(PotstillError, match=message):
        prepare(table, ReproduceOptions(**options))


def test_a_file_that_plays_none_of_the_games_is_refused(cartpole_file):
    with pytest.raises(PotstillError, match="plays none of"):
        prepare("losses", ReproduceOptions(teachers=(str(cartpole_file),)))


MADE = {"protocol": {"starts": "noop", "epsilon": 0.05}, "versions": {"potstill": "0"}, "machine": {"cores": 2}}


def fake_run(folder: Path, students: dict[str, list[float]], task: str, of_teacher: list[float]) -> None:
    folder.mkdir(parents=True)
    result = {
        **MADE,
        "budget": {"updates": 1},
        "teachers": [{"name": "t", "task": task, "parameters": 100, "score": {"returns": of_teacher}}],
        "students": [
            {
                "name": name,
                "file": f"students/{name}.safetensors",
                "tasks": [{"task": task, "score": {"returns": returns}}],
            }
            for name, returns in students.items()
        ],
    }
    (folder / "result.json").write_text(json.dumps(result))


def test_a_table_pools_the_episodes_of_all_seeds_and_counts_a_runs_teacher_once(teachers, tmp_path):
    reproduction = prepare("compression", ReproduceOptions(teachers=(str(teachers),), seeds=(0, 1)))
    for seed, teacher_scores in ((0, [10.0, 20.0]), (1, [10.0, 40.0])):
        of_students = {"net1": [20.0 * (seed + 1)], "net2": [10.0], "net3": [5.0]}
        fake_run(tmp_path / "out" / f"Breakout-{seed}", of_students, "ALE/Breakout-v5", teacher_scores)
        fake_run(tmp_path / "out" / f"SpaceInvaders-{seed}", of_students, "ALE/SpaceInvaders-v5", [10.0, 10.0])
    collect(reproduction, tmp_path / "out", COMMAND)
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    breakout, invaders = result["rows"]
    assert breakout["teacher"]["score"]["returns"] == [10.0, 20.0, 10.0, 40.0]
    assert breakout["columns"]["net1"]["score"]["returns"] == [20.0, 40.0]
    assert breakout["columns"]["net1"]["of_seeds"] == [20.0, 40.0]
    assert breakout["columns"]["net1"]["relative"]["mean"] == pytest.approx(30 / 20)
    assert breakout["columns"]["net1"]["paper"] == 105.6
    assert invaders["columns"]["net3"]["relative"]["mean"] == pytest.approx(0.5)
    assert result["geometric_mean"]["net1"]["mean"] == pytest.approx(np.sqrt(1.5 * 3.0))
    assert result["geometric_mean"]["net1"]["paper"] == pytest.approx(np.sqrt(105.6 * 78.6), abs=0.05), (
        "of these two games"
    )
    page = write_report(tmp_path / "out").read_text()
    assert "Space Invaders" in page
    assert "300.0" in page
    assert "BeamRider" in page, "what was left out is said"


@pytest.mark.parametrize("column", ["multi-dqn", "nll", "kl"])
def test_a_multi_task_table_takes_each_columns_scores_from_its_run(teachers, tmp_path, monkeypatch, column):
    monkeypatch.setattr(reproducing, "picture", lambda *arguments: None)
    reproduction = prepare(
        "multitask-3", ReproduceOptions(teachers=(str(teachers),), games=("Breakout", "SpaceInvaders"), seeds=(0,))
    )
    tasks = ("ALE/Breakout-v5", "ALE/SpaceInvaders-v5")
    scores = {
        name: [{"returns": [10.0 * place + number]} for number in range(2)]
        for place, name in enumerate(("nll", "kl", "multi-dqn"))
    }
    distilled = {
        **MADE,
        "scored_on": [{"cores": 4}],
        "budget": {},
        "teachers": [{"name": "t", "task": t, "parameters": 1, "score": {"returns": [100.0]}} for t in tasks],
        "students": [{"name": n, "tasks": [{"score": score} for score in scores[n]]} for n in ("nll", "kl")],
    }
    trained = {**MADE, "budget": {}, "best": {"scores": dict(zip(tasks, scores["multi-dqn"], strict=True))}}
    for name, result in (("distilled-0", distilled), ("multi-dqn-0", trained)):
        (tmp_path / "out" / name).mkdir(parents=True)
        (tmp_path / "out" / name / "result.json").write_text(json.dumps(result))
    collect(reproduction, tmp_path / "out", COMMAND)
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    rows = result["rows"]
    assert (result["machine"], result["also_on"]) == ({"cores": 2}, [{"cores": 4}]), "those of the runs"
    place = ("nll", "kl", "multi-dqn").index(column)
    assert [row["columns"][column]["score"]["mean"] for row in rows] == [10.0 * place, 10.0 * place + 1]


@pytest.mark.usefixtures("short_games")
def test_a_table_is_gone_on_with_where_its_teachers_lie_elsewhere(teachers, tmp_path, monkeypatch):
    monkeypatch.setattr(reproducing, "run", lambda *_: iter([]))
    command = ["reproduce", "losses", "--out", str(tmp_path / "table"), "--resume", "--teachers"]
    for folder in (teachers, teachers.rename(tmp_path / "moved")):
        with pytest.raises(SystemExit, match="2"):  # there are no runs to be collected
            main([*command, str(folder)])
    assert str(tmp_path / "moved") in (tmp_path / "table" / "config.json").read_text()


@pytest.mark.parametrize("steps", [20_000, 42_000, 2_000_000])
def test_the_online_table_is_planned_with_as_few_steps_as_it_takes(steps):
    [job] = prepare("online", ReproduceOptions(games=("Pong",), steps=steps, memory_hours=1.0)).jobs.values()
    planned = job.args[0]
    assert planned.checks == min(20, steps // planned.eval_every)
    assert planned.checks > 8


def test_a_multi_task_table_end_to_end_and_again_without_work(teachers, tmp_path, monkeypatch):
    monkeypatch.setattr(reproducing, "UPDATES", {False: 200})
    monkeypatch.setattr(reproducing, "FEWEST_ENVS", 8)  # each takes time to start
    monkeypatch.setattr(activations, "STATES", 80)
    monkeypatch.setitem(PAPER, "multitask-10", "cnn:8-8-8:16/8")
    options = ReproduceOptions(teachers=(str(teachers),), games=("Breakout", "SpaceInvaders"), hours=0.01,
                      seeds=(0,), episodes=1, threads=1)  # fmt: skip
    reproduction = prepare("multitask-10", options)
    for _, progress in reproducing.run(reproduction, tmp_path / "out", COMMAND):
        assert list(progress)
    collect(reproduction, tmp_path / "out", COMMAND)
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    assert [row["game"] for row in result["rows"]] == ["Breakout", "Space Invaders"]
    assert list(result["rows"][1]["columns"]) == ["kl"]
    points = json.loads((tmp_path / "out" / "activations.json").read_text())
    assert {name: np.shape(layer) for name, layer in points["layers"].items()} == {
        "first layer": (160, 2), "last shared layer": (160, 2),
    }  # fmt: skip
    assert "t-SNE of the first layer" in write_report(tmp_path / "out").read_text()
    for _, progress in reproducing.run(prepare("multitask-10", options), tmp_path / "out", COMMAND):
        assert not list(progress), "what is finished isn't done again"
    teacher(teachers, "Breakout", 4, seed=1)
    with pytest.raises(PotstillError, match="was begun with teacher-sha256"):
        for _, progress in reproducing.run(prepare("multitask-10", options), tmp_path / "out", COMMAND):
            list(progress)
