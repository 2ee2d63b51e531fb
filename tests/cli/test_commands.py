"""Commands as a user types them, one after the other, from a teacher's file to what is made of it."""

import json
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from gymnasium.envs.classic_control import CartPoleEnv

from potstill import Policy, load
from potstill.cli.main import main
from potstill.networks import NetworkSpec

DISTILL = ["distill", "--teacher", "cartpole.safetensors", "--student", "mlp:8", "--out", "out"]


def test_distill_then_evaluate_inspect_and_report(workplace, potstill, capsys, monkeypatch):
    distill = [*DISTILL, "--hours", "0.1", "--updates", "1000", "--episodes", "5"]
    done = potstill(*distill, "--no-video")
    assert done.returncode == 0, done.stderr
    assert done.stderr == "", "quiet when piped"
    assert "mlp_8" in done.stdout
    assert (workplace / "out" / "report.html").exists()
    assert not (workplace / "out" / "videos").exists()
    student = "out/students/mlp_8.safetensors"
    # From here on in this process: interpreters that each import PyTorch take time.
    monkeypatch.chdir(workplace)
    main(["evaluate", student, "cartpole.safetensors", "--episodes", "10", "--json"])
    printed = json.loads(capsys.readouterr().out)
    assert [policy["score"]["episodes"] for policy in printed["policies"]] == [10, 10]
    assert printed["policies"][1]["score"]["mean"] == 500
    main(["inspect", student, "--json"])
    facts = json.loads(capsys.readouterr().out)
    assert (facts["network"], facts["parameters"], facts["task"]) == ("mlp:8", 58, "CartPole-v1")
    main(["inspect", student])
    assert "mlp:8" in capsys.readouterr().out
    main(["report", "out"])
    assert capsys.readouterr().out == "out/report.html\n"
    (workplace / "begun").mkdir()
    main(["report", "out", "begun", "--out", "all.html"])
    assert capsys.readouterr() == ("all.html\n", "potstill: left out, not finished: begun\n")
    main(["evaluate", student, "--task", "CartPole-v0", "--episodes", "2"])
    assert "says that it plays CartPole-v1; here it plays CartPole-v0" in capsys.readouterr().err
    short = ("--hours", "0.02", "--envs", "4", "--threads", "1")
    main(["record", "--teacher", student, "--task", "CartPole-v0", *short, "--out", "data"])
    assert "says that it plays CartPole-v1; here it plays CartPole-v0" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        main(["evaluate", student, "--task", "", "--episodes", "2"])
    assert "task ''" in capsys.readouterr().err
    stranger = load(student)
    stranger.task = "\x1b[2JPong"
    stranger.save("stranger.safetensors")
    main(["evaluate", "stranger.safetensors", "--task", "CartPole-v1", "--episodes", "2"])
    assert "says that it plays ?[2JPong" in capsys.readouterr().err, "nobody's file commands the terminal"
    monkeypatch.setattr("potstill.distill.videos.SECONDS", 0.4)
    main([*distill, "--resume"])
    assert capsys.readouterr().err == "out was finished already\n"
    assert (workplace / "out" / "videos" / "mlp_8.mp4").exists(), "films that are missing are made"
    (workplace / "out" / "result.json").unlink()  # as if it had been killed before
    (workplace / student).write_bytes(b"")
    with pytest.raises(SystemExit) as ended:
        main([*distill, "--resume"])
    said = capsys.readouterr().err
    assert (ended.value.code, said.count("\n")) == (2, 1)
    assert "and --resume learns again" in said


def test_evaluate_compares_with_a_teacher_and_says_what_that_shows(workplace, capsys, monkeypatch):
    monkeypatch.chdir(workplace)
    poor = Policy.new(NetworkSpec.parse("linear"), "logits", (4,), "float32", 2, task="CartPole-v1")
    torch.nn.init.zeros_(poor.ours.head.weight)
    poor.save(Path("poor.safetensors"))
    files = ["cartpole.safetensors", "poor.safetensors", "--teacher", "cartpole.safetensors"]
    compare = ["evaluate", *files, "--keep", "0.9", "--episodes", "30"]
    main([*compare, "--json"])
    teacher, same, poor = json.loads(capsys.readouterr().out)["policies"]
    assert teacher["file"] == same["file"] == "cartpole.safetensors"
    assert "normalised" not in teacher
    assert teacher["random"]["episodes"] == 10, "a quarter, but ten at least"
    assert same["normalised"]["mean"] == 1.0
    assert (same["statement"]["holds"], same["statement"]["share"]) == (True, 1.0)
    random = teacher["random"]["mean"]
    share = (poor["score"]["mean"] - random) / (500 - random)
    assert poor["normalised"]["mean"] == poor["statement"]["share"] == pytest.approx(share)
    assert not poor["statement"]["holds"]
    main(compare)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(".")[0] for line in (lines[0], lines[1], lines[3])] == ["cartpole", "cartpole", "poor"]
    assert lines[2] == "  keeps at least 0.9: shown at 0.95 confidence, one-sided (at least 0.913)"
    assert lines[4].startswith("  keeps at least 0.9: not shown at 0.95 confidence, one-sided (at least ")
    main([*compare[:5], "--episodes", "1"])
    assert capsys.readouterr().out.splitlines()[1].endswith(", normalised –"), "one episode says nothing of others"
    main(["evaluate", "cartpole.safetensors", "--teacher", "poor.safetensors", "--keep", "0.9", "--episodes", "27"])
    assert capsys.readouterr().out.splitlines()[2] == "  nothing is shown: the teacher isn't surely better than chance"


def test_a_student_is_compared_with_a_teacher_that_sees_a_part(workplace, capsys, monkeypatch):
    monkeypatch.chdir(workplace)
    Policy.new(NetworkSpec.parse("linear"), "logits", (2,), "float32", 2, task="CartPole-v1").save("part.safetensors")
    main(["evaluate", "cartpole.safetensors", "--teacher", "part.safetensors", "--sees", "2:4", "--episodes", "2"])
    assert [line.split(".")[0] for line in capsys.readouterr().out.splitlines()[:2]] == ["part", "cartpole"]


def test_what_an_environment_prints_is_not_among_the_results(workplace, capsys, monkeypatch):
    monkeypatch.chdir(workplace)
    step = CartPoleEnv.step

    def talk(self: CartPoleEnv, action: int) -> Any:
        sys.stdout.write("ouch")
        return step(self, action)

    monkeypatch.setattr(CartPoleEnv, "step", talk)
    main(["evaluate", "cartpole.safetensors", "--episodes", "1", "--json"])
    printed = capsys.readouterr()
    assert json.loads(printed.out)["policies"][0]["score"]["episodes"] == 1
    assert "ouch" in printed.err


def test_evaluate_refuses_comparisons_that_would_say_nothing(workplace, capsys, monkeypatch):
    monkeypatch.chdir(workplace)
    spec, provenance = NetworkSpec.parse("linear"), {"seed": 3}
    Policy.new(spec, "logits", (4,), "float32", 2, task="CartPole-v0").save(Path("shorter.safetensors"))
    Policy.new(spec, "logits", (4,), "float32", 2, task="CartPole-v1", provenance=provenance).save(
        Path("made.safetensors")
    )
    for arguments, said in (
        ("cartpole.safetensors --teacher shorter.safetensors", "plays CartPole-v0, cartpole.safetensors CartPole-v1"),
        ("made.safetensors --teacher cartpole.safetensors --keep 0.9 --seed 3", "wants others, as in --seed 4"),
    ):
        with pytest.raises(SystemExit):
            main(["evaluate", *arguments.split()])
        assert said in capsys.readouterr().err


def test_play_writes_a_film_where_there_is_no_display(workplace, potstill, read_film, capsys, monkeypatch):
    play = ["play", "cartpole.safetensors", "cartpole.safetensors", "--seconds", "0.4"]
    done = potstill(*play, DISPLAY="", WAYLAND_DISPLAY="")
    assert (done.returncode, done.stdout, done.stderr) == (0, "cartpole-cartpole.mp4\n", "")
    facts, pictures = read_film(workplace / "cartpole-cartpole.mp4")
    assert (facts["size"], facts["fps"], len(pictures)) == ((676, 322), 25, 10)

    monkeypatch.chdir(workplace)
    main([*play, "--out", "two.gif"])
    assert capsys.readouterr().out == "two.gif\n"
    assert (workplace / "two.gif").read_bytes().startswith(b"GIF89a")


def test_play_opens_a_window_where_there_is_a_display(workplace, capsys, monkeypatch):
    shown = []
    monkeypatch.setattr("potstill.watch.show", lambda pictures, *rest: shown.append((len(list(pictures)), *rest)))
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.chdir(workplace)
    main(["play", "cartpole.safetensors", "--seconds", "0.4"])
    assert shown == [(10, 25, "cartpole: CartPole-v1")]
    assert capsys.readouterr().out == ""
    assert not (workplace / "cartpole.mp4").exists()


def test_train_then_go_on_and_evaluate(workplace, potstill, capsys, monkeypatch):
    train = ["train", "CartPole-v1", "--out", "dqn", "--envs", "8", "--learn-after", "400", "--batch", "32", "--steps"]
    train += ["2000", "--eval-every", "1000", "--eval-episodes", "2", "--episodes", "5", "--memory", "4000"]
    done = potstill(*train)
    assert done.returncode == 0, done.stderr
    assert done.stderr == "", "quiet when piped"
    assert done.stdout.splitlines()[-2:] == ["best      dqn/best.safetensors", "report    dqn/report.html"]
    assert "best: " in done.stdout
    longer = [*train, "--resume"]
    longer[longer.index("2000")] = "3000"
    monkeypatch.chdir(workplace)
    main(longer)
    result = json.loads((workplace / "dqn" / "result.json").read_text())
    assert result["budget"]["steps"] == 3000
    capsys.readouterr()
    main(["evaluate", "dqn/best.safetensors", "--episodes", "5", "--json"])
    [played] = json.loads(capsys.readouterr().out)["policies"]
    assert played["task"] == "CartPole-v1"
    assert played["score"] == result["best"]["scores"]["CartPole-v1"], "--keep refuses the seed that it was scored on"


def test_ctrl_c_says_how_to_go_on_and_going_on_works(workplace, executable, request, monkeypatch):
    # Whoever runs the tests in the background may have Ctrl-C ignored; a child would inherit that.
    request.addfinalizer(
        partial(signal.signal, signal.SIGINT, signal.signal(signal.SIGINT, signal.default_int_handler))
    )
    arguments = [*DISTILL, "--hours", "2", "--updates", "1000", "--episodes", "2", "--no-video"]
    process = subprocess.Popen(
        [executable, *arguments], cwd=workplace, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    for _ in range(600):
        if (workplace / "out" / "checkpoint" / "state.safetensors").exists():
            break
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in stderr
    assert f"go on with: potstill {' '.join(arguments)} --resume" in stderr
    assert not (workplace / "out" / "result.json").exists()
    monkeypatch.chdir(workplace)
    main([*arguments, "--resume"])
    assert (workplace / "out" / "result.json").exists()


def test_an_export_is_written_and_evaluated_and_its_cost_measured(cartpole_file, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    main(["export", str(cartpole_file), "--verify", "--episodes", "2", "--out", "a.onnx"])
    printed = capsys.readouterr().out
    assert "difference 0.00 [0.00, 0.00], 2 episodes each" in printed
    assert "on 10,000 states of play 100.00 % of the best actions are the same" in printed
    main(["evaluate", "a.onnx", "--episodes", "2", "--json"])
    assert json.loads(capsys.readouterr().out)["policies"][0]["score"]["mean"] == 500.0
    main(["cost", str(cartpole_file), "a.onnx", "--json"])
    ours, theirs = json.loads(capsys.readouterr().out)["policies"].values()
    assert [cost["runtime"] for cost in ours + theirs] == ["pytorch", "onnxruntime", "onnxruntime"]
    assert {(cost["parameters"], cost["macs"]) for cost in ours + theirs} == {(16, 4 * 2 + 2 * 2)}
    assert ours[0]["bytes"] == cartpole_file.stat().st_size
    main(["cost", str(cartpole_file)])
    assert "1.0×" in capsys.readouterr().out
