"""What plays: the Nature-CNN family and MLPs, named by a spec string."""

from potstill.networks.build import build, num_parameters, scale, standardise
from potstill.networks.spec import PAPER, NetworkSpec

__all__ = ["PAPER", "NetworkSpec", "build", "num_parameters", "scale", "standardise"]
