"""Steps a second of sb3_distill's teacher-distill and of Potstill, in turns: same task, teacher, student and cores.

Both learn as many samples as they play, once each: sb3_distill a rollout of 16 environments by 5 steps at a time (its
defaults), Potstill minibatches of 256 from its memory. sb3_distill gets whichever of Stable-Baselines3's two vector
environments is faster here. Its students also learn a value function, which its class always does. Each measurement has
a process of its own.

    git clone https://github.com/spiglerg/sb3_distill
    PYTHONPATH=sb3_distill python benchmarks/peers/steps.py --teacher Pong-ppo.safetensors --task ALE/Pong-v5
"""

import argparse
import json
import os
import statistics
import time
from pathlib import Path

import torch
from alone import alone
from sb3_side import make_env, make_student, make_teacher
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv

import potstill
from potstill.bench import timed
from potstill.distill.options import DistillOptions
from potstill.distill.plan import plan
from potstill.distill.schedule import STEPS_PER_HOUR
from potstill.machine import machine, versions


def peer(teacher: Path, student: str, task: str, steps: int, vec_env: type) -> float:
    from sb3_distill import TeacherDistill

    torch.set_num_threads(os.cpu_count() or 1)
    env = make_env(task, vec_env)
    model, _ = make_student(TeacherDistill, student, env, seed=0)
    model.set_teacher(make_teacher(potstill.load(teacher), env))
    model.learn(total_timesteps=16 * 20)
    start = time.perf_counter()
    model.learn(total_timesteps=steps)
    rate = model.num_timesteps / (time.perf_counter() - start)
    env.close()
    return rate


def ours(teacher: Path, student: str, task: str, hours: float) -> float:
    planned = plan(
        DistillOptions(
            (student,),
            (teacher,),
            task=(task,),
            hours=hours,
            memory_hours=hours,
            updates=round(STEPS_PER_HOUR / 256),
            batch=256,
        )
    )
    return hours * STEPS_PER_HOUR / timed(planned)[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--teacher", type=Path, required=True, help="a policy whose outputs are logits")
    parser.add_argument("--task", required=True, help="ALE/…-v5")
    parser.add_argument("--student", default="net3")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--steps", type=int, default=16_000, help="of sb3_distill, a repeat")
    parser.add_argument("--hours", type=float, default=0.5, help="of play, ours, a repeat")
    options = parser.parse_args()
    rates: dict[str, list[float]] = {"sb3_distill, SubprocVecEnv": [], "sb3_distill, DummyVecEnv": [], "potstill": []}
    for _ in range(options.repeats):
        shared = options.teacher, options.student, options.task
        for kind in (SubprocVecEnv, DummyVecEnv):
            rates[f"sb3_distill, {kind.__name__}"].append(alone(peer, *shared, options.steps, kind))
        rates["potstill"].append(alone(ours, *shared, options.hours))
    medians = {name: statistics.median(of) for name, of in rates.items()}
    ratio = medians["potstill"] / max(rate for name, rate in medians.items() if name != "potstill")
    record = {
        "task": options.task,
        "student": options.student,
        "steps_per_second": rates,
        "medians": medians,
        "ratio": ratio,
        "machine": machine(os.cpu_count() or 1),
        "versions": versions(),
    }
    print(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()
