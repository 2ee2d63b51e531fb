"""Control steps a second of Stable-Baselines3's DQN and of `potstill train`, in turns, at equal samples learnt a step.

The same network, task, cores, target (single Q-learning) and number of samples learnt for each step played.
Stable-Baselines3 as its zoo trains Atari: 8 environments in its own wrappers, minibatches of 32, one gradient step for
each 4 steps played; and with potstill's 32 environments and minibatches of 256, where that is faster. The rate is that
of learning under way. Each measurement has a process of its own.

    python benchmarks/peers/train.py --task ALE/Pong-v5 --repeats 3
"""

import argparse
import json
import os
import statistics
import time
import warnings

import numpy as np
import torch
from alone import alone
from sb3_side import make_env
from stable_baselines3 import DQN
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv

from potstill.learners.dqn import dqn
from potstill.learners.options import DQNOptions
from potstill.machine import machine, versions
from potstill.train.plan import plan
from potstill.train.run import fresh_state

RATIO = 8.0
"""Samples learnt for each step played: 32 for each 4 (Mnih et al. 2015)."""
BEFORE = 1_000
"""Steps played before learning begins."""


def peer(task: str, vec_env: type, envs: int, batch: int, seconds: float) -> float:
    warnings.simplefilter("ignore")
    torch.set_num_threads(os.cpu_count() or 1)
    env = make_env(task, vec_env, envs)
    every = round(batch / RATIO / envs) or 1
    model = DQN(
        "CnnPolicy", env, batch_size=batch, buffer_size=20_000, learning_starts=BEFORE, train_freq=every,
        gradient_steps=round(every * envs * RATIO / batch), target_update_interval=8_000, device="cpu", seed=0,
    )  # fmt: skip
    model.learn(total_timesteps=BEFORE + 200)
    start, steps = time.perf_counter(), 0
    while (elapsed := time.perf_counter() - start) < seconds:
        before = model.num_timesteps
        model.learn(total_timesteps=400, reset_num_timesteps=False)
        steps += model.num_timesteps - before
    env.close()
    return steps / elapsed


def ours(task: str, seconds: float) -> float:
    options = DQNOptions(memory=20_000, learn_after=BEFORE, replay_ratio=RATIO, single_q=True)
    planned = plan(options, (task,), 10**9, 1, 1)
    state = fresh_state(planned)
    start = begun = None
    for progress in dqn(state, planned.options, planned.bf16, planned.threads):
        now = time.perf_counter()
        if progress.updates and start is None:
            start, begun = now, progress.done
        if start is not None and now - start > seconds:
            state.games[0].envs.close()
            return (progress.done - begun) / (now - start)
    raise AssertionError("the options' steps are too few")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", default="ALE/Pong-v5")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=40.0, help="of each measurement")
    options = parser.parse_args()
    cases = {
        "stable_baselines3, 8 DummyVecEnv, batch 32": (DummyVecEnv, 8, 32),
        "stable_baselines3, 8 SubprocVecEnv, batch 32": (SubprocVecEnv, 8, 32),
        "stable_baselines3, 32 DummyVecEnv, batch 256": (DummyVecEnv, 32, 256),
    }
    rates: dict[str, list[float]] = {name: [] for name in (*cases, "potstill")}
    for _ in range(options.repeats):
        for name, case in cases.items():
            rates[name].append(alone(peer, options.task, *case, options.seconds))
        rates["potstill"].append(alone(ours, options.task, options.seconds))
    medians = {name: statistics.median(of) for name, of in rates.items()}
    ratios = np.array(rates["potstill"]) / np.max([rates[name] for name in cases], axis=0)
    print(json.dumps({
        "task": options.task, "replay_ratio": RATIO, "steps_per_second": rates, "medians": medians,
        "ratio_to_the_fastest": float(np.median(ratios)), "ratios": ratios.tolist(),
        "machine": machine(os.cpu_count() or 1), "versions": versions(),
    }, indent=1))  # fmt: skip


if __name__ == "__main__":
    main()
