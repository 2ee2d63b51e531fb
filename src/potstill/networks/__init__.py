"""What plays: the Nature-CNN family and MLPs, named by a spec string."""

from potstill.networks.build import (
    BATCH_NORM_MOMENTUM,
    GsdeHead,
    MultiHead,
    Network,
    Normalize,
    Select,
    build,
    drawn_from,
    fold_batch_norm,
    num_parameters,
    scale,
    set_batch_norm_momentum,
    with_batch_norm,
)
from potstill.networks.foreign import Foreign, OnArrays
from potstill.networks.spec import PAPER, NetworkSpec

__all__ = [
    "BATCH_NORM_MOMENTUM",
    "PAPER",
    "Foreign",
    "GsdeHead",
    "MultiHead",
    "Network",
    "NetworkSpec",
    "Normalize",
    "OnArrays",
    "Select",
    "build",
    "drawn_from",
    "fold_batch_norm",
    "num_parameters",
    "scale",
    "set_batch_norm_momentum",
    "with_batch_norm",
]
