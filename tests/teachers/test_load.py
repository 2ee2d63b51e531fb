import io
import pickle
import re
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
        (lambda p: p.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\n"), "git lfs pull"),
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


def test_a_web_page_called_a_zip_is_none(tmp_path):
    path = tmp_path / "dqn.zip"
    path.write_text("<!doctype html>")
    with pytest.raises(PotstillError, match="is no zip, whatever its name says"):
        load(path)


def test_a_zip_whose_end_is_missing_is_not_taken_for_one_within_it(tmp_path):
    whole, half = tmp_path / "whole.zip", tmp_path / "half.zip"
    torch.save({"q.weight": torch.zeros(2, 4)}, tmp_path / "policy.pth")
    with zipfile.ZipFile(whole, "w") as archive:
        archive.writestr("data", "{}")
        archive.write(tmp_path / "policy.pth", "policy.pth")
    content = whole.read_bytes()
    half.write_bytes(content[: content.index(b"PK\x05\x06") + 22])
    with pytest.raises(PotstillError, match="its end is missing"):
        load(half)


def of_twos(start: bytes, end: bytes) -> bytes:
    """A pickle of a tuple of two of the same, and so on, sixty times: its hash takes for ever."""
    return start + b")" + b"".join(b"q%ch%c\x86" % (n, n) for n in range(60)) + end


def pickled(content: bytes) -> bytes:
    """What torch.save makes of a state dict, with another pickle in it."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", content)
        archive.writestr("archive/version", b"3")
    return buffer.getvalue()


OLD = b"".join(pickle.dumps(part, 2) for part in (0x1950A86A20F9469CFC6C, 1001, {}))
DICT = b"\x80\x02}"


@pytest.mark.parametrize(
    "content",
    [
        pickled(of_twos(DICT, b"Ns.")),
        OLD + of_twos(DICT, b"Ns."),
        OLD + DICT + b".\x80\x02](cbuiltins\nbytearray\n\x8a\x05\x00\x00\x00\x80\x00\x85Re.",  # among storages' keys
        pickled(b"\x80\x02cbuiltins\nbytearray\n\x8a\x05\x00\x00\x00\x80\x00\x85R."),  # two milliards of bytes
        pickled(DICT + b"X\x01\x00\x00\x00actorch\nHalfTensor\nM\x00\x40M\x00\x40\x86Rs."),  # of any numbers
        pickled(DICT + b"X\x01\x00\x00\x00actorch._utils\n_rebuild_meta_tensor_no_storage\n)Rs."),
        pickled(b"]" * 2**18 + b"."),
        pickled(b"]" * 2**23 + b"."),
    ],
)
def test_a_pickle_that_does_more_than_name_tensors_is_refused_unread(content, tmp_path):
    (tmp_path / "a.pth").write_bytes(content)
    with pytest.raises(PotstillError, match="is no plain state dict") as refused:
        load(tmp_path / "a.pth")
    reasons = "it calls|over .* steps|a tuple that is named again|a file of more bytes"
    assert re.match(reasons, str(refused.value.__cause__)), "before PyTorch reads it"


def test_a_zip_of_endless_files_is_not_listed(tmp_path):
    (tmp_path / "a.zip").write_bytes(b"PK\3\4" + b"PK\1\2" * 20_000)
    with pytest.raises(PotstillError, match="over 16384 files"):
        load(tmp_path / "a.zip")
