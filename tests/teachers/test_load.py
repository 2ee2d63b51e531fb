import pickle
import zipfile

import pytest
import torch

from potstill import PotstillError, load


class Bomb:
    def __reduce__(self):
        return open, ("PWNED", "w")


def write_zip(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "hello")


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda p: None, "No such file or directory"),
        (lambda p: p.mkdir(), "is a folder: name the policy file in it"),
        (lambda p: p.write_bytes(b""), "damaged or not a .safetensors file"),
        (lambda p: p.write_text("hello"), "damaged or not a .safetensors file"),
        (lambda p: p.write_bytes(b"\xff" * 100), "damaged or not a .safetensors file"),
        (lambda p: p.write_bytes(b"PK\x03\x04" + bytes(100)), "is a damaged zip"),
        (lambda p: p.write_bytes(pickle.dumps(Bomb())), "is a pickle, which can run code when read"),
        (
            lambda p: p.write_bytes(pickle.dumps(Bomb(), protocol=0)),
            "is a pickle|damaged or not a .safetensors file",
        ),
        (
            lambda p: torch.save({"a": Bomb()}, p),
            "no plain state dict .* is a pickle, which can run code",
        ),
        (lambda p: torch.save({"a": Bomb()}, p, _use_new_zipfile_serialization=False), "is a pickle"),
        (write_zip, "neither Stable-Baselines3's"),
    ],
)
def test_what_is_no_policy_runs_nothing_and_is_one_line(tmp_path, monkeypatch, write, message):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "policy"
    write(path)
    with pytest.raises(PotstillError, match=message) as error:
        load(path)
    assert "\n" not in str(error.value)
    assert str(path) in str(error.value)
    assert not (tmp_path / "PWNED").exists()
