"""What plays: the Nature-CNN family and MLPs, named by a spec string."""

from potstill.networks.build import GsdeHead, Normalize, build, fold_batch_norm, num_parameters, scale, with_batch_norm
from potstill.networks.spec import PAPER, NetworkSpec

__all__ = [
    "PAPER",
    "GsdeHead",
    "NetworkSpec",
    "Normalize",
    "build",
    "fold_batch_norm",
    "num_parameters",
    "scale",
    "with_batch_norm",
]
