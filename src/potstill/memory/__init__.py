"""What was played: frames stored once, stacks rebuilt at sampling."""

from potstill.memory.replay import Replay, Sample, step_bytes

__all__ = ["Replay", "Sample", "step_bytes"]
