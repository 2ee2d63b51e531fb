"""Training runs: scored, saved, gone on with to the same bits."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import potstill
from potstill import PotstillError
from potstill.learners.options import DQNOptions
from potstill.train.run import plan, run

COMMAND = ["potstill", "train"]
SMALL = {"steps": 6000, "envs": 8, "memory": 2000, "learn_after": 400, "batch": 32, "explore_steps": 2000, "threads": 2}


def make(out: Path, resume: bool = False, stop_at: int | None = None, **changes: object) -> dict:
    options = DQNOptions(**{**SMALL, **changes})  # pyright: ignore[reportArgumentType]
    for progress in run(plan(options, "CartPole-v1", 1500, 3, 6), out, resume, COMMAND):
        if stop_at is not None and progress.stage == "train" and progress.done >= stop_at:
            return {}
    return json.loads((out / "result.json").read_text())


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("whole")
    make(out / "plain")
    make(out / "prioritised", prioritised=True)
    return out


def same_bits(one: Path, other: Path) -> bool:
    first, second = load_file(one / "last.safetensors"), load_file(other / "last.safetensors")
    return all(torch.equal(tensor, second[name]) for name, tensor in first.items())


def test_a_run_writes_its_curve_its_best_and_fresh_episodes_of_it(whole):
    result = json.loads((whole / "plain" / "result.json").read_text())
    assert [point["steps"] // 1500 for point in result["curve"]] == [1, 2, 3, 4]
    best = max(result["curve"], key=lambda point: (point["score"]["mean"], point["steps"]))
    assert result["best"]["steps"] == best["steps"]
    assert result["best"]["score"]["episodes"] == 6
    assert result["best"]["score"]["returns"][:3] != best["score"]["returns"]
    policy = potstill.load(whole / "plain" / "best.safetensors")
    assert policy.outputs_are == "q"
    assert policy.task == "CartPole-v1"
    assert policy.provenance["steps"] == best["steps"]
    lines = [json.loads(line) for line in (whole / "plain" / "metrics.jsonl").read_text().splitlines()]
    assert [line["steps"] for line in lines] == sorted({line["steps"] for line in lines})
    assert lines[-1]["loss"] > 0


@pytest.mark.parametrize("kind", ["plain", "prioritised"])
@pytest.mark.parametrize("stop_at", [1000, 3200, 5500])
def test_a_run_dropped_anywhere_and_gone_on_with_ends_at_the_same_bits(whole, tmp_path, kind, stop_at):
    make(tmp_path / "run", stop_at=stop_at, prioritised=kind == "prioritised")
    resumed = make(tmp_path / "run", resume=True, prioritised=kind == "prioritised")
    assert same_bits(whole / kind, tmp_path / "run")
    result = json.loads((whole / kind / "result.json").read_text())
    assert resumed["curve"] == result["curve"]
    assert resumed["budget"]["updates"] == result["budget"]["updates"]
    metrics = [(folder / "metrics.jsonl").read_text() for folder in (whole / kind, tmp_path / "run")]
    assert metrics[0] == metrics[1]


def test_a_finished_run_can_be_made_longer(whole, tmp_path):
    out = Path(shutil.copytree(whole / "plain", tmp_path / "run"))
    assert make(out, resume=True, steps=7500)["budget"]["steps"] == 7504


def test_elsewhere_the_portable_checkpoint_the_config_and_the_best_policy_are_enough(whole, tmp_path):
    make(tmp_path / "run", stop_at=3200)
    out = tmp_path / "elsewhere"
    out.mkdir()
    for name in ("portable.safetensors", "config.json", "best.safetensors"):
        shutil.copy(tmp_path / "run" / name, out)
    result = make(out, resume=True, threads=1, precision="bf16")  # as that machine has them
    assert [point["steps"] // 1500 for point in result["curve"]] == [1, 2, 3, 4]
    assert result["budget"]["steps"] == 6000
    assert result["budget"]["updates"] == json.loads((whole / "plain" / "result.json").read_text())["budget"]["updates"]


def test_the_portable_checkpoint_of_the_papers_network_is_small(tmp_path):
    options = DQNOptions(steps=400, envs=8, memory=2000, learn_after=200, batch=8, threads=2)
    for _ in run(plan(options, "ALE/Pong-v5", 300, 1, 1), tmp_path / "run", False, COMMAND):
        if (tmp_path / "run" / "portable.safetensors").exists():
            break
    assert (tmp_path / "run" / "portable.safetensors").stat().st_size < 16 * 2**20


def test_a_damaged_checkpoint_is_said_so(tmp_path):
    make(tmp_path / "run", stop_at=3200)
    path = tmp_path / "run" / "checkpoint" / "state.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(PotstillError, match="damaged"):
        make(tmp_path / "run", resume=True)


def test_other_options_are_refused_on_resume(whole, tmp_path):
    out = Path(shutil.copytree(whole / "plain", tmp_path / "run"))
    with pytest.raises(PotstillError, match=r"was begun with batch 32, not 64"):
        make(out, resume=True, batch=64)
