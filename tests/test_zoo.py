"""Every teacher in the zoo has a card, its episodes, and a line in the zoo's table."""

from pathlib import Path

import pytest

from potstill import load
from potstill.files import read_json, sha256
from potstill.report.read import interval

ZOO = Path(__file__).parents[1] / "zoo"
TEACHERS = sorted(ZOO.glob("*.safetensors"))


@pytest.mark.parametrize("path", TEACHERS, ids=lambda path: path.stem)
def test_a_teacher_is_what_its_card_and_episodes_say(path):
    policy, played = load(f"zoo:{path.stem}"), read_json(path.with_suffix(".json"))
    assert (str(policy.spec), policy.outputs_are, [policy.task]) == ("dqn", "q", played["tasks"])
    assert policy.provenance["steps"] == played["best"]["steps"]
    assert played["published"]["sha256"] == sha256(path), "the scores are another file's"
    shown = interval(played["published"]["score"], 1)
    assert shown in path.with_suffix(".md").read_text()
    [line] = [line for line in (ZOO / "README.md").read_text().splitlines() if f"`zoo:{path.stem}`" in line]
    assert shown in line
    assert len(played["published"]["score"]["returns"]) >= 100
    assert path.with_suffix(".svg").exists()
