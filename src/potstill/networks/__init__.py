"""What plays: the Nature-CNN family and MLPs, named by a spec string."""

from potstill.networks.build import (
    BATCH_NORM_MOMENTUM,
    FramesConv,
    GsdeHead,
    MultiHead,
    Network,
    Normalize,
    Select,
    as_floats,
    build,
    drawn_from,
    fold_batch_norm,
    num_parameters,
    set_batch_norm_momentum,
    with_batch_norm,
)
from potstill.networks.foreign import Foreign, OnArrays
from potstill.networks.spec import PAPER, NetworkSpec

__all__ = [
    "BATCH_NORM_MOMENTUM",
    "PAPER",
    "Foreign",
    "FramesConv",
    "GsdeHead",
    "MultiHead",
    "Network",
    "NetworkSpec",
    "Normalize",
    "OnArrays",
    "Select",
    "as_floats",
    "build",
    "drawn_from",
    "fold_batch_norm",
    "num_parameters",
    "set_batch_norm_momentum",
    "with_batch_norm",
]
