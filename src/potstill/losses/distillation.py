"""The three losses of Policy Distillation (Rusu et al. 2016, section 3).

Each takes the student's and the teacher's outputs for a batch and returns one loss a sample; a
training step takes their mean, so nothing depends on the batch size. The temperature divides the
teacher's outputs only: it sharpens Q-values, whose differences are small against a softmax's unit.
"""

from collections.abc import Callable

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

Outputs = Float[Tensor, "batch actions"]
PerSample = Float[Tensor, " batch"]
Loss = Callable[[Tensor, Tensor, float], Tensor]


def kl(q_student: Outputs, q_teacher: Outputs, temperature: float) -> PerSample:
    """KL(softmax(q_T / τ) ‖ softmax(q_S)), summed over actions: 0 at q_S = q_T / τ + c.

    Args:
        q_student: the student's outputs, (batch, actions).
        q_teacher: the teacher's outputs, (batch, actions).
        temperature: τ > 0 (paper: 0.01 for Q-values).
    """
    log_p_teacher = F.log_softmax(q_teacher / temperature, dim=-1)
    log_p_student = F.log_softmax(q_student, dim=-1)
    return F.kl_div(log_p_student, log_p_teacher, reduction="none", log_target=True).sum(-1)


def nll(q_student: Outputs, q_teacher: Outputs, temperature: float = 1.0) -> PerSample:
    """−log softmax(q_S)[argmax q_T]: the teacher's best action is the label; τ has no effect.

    Args:
        q_student: the student's outputs, (batch, actions).
        q_teacher: the teacher's outputs, (batch, actions).
        temperature: taken so that the three losses are called alike.
    """
    return F.cross_entropy(q_student, q_teacher.argmax(-1), reduction="none")


def mse(q_student: Outputs, q_teacher: Outputs, temperature: float = 1.0) -> PerSample:
    """‖q_T − q_S‖², summed over actions; τ has no effect.

    Args:
        q_student: the student's outputs, (batch, actions).
        q_teacher: the teacher's outputs, (batch, actions).
        temperature: taken so that the three losses are called alike.
    """
    return F.mse_loss(q_student, q_teacher, reduction="none").sum(-1)


LOSSES: dict[str, Loss] = {"kl": kl, "nll": nll, "mse": mse}
