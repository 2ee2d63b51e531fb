"""What was played: frames stored once, stacks rebuilt at sampling."""

from potstill.memory.replay import Replay, Sample

__all__ = ["Replay", "Sample"]
