"""Two thousand mutated files: each is loaded or refused in one line, nothing runs, memory stays bounded."""

import io
import random
import resource
import zipfile
from pathlib import Path

import pytest

from potstill import PotstillError, load

FILES = (
    "sb3/a2c-Acrobot-v1/Acrobot-v1.zip",
    "sb3/sac-Pendulum-v1.zip",
    "sb3/qrdqn-CartPole-v1.zip",
    "sb3/ppo-Walker2d-v3/Walker2d-v3.zip",
    "state_dicts/Enduro-dqn-fc200.pth",
)


def flip(content: bytes, chance: random.Random, among: int) -> bytes:
    """A few bytes of the first `among` changed, the end perhaps cut off."""
    mutated = bytearray(content)
    for _ in range(chance.choice((1, 2, 8, 64))):
        mutated[chance.randrange(min(len(mutated), among))] = chance.randrange(256)
    return bytes(mutated[: chance.choice((len(mutated), len(mutated), chance.randrange(len(mutated))))])


def flip_member(content: bytes, chance: random.Random) -> bytes:
    """The same inside of a zip, whose checksums fit."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = {name: archive.read(name) for name in ("data", "policy.pth")}
    name = chance.choice(("data", "policy.pth"))
    members[name] = flip(members[name], chance, 4000)
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        for name, member in members.items():
            archive.writestr(name, member)
    return target.getvalue()


@pytest.mark.parametrize("name", FILES)
def test_mutated_files_are_loaded_or_refused_in_one_line(name, teachers_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    content, chance = (teachers_folder / name).read_bytes(), random.Random(name)
    target = tmp_path / Path(name).name
    load(teachers_folder / name)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refused = 0
    for index in range(400):
        inside = name.endswith(".zip") and index % 2 == 0
        target.write_bytes(
            flip_member(content, chance) if inside else flip(content, chance, chance.choice((300, 10**9)))
        )
        try:
            load(target)
        except PotstillError as error:
            refused += 1
            if "\n" in str(error):
                pytest.fail(f"{index}: {error}")
    assert refused > 200
    assert [path.name for path in tmp_path.iterdir()] == [target.name], "nothing was written"
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000, "300 MB"
