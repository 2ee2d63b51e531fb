"""The command line as a user types it, mostly wrong: each mistake is one clear line and exit status 2."""

import json
import os
import pickle
import re
import shlex
import signal
import subprocess
import sys
import time
import zipfile
from functools import partial
from pathlib import Path

import pytest
import torch

from potstill import Policy, __version__
from potstill.cli.main import COMMANDS, main, parse
from potstill.networks import NetworkSpec

EXECUTABLE = str(Path(sys.executable).parent / "potstill")


def potstill(*arguments: object, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [EXECUTABLE, *map(str, arguments)], cwd=cwd, capture_output=True, text=True, timeout=200,
        env={**os.environ, **environment},
    )  # fmt: skip


@pytest.fixture
def workplace(tmp_path: Path, cartpole_file: Path) -> Path:
    """A folder with a good teacher and many bad files."""
    (tmp_path / "text.zip").write_text("hello")
    (tmp_path / "cut.safetensors").write_bytes(cartpole_file.read_bytes()[:300])
    (tmp_path / "pickle.pkl").write_bytes(pickle.dumps({"a": 1}))
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "text.onnx").write_text("hello")
    with zipfile.ZipFile(tmp_path / "program.pt", "w") as archive:
        archive.writestr("program/code/__torch__.py", "import os")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "precious.txt").write_text("keep me")
    return tmp_path


DISTILL = ["distill", "--teacher", "cartpole.safetensors", "--student", "mlp:8", "--out", "out"]
COMPARE = ["evaluate", "cartpole.safetensors", "--teacher", "cartpole.safetensors"]

WRONG = [
    # wrong commands and flags
    (["distil"], "distil"),
    (["inspect", "a" * 300], "File name too long"),
    (["demo", "--out", "empty"], "--out empty is a file: name a folder"),
    (["distill"], "--out"),
    (["distill", "--teacher", "cartpole.safetensors", "--out", "out"], "--student: name at least one network"),
    (["distill", "--student", "mlp:8", "--out", "out"], "--teacher, or recorded play with --data"),
    ([*DISTILL, "--hours", "many"], "hours"),
    ([*DISTILL, "--loss", "kll"], "kll"),
    ([*DISTILL, "--hour", "1"], "--hour"),
    ([*DISTILL, "--device", "tpu"], "tpu"),
    ([*DISTILL, "--device", "cuda"], "--device cuda: PyTorch sees no GPU here"),
    # values that can't work
    ([*DISTILL, "--hours", "0"], "--hours 0.0: must be above 0"),
    ([*DISTILL, "--hours", "nan"], "--hours nan: must be above 0"),
    ([*DISTILL, "--hours", "0.0001"], "--hours 0.0001: too small for 60 environments"),
    ([*DISTILL, "--batch", "-1"], "--batch -1: must be above 0"),
    ([*DISTILL, "--batch", "1"], "--batch 1: batch normalisation needs two samples; add --no-batch-norm"),
    ([*DISTILL, "--driver", "dagger"], "--driver dagger: must be teacher, student or mix:SHARE"),
    ([*DISTILL, "--driver", "mix:2"], "--driver mix:2: must be teacher, student or mix:SHARE"),
    ([*DISTILL, "--driver", "mix:"], "--driver mix:: must be teacher, student or mix:SHARE"),
    ([*DISTILL, "--play-epsilon", "1.5"], "--play-epsilon 1.5: must be from 0 to 1"),
    ([*DISTILL, "--seed", "-1"], "--seed and --threads can't be negative"),
    ([*DISTILL, "--memory-hours", "0.001"], "--memory-hours 0.001: too small"),
    ([*DISTILL, "--temperature", "0"], "--temperature 0.0: must be above 0"),
    ([*DISTILL, "--act", "sample", "--loss", "mse"], "use --act greedy"),
    # students
    (["distill", "--teacher", "cartpole.safetensors", "--student", "net4", "--out", "out"], "'net4' is no network"),
    (["distill", "--teacher", "cartpole.safetensors", "--student", "net3", "--out", "out"], "takes frames"),
    (["distill", "--teacher", "cartpole.safetensors", "--student", "../x=mlp:8", "--out", "out"], "a name is letters"),
    # teachers
    (["distill", "--teacher", "no.zip", "--student", "mlp:8", "--out", "out"], "cannot read no.zip: No such file"),
    (["distill", "--teacher", "text.zip", "--student", "mlp:8", "--out", "out"], "text.zip is damaged or not"),
    (["distill", "--teacher", "cut.safetensors", "--student", "mlp:8", "--out", "out"], "cut.safetensors is damaged"),
    (["distill", "--teacher", "pickle.pkl", "--student", "mlp:8", "--out", "out"], "is a pickle, which can run code"),
    (["distill", "--teacher", "full", "--student", "mlp:8", "--out", "out"], "full is a folder"),
    # tasks
    ([*DISTILL, "--task", "ALE/Pnog-v5"], "ids look like ALE/Pong-v5"),
    ([*DISTILL, "--task", "ALE/Pong-v5"], "name its own task with --task"),
    ([*DISTILL, "--task", "Acrobot-v1"], "cartpole.safetensors sees (4,) and has 2 actions, Acrobot-v1 shows (6,)"),
    ([*DISTILL, "--task", "Pendulum-v1"], "cartpole.safetensors has discrete actions, Pendulum-v1 continuous ones"),
    # run directories
    (["distill", "--teacher", "cartpole.safetensors", "--student", "mlp:8", "--out", "full"], "is not empty"),
    (["distill", "--teacher", "cartpole.safetensors", "--student", "mlp:8", "--out", "empty/run"], "empty"),
    ([*DISTILL, "--resume"], "--resume: there is no run in out"),
    (["demo", "--out", "full"], "holds something else than a demo"),
    (["report", "full"], "has no result.json"),
    (["report", "nowhere"], "has no result.json"),
    (["report"], "RUNS"),
    (["report", "full", "--out", "full"], "--out full is a folder: name a file, as in full/report.html"),
    (["push", "full", "--student", "net3", "--to", "me/net3"], "full has no result.json"),
    # recorded play
    (["record", "--teacher", "cartpole.safetensors", "--out", "full"], "--out full is not empty"),
    (["record", "--teacher", "no.zip", "--out", "out"], "cannot read no.zip"),
    (["distill", "--data", "full", "--student", "mlp:8", "--out", "out"], "--data full has no manifest.json"),
    ([*DISTILL, "--data", "full", "--driver", "student"], "nobody drives in recorded play"),
    # train
    (["train"], "Missing from potstill train"),
    (["train", "CartPole-v1", "--out", "full"], "--out full is not empty"),
    (["train", "CartPole-v1", "--out", "out", "--resume"], "--resume: there is no run in out"),
    (["train", "ALE/Pnog-v5", "--out", "out"], "ids look like ALE/Pong-v5"),
    (["train", "Pendulum-v1", "--out", "out"], "has continuous actions, DQN chooses from discrete ones"),
    (["train", "CartPole-v1", "--out", "out", "--network", "net1"], "takes frames"),
    (["train", "CartPole-v1", "--out", "out", "--algo", "ppo"], "--algo"),
    (["train", "CartPole-v1", "--out", "out", "--eval-every", "0"], "--eval-every 0: must be at least 1"),
    # bench
    (["bench", "--rounds", "0"], "--rounds 0: must be at least 1"),
    # evaluate and inspect
    (["evaluate", "cartpole.safetensors", "--episodes", "0"], "--episodes 0: must be at least 1"),
    (["evaluate", "cartpole.safetensors", "--epsilon", "2"], "--epsilon 2.0: must be from 0 to 1"),
    (["evaluate", "cartpole.safetensors", "--starts", "human"], "human"),
    (["evaluate", "cartpole.safetensors", "--task", "ALE/Pong-v5"], "name its own task with --task"),
    (["evaluate", "empty"], "empty is damaged or not"),
    (["evaluate"], "POLICY"),
    (["inspect", "pickle.pkl"], "is a pickle"),
    (["inspect", "nowhere.safetensors"], "cannot read nowhere.safetensors"),
    (["inspect", "zoo:pnog"], "zoo:pnog: there are zoo:"),
    (["inspect", "hf://nobody"], "the Hub's names look like hf://owner/repository"),
    (["inspect", "text.onnx"], "text.onnx can't be played as an ONNX file"),
    (["inspect", "program.pt", "--task", "CartPole-v1"], "is a program (TorchScript), which runs code when loaded"),
    (["evaluate", "cartpole.safetensors", "--sees", "0:2"], "sees (4,), the chosen parts are 2 numbers"),
    (["evaluate", "cartpole.safetensors", "--keep", "0.9"], "--keep: name the policy of whose score with --teacher"),
    ([*COMPARE, "--keep", "1.2"], "--keep 1.2: must be above 0"),
    ([*COMPARE, "--keep", "0.9", "--episodes", "7"], "--episodes 7: must be at least 8 with --keep"),
    ([*COMPARE, "--keep", "0.9", "--starts", "some.json"], "--starts some.json: there are too few starts"),
    (["evaluate", "cartpole.safetensors", "--teacher", "zoo:pong"], "zoo:pong"),
    # fit and cost
    (["fit", "--out", "out"], "fit: name the policy to be replaced with --teacher"),
    (["fit", "--teacher", "cartpole.safetensors", "--keep", "1.2", "--out", "out"], "--keep 1.2: must be above 0"),
    (["fit", "--teacher", "cartpole.safetensors", "--out", "full"], "--out full is not empty"),
    (["cost"], "cost: name at least one POLICY file"),
    (["cost", "pickle.pkl"], "is a pickle"),
    # export
    (["export", "cartpole.safetensors", "--out", "a.zip"], "--out a.zip: name a file that ends in .onnx"),
    (["export", "cartpole.safetensors", "--to", "sb3", "--int8", "--out", "a.zip"], "--int8 is for --to onnx"),
    (["export", "nowhere.zip", "--out", "a.onnx"], "cannot read nowhere.zip"),
    (["export", "cartpole.safetensors", "--task", "ALE/Pong-v5", "--out", "a.onnx"], "sees (4,) and has 2 actions"),
    (["export", "cartpole.safetensors", "--tolerance", "0", "--out", "a.onnx"], "--tolerance 0.0: must be above 0"),
    # watching
    (["play"], "name at least one POLICY file"),
    (["play", "no.zip"], "cannot read no.zip: No such file"),
    (["play", "cartpole.safetensors", "--out", "film.avi"], "--out film.avi: a film's name ends in .mp4 or .gif"),
    (["play", "cartpole.safetensors", "--out", "empty/film.mp4"], "cannot write empty/film.mp4"),
    (["play", "cartpole.safetensors", "--episodes", "0"], "--episodes 0: must be at least 1"),
    (["play", "cartpole.safetensors", "--seconds", "0"], "--seconds 0.0: must be above 0"),
    (["play", "cartpole.safetensors", "--seed", "-1"], "--seed -1: can't be negative"),
    (["play", "cartpole.safetensors", "--epsilon", "2"], "--epsilon 2.0: must be from 0 to 1"),
    (["play", "cartpole.safetensors", "--task", "ALE/Pong-v5"], "sees (4,) and has 2 actions"),
    (["play", "cartpole.safetensors", "zoo:pong"], "play CartPole-v1, ALE/Pong-v5: name one of them with --task"),
    # parts of observations, arguments of tasks
    ([*DISTILL, "--teacher-sees", "goal"], "--teacher-sees goal: CartPole-v1 shows 4 numbers"),
    ([*DISTILL, "--student-sees", "9:"], "--student-sees 9:: CartPole-v1 shows 4 numbers"),
    ([*DISTILL, "--task", "CartPole-v1?sutton=maybe"], "'sutton=maybe' is no argument"),
]


@pytest.mark.parametrize(
    ("typed", "mend"),
    [("demo", "potstill demo"), ("distill --out a", "potstill distill --out a --resume"),
     ("train T --resume", "potstill train T --resume")],
)  # fmt: skip
def test_an_interrupted_command_names_one_that_goes_on(typed, mend, capsys):
    from potstill.cli.common import resumable

    with pytest.raises(SystemExit) as stop, resumable(["potstill", *typed.split()]):
        raise KeyboardInterrupt
    assert stop.value.code == 130
    assert capsys.readouterr().err == f"\npotstill: interrupted; go on with: {mend}\n"


@pytest.mark.parametrize(("arguments", "message"), WRONG, ids=[" ".join(map(str, a)) for a, _ in WRONG])
def test_a_mistake_is_one_line_and_status_2(workplace, arguments, message, capsys, monkeypatch):
    # In this process: forty interpreters that each import PyTorch would take minutes.
    monkeypatch.chdir(workplace)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)  # also where there is a GPU
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    printed = capsys.readouterr()
    assert stop.value.code == 2
    assert printed.out == ""
    assert printed.err.startswith("potstill: ")
    assert printed.err.count("\n") == 1
    assert message in printed.err
    assert (workplace / "full" / "precious.txt").read_text() == "keep me"


def test_the_same_from_a_real_shell(workplace):
    done = potstill(*DISTILL, "--loss", "kll", cwd=workplace)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert "Traceback" not in done.stderr


def test_version_and_help(tmp_path):
    assert potstill("--version", cwd=tmp_path).stdout == f"potstill {__version__}\n"
    for arguments in ([], ["--help"], ["distill", "--help"], ["evaluate", "--help"]):
        done = potstill(*arguments, cwd=tmp_path)
        assert done.returncode == 0
        assert done.stderr == ""
    assert "--student" in potstill("distill", "--help", cwd=tmp_path).stdout


@pytest.mark.parametrize("page", ["README.md", "zoo/README.md", "results/README.md", "examples/browser/README.md"])
def test_commands_in_the_documents_can_be_typed(page):
    text = (Path(__file__).parents[2] / page).read_text()
    blocks = re.findall(r"^```\n(.*?)^```|^((?: {4}.*\n)+)", text, re.MULTILINE | re.DOTALL)
    lines = "".join(fenced or indented for fenced, indented in blocks).splitlines()
    commands = [line for line in lines if re.match(r" *potstill [a-z]+ ", line)]
    assert commands
    for command in commands:
        parse(shlex.split(command, comments=True)[1:])


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_is_explained_with_an_example(name, capsys):
    with pytest.raises(SystemExit) as stop:
        main([name, "--help"])
    assert stop.value.code == 0
    explained = capsys.readouterr().out
    examples = explained.count(f"potstill {name} ") - 1  # without the usage
    assert examples > 0 or name in ("demo", "inspect", "bench"), "which take nothing, or a file alone"


def test_help_does_not_wait_for_pytorch(tmp_path):
    code = "import sys; sys.argv = ['potstill', '--help']\nfrom potstill.cli.main import main\ntry: main()\n" \
           "except SystemExit: pass\nassert 'torch' not in sys.modules"  # fmt: skip
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, cwd=tmp_path)


def test_distill_then_evaluate_inspect_and_report(workplace, capsys, monkeypatch):
    distill = [*DISTILL, "--hours", "0.1", "--updates", "1000", "--episodes", "5"]
    done = potstill(*distill, "--no-video", cwd=workplace)
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
    monkeypatch.setattr("potstill.distill.videos.SECONDS", 0.4)
    main([*distill, "--resume"])
    assert capsys.readouterr().err == "out was finished already\n"
    assert (workplace / "out" / "videos" / "mlp_8.mp4").exists(), "films that are missing are made"


def test_evaluate_compares_with_a_teacher_and_says_what_that_shows(workplace, capsys, monkeypatch):
    monkeypatch.chdir(workplace)
    poor = Policy.new(NetworkSpec.parse("linear"), "logits", (4,), "float32", 2, task="CartPole-v1")
    torch.nn.init.zeros_(poor.ours.head.weight)
    poor.save(Path("poor.safetensors"))
    compare = [
        "evaluate",
        "cartpole.safetensors",
        "poor.safetensors",
        *COMPARE[2:],
        "--keep",
        "0.9",
        "--episodes",
        "20",
    ]
    main([*compare, "--json"])
    teacher, same, poor = json.loads(capsys.readouterr().out)["policies"]
    assert teacher["file"] == same["file"] == "cartpole.safetensors"
    assert "normalised" not in teacher
    assert teacher["random"]["episodes"] == 5
    assert same["normalised"]["mean"] == 1.0
    assert (same["statement"]["holds"], same["statement"]["share"]) == (True, 1.0)
    random = teacher["random"]["mean"]
    share = (poor["score"]["mean"] - random) / (500 - random)
    assert poor["normalised"]["mean"] == poor["statement"]["share"] == pytest.approx(share)
    assert not poor["statement"]["holds"]
    main(compare)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(".")[0] for line in (lines[0], lines[1], lines[3])] == ["cartpole", "cartpole", "poor"]
    assert lines[2] == "  keeps at least 0.9: shown at 0.95 confidence, one-sided (at least 1.000)"
    assert lines[4].startswith("  keeps at least 0.9: not shown at 0.95 confidence, one-sided (at least ")
    main(["evaluate", "cartpole.safetensors", "--teacher", "poor.safetensors", "--keep", "0.9", "--episodes", "8"])
    assert capsys.readouterr().out.splitlines()[2] == "  nothing is shown: the teacher isn't surely better than chance"


def test_evaluate_refuses_comparisons_that_would_say_nothing(workplace, capsys, monkeypatch):
    monkeypatch.chdir(workplace)
    spec, provenance = NetworkSpec.parse("linear"), {"seed": 3}
    Policy.new(spec, "logits", (4,), "float32", 2, task="CartPole-v0").save(Path("shorter.safetensors"))
    Policy.new(spec, "logits", (4,), "float32", 2, task="CartPole-v1", provenance=provenance).save(
        Path("made.safetensors")
    )
    for arguments, said in (
        (
            ["cartpole.safetensors", "--teacher", "shorter.safetensors"],
            "plays CartPole-v0, cartpole.safetensors CartPole-v1",
        ),
        (["made.safetensors", *COMPARE[2:], "--keep", "0.9", "--seed", "3"], "--keep wants others, as in --seed 4"),
    ):
        with pytest.raises(SystemExit):
            main(["evaluate", *arguments])
        assert said in capsys.readouterr().err


def test_play_writes_a_film_where_there_is_no_display(workplace, read_film, capsys, monkeypatch):
    play = ["play", "cartpole.safetensors", "cartpole.safetensors", "--seconds", "0.4"]
    done = potstill(*play, cwd=workplace, DISPLAY="", WAYLAND_DISPLAY="")
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


def test_train_then_go_on_and_evaluate(workplace, capsys, monkeypatch):
    train = ["train", "CartPole-v1", "--out", "dqn", "--envs", "8", "--learn-after", "400", "--batch", "32", "--steps"]
    train += ["2000", "--eval-every", "1000", "--eval-episodes", "2", "--episodes", "5", "--memory", "4000"]
    done = potstill(*train, cwd=workplace)
    assert done.returncode == 0, done.stderr
    assert done.stderr == "", "quiet when piped"
    assert done.stdout.splitlines()[-2:] == ["best      dqn/best.safetensors", "report    dqn/report.html"]
    assert "best: " in done.stdout
    longer = [*train, "--resume"]
    longer[longer.index("2000")] = "3000"
    monkeypatch.chdir(workplace)
    main(longer)
    assert json.loads((workplace / "dqn" / "result.json").read_text())["budget"]["steps"] == 3000
    capsys.readouterr()
    main(["evaluate", "dqn/best.safetensors", "--episodes", "5", "--json"])
    assert json.loads(capsys.readouterr().out)["policies"][0]["task"] == "CartPole-v1"


def test_ctrl_c_says_how_to_go_on_and_going_on_works(workplace, request, monkeypatch):
    # Whoever runs the tests in the background may have Ctrl-C ignored; a child would inherit that.
    request.addfinalizer(
        partial(signal.signal, signal.SIGINT, signal.signal(signal.SIGINT, signal.default_int_handler))
    )
    arguments = [*DISTILL, "--hours", "2", "--updates", "1000", "--episodes", "2", "--no-video"]
    process = subprocess.Popen(
        [EXECUTABLE, *arguments], cwd=workplace, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
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
    assert "on 10,000 states of play 100.00% of the best actions are the same" in printed
    main(["evaluate", "a.onnx", "--episodes", "2", "--json"])
    assert json.loads(capsys.readouterr().out)["policies"][0]["score"]["mean"] == 500.0
    main(["cost", str(cartpole_file), "a.onnx", "--json"])
    ours, theirs = json.loads(capsys.readouterr().out)["policies"].values()
    assert [cost["runtime"] for cost in ours + theirs] == ["pytorch", "onnxruntime", "onnxruntime"]
    assert {(cost["parameters"], cost["macs"]) for cost in ours + theirs} == {(16, 4 * 2 + 2 * 2)}
    assert ours[0]["bytes"] == cartpole_file.stat().st_size
    main(["cost", str(cartpole_file)])
    assert "1.0×" in capsys.readouterr().out
