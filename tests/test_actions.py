"""Continuous actions: which count as the same."""

import pytest
import torch

from potstill.actions import Actions

LOW, HIGH = (-2.0, 0.0), (2.0, 1.0)


@pytest.mark.parametrize(
    ("squashed", "mean", "other", "same"),
    [
        (False, (0.0, 0.5), (0.19, 0.5), True),  # a range of 4: 5 % are 0.2
        (False, (0.0, 0.5), (0.21, 0.5), False),
        (False, (0.0, 0.5), (0.0, 0.54), True),
        (False, (0.0, 0.5), (0.0, 0.56), False),  # one dimension is enough
        (False, (2.0, 0.5), (9.0, 0.5), True),  # both are clipped to the bound
        (True, (0.0, 0.0), (0.09, 0.0), True),  # tanh(0.09) is 0.0898, of a range of 2
        (True, (0.0, 0.0), (0.11, 0.0), False),
        (True, (3.0, 0.0), (9.0, 0.0), True),
    ],
)
def test_actions_within_a_twentieth_of_their_range_are_the_same(squashed, mean, other, same):
    log_stds = torch.zeros(1, 2)
    one, another = (torch.cat([torch.tensor([means]), log_stds], -1) for means in (mean, other))
    actions = Actions(LOW, HIGH, squashed)
    assert actions.same(one, another).tolist() == [same]
    assert actions.same(another, one - 0.0).tolist() == [same]
