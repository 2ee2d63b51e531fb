"""Exports are compared with their policies first; what differs is not written."""

import json
from pathlib import Path

import numpy as np
import pytest

from potstill import Policy, PotstillError, load
from potstill.actions import Actions, _on
from potstill.export import check
from potstill.export.check import Agreement, Export, agreement, observe, refuse
from potstill.export.options import ExportOptions
from potstill.export.run import export
from potstill.networks import NetworkSpec
from potstill.tasks import make_task


def finished(generator):
    while True:
        try:
            next(generator)
        except StopIteration as end:
            return end.value


@pytest.fixture(autouse=True)
def fewer_observations(monkeypatch):
    monkeypatch.setattr(check, "OBSERVATIONS", 640)


@pytest.fixture(scope="module")
def met(cartpole_file_once):
    return finished(observe(load(cartpole_file_once), make_task("CartPole-v1"), 640, seed=0, threads=1))


def test_states_are_the_policys_own(met, cartpole_teacher):
    assert met.shape == (640, 4)
    assert np.abs(met).max() < 3  # it balances
    again = finished(observe(cartpole_teacher, make_task("CartPole-v1"), 640, seed=0, threads=1))
    np.testing.assert_array_equal(met, again)


@pytest.mark.parametrize("shift", [0.0, 5.0])
def test_a_constant_added_to_logits_says_nothing(met, cartpole_teacher, shift):
    moved = Export(lambda seen: cartpole_teacher.outputs(seen).numpy() + shift, cartpole_teacher.act)
    found = agreement(cartpole_teacher, moved, met, 1e-4)
    assert found.same == 1.0
    assert found.difference < 1e-5


def test_other_actions_are_counted_but_for_ties(met, cartpole_teacher):
    turned = Export(lambda seen: -cartpole_teacher.outputs(seen).numpy(), lambda seen: 1 - cartpole_teacher.act(seen))
    found = agreement(cartpole_teacher, turned, met, 1e-4)
    assert found.same < 0.1
    assert found.difference > 0.5
    assert agreement(cartpole_teacher, turned, met, 1.0).same == 1.0  # everything is a tie


@pytest.mark.parametrize(
    ("found", "tolerance", "message"),
    [
        (Agreement(9, 0.1, 1.0), 0.01, "--tolerance 0.01"),
        (Agreement(9, 0.0, 0.9), 0.01, "all must be"),
        (Agreement(9, float("nan"), 1.0), 0.01, "differ by nan"),
    ],
)
def test_what_is_not_near_enough_is_refused(found, tolerance, message):
    with pytest.raises(PotstillError, match=f"{message}.*nothing is written"):
        refuse("a.onnx", found, tolerance, 1.0)
    refuse("a.onnx", Agreement(9, 0.0, 1.0), tolerance, 1.0)
    refuse("a.onnx", Agreement(9, 0.5, 1.0), None, 1.0)


@pytest.mark.parametrize(("to", "name"), [("onnx", "a.onnx"), ("sb3", "a.zip")])
def test_an_export_is_played_beside_its_policy(cartpole_teacher, to, name, tmp_path):
    record = finished(
        export([cartpole_teacher], tmp_path / name, ExportOptions(to=to, verify=True, episodes=3, threads=1))
    )
    [task] = record["tasks"]
    assert (task["task"], task["observations"], task["same_actions"]) == ("CartPole-v1", 640, 1.0)
    assert task["policy"]["returns"] == task["export"]["returns"] == [500.0] * 3
    assert task["largest_difference"] < 1e-4
    assert task["difference"]["mean"] == 0
    assert record["bytes"] == (tmp_path / name).stat().st_size
    json.dumps(record)


def test_continuous_actions_are_exported_whatever_was_played_before(tmp_path):
    _on.cache_clear()
    actions = Actions((-2.0,), (2.0,), squashed=True)
    policy = Policy.new(NetworkSpec.parse("mlp:8"), "gaussian", (3,), "float32", 1, task="Pendulum-v1", actions=actions)
    [task] = finished(export([policy], tmp_path / "a.onnx", ExportOptions()))["tasks"]
    assert task["same_actions"] == 1.0
    assert task["largest_difference"] < 1e-4


def test_int8_is_asked_for_its_actions(tmp_path):
    policy = Policy.new(NetworkSpec.parse("mlp:16-16"), "logits", (4,), "float32", 2, task="CartPole-v1")
    record = finished(export([policy], tmp_path / "a.onnx", ExportOptions(int8=True, min_agreement=0.8)))
    assert record["tasks"][0]["same_actions"] > 0.8
    assert record["tasks"][0]["largest_difference"] > 1e-4  # it is no float graph


def test_int8_of_two_layers_would_change_nothing(cartpole_teacher, tmp_path):
    with pytest.raises(PotstillError, match="no layers between"):
        finished(export([cartpole_teacher], tmp_path / "a.onnx", ExportOptions(int8=True)))
    assert not list(Path(tmp_path).glob("*.onnx"))


def test_one_that_plays_worse_is_refused(cartpole_teacher, tmp_path, monkeypatch):
    from potstill.export import run

    made = run._make

    def spoilt(*arguments):
        [one] = made(*arguments)
        one.player.network.function.forward = lambda seen: -cartpole_teacher.outputs(seen.numpy())
        return [one]

    monkeypatch.setattr(run, "_make", spoilt)
    with pytest.raises(PotstillError, match=r"it scores .* the policy 500\.00"):
        finished(export([cartpole_teacher], tmp_path / "a.onnx", ExportOptions(verify=True, episodes=4)))
    assert not (tmp_path / "a.onnx").exists()


def test_a_zip_is_not_written_where_it_would_be_normalised_again(cartpole_teacher, tmp_path):
    (tmp_path / "vecnormalize.pkl").touch()
    with pytest.raises(PotstillError, match=r"vecnormalize.pkl would be taken for its statistics"):
        finished(export([cartpole_teacher], tmp_path / "a.zip", ExportOptions(to="sb3")))
    assert not (tmp_path / "a.zip").exists()
