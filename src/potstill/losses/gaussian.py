"""The same three losses where outputs are the means and log standard deviations of a Gaussian.

Teacher and student squash and scale their actions alike, if at all; a divergence of distributions is the same before
and after that, so it is taken before.
"""

import math

from jaxtyping import Float
from torch import Tensor

from potstill.losses.distillation import Loss, PerSample, mse

Outputs = Float[Tensor, "batch outputs"]
"""(batch, 2 × dimensions): means, then logs of standard deviations."""


def kl(student: Outputs, teacher: Outputs, temperature: float) -> PerSample:
    """KL(N(μ_T, τσ_T²) ‖ N(μ_S, σ_S²)), summed over dimensions.

    The density to the power of 1/τ, normalised, is a Gaussian of τ times the variance: for logits, too, it is what
    dividing by τ does.

    Args:
        student: the student's outputs.
        teacher: the teacher's outputs.
        temperature: τ > 0.
    """
    (mean, log_std), (mean_teacher, log_std_teacher) = student.chunk(2, -1), teacher.chunk(2, -1)
    log_std_teacher = log_std_teacher + math.log(temperature) / 2
    spread = ((2 * (log_std_teacher - log_std)).exp() + ((mean_teacher - mean) / log_std.exp()).square()) / 2
    return (log_std - log_std_teacher + spread - 0.5).sum(-1)


def nll(student: Outputs, teacher: Outputs, temperature: float = 1.0) -> PerSample:
    """−log N(μ_T; μ_S, σ_S²): the teacher's mean action is the label; τ has no effect.

    Args:
        student: the student's outputs.
        teacher: the teacher's outputs.
        temperature: taken so that the three losses are called alike.
    """
    mean, log_std = student.chunk(2, -1)
    distance = ((teacher.chunk(2, -1)[0] - mean) / log_std.exp()).square()
    return (distance / 2 + log_std + math.log(2 * math.pi) / 2).sum(-1)


GAUSSIAN_LOSSES: dict[str, Loss] = {"kl": kl, "nll": nll, "mse": mse}
