"""DQN (Mnih et al. 2015), with double Q-learning, n-step returns and prioritised replay as options.

A generator, like the distillation loop. Built for throughput: many environments in step, few and large minibatches;
samples learnt for each step played are an option, not an accident. Several tasks in one network are played in turn and
learnt from memories of their own, a minibatch from one of them at random (Multi-DQN, Rusu et al. 2016).
"""

import copy
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float32, Int64, Shaped
from torch import Tensor
from torch.nn.functional import smooth_l1_loss

from potstill.actions import choose
from potstill.cuda_graphs import Graphs
from potstill.errors import PotstillError
from potstill.learners.options import DQNOptions
from potstill.machine import arithmetic_threads
from potstill.memory import Replay, Sample
from potstill.memory.priorities import Priorities
from potstill.memory.shards import Shards
from potstill.networks import MultiHead, Network, as_floats
from potstill.policies import as_one, use
from potstill.policy import Policy, check_finite
from potstill.progress import Progress
from potstill.tasks import Envs

REPORT_EVERY = 50
"""Steps of every environment between two records, while nothing is learnt."""
UPDATES_AT_A_TIME = 8
"""Updates between two turns of play: OpenMP's threads, which idle by spinning, disturb the emulators less often."""
ACTION, REWARD, END = range(3)
"""What the memory's labels hold."""
TERMINATED, TRUNCATED = 1.0, 2.0
"""In END: nothing follows; something would have followed that was never seen."""
RECENT = 100
"""Episodes in the mean of the recent scores."""
ZETA = 2.0
"""μ of εz-greedy's durations (the paper's)."""
BETA = 0.4
"""Where the exponent of prioritised replay's importance weights begins; it ends at 1."""


@dataclass
class Game:
    """A task that is learnt."""

    envs: Envs
    memory: Replay
    policy: Policy
    """Its part of the network that learns."""
    target: Network
    """Its part of the target network."""
    priorities: Priorities | None
    held: Int64[np.ndarray, "envs 2"]
    """εz-greedy: each environment's last random action, and for how many steps more it is taken."""
    scores: deque[float] = field(default_factory=lambda: deque[float](maxlen=RECENT))
    """Of the last episodes played, with exploration."""


@dataclass
class State:
    """All that changes while DQN learns, and so all that a checkpoint holds."""

    games: list[Game]
    network: MultiHead
    """What learns."""
    target: MultiHead
    optimizer: torch.optim.Optimizer
    play_rng: np.random.Generator
    sample_rng: np.random.Generator
    steps: int = 0
    """Played of each game; those that only refill the memory are not counted."""
    updates: int = 0
    graphs: Graphs = field(default_factory=Graphs)
    """Of updates, on a GPU."""
    shards: Shards = field(default_factory=Shards)
    """Of the memories, that a checkpoint holds already."""
    seconds: dict[str, float] = field(default_factory=lambda: {"play": 0.0, "learn": 0.0})

    def close(self) -> None:
        """End the environments."""
        for game in self.games:
            game.envs.close()


@dataclass(frozen=True)
class DQNProgress(Progress):
    """How far DQN has come; `done` are control steps played of each game."""

    updates: int = 0
    epsilon: float = 1.0
    loss: float | None = None
    """Mean since the last record; None before learning begins."""
    scores: tuple[float | None, ...] = ()
    """Each game's mean of the last episodes played, with exploration."""


class Batch(NamedTuple):
    """Transitions over n steps."""

    observations: Shaped[Tensor, "batch ..."]
    actions: Int64[Tensor, " batch"]
    returns: Float32[Tensor, " batch"]
    """Discounted rewards until n steps later or the end."""
    next_observations: Shaped[Tensor, "batch ..."]
    """n steps later; of another episode where `discounts` is 0."""
    discounts: Float32[Tensor, " batch"]
    """γ to the n, 0 past the end."""
    valid: Bool[Tensor, " batch"]
    """False: the time limit cut the episode off within the n steps, and what was to come is unknown."""


def new_state(
    envs: Sequence[Envs],
    policies: Sequence[Policy],
    options: DQNOptions,
    play_rng: np.random.Generator,
    sample_rng: np.random.Generator,
) -> State:
    """Empty memories and the beginning of learning; the policies, one a game, from now on share the first's trunk."""
    network = as_one(policies).requires_grad_(True)
    use(policies, network)
    target = copy.deepcopy(network).requires_grad_(False)
    rows = options.memory // options.envs
    games: list[Game] = []
    for index, (of, policy) in enumerate(zip(envs, policies, strict=True)):
        task = of.task
        dtype = getattr(torch, task.observation_dtype)
        memory = Replay(rows, options.envs, task.observation_shape, task.protocol.stack, dtype, 3, options.device)
        priorities = Priorities(rows, options.envs, options.device) if options.prioritised else None
        held = np.zeros((options.envs, 2), dtype=np.int64)
        games.append(Game(of, memory, policy, target.of(index), priorities, held))
    cuda = options.device == "cuda"
    optimizer = torch.optim.Adam(
        network.parameters(), lr=options.learning_rate, eps=1.5e-4, fused=True, capturable=cuda
    )
    return State(games, network, target, optimizer, play_rng, sample_rng)


def dqn(state: State, options: DQNOptions, bf16: bool, threads: int) -> Iterator[DQNProgress]:
    """Play and learn from `state` on until the options' steps are done.

    Args:
        state: changed in place; whole whenever a record is yielded.
        options: all the rest.
        bf16: whether networks are computed in bfloat16 (weights stay float32).
        threads: of arithmetic.
    """
    memory = state.games[0].memory
    # A portable checkpoint has no memory: as much as it would hold is played again.
    lost = min(state.steps, memory.capacity * options.envs) if state.steps < options.steps else 0
    with arithmetic_threads(1):
        while memory.rows * options.envs < lost:
            play(state, options, bf16)
            if memory.rows % REPORT_EVERY == 0:
                yield replace(
                    _progress(state, options, None), stage="refill", done=memory.rows * options.envs, total=lost
                )
        while state.steps < options.steps:
            torch.set_num_threads(1)
            # By its first block of updates the memory is as large as learn_after asks, whatever the counts are later.
            while state.steps < options.steps and _due(state, options) < UPDATES_AT_A_TIME:
                start = time.perf_counter()
                play(state, options, bf16)
                state.steps += options.envs
                state.seconds["play"] += time.perf_counter() - start
                if state.steps % (REPORT_EVERY * options.envs) == 0 and not _due(state, options):
                    yield _progress(state, options, None)
            start = time.perf_counter()
            torch.set_num_threads(threads)
            losses = [learn(state, options, bf16) for _ in range(_due(state, options))]
            loss = torch.stack(losses).mean().item() if losses else None
            if loss is not None and not loss < 1e30:
                raise PotstillError("DQN diverged: try a lower --learning-rate")
            state.seconds["learn"] += time.perf_counter() - start
            yield _progress(state, options, loss)


def epsilon(steps: int, options: DQNOptions) -> float:
    """The probability of a random action after so many steps."""
    return max(options.final_epsilon, 1 - (1 - options.final_epsilon) * steps / options.explore_steps)


def play(state: State, options: DQNOptions, bf16: bool) -> None:
    """One step of every environment of every game."""
    for game in state.games:
        _play(game, state, options, bf16)


def _play(game: Game, state: State, options: DQNOptions, bf16: bool) -> None:
    envs, memory = game.envs, game.memory
    observations, age = envs.observations, envs.age.copy()
    check_finite(observations)
    with torch.no_grad():
        outputs = _outputs(game.policy.ours, torch.as_tensor(observations).to(options.device), bf16).cpu()
    explore = epsilon(state.steps, options)
    if options.ez_greedy:
        actions = choose_or_hold(outputs, explore, game.held, state.play_rng)
    else:
        actions = choose(outputs, explore, state.play_rng)
    game.scores.extend(finished.score for finished in envs.step(actions))
    game.held[envs.terminated | envs.truncated, 1] = 0
    # A lost life ends what is learnt, not what is played; rewards are learnt by their sign (Mnih et al. 2015).
    terminal = envs.terminated | envs.lost_life
    end = np.where(terminal, TERMINATED, np.where(envs.truncated, TRUNCATED, 0.0))
    rewards = envs.rewards.clip(-1, 1) if envs.task.is_atari else envs.rewards
    labels = torch.from_numpy(np.stack([actions, rewards, end], axis=1).astype(np.float32))
    memory.add(observations, age, labels)
    if game.priorities:
        row = memory.rows - 1
        if row >= options.n_step:
            game.priorities.open(row - options.n_step)
        for gone in range(memory.stack):  # the row overwritten, and those whose stacks began in it
            game.priorities.close(row + gone)


def choose_or_hold(
    outputs: Float32[Tensor, "envs actions"],
    epsilon: float,
    held: Int64[np.ndarray, "envs 2"],
    rng: np.random.Generator,
) -> Int64[np.ndarray, " envs"]:
    """εz-greedy (Dabney et al. 2021): the best actions; with probability ε a random one begins, which is then taken
    for as many steps as a zeta distribution says, or until the episode ends; `held` is changed in place."""
    envs, num_actions = outputs.shape
    begins = (held[:, 1] == 0) & (rng.random(envs) < epsilon)
    drawn = np.stack([rng.integers(0, num_actions, envs), rng.zipf(ZETA, envs)], axis=1)
    held[begins] = drawn[begins]
    holds = held[:, 1] > 0
    held[holds, 1] -= 1
    return np.where(holds, held[:, 0], outputs.argmax(-1).numpy())


def learn(state: State, options: DQNOptions, bf16: bool) -> Tensor:
    """One update; returns the loss."""
    index = int(state.sample_rng.integers(len(state.games))) if len(state.games) > 1 else 0
    game = state.games[index]
    sample, weights = _draw(game, state, options)
    batch = transitions(game.memory, sample, options.n_step, options.discount)

    def step(weights: Tensor, *of_batch: Tensor) -> tuple[Tensor, Tensor]:
        loss, errors = _loss(game, Batch(*of_batch), weights, options, bf16)
        state.optimizer.zero_grad()
        loss.backward()
        state.optimizer.step()
        return loss.detach(), errors.detach()

    if options.device == "cuda":
        loss, errors = state.graphs.run(step, index, weights, *batch)
        loss = loss.clone()
    else:
        loss, errors = step(weights, *batch)
    state.updates += 1
    every = max(1, round(options.target_every * options.replay_ratio * len(state.games) / options.batch))
    if state.updates % every == 0:
        state.target.load_state_dict(state.network.state_dict())
    if game.priorities:
        game.priorities.update(sample, errors.abs())
    return loss


def _loss(game: Game, batch: Batch, weights: Tensor, options: DQNOptions, bf16: bool) -> tuple[Tensor, Tensor]:
    """The loss, and (batch,) temporal-difference errors."""
    online = game.policy.ours
    next_observations = batch.next_observations
    if next_observations.dtype == torch.uint8:  # once for both networks
        next_observations = as_floats(next_observations, torch.bfloat16 if bf16 else torch.float32, learning=True)
    # Within one context weights are cast once; first where they have gradients, as what is kept would have none.
    with torch.autocast(next_observations.device.type, enabled=False):
        chosen = _outputs(online, batch.observations, bf16).gather(1, batch.actions[:, None])[:, 0]
        with torch.no_grad():
            values = _outputs(game.target, next_observations, bf16)
            chooser = values if options.single_q else _outputs(online, next_observations, bf16)
            best = values.gather(1, chooser.argmax(1, keepdim=True))[:, 0]
    goal = batch.returns + batch.discounts * best
    loss = (weights * batch.valid * smooth_l1_loss(chosen, goal, reduction="none")).mean()
    return loss, batch.valid * (chosen - goal)


def transitions(memory: Replay, sample: Sample, n_step: int, discount: float) -> Batch:
    """What followed the sampled steps, n steps on; `n_step` later rows must be in the memory."""
    rows, envs = sample
    observations, first = memory.take(rows, envs)
    next_observations, _ = memory.take(rows + n_step, envs)
    returns = torch.zeros_like(first[:, REWARD])
    going, valid = torch.ones_like(returns), torch.ones_like(returns, dtype=torch.bool)
    for ahead in range(n_step):
        labels = memory.labels_at(rows + ahead, envs) if ahead else first
        returns += going * discount**ahead * labels[:, REWARD]
        valid &= (going == 0) | (labels[:, END] != TRUNCATED)
        going *= labels[:, END] == 0
    return Batch(observations, first[:, ACTION].long(), returns, next_observations, going * discount**n_step, valid)


def _outputs(network: Network, observations: Tensor, bf16: bool) -> Tensor:
    with torch.autocast(observations.device.type, torch.bfloat16, enabled=bf16):
        hidden = network.trunk(observations)
    return network.head(hidden.float())  # the best actions' values lie closer than bfloat16 tells apart


def _draw(game: Game, state: State, options: DQNOptions) -> tuple[Sample, Tensor]:
    memory = game.memory
    if game.priorities is None:
        sample = memory.draw(
            options.batch, state.sample_rng, memory.rows - options.n_step, memory.capacity - options.n_step
        )
        return sample, torch.ones((), device=options.device)
    beta = BETA + (1 - BETA) * min(1.0, state.steps / options.steps)
    return game.priorities.draw(options.batch, state.sample_rng, memory.rows, beta)


def _due(state: State, options: DQNOptions) -> int:
    """Updates that the steps played call for."""
    samples = max(0, state.steps - options.learn_after) * options.replay_ratio * len(state.games)
    return int(samples / options.batch) - state.updates


def _progress(state: State, options: DQNOptions, loss: float | None) -> DQNProgress:
    scores = tuple(float(np.mean(game.scores)) if game.scores else None for game in state.games)
    return DQNProgress("train", state.steps, options.steps, state.updates, epsilon(state.steps, options), loss, scores)
