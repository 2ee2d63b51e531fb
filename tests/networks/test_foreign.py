import numpy as np
import pytest
import torch
from torch import nn

from potstill.networks import Foreign, OnArrays


class Doubled(nn.Module):
    """Takes one at a time, and works in place."""

    def forward(self, observations):
        assert len(observations) == 1
        return observations.mul_(2)


def test_observations_are_given_one_by_one_and_stay_as_they_are():
    observations = torch.arange(8.0).view(4, 2)
    assert torch.equal(Foreign(Doubled(), 2, None, 0, one_by_one=True)(observations), 2 * torch.arange(8.0).view(4, 2))
    assert torch.equal(observations, torch.arange(8.0).view(4, 2))


def test_chosen_actions_become_sure_logits():
    network = Foreign(OnArrays(lambda seen: seen[:, 0].astype(np.int64)), 3, None, 0)
    assert network(torch.tensor([[2.0], [0.0]])).tolist() == [[0.0, 0.0, 10.0], [10.0, 0.0, 0.0]]


def test_actions_without_a_spread_get_a_tenth_of_half_their_range():
    network = Foreign(nn.Identity(), 4, (1.0, 5.0), 0)
    torch.testing.assert_close(network(torch.zeros(3, 2))[:, 2:].exp(), torch.tensor([[0.1, 0.5]]).expand(3, 2))


@pytest.mark.parametrize(
    ("function", "message"),
    [(nn.Identity(), r"\(5, 2\) outputs for 5 observations, not 3 each"), (lambda seen: (seen, seen), "tuple")],
)
def test_outputs_of_another_kind_say_so(function, message):
    with pytest.raises((ValueError, TypeError), match=message):
        Foreign(function, 3, None, 0)(torch.zeros(5, 2))
