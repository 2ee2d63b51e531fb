"""What is read of PyTorch's files is what was checked."""

import io
import struct
import zipfile
from pathlib import Path

import pytest
import torch

from potstill import PotstillError
from potstill.teachers.tensors import read_state_dict

CALL = b"\x80\x02}X\x01\0\0\0xcbuiltins\nbytearray\nK\x05\x85Rs."
"""{"x": bytearray(5)}: PyTorch allows the call, which could ask for any amount of memory."""
EMPTY = b"\x80\x02}."
END = struct.Struct("<4s4H2LH")
"""Of a zip: where its list of files begins is the seventh, how long it is the sixth."""


def archive(content: bytes, *names: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as written:
        for name in names:
            written.writestr(f"archive/{name}", content)
        written.writestr("archive/version", "3")
    return buffer.getvalue()


def with_two_lists(hidden: bytes, shown: bytes) -> bytes:
    """A zip with two lists of files: Python reads the one before its end, PyTorch the one that its end points to."""
    (one, listed), (other, shown_list) = map(_parts, (hidden, shown))
    assert len(listed) == len(shown_list)
    moved, at = bytearray(shown_list), 0
    while at < len(moved):
        name, extra, comment = struct.unpack_from("<3H", moved, at + 28)
        (offset,) = struct.unpack_from("<L", moved, at + 42)
        struct.pack_into("<L", moved, at + 42, offset + len(one) - len(other))  # Python adds how far its list has moved
        at += 46 + name + extra + comment
    end = END.pack(b"PK\5\6", 0, 0, 2, 2, len(moved), len(one), 0)
    return one + listed + other + bytes(moved) + end


def _parts(content: bytes) -> tuple[bytes, bytes]:
    """Its files, and the list of them."""
    end = END.unpack(content[-END.size :])
    return content[: end[6]], content[end[6] : end[6] + end[5]]


@pytest.mark.parametrize("names", [("DATA.PKL",), ("data.PKL",), ("DATA.PKL", "data.pkl")])
def test_a_pickle_is_checked_whatever_the_case_of_its_name(names):
    with pytest.raises(PotstillError, match="is no plain state dict"):
        read_state_dict(Path("a.pth"), "the file", archive(CALL, *names))


def test_a_second_list_of_files_is_not_followed():
    content = with_two_lists(archive(CALL, "data.pkl"), archive(EMPTY, "data.pkl"))
    with zipfile.ZipFile(io.BytesIO(content)) as seen:
        assert seen.read("archive/data.pkl") == EMPTY
    assert torch.load(io.BytesIO(content), weights_only=True) == {"x": bytearray(5)}
    assert read_state_dict(Path("a.pth"), "the file", content) == {}


def test_one_storage_viewed_by_thousands_is_not_looked_at_thousands_of_times(tmp_path):
    weights = torch.zeros(2**20)
    torch.save({f"{n}.weight": weights.view(2**10, 2**10) for n in range(200)}, tmp_path / "a.pth")
    content = (tmp_path / "a.pth").read_bytes()
    assert len(content) < 2**23
    with pytest.raises(PotstillError, match="the tensors of the file take over 536870912 bytes"):
        read_state_dict(tmp_path / "a.pth", "the file", content)
