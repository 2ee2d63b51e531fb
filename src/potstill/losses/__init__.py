"""What is matched: pure functions on tensors, one number a sample."""

from potstill.losses.distillation import LOSSES, kl, mse, nll

__all__ = ["LOSSES", "kl", "mse", "nll"]
