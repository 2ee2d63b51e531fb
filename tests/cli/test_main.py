"""The command line as a user types it, mostly wrong: each mistake is one clear line and exit status 2."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from potstill import __version__
from potstill.cli.main import COMMANDS, _environment, _environments, main, parse

DISTILL = ["distill", "--teacher", "cartpole.safetensors", "--student", "mlp:8", "--out", "out"]
PONG = ["distill", "--teacher", "zoo:pong", "--student", "net3", "--out", "out"]
COMPARE = ["evaluate", "cartpole.safetensors", "--teacher", "cartpole.safetensors"]

WRONG = [
    # wrong commands and flags
    (["distil"], "Available subcommands: demo, distill"),
    (["inspect", "a" * 300], "File name too long"),
    (["demo", "--out", "empty"], "--out empty is a file: name a folder"),
    (["distill"], "--out"),
    (["distill", "--teacher", "cartpole.safetensors", "--out", "out"], "--student: name at least one network"),
    (["distill", "--student", "mlp:8", "--out", "out"], "--teacher, or recorded play with --data"),
    ([*DISTILL, "--hours", "many"], "hours"),
    ([*DISTILL, "--loss", "kll"], "kll"),
    ([*DISTILL, "--hour", "1"], "Unrecognized options: --hour, 1; perhaps --hours; see potstill distill --help"),
    (["inspect", "https://huggingface.co/sb3/dqn-CartPole-v1"], "name a file, or hf://sb3/dqn-CartPole-v1"),
    (["evaluate", "cartpole.safetensors", "--task", "nowhere:Cart-v0"], "nowhere:Cart-v0: nowhere can't be imported"),
    ([*DISTILL, "--device", "tpu"], "tpu"),
    ([*DISTILL, "--device", "cuda"], "--device cuda: PyTorch sees no GPU here"),
    ([*DISTILL, "--student", "mlp:4"], "--student is given twice: name all of its values behind one"),
    # values that can't work
    ([*DISTILL, "--hours", "0"], "--hours 0.0: must be above 0"),
    ([*DISTILL, "--hours", "nan"], "--hours nan: must be above 0"),
    ([*DISTILL, "--hours", "1e99"], "--hours 1e+99: must be at most 1000000\n"),
    ([*DISTILL, "--temperature", "inf"], "--temperature inf: must be at most 1000000000000000"),
    ([*DISTILL, "--threads", str(10**11)], "--threads 100000000000: must be at most 1024"),
    ([*DISTILL, "--episodes", str(10**20)], "--episodes 100000000000000000000: must be at most 1000000"),
    ([*DISTILL, "--hours", "0.0001"], "--hours 0.0001: too small for 60 environments"),
    ([*DISTILL, "--hours", "0.01", "--updates", "40"], "--updates 40: none in 0.01 hours of play; name more"),
    ([*DISTILL, "--batch", "-1"], "--batch -1: must be above 0"),
    ([*DISTILL, "--batch", "1"], "--batch 1: batch normalisation needs two samples; add --no-batch-norm"),
    ([*DISTILL, "--driver", "dagger"], "--driver dagger: must be teacher, student or mix:SHARE"),
    ([*DISTILL, "--driver", "mix:2"], "--driver mix:2: must be teacher, student or mix:SHARE"),
    ([*DISTILL, "--driver", "mix:"], "--driver mix:: must be teacher, student or mix:SHARE"),
    ([*DISTILL, "--hours", "1", "--driver", "student"], "students drive from the second hour on; add --hours 2"),
    ([*DISTILL, "--student-sees", "0:5"], "--student-sees 0:5: CartPole-v1 shows 4 numbers"),
    ([*DISTILL, "--play-epsilon", "1.5"], "--play-epsilon 1.5: must be from 0 to 1"),
    ([*DISTILL, "--seed", "-1"], "--seed -1: must be at least 0"),
    ([*DISTILL, "--memory-hours", "0.001"], "--memory-hours 0.001: too small"),
    ([*DISTILL, "--temperature", "0"], "--temperature 0.0: must be above 0"),
    ([*DISTILL, "--loss", "kl", "nll"], "--loss kl nll: name one, or one for each of 1 students"),
    # students
    (["distill", "--teacher", "cartpole.safetensors", "--student", "net4", "--out", "out"], "'net4' is no network"),
    (["distill", "--teacher", "cartpole.safetensors", "--student", "net3", "--out", "out"], "takes frames"),
    (["distill", "--teacher", "cartpole.safetensors", "--student", "../x=mlp:8", "--out", "out"], "a name is letters"),
    ([*DISTILL[:4], f"{'x' * 300}=mlp:8", *DISTILL[5:]], "name is too long; give it another, as in small=mlp:8"),
    # teachers
    ([*PONG, "--starts", "expert", "--episodes", "101"], "100 starts of ALE/Pong-v5 for 101 episodes: add --episodes"),
    (["distill", "--teacher", "no.zip", "--student", "mlp:8", "--out", "out"], "cannot read no.zip: No such file"),
    (
        ["distill", "--teacher", "text.zip", "--student", "mlp:8", "--out", "out"],
        "text.zip is no zip, whatever its name says",
    ),
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
    (
        ["distill", "--teacher", "cartpole.safetensors", "--student", "mlp:8", "--out", "empty/run"],
        "cannot write empty/run",
    ),
    (["distill", *DISTILL[1:-1], "full", "--resume"], "--out full is not empty: it holds no run to go on with"),
    (["demo", "--out", "full"], "holds something else than a demo"),
    (["report", "full"], "has no result.json"),
    (["report", "nowhere"], "has no result.json"),
    (["report", "a" * 300], "File name too long: aaa"),
    (["inspect", "a\udcff.zip"], "a?.zip: its name is no UTF-8: rename it"),
    (["report"], "RUNS"),
    (["report", "full", "--out", "full"], "--out full is a folder: name a file, as in full/potstill.html"),
    (["report", "full", "--out", "full/a.json"], "--out full/a.json: name a file that ends in .html"),
    (["starts", "cartpole.safetensors", "--out", "cartpole.safetensors"], "name a file that ends in .json"),
    (
        ["starts", "cartpole.safetensors", "--out", "text.zip/a.json"],
        "text.zip/a.json can't be written (Not a directory)",
    ),
    (
        ["export", "cartpole.safetensors", "--out", "full"],
        "--out full is a folder: name a file, as in full/potstill.on",
    ),
    (["push", "full", "--student", "net3", "--to", "me/net3"], "full has no result.json"),
    # recorded play
    (["record", "--teacher", "cartpole.safetensors", "--out", "full"], "--out full is not empty"),
    (["record", "--teacher", "no.zip", "--out", "out"], "cannot read no.zip"),
    (["distill", "--data", "full", "--student", "mlp:8", "--out", "out"], "--data full has no manifest.json"),
    ([*DISTILL, "--data", "full", "--driver", "student"], "nobody drives in recorded play"),
    # train
    (["train"], "Missing from potstill train"),
    (["train", "CartPole-v1", "--out", "full"], "--out full is not empty"),
    (["train", "CartPole-v1", "--out", "full", "--resume"], "--out full is not empty: it holds no run to go on with"),
    (["train", "ALE/Pnog-v5", "--out", "out"], "ids look like ALE/Pong-v5"),
    (["train", "Pendulum-v1", "--out", "out"], "has continuous actions, DQN chooses from discrete ones"),
    (["train", "CartPole-v1", "--out", "out", "--network", "net1"], "takes frames"),
    (["train", "CartPole-v1", "--out", "out", "--algo", "ppo"], "--algo"),
    (["train", "CartPole-v1", "--out", "out", "--eval-every", "0"], "--eval-every 0: must be at least 1"),
    (["train", "CartPole-v1", "--out", "out", "--learning-rate", "nan"], "--learning-rate nan: must be above 0"),
    (["train", "CartPole-v1", "--out", "out", "--steps", str(10**20)], "must be at most 1000000000000000"),
    (["train", "CartPole-v1", "--out", "out", "--eval-episodes", str(10**20)], "must be at most 1000000"),
    # reproduce
    (["reproduce", "losses", "--out", "out", "--hours", "nan"], "--hours nan: must be above 0"),
    (["reproduce", "online", "--out", "out", "--threads", str(10**11)], "must be at most 1024"),
    # bench
    (["bench", "--rounds", "0"], "--rounds 0: must be at least 1"),
    # evaluate and inspect
    (["evaluate", "cartpole.safetensors", "--episodes", "0"], "--episodes 0: must be at least 1"),
    (["evaluate", "cartpole.safetensors", "--episodes", str(10**20)], "must be at most 1000000"),
    (["evaluate", "cartpole.safetensors", "--epsilon", "2"], "--epsilon 2.0: must be from 0 to 1"),
    (["evaluate", "cartpole.safetensors", "--starts", "human"], "human"),
    (["evaluate", "zoo:pong", "--starts", "expert", "--episodes", "101"], "for 101 episodes: add --episodes 100, or"),
    (["evaluate", "cartpole.safetensors", "--task", "ALE/Pong-v5"], "name its own task with --task"),
    (["evaluate", "empty"], "empty is damaged or not"),
    (["evaluate"], "POLICY"),
    (["inspect", "pickle.pkl"], "is a pickle"),
    (["inspect", "cartpole.safetensors", "--task", "Acrobot-v1"], "says CartPole-v1; leave it out"),
    (["inspect", "nowhere.safetensors"], "cannot read nowhere.safetensors"),
    (["inspect", "zoo:pnog"], "zoo:pnog: there are zoo:"),
    (["inspect", "hf://nobody"], "the Hub's names look like hf://owner/repository"),
    (["inspect", "text.onnx"], "text.onnx can't be played as an ONNX file"),
    (["inspect", "program.pt", "--task", "CartPole-v1"], "is a program (TorchScript), which runs code when loaded"),
    (["evaluate", "cartpole.safetensors", "--sees", "0:2"], "--sees 0:2: what is named here sees all"),
    (
        ["evaluate", "cartpole.safetensors", "--task", "Acrobot-v1", "--sees", "0:2"],
        "safetensors, --sees 0:2: the policy",
    ),
    (["evaluate", "cartpole.safetensors", "--task", "Nowhere-v0"], "One's own: --task module:Mine-v0"),
    (["evaluate", "zoo:pong", "--task", "ALE/pong-v5"], "ids look like ALE/Pong-v5"),
    (["evaluate", "zoo:pong", "--task", "ALE/Pong-v5?difficulty=1"], "take no arguments"),
    (
        ["export", "cartpole.safetensors", "--out", "a.onnx", "--trust"],
        "so ordering can matter; see potstill export --help",
    ),
    (["train", "CartPole-v1", "--online-updates", "9", "--out", "out"], "--online-updates 9: nobody learns online"),
    (["evaluate", "cartpole.safetensors", "--keep", "0.9"], "--keep: name the policy of whose score with --teacher"),
    ([*COMPARE, "--confidence", "0.9"], "--confidence 0.9: it is of what --keep shows; add --keep"),
    ([*COMPARE, "--keep", "1.2"], "--keep 1.2: must be above 0"),
    ([*COMPARE, "--keep", "0.9", "--episodes", "26"], "--episodes 26: fewer than 27 never show --keep 0.9"),
    ([*COMPARE, "--keep", "0.9", "--starts", "some.json"], "--starts some.json: there are too few starts"),
    (["evaluate", "cartpole.safetensors", "--teacher", "zoo:pong"], "zoo:pong sees (4, 84, 84)"),
    # fit and cost
    (["fit", "--out", "out"], "fit: name the policy to be replaced with --teacher"),
    (["fit", "--teacher", "cartpole.safetensors", "--keep", "1.2", "--out", "out"], "--keep 1.2: must be above 0"),
    (["fit", "--teacher", "cartpole.safetensors", "--out", "full"], "--out full is not empty"),
    (["cost"], "cost: name at least one POLICY file"),
    (["cost", "pickle.pkl"], "is a pickle"),
    (["cost", "cartpole.safetensors", "--task", "Acrobat-v1"], "task 'Acrobat-v1'"),
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
    (["play", "cartpole.safetensors", "--seconds", "1e99"], "--seconds 1e+99: must be at most 1000000000000000"),
    (["play", "cartpole.safetensors", "--seed", "-1"], "--seed -1: must be at least 0"),
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


def test_an_export_does_not_write_over_its_policy(tmp_path, capsys):
    path = tmp_path / "a.zip"
    path.write_text("precious")
    with pytest.raises(SystemExit):
        main(["export", str(path), "--to", "sb3", "--out", str(path)])
    assert "is the file that is read: name another" in capsys.readouterr().err
    assert path.read_text() == "precious"


def test_options_that_cannot_work_do_not_cost_a_finished_demo(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    (tmp_path / "config.json").write_text('{"command": ["potstill", "demo"]}')
    (tmp_path / "report.html").write_text("precious")
    with pytest.raises(SystemExit):
        main(["demo", "--device", "cuda", "--out", str(tmp_path)])
    assert "sees no GPU" in capsys.readouterr().err
    assert (tmp_path / "report.html").read_text() == "precious"


def test_the_same_from_a_real_shell(potstill):
    done = potstill(*DISTILL, "--loss", "kll")
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert "Traceback" not in done.stderr


def test_an_environment_of_ones_own_is_imported_by_the_module_that_is_typed(workplace, monkeypatch, capsys):
    cartpole = "gymnasium.envs.classic_control:CartPoleEnv"
    module = f"import gymnasium\ngymnasium.register('Mine-v0', '{cartpole}', max_episode_steps=90)"
    (workplace / "mine_for_a_test.py").write_text(module)
    monkeypatch.chdir(workplace)
    monkeypatch.syspath_prepend(str(workplace))
    main(["evaluate", "cartpole.safetensors", "--task=mine_for_a_test:Mine-v0", "--episodes", "2"])
    assert "90.00 [90.00, 90.00] over 2 episodes of Mine-v0" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "No module named 'not_there_for_a_test'; the folder it lies in must be in PYTHONPATH"),
        ("import nor_this", "ModuleNotFoundError: No module named 'nor_this'\n"),
        ("raise SystemExit(5)", "SystemExit: 5\n"),
    ],
)
def test_a_module_that_cannot_be_imported_is_one_line(potstill, workplace, content, said):
    if content:
        (workplace / "not_there_for_a_test.py").write_text(content)
    task = "not_there_for_a_test:Mine-v0"
    done = potstill("evaluate", "cartpole.safetensors", "--task", task, PYTHONPATH=str(workplace) if content else "")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert said in done.stderr


def test_only_tasks_are_imported():
    words = ["record", "--task", "json:Pong-v5", "--out", "json:Pong-v5", "--teacher", "json:Pong-v5"]
    assert _environments(words) == ["record", "--task", "Pong-v5", *words[3:]]
    words = ["train", "json:Pong-v5", "json:Qbert-v5", "--steps", "9", "--out=json:Pong-v5"]
    assert _environments(words) == ["train", "Pong-v5", "Qbert-v5", *words[3:]]


def test_messages_with_stderr_closed_are_not_among_the_output(executable):
    done = subprocess.run(["sh", "-c", f"{executable} inspect nope 2>&-"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")


@pytest.mark.parametrize("word", ["hf://sb3/dqn-CartPole-v1", "https://x/y-v0", "zoo:pong", "cnn:8-8-8:16:2f"])
def test_nothing_else_is_taken_for_an_environment_of_ones_own(word):
    assert _environment(word) == word


def test_a_mistake_is_one_line_where_output_is_closed(executable):
    command = f"{executable} report {'x' * 300} >&-"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "Traceback" not in done.stderr


def test_output_that_is_closed_is_none(executable):
    done = subprocess.run(["sh", "-c", f"{executable} --version >&-"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_output_that_cannot_be_written_is_one_line(executable):
    with open("/dev/full", "w") as full:
        done = subprocess.run([executable, "--version"], stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (2, "potstill: No space left on device: the output\n")


def test_output_that_is_no_utf8_has_question_marks(potstill):
    done = potstill("distill", "--help", PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stderr) == (0, "")


def test_version_and_help(potstill):
    assert potstill("--version").stdout == f"potstill {__version__}\n"
    for arguments in ([], ["--help"], ["distill", "--help"], ["evaluate", "--help"]):
        done = potstill(*arguments)
        assert done.returncode == 0
        assert done.stderr == ""
    assert "--student" in potstill("distill", "--help").stdout


PAGES = ["README.md", "zoo/README.md", "results/README.md", "examples/browser/README.md"]


@pytest.mark.parametrize("page", PAGES)
def test_a_page_has_each_heading_once_and_those_that_it_links_to(page):
    text = re.sub(r"^```.*?^```", "", (Path(__file__).parents[2] / page).read_text(), flags=re.M | re.S)
    headings = re.findall(r"^#+ (.*)", text, re.M)
    assert len(set(headings)) == len(headings)
    anchors = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
    assert set(re.findall(r"\]\(#(.*?)\)", text)) <= anchors


@pytest.mark.parametrize("page", PAGES)
def test_commands_in_the_documents_can_be_typed(page):
    text = (Path(__file__).parents[2] / page).read_text()
    blocks = re.findall(r"^```\n(.*?)^```|^((?: {4}.*\n)+)", text, re.MULTILINE | re.DOTALL)
    lines = "".join(fenced or indented for fenced, indented in blocks).splitlines()
    commands = [line for line in lines if re.match(r" *potstill [a-z]+ ", line)]
    assert commands
    for command in commands:
        parse(shlex.split(command, comments=True)[1:])


def test_the_readmes_python_runs_as_it_is_pasted():
    snippets = re.findall(r"^```python\n(.*?)^```", (Path(__file__).parents[2] / "README.md").read_text(), re.M | re.S)
    assert snippets
    undefined = [Path(sys.executable).parent / "ruff", "check", "--isolated", "--select=F821", "-"]
    for snippet in snippets:
        subprocess.run(undefined, input=snippet, text=True, check=True)


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_is_explained_with_an_example(name, capsys):
    with pytest.raises(SystemExit) as stop:
        main([name, "--help"])
    assert stop.value.code == 0
    explained = capsys.readouterr().out
    examples = explained.count(f"potstill {name} ") - 1  # without the usage
    assert examples > 0 or name in ("demo", "inspect", "bench"), "which take nothing, or a file alone"
    assert not re.search(r"│ --no-", explained), "a flag is shown with its opposite, so that its default is clear"
    if name in ("train", "evaluate", "cost", "play", "report"):
        assert "(at least one)" in " ".join(explained.replace("│", " ").split())


def test_a_home_that_cannot_be_written_is_not_complained_of(potstill, workplace):
    results = Path(__file__).parents[2] / "results" / "demo"
    done = potstill("report", str(results), "--out", "page.html", HOME="/proc", XDG_CONFIG_HOME="", XDG_CACHE_HOME="")
    assert (done.returncode, done.stderr) == (0, "")


def test_ctrl_c_is_answered_before_anything_is_imported():
    code = """
import sys, potstill.__main__
class Interrupted:
    def find_spec(self, name, *rest):
        if name == "potstill.cli": raise KeyboardInterrupt
sys.meta_path.insert(0, Interrupted())
potstill.__main__.main()"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "potstill: interrupted\n")


def test_the_package_runs_as_a_module_too():
    command = [sys.executable, "-m", "potstill", "--version"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == f"potstill {__version__}\n"


def test_help_does_not_wait_for_pytorch(tmp_path):
    code = "import sys; sys.argv = ['potstill', '--help']\nfrom potstill.cli.main import main\ntry: main()\n" \
           "except SystemExit: pass\nassert 'torch' not in sys.modules"  # fmt: skip
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, cwd=tmp_path)
