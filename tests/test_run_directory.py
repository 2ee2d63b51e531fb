"""A run's folder: whose it is."""

import pytest

from potstill import PotstillError
from potstill.run_directory import open_metrics, open_run, write_line


def test_a_folder_is_one_processs_until_it_is_killed(tmp_path, locked_elsewhere):
    out = tmp_path / "run"
    with locked_elsewhere(out), pytest.raises(PotstillError, match="run is being worked on by another process"):
        open_run(out, True, [], {})
    open_run(out, True, [], {})
    open_run(out, True, [], {})  # as one process may


def test_another_commands_run_is_not_gone_on_with(tmp_path):
    open_run(tmp_path, False, ["potstill", "fit", "--out", "x"], {"seed": 0, "keep": 0.95})
    with pytest.raises(PotstillError, match=r"was begun by potstill fit; choose another --out"):
        open_run(tmp_path, True, ["potstill", "distill"], {"seed": 0})
    with pytest.raises(PotstillError, match=r"was begun by potstill fit; choose another --out"):
        open_run(tmp_path, True, ["potstill", "record"], {"seed": 0, "keep": 1.0})


def test_other_students_are_named_as_they_are_typed(tmp_path):
    open_run(tmp_path, False, [], {"student": {"small": "mlp:4"}})
    with pytest.raises(PotstillError, match=r"was begun with student small=mlp:4, not a=net1 b=net2;"):
        open_run(tmp_path, True, [], {"student": {"a": "net1", "b": "net2"}})


def test_a_folder_of_something_else_is_left_as_it_was(tmp_path):
    (tmp_path / "precious.txt").write_text("keep me")
    with pytest.raises(PotstillError, match="is not empty"):
        open_run(tmp_path, False, [], {})
    assert list(tmp_path.iterdir()) == [tmp_path / "precious.txt"]


def test_a_command_that_is_no_words_is_anothers_run(tmp_path):
    (tmp_path / "config.json").write_text('{"command": ["potstill", ["x"]], "run": {}}')
    with pytest.raises(PotstillError, match="choose another --out"):
        open_run(tmp_path, True, ["potstill", "record"], {})


@pytest.mark.parametrize("damage", [b"1\n", b"[2]\n", b'{"hour": 2', b'{"other": 2}\n', b"\xff\n"])
def test_metrics_go_on_before_the_first_line_that_no_run_writes(tmp_path, damage):
    (tmp_path / "metrics.jsonl").write_bytes(b'{"hour": 1}\n' + damage + b'{"hour": 3}\n')
    with open_metrics(tmp_path, lambda line: line["hour"] <= 3):
        pass
    assert (tmp_path / "metrics.jsonl").read_bytes() == b'{"hour": 1}\n'


def test_a_line_that_was_cut_off_before_its_end_is_dropped(tmp_path):
    (tmp_path / "metrics.jsonl").write_bytes(b'{"hour": 1}\n{"hour": 2}')
    with open_metrics(tmp_path, lambda line: True) as metrics:
        write_line(metrics, {"hour": 3})
    assert (tmp_path / "metrics.jsonl").read_bytes() == b'{"hour": 1}\n{"hour": 3}\n'
