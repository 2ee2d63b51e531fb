"""Policies that play, to look at: in a window or as a film."""

from potstill.watch.film import Actor, check_name, frames, write
from potstill.watch.scenes import Scene, has_display, pace, watch
from potstill.watch.window import show

__all__ = ["Actor", "Scene", "check_name", "frames", "has_display", "pace", "show", "watch", "write"]
