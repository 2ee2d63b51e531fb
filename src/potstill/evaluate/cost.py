"""What a policy costs where it runs: arithmetic, and seconds on one thread."""

import time
from collections.abc import Callable, Generator, Hashable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from potstill.machine import arithmetic_threads
from potstill.networks import NetworkSpec
from potstill.policy import Policy
from potstill.progress import Progress

CALLS = 60
"""Calls with one observation in a round, after a tenth as many that aren't counted."""
ROUNDS = 5
BATCH = 256
"""Observations in a call for throughput, one call a round."""
K = TypeVar("K", bound=Hashable)


@dataclass(frozen=True)
class Speed:
    """Of a function from observations to outputs, on one thread."""

    p50: float
    """Milliseconds for one observation, the median."""
    p99: float
    throughput: float
    """Observations a second, 256 at a time; the median of the rounds."""

    def record(self) -> dict[str, Any]:
        return {"latency_ms": {"p50": self.p50, "p99": self.p99}, "throughput": self.throughput, "threads": 1}


def speeds(
    functions: dict[K, tuple[Callable[[np.ndarray], Any], np.ndarray]],
) -> Generator[Progress, None, dict[K, Speed]]:
    """Measure functions in turns, so that whatever else the machine does falls on all of them.

    Args:
        functions: by any key, each with the observations it is given, at least 256 of them.

    Returns:
        Each one's speed, by its key.
    """
    ones: dict[K, list[float]] = {key: [] for key in functions}
    many: dict[K, list[float]] = {key: [] for key in functions}
    with arithmetic_threads(1):
        for number in range(ROUNDS):
            for key, (function, observations) in functions.items():
                for call in range(-CALLS // 10, CALLS):
                    one = observations[call % BATCH][None]
                    start = time.perf_counter()
                    function(one)
                    if call >= 0:
                        ones[key].append(1e3 * (time.perf_counter() - start))
                start = time.perf_counter()
                function(observations[:BATCH])
                many[key].append(BATCH / (time.perf_counter() - start))
            yield Progress("measure", number + 1, ROUNDS)
    return {
        key: Speed(
            p50=float(np.percentile(ones[key], 50)),
            p99=float(np.percentile(ones[key], 99)),
            throughput=float(np.median(many[key])),
        )
        for key in functions
    }


def macs(policy: Policy) -> int | None:
    """Multiplications with an addition, for one observation; None where the network isn't known."""
    spec = policy.spec
    if not isinstance(spec, NetworkSpec):  # an export of ours says what it was
        named = policy.provenance.get("network")
        if not isinstance(named, str):
            return None
        spec = NetworkSpec.parse(named)
    seen = policy.observation_shape
    with torch.device("meta"):
        network = Policy.new(spec, policy.outputs_are, seen, policy.observation_dtype, policy.num_actions, policy.sees)
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            network.ours(torch.zeros(1, *seen))
    return counter.get_total_flops() // 2


def examples(policy: Policy) -> np.ndarray:
    """Observations to measure with: what is computed doesn't depend on what they show."""
    rng = np.random.default_rng(0)
    if policy.observation_dtype == "uint8":
        return rng.integers(0, 256, (BATCH, *policy.observation_shape), dtype=np.uint8)
    return rng.normal(size=(BATCH, *policy.observation_shape)).astype(np.float32)
