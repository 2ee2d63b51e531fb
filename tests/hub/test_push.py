"""Students onto the Hub, by the real client, and back from there."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from potstill import PotstillError
from potstill.report import make_card, push

EXECUTABLE = [sys.executable, "-m", "potstill"]
SCORE = {"mean": 10.0, "ci95": [9.0, 11.0], "episodes": 3, "returns": [9.0, 10.0, 11.0]}


@pytest.fixture
def run(tmp_path: Path, cartpole_file: Path) -> Path:
    """A finished run: its student plays, its video is there."""
    folder = tmp_path / "run"
    for name in ("students", "videos"):
        (folder / name).mkdir(parents=True)
    shutil.copy(cartpole_file, folder / "students" / "small.safetensors")
    (folder / "teacher.safetensors").write_bytes(b"not for the Hub")
    (folder / "videos" / "small.mp4").write_bytes(b"moving")
    write_result(folder)
    return folder


def write_result(folder: Path, **of_student: object) -> None:
    played = {"task": "CartPole-v1", "score": SCORE, "relative": None, "random": 1.0, "agreement": 0.97,
              "normalised": {"mean": 0.98, "ci95": [0.9, 1.0]}, "video": "videos/small.mp4"}  # fmt: skip
    student = {"name": "small", "spec": "mlp:2", "parameters": 16, "file": "students/small.safetensors",
               "loss": "kl", "temperature": 1.0, "seed": 0, "tasks": [played], **of_student}  # fmt: skip
    result = {
        "schema": 1, "command": ["potstill", "distill", "--teacher", "a b.zip"], "seed": 0,
        "versions": {"potstill": "0"}, "protocol": {"name": "gymnasium", "act": "greedy", "epsilon": 0.0},
        "teachers": [{"name": "big|one", "task": "CartPole-v1", "sha256": "5a" * 32, "network": "mlp:64",
                      "parameters": 1000, "outputs": "q", "score": SCORE, "random": SCORE}],
        "students": [student, {**student, "name": "other", "file": "students/other.safetensors"}],
        "budget": {"teacher_steps": 540, "updates": 20, "seconds": {"play": 1.0, "total": 2.0}},
    }  # fmt: skip
    (folder / "result.json").write_text(json.dumps(result))


@pytest.fixture
def client(hub_here: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The client in this process is logged in to the Hub here."""
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub_here["HF_ENDPOINT"])
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    monkeypatch.setenv("HF_TOKEN", "good")


def potstill(environment: dict[str, str], *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [*EXECUTABLE, *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)


def test_a_student_is_pushed_in_one_commit_and_loads_from_there(hub_here, hub_commits, run, tmp_path):
    user = {**hub_here, "HF_TOKEN": "good"}
    done = potstill(user, "push", run, "--student", "small", "--to", "me/cartpole", "--license", "mit", "--private")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    address, again = done.stdout.splitlines()
    assert address == f"{hub_here['HF_ENDPOINT']}/me/cartpole"
    assert again == "potstill evaluate hf://me/cartpole/small.safetensors"
    assert hub_commits == [["README.md", "report.html", "result.json", "small.safetensors", "videos/small.mp4"]]
    code = "import potstill; print(potstill.load('hf://me/cartpole/small.safetensors').task)"
    loaded = subprocess.run([sys.executable, "-c", code], env=user, capture_output=True, text=True, timeout=120)
    assert loaded.stdout == "CartPole-v1\n", loaded.stderr


def test_the_card_is_what_the_hub_reads(hub_here, hub_commits, run):
    done = potstill(hub_here, "push", run, "--student", "small", "--to", "me/x", "--license", "mit", "--card-only")
    assert done.returncode == 0, done.stderr
    assert hub_commits == []
    _, metadata, text = done.stdout.split("---\n", 2)
    card = yaml.safe_load(metadata)
    assert (card["license"], card["library_name"]) == ("mit", "potstill")
    assert card["pipeline_tag"] == "reinforcement-learning"
    [model] = card["model-index"]
    [scored] = model["results"]
    assert scored["task"]["type"] == "reinforcement-learning"
    assert scored["dataset"]["type"] == "CartPole-v1"
    assert {m["type"]: m["value"] for m in scored["metrics"]} == {"mean_reward": "10.00 +/- 0.82", "normalised": 0.98}
    for words in ("10.0 [9.0, 11.0]", "big\\|one", "5a" * 32, "potstill.load(\"hf://me/x/small.safetensors\")",
                  "potstill distill --teacher 'a b.zip'", "1.6 % of its teacher's", "97.0 %",
                  "\npip install '.[hub]'\n"):  # fmt: skip
        assert words in text


@pytest.mark.parametrize(
    ("parameters", "words"),
    [(16, "A small network that plays CartPole-v1, distilled from a larger policy"),
     (1000, "A network that plays CartPole-v1, distilled from another policy")],
)  # fmt: skip
def test_the_card_calls_small_what_is_smaller(run, parameters, words):
    write_result(run, parameters=parameters)
    assert words in make_card(run, "small", "me/x")


def test_a_result_that_is_none_is_one_line(run):
    (run / "result.json").write_text('{"schema": 1}')
    with pytest.raises(PotstillError, match=r"not what a run writes"):
        make_card(run, "small", "me/x")


@pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
def test_what_the_users_folders_are_called_is_not_pushed(client, run, tmp_path):
    result = json.loads((run / "result.json").read_text())
    result["command"] += ["/home/alice/a.zip", "file:///mnt/secret/b&c.zip", "--out=/data/it's mine/x/", "/"]
    result["by_hand"] = {
        "command": ["potstill", "/data/it's mine/x/students/small.safetensors", "/home/alice/a.zip.old"]
    }
    (run / "result.json").write_text(json.dumps(result))
    push(run, "small", "me/x", None, private=False, quiet=True)
    pushed = tmp_path / "hub" / "me" / "x"
    assert " a.zip 'file://b&c.zip' --out=x/ /" in (pushed / "README.md").read_text()
    said = json.loads((pushed / "result.json").read_text())
    assert said["command"][-4:] == ["a.zip", "file://b&c.zip", "--out=x/", "/"]
    assert said["by_hand"]["command"][1:] == ["x/students/small.safetensors", "a.zip.old"]
    page = (pushed / "report.html").read_text()
    assert "a.zip &#39;file://b&amp;c.zip&#39; --out=x/ /" in page
    for folder in ("alice", "secret", "mine"):
        assert folder not in page


@pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # the client, of its own httpx
def test_pushed_again_it_is_another_commit_and_nothing_private_becomes_public(client, hub_commits, run):
    for private in (True, True, False):
        push(run, "small", "me/secret", None, private, quiet=True)
    assert len(hub_commits) == 3
    push(run, "small", "me/open", None, private=False, quiet=True)
    with pytest.raises(PotstillError, match="--private: me/open is there and public"):
        push(run, "small", "me/open", None, private=True, quiet=True)
    assert len(hub_commits) == 4


def test_without_a_token_nothing_is_sent(hub_here, hub_commits, run):
    done = potstill(hub_here, "push", run, "--student", "small", "--to", "me/x")
    assert done.returncode == 2
    mend = "push: nobody is logged in to the Hub; log in with a token that may write: hf auth login"
    assert done.stderr == f"potstill: {mend}\n"
    assert hub_commits == []


@pytest.mark.parametrize(
    ("to", "license", "token", "settings", "message"),
    [
        ("me/x", "mit", "bad", {}, "the Hub doesn't know this token"),
        ("you/x", "mit", "good", {}, "--to you/x: this token may not write there (You don't have the rights"),
        ("x", "mit", "good", {}, "--to x: the Hub's repositories are named owner/name"),
        ("me/x..y", "mit", "good", {}, "--to me/x..y: "),
        ("me/x", "nonsense", "good", {}, '"license" must be one of apache-2.0, mit'),
        ("me/x", "mit", "good", {"ENDPOINT": "http://127.0.0.1:9"}, "http://127.0.0.1:9 doesn't answer"),
        ("me/x", "mit", "good", {"HF_HUB_OFFLINE": True}, "HF_HUB_OFFLINE is set"),
    ],
)
def test_what_the_hub_refuses_is_one_line(client, hub_commits, run, monkeypatch, to, license, token, settings, message):
    for name, value in settings.items():
        monkeypatch.setattr(f"huggingface_hub.constants.{name}", value)
    monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(PotstillError) as raised:
        push(run, "small", to, license, private=False, quiet=True)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)
    assert hub_commits == []


@pytest.mark.parametrize(
    ("student", "of_student", "message"),
    [
        ("none", {}, "--student none: "),
        ("other", {}, "has no students/other.safetensors"),
        ("small", {"file": "../secret.safetensors"}, "names ../secret.safetensors: no .safetensors file of this run"),
        ("small", {"file": "result.json"}, "names result.json: no .safetensors file of this run"),
        ("small", {"tasks": []}, "is not what a run writes"),
    ],
)
def test_a_run_that_holds_no_such_student_is_one_line(run, student, of_student, message, monkeypatch):
    (run.parent / "secret.safetensors").write_text("secret")
    write_result(run, **of_student)
    monkeypatch.setenv("HF_TOKEN", "good")
    with pytest.raises(PotstillError) as raised:
        push(run, student, "me/x", None, private=False, quiet=True)
    assert message in str(raised.value)


def test_without_huggingface_hub_the_extra_is_named(run, monkeypatch):
    monkeypatch.setattr("potstill.errors.find_spec", lambda name: None)
    with pytest.raises(PotstillError, match=r"pip install 'potstill\[hub\]'"):
        make_card(run, "small", "me/x")
