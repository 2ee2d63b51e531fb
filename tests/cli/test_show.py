"""What is printed."""

from potstill.cli.show import show_costs, show_score

COST = {"runtime": "PyTorch", "parameters": 4, "macs": None, "bytes": 9, "throughput": 1e3,
        "latency_ms": {"p50": 1.0, "p99": 2.0}}  # fmt: skip


def test_brackets_in_names_are_printed(capsys):
    show_costs({"my[best].zip": [COST], "[/x].onnx": [COST]})
    printed = capsys.readouterr().out
    assert "my[best].zip" in printed
    assert "[/x].onnx" in printed


def test_a_score_says_its_exploration_and_one_episode_has_no_interval(capsys):
    score = {"mean": 16.0, "ci95": [16.0, 16.0], "episodes": 1}
    show_score({"file": "a.zip", "task": "ALE/Pong-v5", "protocol": {"epsilon": 0.05}, "score": score})
    assert capsys.readouterr().out == "a.zip: 16.00 over 1 episodes of ALE/Pong-v5 at ε = 0.05\n"
