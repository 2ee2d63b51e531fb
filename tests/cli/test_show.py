"""What is printed."""

import json
from pathlib import Path

import pytest
from rich.console import Console

from potstill.cli import show
from potstill.cli.show import show_costs, show_fit, show_result, show_score, show_table

RESULTS = Path(__file__).parents[2] / "results"
COST = {"runtime": "PyTorch", "parameters": 4, "macs": None, "bytes": 9, "throughput": 1e3,
        "latency_ms": {"p50": 1.0, "p99": 2.0}}  # fmt: skip


def test_brackets_in_names_are_printed(capsys):
    show_costs({"my[best].zip": [COST], "[/x].onnx": [COST]})
    printed = capsys.readouterr().out
    assert "my[best].zip" in printed
    assert "[/x].onnx" in printed


@pytest.mark.parametrize("name", ["demo", "multitask-3/distilled-0", "HalfCheetah-v4", "fit-LunarLander", "losses"])
def test_at_80_columns_nothing_of_a_table_is_cut(name, capsys, monkeypatch):
    monkeypatch.setattr(show, "_console", lambda *_: Console(width=80, markup=False, highlight=False))
    result = json.loads((RESULTS / name / "result.json").read_text())
    shown = show_table if "table" in result else show_fit if "fit" in result else show_result
    shown(RESULTS / name, Path("report.html"))
    table = [line for line in capsys.readouterr().out.splitlines() if line[:1] in "┏┃│"]
    assert table
    assert max(map(len, table)) <= 80
    assert "…" not in "".join(table)
    numbers = [cell for line in table for cell in line.strip("┃│").split("│") if "[" in cell or "]" in cell]
    assert all(cell.count("[") == cell.count("]") == 1 for cell in numbers if "%" not in cell)


def test_costs_are_whole_at_80_columns(capsys, monkeypatch):
    monkeypatch.setattr(show, "_console", lambda *_: Console(width=80, markup=False, highlight=False))
    large = {**COST, "runtime": "onnxruntime", "parameters": 1_687_206, "macs": 9_346_048, "bytes": 3_375_580}
    show_costs({"runs/demo/students/net3.safetensors": [large]})
    words = capsys.readouterr().out.replace("┃", " ").replace("│", " ").split()
    assert {"1,687,206", "9,346,048", "3,375,580", "onnxruntime", "observations/s", "1,000", "2.000"} <= set(words)


def test_a_score_says_its_exploration_and_one_episode_has_no_interval(capsys):
    score = {"mean": 16.0, "ci95": [16.0, 16.0], "episodes": 1}
    show_score({"file": "a.zip", "task": "ALE/Pong-v5", "protocol": {"epsilon": 0.05}, "score": score})
    assert capsys.readouterr().out == "a.zip: 16.00 over 1 episodes of ALE/Pong-v5 at ε = 0.05\n"
