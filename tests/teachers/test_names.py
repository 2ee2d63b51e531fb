import shutil

import pytest

from potstill import PotstillError, load
from potstill.teachers import find


def test_the_zoo_has_a_pong_player(teacher_pong):
    assert find("zoo:pong") == teacher_pong
    assert load("zoo:pong").task == "ALE/Pong-v5"


def test_another_folder_can_be_the_zoo(tmp_path, monkeypatch, cartpole_file):
    shutil.copy(cartpole_file, tmp_path / "balance.safetensors")
    monkeypatch.setenv("POTSTILL_ZOO", str(tmp_path))
    assert load("zoo:balance").task == "CartPole-v1"


@pytest.mark.parametrize("name", ["zoo:pnog", "zoo:", "zoo:../../etc/passwd"])
def test_a_name_that_is_not_in_the_zoo_lists_those_that_are(name):
    with pytest.raises(PotstillError, match=r"there are .*zoo:pong"):
        find(name)
