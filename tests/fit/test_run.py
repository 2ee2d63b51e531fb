"""From a teacher to a statement: CartPole's, whose smallest students are a handful of weights."""

import json
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from potstill import Policy, PotstillError, load
from potstill.cli.main import main
from potstill.distill import schedule
from potstill.distill.options import DistillOptions
from potstill.evaluate import Score
from potstill.files import read_json
from potstill.fit import run as fit_run
from potstill.fit.options import ATARI, VECTORS, Goal, ladder
from potstill.fit.run import fit, prepare
from potstill.networks import NetworkSpec
from potstill.report import write_report
from potstill.tasks import make_task

GOAL = Goal(max_episodes=60)


@pytest.fixture
def options(cartpole_file, monkeypatch):
    monkeypatch.setattr(schedule, "STEPS_PER_HOUR", 3000)
    return DistillOptions(
        ("mlp:16", "mlp:4", "linear"), (cartpole_file,), hours=2.0, updates=300, envs=20, episodes=10, threads=1
    )


def finished(options, goal, out, resume=False):
    for _ in fit(prepare(options, goal), goal, out, resume, ["potstill", "fit"]):
        pass
    return read_json(out / "result.json")


def test_the_smallest_that_passes_is_chosen_on_fresh_episodes(options, tmp_path):
    result = finished(options, GOAL, tmp_path / "run")
    found = result["fit"]
    assert "other_act" not in result["teachers"][0], "nobody is compared with it: it isn't played"
    assert [rung["name"] for rung in found["rungs"]] == ["mlp_16", "mlp_4", "linear"]
    tested = [rung for rung in found["rungs"] if "tested" in rung]
    assert tested
    passed = [rung["name"] for rung in tested if rung["tested"]["holds"]]
    assert found["chosen"] == passed[-1]
    assert found["statement"].startswith(f"{found['chosen']} (")
    assert found["seed"] != result["seed"]
    for rung in found["rungs"]:
        [student] = [student for student in result["students"] if student["name"] == rung["name"]]
        score, share = student["tasks"][0]["score"], student["tasks"][0]["normalised"]["mean"]
        if "tested" in rung:  # those that sizes were chosen by are shown nowhere
            assert score == rung["tested"]["score"]
            assert share == pytest.approx(rung["tested"]["share"])
        else:
            assert share == pytest.approx(rung["share"])
    assert len({found["seed"], *(rung["tested"]["seed"] for rung in tested)}) == 1 + len(tested), (
        "episodes are not shared"
    )
    for rung in tested:
        assert len(rung["tested"]["score"]["returns"]) == rung["tested"]["episodes"] >= 53
        assert rung["tested"]["at_least"] <= rung["tested"]["share"]
    assert load(tmp_path / "run" / "students" / f"{found['chosen']}.safetensors").task == "CartPole-v1"
    assert found["statement"] in write_report(tmp_path / "run").read_text()


def test_no_size_qualifies_is_said_plainly(options, tmp_path):
    poor = replace(options, hours=1.0, updates=1, learning_rate=1e-9)
    found = finished(poor, GOAL, tmp_path / "run")["fit"]
    assert found["chosen"] is None
    assert found["statement"].startswith("No size qualifies: none seemed to keep at least 95 %")
    assert not any("tested" in rung for rung in found["rungs"])
    assert found["test_by_hand"] is None, "no number of episodes would show it"


def test_what_takes_too_many_episodes_can_be_tested_by_hand(options, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(fit_run, "episodes_needed", lambda *_: GOAL.max_episodes + 1)
    found = finished(options, GOAL, tmp_path / "run")["fit"]
    assert found["statement"].endswith("it would take 61 episodes.")
    command = found["test_by_hand"]
    main(command[1:])
    assert "61 episodes of CartPole-v1, normalised" in capsys.readouterr().out
    assert command[command.index("--seed") + 1] == str(found["seed"])


def no_tests():
    yield from ()
    return {}


def test_losers_are_dropped_early_and_a_stopped_run_goes_on_the_same(options, tmp_path, monkeypatch):
    def worst(student, teacher, random, due):
        worst.calls += 1
        return worst.calls == 2  # the second student of the first look

    options = replace(options, hours=3.0, updates=60)
    monkeypatch.setattr(fit_run, "_test", lambda *_: no_tests())
    worst.calls = 0
    monkeypatch.setattr(fit_run, "_surely_below", worst)
    whole = finished(options, GOAL, tmp_path / "whole")
    rung = whole["fit"]["rungs"][1]
    assert list(rung["looks"]) == ["2"]  # not after the first hour of three
    assert rung["looks"]["2"]["dropped"] is True
    assert "share" not in rung
    assert [student["name"] for student in whole["students"]] == ["mlp_16", "linear"]
    assert "dropped, 2 h" in write_report(tmp_path / "whole").read_text()

    worst.calls = 0
    stopped = fit(prepare(options, GOAL), GOAL, tmp_path / "stopped", False, ["potstill", "fit"])
    for progress in stopped:
        if progress.stage == "learn" and progress.hour == 3:
            break
    stopped.close()
    for progress in fit(prepare(options, GOAL), GOAL, tmp_path / "stopped", True, ["potstill", "fit"]):
        if progress.stage == "evaluate" and (tmp_path / "stopped" / "learnt.json").exists():
            break
    assert not (tmp_path / "stopped" / "checkpoint").exists()
    monkeypatch.setattr(fit_run, "new_state", None)  # all is learnt
    again = finished(options, GOAL, tmp_path / "stopped", resume=True)
    for run in (whole, again):
        del run["fit"]["test_by_hand"]  # it names the folder
        for student in run["students"]:
            del student["cost"]
    assert json.dumps(again["fit"]) == json.dumps(whole["fit"])
    assert again["students"] == whole["students"]


def test_a_look_is_at_cooled_copies(options, cartpole_file, tmp_path, monkeypatch):
    def copies(plan, state):
        yield from ()
        return {student.name: [load(cartpole_file)] for student in state.students}

    monkeypatch.setattr(fit_run, "cooled", copies)
    monkeypatch.setattr(fit_run, "_test", lambda *_: no_tests())
    result = finished(replace(options, hours=3.0, updates=1), GOAL, tmp_path / "run")
    assert [rung["looks"]["2"]["share"] for rung in result["fit"]["rungs"]] == [1.0] * 3, "the teacher's own"


def test_a_teacher_no_better_than_chance_is_refused_before_anything_is_learnt(options, tmp_path):
    Policy.new(NetworkSpec.parse("linear"), "logits", (4,), "float32", 2, task="CartPole-v1").save(tmp_path / "poor")
    with torch.no_grad():
        poor = load(tmp_path / "poor")
        poor.ours.head.weight.zero_()
        poor.ours.head.bias.copy_(torch.tensor([1.0, 0.0]))
    poor.save(tmp_path / "poor.safetensors")
    with pytest.raises(PotstillError, match="poor isn't surely better than chance on CartPole-v1"):
        finished(replace(options, teacher=(tmp_path / "poor.safetensors",)), GOAL, tmp_path / "run")


def rung(name, parameters, share, needed, **tested):
    said = {"tested": {"episodes": 100, "share": share, "at_least": share - 0.01, **tested}} if tested else {}
    return {"name": name, "parameters": parameters, "share": share, "needed": needed, "episodes": 100, **said}


def test_a_teacher_that_turns_out_no_better_than_chance_is_said_then():
    lesson = SimpleNamespace(task=SimpleNamespace(id="CartPole-v1"), teacher_record={"name": "poor"})
    with pytest.raises(
        PotstillError, match=r"poor isn't surely better than chance on CartPole-v1 \(1.50 against 2.00\)"
    ):
        fit_run._shown(lesson, Goal(), Score((1.0, 2.0)), Score((1.0, 2.0)), Score((2.0, 2.0)))


def test_words_claim_no_more_than_was_tested():
    lesson = SimpleNamespace(teacher_record={"name": "big"}, task=SimpleNamespace(id="X-v1"))
    goal = Goal(keep=0.975, confidence=0.999)
    rungs = [rung("a", 900, 1.0, 20, holds=True), rung("b", 90, 0.99, 50, holds=False), rung("c", 9, 0.98, 99)]
    assert "keeps at least 97.5 % of" in (words := fit_run._in_words(lesson, goal, rungs, "a"))
    assert "99.9 % confidence" in words
    assert "2 sizes tested" in words
    nothing = fit_run._in_words(lesson, goal, [rung("a", 900, 0.9, 20, holds=False), *rungs[2:]], None)
    assert nothing.startswith("No size qualifies: a seemed to keep")
    assert nothing.endswith("Smaller ones weren't tested then: c.")
    too_long = rung("d", 9_000, 1.0, goal.max_episodes + 1)
    assert fit_run._in_words(lesson, goal, [too_long, rung("a", 900, 0.9, 20, holds=False)], None).endswith(
        "confidence."
    )


def test_the_ladder_fits_the_task():
    assert ladder(make_task("CartPole-v1")) == VECTORS
    assert ladder(make_task("ALE/Pong-v5")) == ATARI


@pytest.mark.parametrize(
    ("goal", "message"),
    [
        (Goal(keep=1.0), "--keep 1.0"),
        (Goal(confidence=0.0), "--confidence 0.0"),
        (Goal(max_episodes=1), "--max-episodes"),
    ],
)
def test_goals_that_nothing_can_show_are_refused(options, goal, message):
    with pytest.raises(PotstillError, match=message):
        prepare(options, goal)


def test_one_teacher_is_needed(options, cartpole_file):
    with pytest.raises(PotstillError, match="--teacher"):
        prepare(replace(options, teacher=()), GOAL)
    with pytest.raises(PotstillError, match="the name is taken"):
        prepare(replace(options, student=("teacher=mlp:4",)), GOAL)
    with pytest.raises(PotstillError, match="--starts expert: there are too few"):
        prepare(replace(options, starts="expert"), GOAL)
    with pytest.raises(PotstillError, match="one --teacher"):
        prepare(replace(options, teacher=(cartpole_file,) * 2), GOAL)


@pytest.mark.parametrize(
    "odd",
    [
        {"0": {}},
        {"0": {"teacher": [1.0], "random": [1.0]}, "1": 5},
        {"2": {"mlp_4": {}}},
        {"0": {"teacher": ["x"]}},
        [],
    ],
)
def test_odd_looks_are_one_line(options, tmp_path, odd):
    begun = fit(prepare(options, GOAL), GOAL, tmp_path / "run", True, ["potstill", "fit"])
    assert any(progress.stage == "learn" for progress in begun)
    begun.close()
    (tmp_path / "run" / "looks.json").write_text(json.dumps(odd))
    with pytest.raises(PotstillError, match=r"looks.json is not what a run writes"):
        finished(options, GOAL, tmp_path / "run", resume=True)
