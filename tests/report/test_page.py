import contextlib
import json
import random
import re
import shutil
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest
from markupsafe import Markup, escape

from potstill import PotstillError
from potstill.report import plots, write_report

RESULTS = Path(__file__).parents[2] / "results"
SCORE = {"mean": 10.0, "ci95": [9.0, 11.0], "episodes": 3, "returns": [9.0, 10.0, 11.0]}


def result() -> dict:
    played = {"task": "T-v0", "score": SCORE, "relative": None, "normalised": {"mean": 0.98, "ci95": [0.9, 1.0]},
              "random": 1.0, "agreement": 0.97}  # fmt: skip
    student = {"name": "<b>small</b>", "spec": "net3", "parameters": 100, "file": "students/small.safetensors",
               "loss": "kl", "temperature": 1.0, "seed": 0, "tasks": [played]}  # fmt: skip
    return {
        "schema": 1, "command": ["potstill", "distill", "--teacher", "a b.zip"], "seed": 0,
        "versions": {"potstill": "0"}, "protocol": {"name": "gymnasium", "act": "greedy", "epsilon": 0.0},
        "teachers": [{"name": "big", "task": "T-v0", "sha256": "0", "network": "dqn", "parameters": 1000,
                      "outputs": "q", "score": SCORE}],
        "students": [student, {**student, "name": "other"}], "random": SCORE,
        "budget": {"teacher_steps": 540, "updates": 20, "seconds": {"play": 1.0, "total": 2.0}},
    }  # fmt: skip


class Page(HTMLParser):
    """Collects tags and text; complains about nothing, so tests look at what came out."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.text = ""

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data


def parse(path: Path) -> tuple[str, Page]:
    html, parsed = path.read_text(), Page()
    parsed.feed(html)
    return html, parsed


@pytest.fixture
def page(tmp_path) -> tuple[str, Page]:
    (tmp_path / "result.json").write_text(json.dumps(result()))
    lines = [{"hour": 1, "update": u, "loss": {"<b>small</b>": 1 / u, "other": 2 / u},
              "agreement": {"<b>small</b>": 0.5, "other": 0.6}} for u in (50, 100)]  # fmt: skip
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return parse(write_report(tmp_path))


def test_the_page_holds_everything_and_fetches_nothing(page):
    html, parsed = page
    assert [tag for tag, _ in parsed.tags].count("svg") == 4  # episodes, size, loss, agreement
    assert not any(tag in ("script", "link", "img", "iframe") for tag, _ in parsed.tags)
    assert not [url for url in re.findall(r'(?:src|href)="(?!#)([^"]*)"', html) if url]
    for text in ("0.980 [0.900, 1.000]", "97.0 %", "potstill distill --teacher 'a b.zip'", "10.0 %", "pip install ."):
        assert text in parsed.text


def test_names_are_escaped(page):
    html, _ = page
    assert "<b>small</b>" not in html
    assert "&lt;b&gt;small&lt;/b&gt;" in html


COST = {
    "macs": 9_200_000,
    "bytes": 246_000,
    "latency_ms": {"p50": 0.8, "p99": 1.25},
    "throughput": 2100.0,
    "threads": 1,
}
ACTIONS = [
    {"action": 0, "name": "NOOP", "states": 100, "agreed": 90},
    {"action": 1, "name": "<i>", "states": 0, "agreed": 0},
    {"action": 2, "name": "$\\frac$", "states": 50, "agreed": 20},
]
TITLES = [
    "Every episode",
    *(f"Score against {cost}" for cost in ("parameters", "multiply-adds", "latency")),
    "Agreement by the teacher's action",
]


def full() -> dict:
    """A result with all that may be in one."""
    made = result()
    made["teachers"][0]["cost"] = COST
    for student in made["students"]:
        student["cost"] = {**COST, "latency_ms": {"p50": 0.1, "p99": 0.2}}
        student["tasks"] = [{**student["tasks"][0], "agreement_by_action": ACTIONS, "video": "videos/one.mp4"}]
    return made


def test_cost_agreement_by_action_and_video_are_shown_where_they_are(tmp_path):
    (tmp_path / "result.json").write_text(json.dumps(full()))
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "one.mp4").write_bytes(b"moving")
    html, parsed = parse(write_report(tmp_path))
    titles = [attributes["aria-label"] for tag, attributes in parsed.tags if tag == "svg"]
    assert titles == TITLES
    for text in ("9.2 M", "246 kB", "0.800 ms", "2,100", "8.0 times as fast", "NOOP (100)", "$\\frac$ (50)"):
        assert text in parsed.text
    videos = [attributes for tag, attributes in parsed.tags if tag == "video"]
    assert [video["src"] for video in videos] == ["data:video/mp4;base64,bW92aW5n"] * 2
    assert "<i>" not in html
    ids = [attributes["id"] for _, attributes in parsed.tags if "id" in attributes]
    assert len(ids) == len(set(ids)), "plots would draw with each other's parts"
    (tmp_path / "videos" / "one.mp4").unlink()
    assert "<video" not in write_report(tmp_path).read_text()


def test_several_tasks_in_one_student_and_tasks_without_a_score(tmp_path):
    made = full()
    unscored = {"task": "U-v0", "score": None, "relative": None, "normalised": None, "random": None, "agreement": None}
    made["teachers"].append({**made["teachers"][0], "name": "large", "task": "U-v0", "parameters": 1000})
    for student in made["students"]:
        student["tasks"].append({**student["tasks"][0], "task": "U-v0"})
    (tmp_path / "result.json").write_text(json.dumps(made))
    _, parsed = parse(write_report(tmp_path))
    for text in (
        "big, large distilled",
        "One network for 2 tasks",
        "5 % of their parameters",
        '.safetensors", "T-v0")',
    ):
        assert text in parsed.text
    assert [tag for tag, _ in parsed.tags].count("svg") == 2 * len(TITLES)
    made = full()
    made["teachers"][0] |= {"score": None, "random": None, "parameters": 0, "cost": None}
    for student in made["students"]:
        student["tasks"] = [unscored]
        student["cost"] |= {"macs": None, "bytes": None}
    (tmp_path / "result.json").write_text(json.dumps({**made, "random": None}))
    html, parsed = parse(write_report(tmp_path))
    assert "not scored: learnt from recorded play" in parsed.text
    assert "<svg" not in html


@pytest.mark.parametrize("name", ["../secret.mp4", "/etc/passwd", "link.mp4", "result.json", 7])
def test_a_video_elsewhere_is_refused(tmp_path, name):
    run = tmp_path / "run"
    run.mkdir()
    (tmp_path / "secret.mp4").write_text("secret")
    (run / "link.mp4").symlink_to(tmp_path / "secret.mp4")
    made = full()
    made["students"][0]["tasks"][0]["video"] = name
    (run / "result.json").write_text(json.dumps(made))
    with pytest.raises(PotstillError, match=rf"names {name}: no .mp4 file of this run"):
        write_report(run)


def test_several_runs_make_one_page(tmp_path):
    for number, name in enumerate(("one", "two")):
        (tmp_path / name).mkdir()
        made = full() | {"command": ["potstill", "distill", f"--seed={number}"]}
        (tmp_path / name / "result.json").write_text(json.dumps(made))
    shutil.copytree(RESULTS / "demo", tmp_path / "three")
    page = write_report(*(tmp_path / name for name in ("one", "two", "three")), out=tmp_path / "new" / "all.html")
    html, parsed = parse(page)
    assert page == tmp_path / "new" / "all.html"
    assert [attributes["id"] for tag, attributes in parsed.tags if tag == "details" and "id" in attributes] == [
        "run-1", "run-2", "run-3"]  # fmt: skip
    assert html.count('<a href="#run-') == 3
    for text in ("3 runs", "--seed=0", "--seed=1", "potstill demo"):
        assert text in parsed.text
    assert not list(tmp_path.glob("*/report.html"))


@pytest.mark.parametrize("name", ["Acrobot-v1", "Breakout", "Pendulum-v1", "demo"])
def test_runs_of_older_versions_have_a_page(tmp_path, name):
    shutil.copytree(RESULTS / name, tmp_path / name)
    html = write_report(tmp_path / name).read_text()
    assert html.count("<svg ") == 4


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("demo", "Loss: KL, temperature 0.01."),
        ("losses/Pong-0", "Loss: KL, temperature 0.01 (kl); MSE (mse); NLL (nll)."),
        ("multitask-3/half-hour", "Loss: KL, temperature 0.01, 0.01, 1.0 (kl); NLL (nll)."),
    ],
)
def test_it_says_what_the_students_learnt_by(tmp_path, name, said):
    _, parsed = parse(write_report(RESULTS / name, out=tmp_path / "page.html"))
    assert said in parsed.text


@pytest.mark.parametrize(
    "name", ["net3", "cnn_16-16-16_64_2f", "a name as long as the plot is wide, and a little more"]
)
def test_legends_lie_within_their_plots(name):
    with plots.drawing():
        figure, axes = plots._axes("title", "x", "y")
        for number in range(9):
            axes.plot([0, 1], label=f"{name}-{number}")
        plots._legend(figure)
        figure.draw_without_rendering()
        extent = figure.legends[0].get_window_extent()
    assert figure.bbox.x0 <= extent.x0 < extent.x1 <= figure.bbox.x1


def test_whatever_a_result_holds_instead_is_one_line_or_shown(tmp_path, monkeypatch):
    """Values of a result in turn become something else, as a stranger's file might have it."""
    monkeypatch.setattr("potstill.report.plots._svg", lambda figure: Markup(escape(figure.axes[0].get_title())))
    made, rng, shown = full(), random.Random(0), 0
    for path in rng.sample(list(paths(made)), 30):
        changed = json.loads(json.dumps(made))
        *before, last = path
        parent = changed
        for key in before:
            parent = parent[key]
        parent[last] = rng.choice((None, "<script>", [], {}, -1, 1e999))
        (tmp_path / "result.json").write_text(json.dumps(changed))
        with contextlib.suppress(PotstillError):
            assert "<script" not in write_report(tmp_path).read_text()
            shown += 1
    assert shown > 5, "what can be shown isn't refused"


def paths(value: object) -> Iterator[tuple]:
    """Where each part of a JSON value lies."""
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in children:
        yield (key,)
        yield from ((key, *more) for more in paths(child))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "has no result.json: it is no run directory, or its run is not finished"),
        ("{", "is not a JSON file"),
        ("[]", "is not of schema 1"),
        ('{"schema": 2}', "is not of schema 1"),
        ('{"schema": 1}', "is not what a run writes"),
    ],
)
def test_what_is_no_result_is_one_line(tmp_path, content, message):
    if content is not None:
        (tmp_path / "result.json").write_text(content)
    with pytest.raises(PotstillError, match=message):
        write_report(tmp_path)


def test_the_newest_kind_of_result_that_is_committed_is_read(tmp_path):
    """Of an online distillation, scored on another machine than it learnt on."""
    run = Path(__file__).parents[2] / "results" / "online" / "Qbert"
    assert "scored on: system Linux" in write_report(run, out=tmp_path / "page.html").read_text()
