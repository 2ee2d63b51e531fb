"""Record an episode for the page beside this file: what a policy saw of it, and what it did.

    python record.py runs/pong/students/net3.safetensors --seconds 30

writes episode.bin (84 × 84 bytes a step, the newest frame) and episode.json.
"""

import argparse
import json
from pathlib import Path

import numpy as np

import potstill
from potstill.tasks import Envs, EpisodeSeeds, make_task

HERE = Path(__file__).parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("policy")
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    policy = potstill.load(options.policy)
    task = make_task(policy.task or "")
    envs = Envs(task, 1, EpisodeSeeds(options.seed, "evaluation"), threads=1)
    frames: list[np.ndarray] = []
    actions: list[int] = []
    for _ in range(round(options.seconds * 15)):
        frames.append(envs.observations[0, -1])
        [action] = policy.act(envs.observations)
        actions.append(int(action))
        if envs.step(np.array([action])):
            break
    (HERE / "episode.bin").write_bytes(np.stack(frames).tobytes())
    record = {"task": task.id, "actions": actions, "names": list(task.action_names), "stack": task.protocol.stack}
    (HERE / "episode.json").write_text(json.dumps(record))
    print(f"{len(frames)} steps of {task.id}")


if __name__ == "__main__":
    main()
