"""Seconds and control steps until a student plays as well as its teacher: Potstill, then sb3_distill and imitation.

The peers train by their examples' settings or defaults; every `--every` seconds their clock stands still while their
student plays. Potstill's schedule has an end, and is scored there. Everybody is scored by the same protocol: greedy,
ε = 0.05, no-op starts.

    git clone https://github.com/spiglerg/sb3_distill
    pip install --no-deps imitation; pip install 'datasets<5' jsonpickle  # it asks for an old Gymnasium
    PYTHONPATH=sb3_distill python benchmarks/peers/score.py --methods TeacherDistill StudentDistill BC \\
        --teacher Pong-ppo.safetensors --task ALE/Pong-v5 --out out.json
"""

import argparse
import json
import os
import time
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sb3_side import make_env, make_student, make_teacher
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import DummyVecEnv

import potstill
from potstill.bench import timed
from potstill.cli.show import show_progress
from potstill.distill.options import DistillOptions
from potstill.distill.plan import plan
from potstill.distill.schedule import STEPS_PER_HOUR
from potstill.evaluate import Player, Score, normalised, random_player, scores
from potstill.machine import cores, machine, versions
from potstill.policy import Policy
from potstill.tasks import make_task

METHODS = {
    "TeacherDistill": "sb3_distill",
    "StudentDistill": "sb3_distill",
    "ProximalPolicyDistillation": "sb3_distill",
    "BC": "imitation",
}
PPD = {"n_steps": 256, "batch_size": 512, "n_epochs": 4, "gamma": 0.995}
"""As in sb3_distill's example."""
ENOUGH = 0.95
EPISODES = 100
"""Of the teacher and of a student that has come to its end."""


class Judge:
    """Scores students of one task and teacher."""

    def __init__(self, task: str, teacher: Policy) -> None:
        self.task = make_task(task)
        self.teacher = self._score(Player(teacher, "greedy", 0.05, EPISODES))
        self.random = self._score(random_player(self.task, EPISODES))

    def __call__(self, student: Policy, episodes: int) -> dict[str, Any]:
        score = self._score(Player(student, "greedy", 0.05, episodes))
        return {"episodes": episodes, "score": score.mean, **normalised(score, self.teacher, self.random).record()}

    def _score(self, player: Player) -> Score:
        [score] = show_progress(scores([player], self.task, 0, cores()))
        return score


class Enough(Exception):  # noqa: N818 — an ending, not an error
    """The student is good enough, or time is up."""


class Clock:
    """Stands still while the student is scored."""

    def __init__(self, judge: Judge, student: Policy, options: argparse.Namespace) -> None:
        self.judge, self.student, self.options = judge, student, options
        self.seconds, self.since, self.record = 0.0, time.perf_counter(), []

    def tick(self, head: torch.nn.Module, steps: int) -> None:
        """Score the student if it is time to. `head` is its last layer; the rest it shares with the model.

        Raises:
            Enough: to end the training.
        """
        now = self.seconds + time.perf_counter() - self.since
        if now < self.options.every * (len(self.record) + 1):
            return
        self.seconds = now
        self.student.network.head.load_state_dict(head.state_dict())
        threads = torch.get_num_threads()
        scored = self.judge(self.student, self.options.episodes)
        if scored["mean"] >= ENOUGH:
            scored = self.judge(self.student, EPISODES)
        torch.set_num_threads(threads)
        self.record.append({"seconds": now, "steps": steps, "normalised": scored})
        print(json.dumps(self.record[-1]), flush=True)
        if now >= self.options.limit or scored["mean"] >= ENOUGH:
            raise Enough
        self.since = time.perf_counter()


def sb3_distill(method: str, judge: Judge, options: argparse.Namespace) -> list[dict[str, Any]]:
    """One of sb3_distill's classes, by its example's settings."""
    import sb3_distill

    class Tick(BaseCallback):
        def _on_rollout_end(self) -> None:
            learnt = getattr(self.model, "student_policy", self.model.policy)
            clock.tick(learnt.action_net, self.num_timesteps)

        def _on_step(self) -> bool:
            return True

    env = make_env(options.task, DummyVecEnv)
    algorithm = getattr(sb3_distill, method)
    settings = PPD if method == "ProximalPolicyDistillation" else {"vf_coef": 0.0}
    model, student = make_student(algorithm, options.student, env, seed=0, **settings)
    model.set_teacher(make_teacher(potstill.load(options.teacher), env))
    clock = Clock(judge, student, options)
    with suppress(Enough):
        model.learn(total_timesteps=10**9, callback=Tick())
    env.close()
    return clock.record


def imitation(method: str, judge: Judge, options: argparse.Namespace) -> list[dict[str, Any]]:
    """imitation's BC on an hour of the teacher's play, by its defaults."""
    from imitation.algorithms.bc import BC
    from imitation.data import rollout

    rng = np.random.default_rng(0)
    model, student = make_student(PPO, options.student, make_env(options.task, DummyVecEnv), seed=0)
    env = model.get_env()  # with its channels first
    expert = make_teacher(potstill.load(options.teacher), env).policy
    clock = Clock(judge, student, options)
    with suppress(Enough):
        played = rollout.rollout(expert, env, rollout.make_min_timesteps(STEPS_PER_HOUR), rng=rng, unwrap=False)
        transitions = rollout.flatten_trajectories(played)
        learner = BC(observation_space=env.observation_space, action_space=env.action_space, rng=rng,
                     policy=model.policy, demonstrations=transitions, device="cpu")  # fmt: skip
        tick = partial(clock.tick, model.policy.action_net, len(transitions))
        learner.train(n_epochs=10**6, on_batch_end=tick, progress_bar=False)
    env.close()
    return clock.record


def ours(judge: Judge, options: argparse.Namespace, seed: int) -> dict[str, Any]:
    planned = plan(
        DistillOptions(
            (options.student,), (options.teacher,), task=(options.task,), hours=options.hours, updates=options.updates,
            envs=40, play_epsilon=0.15, seed=seed,
        )
    )  # fmt: skip
    seconds, state = timed(planned)
    scored = judge(state.students[0].policies[0], EPISODES)
    return {"seed": seed, "seconds": seconds, "steps": options.hours * STEPS_PER_HOUR, "normalised": scored}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--teacher", type=Path, required=True, help="a policy whose outputs are logits")
    parser.add_argument("--task", required=True, help="ALE/…-v5")
    parser.add_argument("--student", default="net3")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=["TeacherDistill"])
    parser.add_argument("--every", type=float, default=120, help="seconds between two scores of a peer")
    parser.add_argument("--limit", type=float, default=1200, help="seconds of a peer, scoring apart")
    parser.add_argument("--episodes", type=int, default=20, help="of a score on the way")
    parser.add_argument("--hours", type=float, default=1.0, help="of play, ours")
    parser.add_argument("--updates", type=int, default=1200, help="an hour, ours")
    parser.add_argument("--seeds", type=int, default=2, help="ours")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    judge = Judge(options.task, potstill.load(options.teacher))
    record: dict[str, Any] = {
        "task": options.task,
        "student": options.student,
        "teacher": judge.teacher.record(),
        "potstill": [ours(judge, options, seed) for seed in range(options.seeds)],
        "machine": machine(os.cpu_count() or 1),
        "versions": versions(),
    }
    print(json.dumps(record["potstill"]), flush=True)
    for method in options.methods:
        peer = sb3_distill if METHODS[method] == "sb3_distill" else imitation
        record[f"{METHODS[method]}, {method}"] = peer(method, judge, options)
        options.out.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
