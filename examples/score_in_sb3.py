"""Score `potstill export --to sb3`'s zip of an Atari game by Stable-Baselines3's own evaluation in its own wrappers.

    python score_in_sb3.py net3.zip PongNoFrameskip-v4 --episodes 100

Its wrappers end an episode with a life and clip rewards; its Monitor, which is what `evaluate_policy` reads, sees the
whole game before them. Actions are the best ones (ε = 0).
"""

import argparse
import json
import zipfile

import ale_py
import gymnasium
import numpy as np
import stable_baselines3
from stable_baselines3.common.env_util import make_atari_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import VecFrameStack


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file")
    parser.add_argument("task")
    parser.add_argument("--episodes", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    gymnasium.register_envs(ale_py)
    with zipfile.ZipFile(options.file) as archive:
        kind = "DQN" if "buffer_size" in json.loads(archive.read("data")) else "PPO"
    model = getattr(stable_baselines3, kind).load(options.file, device="cpu")
    env = VecFrameStack(make_atari_env(options.task, n_envs=8, seed=options.seed), 4)
    scores, _ = evaluate_policy(model, env, n_eval_episodes=options.episodes, return_episode_rewards=True)
    error = np.std(scores, ddof=1) / len(scores) ** 0.5 if len(scores) > 1 else float("nan")
    print(f"{np.mean(scores):.2f} ± {1.96 * error:.2f} over {len(scores)} episodes of {options.task} ({kind})")


if __name__ == "__main__":
    main()
