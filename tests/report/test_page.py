import json
import re
from html.parser import HTMLParser

import pytest

from potstill import PotstillError
from potstill.report import write_report

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


@pytest.fixture
def page(tmp_path) -> tuple[str, Page]:
    (tmp_path / "result.json").write_text(json.dumps(result()))
    lines = [{"hour": 1, "update": u, "loss": {"<b>small</b>": 1 / u, "other": 2 / u},
              "agreement": {"<b>small</b>": 0.5, "other": 0.6}} for u in (50, 100)]  # fmt: skip
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    html = write_report(tmp_path).read_text()
    parsed = Page()
    parsed.feed(html)
    return html, parsed


def test_the_page_holds_everything_and_fetches_nothing(page):
    html, parsed = page
    assert [tag for tag, _ in parsed.tags].count("svg") == 4  # size, episodes, loss, agreement
    assert not any(tag in ("script", "link", "img", "iframe") for tag, _ in parsed.tags)
    assert not [url for url in re.findall(r'(?:src|href)="(?!#)([^"]*)"', html) if url]
    for text in ("0.980 [0.900, 1.000]", "97.0 %", "potstill distill --teacher 'a b.zip'", "10.0 %"):
        assert text in parsed.text


def test_names_are_escaped(page):
    html, _ = page
    assert "<b>small</b>" not in html
    assert "&lt;b&gt;small&lt;/b&gt;" in html


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
