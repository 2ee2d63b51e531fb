"""Every Stable-Baselines3 zip below a folder: its score here beside Stable-Baselines3's own `evaluate_policy`.

Here by potstill's reading of the file and its evaluation; there by unpickling it, so only for files that are trusted.
Both act greedily, without exploration; up to 16 episodes, from the same starts. The largest difference between their
actions on states of random play is noted too. Files whose task isn't installed are only read.

    python benchmarks/teachers.py rl-trained-agents --out results/teachers.json
"""

import argparse
import importlib
import json
import os
import sys
import warnings
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import sb3_contrib
import stable_baselines3
from sb3_contrib.common.wrappers import TimeFeatureWrapper
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

import potstill
from potstill.cli.show import show_progress
from potstill.evaluate import Player, Score, scores
from potstill.files import write_json
from potstill.machine import cores, machine, versions
from potstill.policies import check_plays
from potstill.tasks import EpisodeSeeds, Task, make_task
from potstill.tasks.spec import make_gymnasium_env
from potstill.teachers import vecnormalize

STATES = 500
SEED = 1000
# Old statistics are pickles of gym's spaces; Gymnasium's are the same.
for name in ("", ".spaces", ".spaces.box", ".spaces.discrete", ".spaces.dict", ".spaces.space"):
    sys.modules["gym" + name] = importlib.import_module("gymnasium" + name)


class OurStarts(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Begins as potstill's environments begin their first episodes."""

    def __init__(self, env: gymnasium.Env[Any, Any]) -> None:
        super().__init__(env)
        self.begun = 0

    def reset(self, **rest: Any) -> Any:
        seed = EpisodeSeeds(SEED, "evaluation")(self.begun, 0)
        self.begun += 1
        return self.env.reset(seed=seed)


def make_env(task: Task) -> gymnasium.Env[Any, Any]:
    env = OurStarts(make_gymnasium_env(task.id))
    return TimeFeatureWrapper(env) if task.protocol.time_feature else env


def sb3_model(path: Path, algorithm: str, task: Task) -> tuple[Any, Any]:
    """The file as Stable-Baselines3 loads it, and its environments with their statistics."""
    env: Any = DummyVecEnv([lambda: make_env(task)])
    if (found := vecnormalize.beside(path)) and vecnormalize.read(found):
        env = VecNormalize.load(str(found), env)
        env.training = env.norm_reward = False
    known = {"observation_space": env.observation_space, "action_space": env.action_space, "learning_rate": 0.0}
    known |= dict.fromkeys(("lr_schedule", "clip_range", "exploration_schedule"), lambda _: 0.0)
    library = sb3_contrib if algorithm in ("ARS", "QR-DQN", "TQC", "TRPO") else stable_baselines3
    return getattr(library, algorithm.replace("-", "")).load(path, custom_objects=known, device="cpu"), env


def their_returns(model: Any, env: Any, episodes: int) -> list[float]:
    returns, _ = evaluate_policy(model, env, episodes, deterministic=True, return_episode_rewards=True)
    return [float(value) for value in returns]


def our_returns(policy: potstill.Policy, task: Task, episodes: int) -> list[float]:
    [score] = show_progress(scores([Player(policy, "greedy", 0.0, episodes)], task, SEED, cores()))
    return list(score.returns)


def difference(policy: potstill.Policy, model: Any, env: Any, task: Task) -> float:
    """The largest difference between continuous actions, or the share of discrete ones that are others."""
    played, seen = make_env(task), []
    played.action_space.seed(SEED)
    observation, _ = played.reset()
    for _ in range(STATES):
        seen.append(observation)
        observation, _, terminated, truncated, _ = played.step(played.action_space.sample())
        if terminated or truncated:
            observation, _ = played.reset()
    states = np.array(seen, np.float32)
    normal = env.normalize_obs(states) if isinstance(env, VecNormalize) else states
    ours, theirs = policy.act(states), model.predict(normal.astype(np.float32), deterministic=True)[0]
    return float(np.abs(ours - theirs).max() if task.bounds else (ours != theirs).mean())


def compare(path: Path, name: str, episodes: int) -> dict[str, Any]:
    try:
        policy = potstill.load(path)
    except potstill.PotstillError as error:
        return {"file": name, "refused": str(error).replace(str(path), name)}
    record = {
        "file": name,
        "algorithm": policy.provenance["algorithm"],
        "network": str(policy.spec),
        "task": policy.task,
        "normalised": policy.clip is not None,
    }
    try:
        task = make_task(str(policy.task)).under(time_feature=policy.time_feature)
        check_plays(policy, task, name)
    except potstill.PotstillError as error:
        return {**record, "not_played": str(error)}
    if task.is_atari:
        return {**record, "not_played": "Atari, which Stable-Baselines3 plays by other rules"}
    try:
        model, env = sb3_model(path, str(policy.provenance["algorithm"]), task)
    except Exception as error:  # whatever an old pickle raises today
        return {**record, "not_loaded_by_stable_baselines3": " ".join(f"{type(error).__name__}: {error}".split())[:300]}
    record["difference"] = difference(policy, model, env, task)
    ours, theirs = Score(tuple(our_returns(policy, task, episodes))), Score(tuple(their_returns(model, env, episodes)))
    return {**record, "potstill": ours.record(), "stable_baselines3": theirs.record()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--episodes", type=int, default=16)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    warnings.simplefilter("ignore")  # of old files and old ids
    records: list[dict[str, Any]] = []
    for path in sorted(options.folder.rglob("*.zip")):
        records.append(compare(path, str(path.relative_to(options.folder)), options.episodes))
        print(json.dumps({k: v["mean"] if isinstance(v, dict) else v for k, v in records[-1].items()}), flush=True)
        head = {"episodes": options.episodes, "machine": machine(os.cpu_count() or 1), "versions": versions()}
        write_json(options.out, {**head, "files": records})


if __name__ == "__main__":
    main()
