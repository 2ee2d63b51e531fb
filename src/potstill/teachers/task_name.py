"""What a file was trained to play, by its name: Stable-Baselines3's zips don't say it inside."""

import re
from pathlib import Path

NAME = re.compile(r"(?<![A-Za-z0-9])((?:ALE[-_])?[A-Z][A-Za-z0-9]*-v[0-9]+)(?![A-Za-z0-9])")
ATARI = re.compile(r"(.+)NoFrameskip-v[04]")
FOLDERS = 3
"""How many folders above a file are asked: in the Hub's cache the one with a repository's name is the third."""
MUJOCO = {"Ant", "HalfCheetah", "Hopper", "Humanoid", "HumanoidStandup", "InvertedDoublePendulum", "InvertedPendulum",
          "Pusher", "Reacher", "Swimmer", "Walker2d"}  # fmt: skip
RENAMED = {
    "Ant-v2": "Ant-v4?use_contact_forces=true",
    "Ant-v3": "Ant-v4?use_contact_forces=true",
    "BipedalWalker-v2": "BipedalWalker-v3",
    "BipedalWalkerHardcore-v2": "BipedalWalkerHardcore-v3",
    "CartPole-v0": "CartPole-v1",
    "LunarLander-v2": "LunarLander-v3",
    "LunarLanderContinuous-v2": "LunarLanderContinuous-v3",
    "Pendulum-v0": "Pendulum-v1",
}
"""Ids that Gymnasium has given up, and what plays the same game today."""


def task_in_name(path: Path, provenance: dict[str, object]) -> str | None:
    """The task in a file's name or a folder's above it; what was made of the name is noted in `provenance`."""
    for name in (path.stem, *(folder.name for folder in list(path.absolute().parents)[:FOLDERS])):
        if found := NAME.search(name):
            task = todays_id(found[1])
            provenance["task"] = f"{found[1]}, by its name" + (f"; played as {task}" if task != found[1] else "")
            return task
    return None


def todays_id(task_id: str) -> str:
    """Today's id of a task: gym's old ids and Atari's v4 are others now, and a file's name has no slash."""
    if task_id.startswith(("ALE-", "ALE_")):
        return f"ALE/{task_id[4:]}"
    if atari := ATARI.fullmatch(task_id):
        return f"ALE/{atari[1]}-v5"
    name, _, version = task_id.rpartition("-v")
    if task_id not in RENAMED and name in MUJOCO and version in ("1", "2", "3"):
        return f"{name}-v4"
    return RENAMED.get(task_id, task_id)
