"""Seconds and control steps until a student plays as well as its teacher: Potstill, then sb3_distill.

sb3_distill trains by its example's settings; every `--every` seconds its clock stands still while its student plays.
Potstill's schedule has an end, and is scored there. Everybody is scored by the same protocol: greedy, ε = 0.05, no-op
starts.

    git clone https://github.com/spiglerg/sb3_distill
    PYTHONPATH=sb3_distill python benchmarks/peers/score.py \\
        --teacher Pong-ppo.safetensors --task ALE/Pong-v5 --out out.json
"""

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

import torch
from sb3_side import make_env, make_student
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import DummyVecEnv

import potstill
from potstill.distill.loop import distill
from potstill.distill.options import STEPS_PER_HOUR, Options
from potstill.distill.plan import new_state, plan
from potstill.distill.result import machine, versions
from potstill.evaluate import Player, Score, evaluate, normalised, random_player
from potstill.policy import Policy
from potstill.tasks import make_task

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
        returns = [0.0] * player.episodes
        for tally in evaluate([player], self.task, 0, os.cpu_count() or 1):
            for _, episode, score in tally.finished:
                returns[episode] = score
        return Score(tuple(returns))


class Clock(BaseCallback):
    """Stands still while the student is scored; ends the training when it is good enough, or time is up."""

    def __init__(self, judge: Judge, student: Policy, options: argparse.Namespace) -> None:
        super().__init__()
        self.judge, self.student, self.options = judge, student, options
        self.seconds, self.since, self.record = 0.0, time.perf_counter(), []

    def _on_rollout_end(self) -> None:
        now = self.seconds + time.perf_counter() - self.since
        if now < self.options.every * (len(self.record) + 1):
            return
        self.seconds = now
        learnt = getattr(self.model, "student_policy", self.model.policy)
        self.student.network.head.load_state_dict(learnt.action_net.state_dict())
        threads = torch.get_num_threads()
        scored = self.judge(self.student, self.options.episodes)
        if scored["mean"] >= ENOUGH:
            scored = self.judge(self.student, EPISODES)
        torch.set_num_threads(threads)
        self.record.append({"seconds": now, "steps": self.num_timesteps, "normalised": scored})
        print(json.dumps(self.record[-1]), flush=True)
        self.since = time.perf_counter()

    def _on_step(self) -> bool:
        last = self.record[-1] if self.record else None
        return not last or (last["seconds"] < self.options.limit and last["normalised"]["mean"] < ENOUGH)


def peer(method: str, judge: Judge, options: argparse.Namespace) -> list[dict[str, Any]]:
    import sb3_distill

    torch.set_num_threads(os.cpu_count() or 1)
    env = make_env(options.task, DummyVecEnv)
    model, student = make_student(
        getattr(sb3_distill, method), potstill.load(options.teacher), options.student, env, seed=0, vf_coef=0.0
    )
    clock = Clock(judge, student, options)
    model.learn(total_timesteps=10**9, callback=clock)
    env.close()
    return clock.record


def ours(judge: Judge, options: argparse.Namespace, seed: int) -> dict[str, Any]:
    planned = plan(
        Options(
            (options.student,), options.teacher, task=options.task, hours=options.hours, updates=options.updates,
            envs=40, play_epsilon=0.15, seed=seed,
        )
    )  # fmt: skip
    state, labeller = new_state(planned), planned.labeller
    assert labeller is not None
    assert state.envs is not None
    start = time.perf_counter()
    for _ in distill(labeller, state, planned.options, planned.temperature, planned.bf16, planned.threads):
        pass
    seconds = time.perf_counter() - start
    state.envs.close()
    scored = judge(state.students[0].policy, EPISODES)
    return {"seed": seed, "seconds": seconds, "steps": options.hours * STEPS_PER_HOUR, "normalised": scored}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--teacher", type=Path, required=True, help="a policy whose outputs are logits")
    parser.add_argument("--task", required=True, help="ALE/…-v5")
    parser.add_argument("--student", default="net3")
    parser.add_argument("--methods", nargs="+", default=["TeacherDistill"], help="classes of sb3_distill")
    parser.add_argument("--every", type=float, default=120, help="seconds between two scores of sb3_distill")
    parser.add_argument("--limit", type=float, default=1200, help="seconds of sb3_distill, scoring apart")
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
        record[f"sb3_distill, {method}"] = peer(method, judge, options)
        options.out.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
