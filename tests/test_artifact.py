import json
import struct

import pytest
import torch
from safetensors.torch import save_file

from potstill import Policy, PotstillError, artifact, load


def rewrite(path, change):
    """Change the JSON of a .safetensors header."""
    content = path.read_bytes()
    size = struct.unpack("<Q", content[:8])[0]
    header = json.loads(content[8 : 8 + size])
    description = json.loads(header["__metadata__"]["potstill"])
    change(header, description)
    header["__metadata__"]["potstill"] = json.dumps(description)
    encoded = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(encoded)) + encoded + content[8 + size :])


def test_a_file_is_one_safetensors_file_that_says_what_it_is(cartpole_file):
    metadata, shapes = artifact.read_metadata(cartpole_file)
    description = artifact.read_description(cartpole_file, metadata)
    assert description["schema"] == 1
    assert description["network"] == "mlp:2"
    assert description["task"] == "CartPole-v1"
    assert shapes["head.weight"] == (2, 2)


def test_half_precision_is_read_as_float32(tmp_path, cartpole_file):
    metadata, _ = artifact.read_metadata(cartpole_file)
    halves = {name: tensor.half() for name, tensor in artifact.read_tensors(cartpole_file).items()}
    save_file(halves, tmp_path / "half.safetensors", metadata)
    assert load(tmp_path / "half.safetensors").network.head.weight.dtype == torch.float32


def test_every_truncation_is_one_line(cartpole_file):
    content = cartpole_file.read_bytes()
    for length in [*range(64), *range(64, len(content), 17), len(content) - 1]:
        cartpole_file.write_bytes(content[:length])
        with pytest.raises(PotstillError) as error:
            load(cartpole_file)
        assert "\n" not in str(error.value)
        assert str(cartpole_file) in str(error.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda h, d: d.update(schema=2), r"has schema 2, this potstill reads 1: install a newer one"),
        (lambda h, d: d.update(network="mlp:3"), r"tensor head.weight is \(2, 2\), mlp:3 has \(2, 3\)"),
        (lambda h, d: d.update(network="mlp:16384-16384-16384"), "tensor"),
        (lambda h, d: d.update(network="mlp:2-2"), "tensor trunk.2.bias is missing"),
        (lambda h, d: d.update(network=7), "does not describe a policy"),
        (lambda h, d: d.update(outputs="votes"), "does not describe a policy"),
        (lambda h, d: d.update(num_actions=10**9), "does not describe a policy"),
        (lambda h, d: d.update(num_actions=True), "does not describe a policy"),
        (lambda h, d: d.update(task=["Pong"]), "does not describe a policy"),
        (lambda h, d: d.update(task="antigravity:Pong-v5"), "does not describe a policy"),
        (lambda h, d: d["observation"].update(shape=[10**12]), "does not describe a policy"),
        (lambda h, d: d["observation"].update(shape="4"), "does not describe a policy"),
        (lambda h, d: d["observation"].update(dtype="object"), "does not describe a policy"),
        (lambda h, d: d["observation"].update(dtype="uint8"), "does not describe a policy"),
        (lambda h, d: d.pop("provenance"), "does not describe a policy"),
        (lambda h, d: d["provenance"].update(by="\ud800"), "holds no readable policy description"),
        (lambda h, d: d["provenance"].update(steps=float("inf")), "holds no readable policy description"),
        (lambda h, d: h["head.bias"].update(shape=[2**60]), "damaged or not a .safetensors file"),
    ],
)
def test_a_header_that_lies_is_one_line(cartpole_file, change, message):
    rewrite(cartpole_file, change)
    with pytest.raises(PotstillError, match=message) as error:
        load(cartpole_file)
    assert "\n" not in str(error.value)


def test_integers_are_no_weights(tmp_path, cartpole_file):
    metadata, _ = artifact.read_metadata(cartpole_file)
    tensors = {name: tensor.int() for name, tensor in artifact.read_tensors(cartpole_file).items()}
    save_file(tensors, tmp_path / "int.safetensors", metadata)
    with pytest.raises(PotstillError, match="not floating point"):
        load(tmp_path / "int.safetensors")


def test_a_file_that_cannot_be_written_leaves_what_was_there(tmp_path, cartpole_teacher: Policy):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(PotstillError, match="cannot write"):
        cartpole_teacher.save(tmp_path / "file" / "policy.safetensors")
    assert (tmp_path / "file").read_text() == "not a folder"
