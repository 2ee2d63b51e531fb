"""Prioritised replay."""

import numpy as np
import pytest
import torch

from potstill.memory.priorities import ALPHA, SMALLEST, Priorities


def test_steps_are_drawn_in_proportion_to_their_errors_to_the_power_of_alpha():
    priorities = Priorities(8, 2)
    for row in range(4):
        priorities.open(row)
    rows, envs = np.array([0, 1, 2, 3, 0, 1, 2, 3]), np.array([0, 0, 0, 0, 1, 1, 1, 1])
    errors = np.array([0, 1, 2, 3, 4, 5, 6, 7], np.float32)
    priorities.update((rows, envs), torch.from_numpy(errors))
    (drawn_rows, drawn_envs), weights = priorities.draw(200_000, np.random.default_rng(0), rows=4, beta=0.5)
    counts = np.bincount(drawn_envs * 4 + drawn_rows, minlength=8) / 200_000
    expected = (errors + SMALLEST) ** ALPHA / ((errors + SMALLEST) ** ALPHA).sum()
    np.testing.assert_allclose(counts, expected, atol=0.003)
    # w = (1 / (N·P))^β, divided by the largest (Schaul et al. 2016, section 3.4)
    chosen = expected[drawn_envs * 4 + drawn_rows]
    np.testing.assert_allclose(weights, (chosen / chosen.min()) ** -0.5, rtol=1e-4)


def test_closed_rows_are_never_drawn_and_rows_are_counted_from_the_first_ever():
    priorities = Priorities(5, 3)
    for row in range(5, 10):
        priorities.open(row)
    priorities.close(7)
    (rows, envs), _ = priorities.draw(1000, np.random.default_rng(0), rows=10, beta=1.0)
    assert set(rows) == {5, 6, 8, 9}
    assert set(envs) == {0, 1, 2}


def test_a_new_step_gets_the_largest_priority_so_far():
    priorities = Priorities(4, 1)
    priorities.open(0)
    priorities.update((np.array([0]), np.array([0])), torch.tensor([9.0]))
    priorities.open(1)
    assert priorities.weights[1, 0] == priorities.weights[0, 0] == pytest.approx((9.0 + SMALLEST) ** ALPHA)
