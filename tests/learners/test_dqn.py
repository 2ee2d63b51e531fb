"""DQN: its transitions against the task itself, its update against hand-computed numbers."""

import time
from copy import deepcopy

import gymnasium
import numpy as np
import pytest
import torch

from potstill import Policy, PotstillError
from potstill.learners.dqn import (
    BETA,
    TERMINATED,
    TRUNCATED,
    State,
    choose_or_hold,
    dqn,
    epsilon,
    learn,
    new_state,
    play,
    transitions,
)
from potstill.learners.options import DQNOptions
from potstill.memory import Replay
from potstill.memory.priorities import ALPHA, SMALLEST
from potstill.networks import NetworkSpec
from potstill.tasks import Envs, EpisodeSeeds, make_task


def fresh(options: DQNOptions, task_id: str = "CartPole-v1", network: str = "mlp:16") -> State:
    task = make_task(task_id)
    torch.manual_seed(0)
    policy = Policy.new(
        NetworkSpec.parse(network), "q", task.observation_shape, task.observation_dtype, task.num_actions
    )
    envs = Envs(task, options.envs, EpisodeSeeds(options.seed, "training"), 2)
    return new_state([envs], [policy], options, np.random.default_rng(1), np.random.default_rng(2))


def remember(rewards: list[float], ends: list[float]) -> Replay:
    """One environment whose observation is the number of its step."""
    memory = Replay(len(rewards), 1, (1,), 1, torch.float32, 3)
    for row, (reward, end) in enumerate(zip(rewards, ends, strict=True)):
        memory.add(
            np.full((1, 1), row, np.float32),
            np.array([row]),
            torch.tensor([[row % 2, reward, end]], dtype=torch.float32),
        )
    return memory


def at(row: int) -> tuple[np.ndarray, np.ndarray]:
    return np.array([row]), np.array([0])


def test_an_n_step_return_sums_discounted_rewards():
    batch = transitions(remember([1, 2, 4, 8, 16], [0] * 5), at(1), 3, 0.5)
    assert batch.returns.tolist() == [2 + 0.5 * 4 + 0.25 * 8]
    assert batch.discounts.tolist() == [0.125]
    assert batch.observations.tolist() == [[1.0]]
    assert batch.next_observations.tolist() == [[4.0]]
    assert batch.actions.tolist() == [1]
    assert batch.valid.tolist() == [True]


def test_an_n_step_return_stops_at_the_end_of_the_episode():
    batch = transitions(remember([1, 2, 4, 8, 16], [0, 0, TERMINATED, 0, 0]), at(1), 3, 0.5)
    assert batch.returns.tolist() == [2 + 0.5 * 4]
    assert batch.discounts.tolist() == [0.0]
    assert batch.valid.tolist() == [True]


@pytest.mark.parametrize(
    ("ends", "valid"), [([0, TRUNCATED, 0], False), ([TERMINATED, TRUNCATED, 0], True), ([0, 0, TRUNCATED], True)]
)
def test_what_the_time_limit_cut_off_is_not_learnt_from(ends, valid):
    assert transitions(remember([1, 1, 1], ends), at(0), 2, 0.9).valid.tolist() == [valid]


@pytest.mark.parametrize("n_step", [1, 3])
def test_remembered_transitions_are_what_the_task_does(n_step):
    options = DQNOptions(envs=4, memory=1200, n_step=n_step, learn_after=100)
    state = fresh(options)
    for _ in range(500):  # the ring wraps
        play(state, options, bf16=False)
    memory = state.games[0].memory
    sample = memory.draw(200, np.random.default_rng(0), memory.rows - n_step, memory.capacity - n_step)
    batch = transitions(memory, sample, n_step, 0.9)
    env = gymnasium.make("CartPole-v1").unwrapped
    env.reset(seed=0)
    for index, (row, copy) in enumerate(zip(*sample, strict=True)):
        env.state = batch.observations[index].double().numpy()
        env.steps_beyond_terminated = None
        score, ended, observation = 0.0, False, None
        for ahead in range(n_step):
            action = int(memory.labels_at(np.array([row + ahead]), np.array([copy]))[0, 0])
            observation, reward, ended, _, _ = env.step(action)
            score += 0.9**ahead * reward
            if ended:
                break
        assert batch.returns[index].item() == pytest.approx(score)
        assert (batch.discounts[index].item() == 0) == ended
        if not ended:
            np.testing.assert_allclose(batch.next_observations[index], observation, atol=1e-5)


def constant_q(state: State, online: list[float], target: list[float]) -> None:
    """Make both networks say the same everywhere."""
    for network, values in ((state.games[0].policy.network, online), (state.games[0].target, target)):
        with torch.no_grad():
            network.head.weight.zero_()
            network.head.bias.copy_(torch.tensor(values))


@pytest.mark.parametrize(
    ("single_q", "reward", "loss"),
    [
        # Double: the online network's best is action 1, the target says 0.3 of it: 1.0 + 0.5·0.3 − Q(0) = 0.15
        (False, 1.0, 0.5 * 0.15**2),
        # Single: the target's own best is 0.7: 1.0 + 0.5·0.7 − 1.0 = 0.35
        (True, 1.0, 0.5 * 0.35**2),
        # Large errors count linearly: |5.0 + 0.15 − 1.0| − 0.5
        (False, 5.0, 4.15 - 0.5),
    ],
)
def test_the_loss_is_hubers_of_the_temporal_difference(single_q, reward, loss):
    options = DQNOptions(envs=1, memory=100, learn_after=10, n_step=1, discount=0.5, single_q=single_q, batch=16)
    state = fresh(options)
    constant_q(state, [1.0, 2.0], [0.7, 0.3])
    for _ in range(20):
        state.games[0].memory.add(np.zeros((1, 4), np.float32), np.array([1]), torch.tensor([[0.0, reward, 0.0]]))
    assert learn(state, options, bf16=False).item() == pytest.approx(loss, rel=1e-5)


def test_prioritised_losses_are_weighed_and_errors_become_priorities():
    options = DQNOptions(envs=1, memory=100, learn_after=10, n_step=1, discount=0.0, prioritised=True, batch=64)
    state = fresh(options)
    constant_q(state, [1.0, 2.0], [0.0, 0.0])
    memory, priorities = state.games[0].memory, state.games[0].priorities
    for row in range(20):  # errors of 0.5 and, drawn a quarter as often, of 0.1
        reward, weight = (0.5, 1.0) if row % 2 else (0.9, 0.25)
        memory.add(np.zeros((1, 4), np.float32), np.array([1]), torch.tensor([[0.0, reward, 0.0]]))
        priorities.weights[row] = weight
    priorities.close(19)
    drawn, _ = priorities.draw(options.batch, deepcopy(state.sample_rng), memory.rows, BETA)
    rare = drawn[0] % 2 == 0
    assert 0 < rare.sum() < 32
    # β is 0.4 in the beginning: a step that is drawn four times as often weighs 4 to the −0.4.
    expected = np.where(rare, 0.5 * 0.1**2, 4**-0.4 * 0.5 * 0.5**2).mean()
    assert learn(state, options, bf16=False).item() == pytest.approx(expected, rel=1e-4)
    for row, error in ((drawn[0][rare][0], 0.1), (drawn[0][~rare][0], 0.5)):
        assert priorities.weights[row].item() == pytest.approx((error + SMALLEST) ** ALPHA, rel=1e-4)


@pytest.mark.parametrize("games", [1, 2])
def test_the_target_network_is_a_copy_as_often_as_steps_are_named(games):
    options = DQNOptions(envs=4, memory=400, learn_after=100, batch=32, replay_ratio=4, target_every=40)
    task = make_task("CartPole-v1")
    policies = [Policy.new(NetworkSpec.parse("mlp:8"), "q", (4,), "float32", 2) for _ in range(games)]
    envs = [Envs(task, options.envs, EpisodeSeeds(0, "training"), 1) for _ in policies]
    state = new_state(envs, policies, options, np.random.default_rng(1), np.random.default_rng(2))
    for _ in range(50):
        play(state, options, bf16=False)

    def copied() -> bool:
        online, target = state.network.state_dict(), state.target.state_dict()
        return all(torch.equal(tensor, target[name]) for name, tensor in online.items())

    seen = []
    for _ in range(20):  # 40 steps of each game are 5 updates of 32 samples for one, 10 for two
        learn(state, options, bf16=False)
        seen.append(copied())
    state.close()
    assert [number for number, same in enumerate(seen, 1) if same] == list(range(5 * games, 21, 5 * games))


def test_what_is_not_learnt_from_gets_no_priority():
    options = DQNOptions(envs=1, memory=100, learn_after=10, n_step=1, batch=16, prioritised=True)
    state = fresh(options)
    constant_q(state, [100.0, 0.0], [0.0, 0.0])
    game = state.games[0]
    for _ in range(20):  # each is cut off by the time limit: what was to come, 100, is unknown
        game.memory.add(np.zeros((1, 4), np.float32), np.array([1]), torch.tensor([[0.0, 1.0, 2.0]]))
    for row in range(19):
        game.priorities.open(row)
    assert learn(state, options, bf16=False).item() == 0
    assert game.priorities.largest == 1


def test_exploration_falls_in_a_line_and_stays():
    options = DQNOptions(explore_steps=100, final_epsilon=0.1)
    assert [epsilon(steps, options) for steps in (0, 50, 100, 1000)] == [1.0, pytest.approx(0.55), 0.1, 0.1]


def test_random_actions_are_held_for_as_long_as_a_zeta_distribution_says():
    envs, rng = 4000, np.random.default_rng(0)
    held, lengths, steps = np.zeros((envs, 2), np.int64), np.zeros(envs, np.int64), 8
    best = torch.zeros(envs, 5)
    best[:, 4] = 1
    first = choose_or_hold(best, 1.0, held, rng)
    running = np.ones(envs, bool)
    for _ in range(steps):  # nothing new begins: those that end take the best action again
        lengths += running
        running &= held[:, 1] > 0
        actions = choose_or_hold(best, 0.0, held, rng)
        assert (actions == np.where(running, first, 4)).all()
    assert np.bincount(first, minlength=5) / envs == pytest.approx([0.2] * 5, abs=0.03)
    # P(n) = 6 / (π n)²: 0.608, 0.152, 0.068
    assert [np.mean(lengths == n) for n in (1, 2, 3)] == pytest.approx([0.608, 0.152, 0.068], abs=0.02)


def test_a_held_action_ends_with_its_episode():
    options = DQNOptions(envs=8, memory=2000, learn_after=100, ez_greedy=True, explore_steps=10**9)
    state = fresh(options)
    [game], cut = state.games, 0
    for _ in range(200):
        before = game.held[:, 1].copy()
        play(state, options, bf16=False)
        ended = game.envs.terminated | game.envs.truncated
        cut += int((before[ended] > 1).sum())
        assert not game.held[ended, 1].any()
    assert cut > 0, "some would have gone on"


@pytest.mark.parametrize("replay_ratio", [0.5, 4.0])
def test_as_many_samples_are_learnt_as_the_ratio_says(replay_ratio):
    options = DQNOptions(steps=4000, envs=8, memory=2000, learn_after=800, batch=32, replay_ratio=replay_ratio)
    state = fresh(options)
    threads = torch.get_num_threads()
    for _ in dqn(state, options, bf16=False, threads=threads + 1):
        pass
    assert torch.get_num_threads() == threads, "the caller's are as they were"
    assert state.steps == 4000
    assert state.updates == int(3200 * replay_ratio / 32)


def test_priority_is_given_to_whole_transitions_alone():
    """Those whose n steps on are in the memory, and all the frames of whose stacks."""
    options = DQNOptions(envs=2, memory=2 * 20, learn_after=100, prioritised=True, n_step=3)
    state = fresh(options, "ALE/Pong-v5", "cnn:4-4-4:8")
    [game] = state.games
    assert game.priorities is not None
    for _ in range(70):
        play(state, options, bf16=False)
        rows = game.memory.rows
        oldest = max(0, rows - 20 + game.memory.stack - 1)
        whole = [row % 20 for row in range(oldest, rows - 3)]
        drawn = game.priorities.weights.all(1).nonzero()[:, 0].tolist()
        assert drawn == game.priorities.weights.any(1).nonzero()[:, 0].tolist() == sorted(whole)


@pytest.mark.parametrize("prioritised", [False, True])
def test_cartpole_is_learnt(prioritised):
    """12,000 steps are enough to play thrice as long as chance does (about 22 steps)."""
    options = DQNOptions(
        steps=12_000, envs=8, memory=12_000, learn_after=400, batch=64, replay_ratio=16, learning_rate=1e-3,
        target_every=400, explore_steps=4000, prioritised=prioritised, discount=0.98,
    )  # fmt: skip
    state = fresh(options, network="mlp:64-64")
    *_, last = dqn(state, options, bf16=False, threads=1)
    assert last.scores[0] is not None
    assert last.scores[0] > 60


def test_atari_rewards_are_learnt_by_their_sign_and_a_lost_life_is_an_end():
    options = DQNOptions(envs=8, memory=8 * 600, learn_after=100)
    state = fresh(options, "ALE/MsPacman-v5", "cnn:4-4-4:8")
    lost, rewards = 0, set[float]()
    for _ in range(400):
        play(state, options, bf16=False)
        lost += int(state.games[0].envs.lost_life.sum())
        rewards |= set(state.games[0].envs.rewards.tolist())
    labels = state.games[0].memory.labels[:400]
    assert max(rewards) >= 10
    assert set(labels[..., 1].unique().tolist()) == {0.0, 1.0}
    assert lost > 0
    assert int((labels[..., 2] == TERMINATED).sum()) == lost


def test_several_games_are_played_alike_and_learnt_from_memories_of_their_own():
    options = DQNOptions(steps=2000, envs=4, memory=400, learn_after=400, batch=32, replay_ratio=4)
    tasks = [make_task(task_id) for task_id in ("CartPole-v1", "CartPole-v0")]
    spec = NetworkSpec.parse("mlp:8/4")
    policies = [Policy.new(spec, "q", (4,), "float32", 2) for _ in tasks]
    envs = [Envs(task, options.envs, EpisodeSeeds(0, "training"), 2) for task in tasks]
    state = new_state(envs, policies, options, np.random.default_rng(1), np.random.default_rng(2))
    head = state.games[1].policy.network.head.weight.clone()
    *_, last = dqn(state, options, bf16=False, threads=1)
    assert [game.memory.rows for game in state.games] == [500, 500]
    assert state.updates == 1600 * 4 * 2 // 32, "as many samples of each game as it would learn from alone"
    assert None not in last.scores
    assert state.games[0].policy.network.trunk[0] is state.games[1].policy.network.trunk[0]
    assert not torch.equal(state.games[1].policy.network.head.weight, head)
    before = {name: tensor.clone() for name, tensor in state.network.state_dict().items()}
    learn(state, options, bf16=False)
    changed = {name for name, tensor in state.network.state_dict().items() if not torch.equal(tensor, before[name])}
    heads = {name.split(".")[1] for name in changed if name.startswith("heads")}
    assert len(heads) == 1, "a minibatch is of one game"


@pytest.mark.parametrize(
    ("change", "flag"),
    [
        ({"steps": 0}, "--steps"),
        ({"discount": 1.5}, "--discount"),
        ({"learning_rate": float("nan")}, "--learning-rate"),
        ({"memory": 300}, "--memory"),
        ({"learn_after": 10}, "--learn-after"),
        ({"steps": 20_000}, "--steps 20000: learning begins after --learn-after 20000"),
        ({"seed": -1}, "--seed"),
    ],
)
def test_values_that_cannot_work_are_refused_by_name(change, flag):
    with pytest.raises(PotstillError, match=flag):
        DQNOptions(**change).check()


def test_what_the_driver_does_between_records_is_not_counted_as_play():
    options = DQNOptions(steps=1200, envs=8, memory=2000, learn_after=1000, batch=32)
    state = fresh(options)
    for number, _ in enumerate(dqn(state, options, bf16=False, threads=1)):
        if number == 0:
            time.sleep(1.0)
    assert 0 < state.seconds["play"] < 1.0


def test_observations_that_are_no_numbers_are_the_environments_fault():
    options = DQNOptions(envs=4, memory=400, learn_after=100)
    state = fresh(options)
    state.games[0].envs.observations[1, 0] = np.nan
    with pytest.raises(PotstillError, match="mend the environment"):
        play(state, options, False)
