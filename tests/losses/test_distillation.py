"""The losses against hand-computed constants, PyTorch's own, and the properties the paper gives them."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from potstill.losses import LOSSES, kl, mse, nll

TEMPERATURES = st.sampled_from([1.0, 0.1, 0.01, 0.001])
SEEDS = st.integers(0, 2**31 - 1)


def outputs(seed: int, batch: int = 5, actions: int = 4, scale: float = 1.0) -> torch.Tensor:
    return scale * torch.randn(batch, actions, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_kl_of_a_hand_computed_pair():
    # Teacher: softmax([ln 3, 0]) = (3/4, 1/4). Student: (1/2, 1/2).
    expected = 0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5)
    loss = kl(torch.zeros(1, 2), torch.tensor([[math.log(3.0), 0.0]]), 1.0)
    assert loss.item() == pytest.approx(expected, rel=1e-6)
    assert expected == pytest.approx(0.1308120, abs=1e-7)


def test_kl_temperature_divides_the_teacher_only():
    # τ = 0.01 makes (0.01 ln 3, 0) the teacher above; dividing the student too would leave (1/2, 1/2) as it is,
    # so the student here is (1/5, 4/5) before any τ.
    student, teacher = torch.tensor([[0.0, math.log(4.0)]]), torch.tensor([[0.01 * math.log(3.0), 0.0]])
    expected = 0.75 * math.log(0.75 / 0.2) + 0.25 * math.log(0.25 / 0.8)
    assert kl(student, teacher, 0.01).item() == pytest.approx(expected, rel=1e-5)


def test_nll_of_a_hand_computed_pair():
    # The teacher prefers action 1, to which the student gives 1/4.
    loss = nll(torch.tensor([[math.log(3.0), 0.0]]), torch.tensor([[0.1, 0.2]]))
    assert loss.item() == pytest.approx(math.log(4.0), rel=1e-6)


def test_mse_of_a_hand_computed_pair_sums_over_actions():
    assert mse(torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, -1.0]])).item() == pytest.approx(4.0 + 9.0)


@given(SEEDS, TEMPERATURES)
def test_kl_is_pytorchs(seed, temperature):
    student, teacher = outputs(seed), outputs(seed + 1)
    oracle = torch.distributions.kl_divergence(
        torch.distributions.Categorical(logits=teacher / temperature),
        torch.distributions.Categorical(logits=student),
    )
    torch.testing.assert_close(kl(student, teacher, temperature), oracle, rtol=1e-6, atol=1e-6)


@given(SEEDS)
def test_nll_and_mse_are_pytorchs(seed):
    student, teacher = outputs(seed), outputs(seed + 1)
    oracle = -torch.distributions.Categorical(logits=student).log_prob(teacher.argmax(-1))
    torch.testing.assert_close(nll(student, teacher), oracle)
    torch.testing.assert_close(mse(student, teacher).mean() / 4, F.mse_loss(student, teacher))


@given(SEEDS, TEMPERATURES, st.floats(-100, 100))
def test_kl_is_zero_where_the_student_has_the_teachers_distribution(seed, temperature, shift):
    teacher = outputs(seed)
    assert kl(teacher / temperature + shift, teacher, temperature).abs().max() < 1e-8


@given(SEEDS, TEMPERATURES)
def test_kl_is_never_negative(seed, temperature):
    assert (kl(outputs(seed), outputs(seed + 1), temperature) > -1e-12).all()


@given(SEEDS)
def test_mse_is_zero_only_at_equality(seed):
    teacher = outputs(seed)
    assert (mse(teacher, teacher) == 0).all()
    assert (mse(teacher + 0.1, teacher) > 0).all()


@pytest.mark.parametrize("loss", [kl, nll])
@given(seed=SEEDS, shift=st.floats(-50, 50))
def test_shifting_the_students_logits_changes_nothing(loss, seed, shift):
    student, teacher = outputs(seed), outputs(seed + 1)
    torch.testing.assert_close(loss(student + shift, teacher, 0.1), loss(student, teacher, 0.1), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("name", LOSSES)
@given(seed=SEEDS)
def test_a_sample_weighs_the_same_in_any_batch(name, seed):
    student, teacher = outputs(seed, batch=8), outputs(seed + 1, batch=8)
    whole = LOSSES[name](student, teacher, 0.1)
    assert whole.shape == (8,)
    alone = torch.cat([LOSSES[name](student[i : i + 1], teacher[i : i + 1], 0.1) for i in range(8)])
    torch.testing.assert_close(whole, alone)
    twice = LOSSES[name](student.repeat(2, 1), teacher.repeat(2, 1), 0.1)
    torch.testing.assert_close(twice.mean(), whole.mean())


@pytest.mark.parametrize("name", LOSSES)
@given(seed=SEEDS, scale=st.sampled_from([1e-3, 1.0, 100.0]))
@settings(max_examples=30)
def test_gradients_are_finite_at_the_sharpest_temperature(name, seed, scale):
    student = outputs(seed, scale=scale).float().requires_grad_()
    LOSSES[name](student, outputs(seed + 1, scale=scale).float(), 0.001).mean().backward()
    assert student.grad is not None
    assert student.grad.isfinite().all()


def test_kl_gradient_is_the_difference_of_the_distributions():
    student, teacher = outputs(0).requires_grad_(), outputs(1)
    kl(student, teacher, 0.5).sum().backward()
    torch.testing.assert_close(student.grad, student.detach().softmax(-1) - (teacher / 0.5).softmax(-1))
