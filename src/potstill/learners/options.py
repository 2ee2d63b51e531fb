"""Everything that decides what DQN learns."""

from dataclasses import asdict, dataclass
from typing import Any

from potstill.choices import Device, Precision
from potstill.errors import PotstillError, must_be


@dataclass(frozen=True)
class DQNOptions:
    """How to learn. A step is a control step: one decision in one environment, four emulator frames on Atari."""

    steps: int = 10_000_000
    """Control steps to play, of each task."""
    network: str | None = None
    """What learns: dqn, net1, cnn:16-16-16:64, mlp:64-64, or, for several tasks, a trunk they share and after a slash
    layers of their own: multitask-3, cnn:32-64-64:512/128. Default: the paper's dqn, multitask-3 for 2 or 3 games,
    multitask-10 for more; mlp:64-64 where observations are vectors."""
    envs: int = 32
    """Copies of a task played in step."""
    batch: int = 256
    """Samples in a minibatch. In one run of net2 on a CPU 32, at --learning-rate 1e-4, learnt more (docs/log.md)."""
    replay_ratio: float = 4.0
    """Samples learnt for each step played (Mnih et al. 2015: 8)."""
    memory: int = 500_000
    """Steps remembered of each task (the paper: 1,000,000); an Atari frame takes 7 KB."""
    learn_after: int = 20_000
    """Steps played before learning begins (the paper: 50,000)."""
    discount: float = 0.99
    """γ: what a reward a step later is worth."""
    n_step: int = 3
    """Rewards summed before the target network estimates the rest (the paper: 1)."""
    single_q: bool = False
    """The target network itself chooses the next action, as in the paper; default: double Q-learning."""
    prioritised: bool = False
    """Prioritised replay (Schaul et al. 2016, proportional, α = 0.6, β from 0.4 to 1)."""
    learning_rate: float = 2.5e-4
    """Of Adam."""
    target_every: int = 8_000
    """Steps between two copies of the network to the target network (the paper: 40,000)."""
    final_epsilon: float = 0.02
    """Probability of a random action in the end (the paper: 0.1)."""
    explore_steps: int = 250_000
    """Steps in which that probability falls from 1."""
    ez_greedy: bool = False
    """A random action that begins is held for a while (εz-greedy, Dabney et al. 2021), ε being the probability that one
    begins: for games like Freeway, where single ones lead nowhere. Of all steps far more than ε are random then, a
    tenth where ε is 0.02."""
    seed: int = 0
    """Of everything: the same seed, machine and threads give the same weights."""
    precision: Precision = "auto"
    """Arithmetic of updates and of play. auto: bf16 for CNNs on hardware with it."""
    device: Device = "cpu"
    """Where networks and the memory are."""
    threads: int = 0
    """Threads for emulators and arithmetic; 0: one a core."""

    def check(self) -> None:
        """Refuse values that can't work.

        Raises:
            PotstillError: naming the flag.
        """
        must_be("above 0", self, "steps", "envs", "batch", "replay_ratio", "memory", "learn_after", "n_step")
        must_be("above 0", self, "learning_rate", "target_every", "explore_steps")
        must_be("from 0 to 1", self, "discount", "final_epsilon")
        must_be("at least 0", self, "seed", "threads")
        if self.memory < self.least_memory:
            raise PotstillError(f"--memory {self.memory}: too small for {self.envs} environments")
        if self.learn_after < self.envs * (self.n_step + 1):
            raise PotstillError(f"--learn-after {self.learn_after}: too few steps for {self.envs} environments")

        if self.steps <= self.learn_after:
            raise PotstillError(
                f"--steps {self.steps}: learning begins after --learn-after {self.learn_after}; lower it, or play more"
            )

    @property
    def least_memory(self) -> int:
        """Steps of a memory that can be learnt from."""
        return self.envs * (self.n_step + 16)

    def record(self) -> dict[str, Any]:
        """The options as JSON."""
        return asdict(self)
