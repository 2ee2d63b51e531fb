"""The budget in numbers: rows of play and updates until the end of an hour, and the learning rate on the way."""

import math

from potstill.distill.options import DistillOptions

STEPS_PER_HOUR = 54_000
"""Control steps in an hour of play: 15 a second (Rusu et al. 2016)."""
DEFAULT_RATE = {("adam", True): 2e-2, ("adam", False): 1.5e-3, ("rmsprop", True): 2.5e-4, ("rmsprop", False): 2.5e-4}
"""Peak learning rate by optimiser and batch normalisation."""
WARMUP = 0.1
"""Share of the updates over which the cosine schedule first rises."""


def num_hours(options: DistillOptions) -> int:
    """Hours begun."""
    return math.ceil(options.hours)


def rows_until(hour: float, options: DistillOptions) -> int:
    """Rows of play (one control step of every environment) until the end of an hour."""
    return round(min(hour, options.hours) * STEPS_PER_HOUR / options.envs)


def updates_until(hour: float, options: DistillOptions, tasks: int = 1) -> int:
    """Updates until the end of an hour."""
    return round(min(hour, options.hours) * options.updates * tasks)


def window(options: DistillOptions) -> int:
    """Rows that are learnt from at a time."""
    return rows_until(min(options.hours, options.memory_hours), options)


def capacity(options: DistillOptions, ahead: bool) -> int:
    """Rows that a memory has: what is learnt from and the hour played ahead of it, and always a whole hour, which is
    sealed at once."""
    hour = math.ceil(STEPS_PER_HOUR / options.envs)
    return min(max(window(options) + hour * ahead, hour), rows_until(options.hours, options))


def learning_rate(update: int, total: int, options: DistillOptions) -> float:
    """The rate of the `update`-th of `total` updates."""
    peak = options.learning_rate or DEFAULT_RATE[options.optimizer, options.batch_norm]
    if options.schedule == "constant":
        return peak
    return peak * min(1.0, (update + 1) / (WARMUP * total)) * 0.5 * (1 + math.cos(math.pi * update / total))
