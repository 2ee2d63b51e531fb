"""Potstill: distil a trained reinforcement-learning policy into a small one, and prove it plays as well."""

from typing import TYPE_CHECKING, Any

from potstill.errors import PotstillError
from potstill.version import __version__

if TYPE_CHECKING:
    from potstill.policy import Policy
    from potstill.teachers import load

__all__ = ["Policy", "PotstillError", "__version__", "load"]


def __getattr__(name: str) -> Any:
    # PyTorch takes over a second to import: `potstill --help` doesn't wait for it.
    if name == "Policy":
        from potstill.policy import Policy

        return Policy
    if name == "load":
        from potstill.teachers import load

        return load
    raise AttributeError(f"module 'potstill' has no attribute {name!r}")
