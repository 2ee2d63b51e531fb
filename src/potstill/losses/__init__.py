"""What is matched: pure functions on tensors, one number a sample."""

from potstill.losses.distillation import LOSSES, kl, mse, nll
from potstill.losses.gaussian import GAUSSIAN_LOSSES

__all__ = ["GAUSSIAN_LOSSES", "LOSSES", "kl", "mse", "nll"]
