"""What an option may be, where several commands have it. It needs no PyTorch, so that `--help` answers at once."""

from typing import Literal

Act = Literal["greedy", "sample"]
"""The best action, or one drawn from the policy's distribution."""
Device = Literal["cpu", "cuda"]
Loss = Literal["kl", "nll", "mse"]
"""Of Rusu et al. 2016, equations 1 to 3."""
Precision = Literal["auto", "bf16", "fp32"]
"""auto: bf16 for CNNs on hardware with it."""
