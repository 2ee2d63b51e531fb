"""Tasks out of files' names."""

from pathlib import Path

import pytest

from potstill.teachers.task_name import task_in_name


@pytest.mark.parametrize(
    ("path", "task", "note"),
    [
        ("dqn-CartPole-v1.zip", "CartPole-v1", "CartPole-v1, by its name"),
        ("ppo-LunarLander-v2.zip", "LunarLander-v3", "LunarLander-v2, by its name; played as LunarLander-v3"),
        ("HalfCheetah-v3_1/best_model.zip", "HalfCheetah-v4", "HalfCheetah-v3, by its name; played as HalfCheetah-v4"),
        ("PongNoFrameskip-v4.zip", "ALE/Pong-v5", "PongNoFrameskip-v4, by its name; played as ALE/Pong-v5"),
        ("Ant-v3.zip", "Ant-v4?use_contact_forces=true",
         "Ant-v3, by its name; played as Ant-v4?use_contact_forces=true"),
        ("models--sb3--dqn-CartPole-v1/snapshots/abc/model.zip", "CartPole-v1", "CartPole-v1, by its name"),
        ("ppo-ALE-Pong-v5.zip", "ALE/Pong-v5", "ALE-Pong-v5, by its name; played as ALE/Pong-v5"),
        ("Walker2d-v5.zip", "Walker2d-v5", "Walker2d-v5, by its name"),
        ("model.zip", None, None),
        ("mycartpole-v1.zip", None, None),
    ],
)  # fmt: skip
def test_a_name_says_what_is_played_and_what_was_made_of_it_is_noted(path, task, note):
    provenance: dict[str, object] = {}
    assert task_in_name(Path("files") / path, provenance) == task
    assert provenance.get("task") == note


def test_the_folder_one_stands_in_says_it_too(tmp_path, monkeypatch):
    (tmp_path / "LunarLander-v2").mkdir()
    monkeypatch.chdir(tmp_path / "LunarLander-v2")
    assert task_in_name(Path("best_model.zip"), {}) == "LunarLander-v3"
