"""TorchScript and torch.export files run only where they are trusted."""

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from potstill import PotstillError, load

OBSERVATIONS = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)


class Both(nn.Module):
    """An actor-critic."""

    def __init__(self) -> None:
        super().__init__()
        self.actor, self.critic = nn.Linear(4, 2), nn.Linear(4, 1)

    def forward(self, observations: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.actor(observations), self.critic(observations)


def script(path: Path, module: nn.Module) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is deprecated, its files are there
        torch.jit.save(torch.jit.trace(module, torch.zeros(1, 4)), path)


def export(path: Path, module: nn.Module) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.export.save(torch.export.export(module, (torch.zeros(1, 4),)), path)


@pytest.mark.parametrize(("write", "kind"), [(script, "TorchScript"), (export, "torch.export")])
def test_a_program_is_refused_by_name_and_plays_where_it_is_trusted(tmp_path, write, kind):
    torch.manual_seed(0)
    module, path = Both(), tmp_path / "CartPole-v1.pt2"
    write(path, module)
    with pytest.raises(PotstillError, match=f"is a program \\({kind}\\), .* add --trust"):
        load(path)
    policy = load(path, trust=True)
    with torch.no_grad():
        expected = module.actor(torch.from_numpy(OBSERVATIONS))
    torch.testing.assert_close(policy.outputs(OBSERVATIONS), expected)
    assert (policy.outputs_are, policy.task, str(policy.spec)) == ("logits", "CartPole-v1", kind)


class Named(nn.Module):
    def forward(self, frames: torch.Tensor) -> dict[str, torch.Tensor]:
        brightest = nn.functional.avg_pool2d(frames, 84).flatten(1)  # takes floats only
        return {"value": brightest[:, :1], "q_values": torch.cat([brightest, brightest[:, :2]], 1)}


def test_a_telling_name_is_chosen_and_bytes_become_floats(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(Named()), tmp_path / "Pong-v5.pt")
    policy = load(tmp_path / "Pong-v5.pt", task="ALE/Pong-v5", trust=True)
    frames = np.full((2, 4, 84, 84), 7, np.uint8)
    assert policy.outputs(frames).tolist() == [[7.0] * 6] * 2
    assert (policy.outputs_are, policy.provenance["frames"]) == ("q", "as floats from 0 to 255")


def test_a_program_for_another_task_is_one_line(tmp_path):
    script(tmp_path / "a.pt", Both())
    with pytest.raises(PotstillError, match="TorchScript can't play Acrobot-v1") as error:
        load(tmp_path / "a.pt", task="Acrobot-v1", trust=True)
    assert "\n" not in str(error.value)
