"""The losses of Gaussian policies: hand-computed constants, torch.distributions, properties."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.distributions import Normal, kl_divergence

from potstill.losses import GAUSSIAN_LOSSES
from potstill.losses.gaussian import kl, mse, nll

numbers = st.lists(st.floats(-3, 3, width=32), min_size=8, max_size=8)


def outputs(means: list[float], stds: list[float]) -> torch.Tensor:
    return torch.tensor([[*means, *(math.log(std) for std in stds)]])


def test_kl_is_what_hand_computation_gives():
    # log(2/1) + (1 + (1−3)²) / (2·4) − 1/2 = 0.693147 + 0.625 − 0.5
    assert kl(outputs([3.0], [2.0]), outputs([1.0], [1.0]), 1.0).item() == pytest.approx(0.818147, abs=1e-6)


def test_the_temperature_multiplies_the_teachers_variance():
    student, teacher = outputs([0.5], [2.0]), outputs([0.5], [1.0])
    assert kl(student, teacher, 4.0).item() == pytest.approx(0.0, abs=1e-6)


def test_nll_is_what_hand_computation_gives():
    # (1−3)² / (2·4) + log 2 + ½ log 2π
    assert nll(outputs([3.0], [2.0]), outputs([1.0], [9.0])).item() == pytest.approx(2.112086, abs=1e-6)


def test_mse_is_the_squared_distance_of_the_outputs():
    student, teacher = torch.tensor([[1.0, 2.0, 0.0, -1.0]]), torch.tensor([[0.0, 4.0, 1.0, -1.0]])
    assert mse(student, teacher).tolist() == [1.0 + 4.0 + 1.0]


@given(numbers, numbers)
def test_kl_and_nll_are_torchs(ours, theirs):
    student, teacher = torch.tensor([ours]).double(), torch.tensor([theirs]).double()
    distributions = [Normal(x[:, :4], x[:, 4:].exp()) for x in (teacher, student)]
    torch.testing.assert_close(kl(student, teacher, 1.0), kl_divergence(*distributions).sum(-1))
    torch.testing.assert_close(nll(student, teacher), -distributions[1].log_prob(teacher[:, :4]).sum(-1))


@given(numbers)
def test_equal_policies_have_no_divergence(ours):
    student = torch.tensor([ours])
    torch.testing.assert_close(kl(student, student, 1.0), torch.zeros(1), atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", GAUSSIAN_LOSSES)
def test_a_loss_is_one_number_a_sample_whatever_the_batch(name):
    generator = torch.Generator().manual_seed(0)
    student, teacher = torch.randn(5, 6, generator=generator), torch.randn(5, 6, generator=generator)
    whole = GAUSSIAN_LOSSES[name](student, teacher, 1.0)
    assert whole.shape == (5,)
    for row in range(5):
        one = GAUSSIAN_LOSSES[name](student[row : row + 1], teacher[row : row + 1], 1.0)
        torch.testing.assert_close(one, whole[row : row + 1])
