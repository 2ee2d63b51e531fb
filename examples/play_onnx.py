"""Score an exported student of an Atari game without potstill, without PyTorch.

    pip install ale-py gymnasium numpy onnxruntime opencv-python-headless
    python play_onnx.py net3.onnx ALE/Pong-v5 --episodes 100

Gymnasium prepares frames here as potstill's own environments do (frame skip 4, no sticky actions, FIRE after
a reset where the game has it); ε = 0.05, up to 30 no-ops. No-ops are drawn from 1 to 30 here, from 0 to 29 there.
"""

import argparse

import ale_py
import gymnasium
import numpy as np
import onnxruntime
from gymnasium.wrappers import AtariPreprocessing, FrameStackObservation

EPSILON = 0.05


def make_env(task: str) -> gymnasium.Env:
    """The game as the student sees it: four frames of 84 × 84, bytes."""
    env = gymnasium.make(task, frameskip=1, repeat_action_probability=0.0)
    env = AtariPreprocessing(env, noop_max=30, frame_skip=4, screen_size=84)
    return FrameStackObservation(env, 4, padding_type="zero")


def play(session: onnxruntime.InferenceSession, output: str, env: gymnasium.Env, seed: int) -> float:
    """One episode's score."""
    rng = np.random.default_rng(seed)
    observation, _ = env.reset(seed=seed)
    if "FIRE" in env.unwrapped.get_action_meanings():
        observation, *_ = env.step(env.unwrapped.get_action_meanings().index("FIRE"))
    score, over = 0.0, False
    while not over:
        [actions] = session.run([output], {"observations": np.asarray(observation)[None]})
        action = rng.integers(env.action_space.n) if rng.random() < EPSILON else actions[0]
        observation, reward, terminated, truncated, _ = env.step(int(action))
        score, over = score + float(reward), terminated or truncated
    return score


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file")
    parser.add_argument("task")
    parser.add_argument("--episodes", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    gymnasium.register_envs(ale_py)
    session = onnxruntime.InferenceSession(options.file, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    output = "actions" if "actions" in names else f"{options.task}/actions"  # of several tasks in one file
    env = make_env(options.task)
    scores = [play(session, output, env, options.seed + episode) for episode in range(options.episodes)]
    error = np.std(scores, ddof=1) / len(scores) ** 0.5 if len(scores) > 1 else 0.0
    print(f"{np.mean(scores):.2f} ± {1.96 * error:.2f} over {len(scores)} episodes of {options.task}")


if __name__ == "__main__":
    main()
