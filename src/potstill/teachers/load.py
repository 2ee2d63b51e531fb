"""From a file to a policy, by what the file is."""

import hashlib
import io
import zipfile
from pathlib import Path

from potstill import artifact, policies
from potstill.errors import PotstillError
from potstill.files import read_bytes, reading, refuse_pointer, sha256
from potstill.policies import of_task
from potstill.policy import Policy
from potstill.teachers import onnx, sb3, state_dict, trusted, vecnormalize
from potstill.teachers.hub import OF_WEIGHTS
from potstill.teachers.names import find
from potstill.teachers.tensors import MAX_WEIGHTS, check_members, read_state_dict

OLD_TORCH = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
"""What PyTorch's files before 1.6 begin with."""


def load(name: str | Path, task: str | None = None, trust: bool = False) -> Policy:
    """Load a policy: our own .safetensors; a zip of Stable-Baselines3 or sb3-contrib (DQN, QR-DQN, PPO, A2C, TRPO,
    ARS, SAC, TQC, TD3, DDPG); a state dict in .safetensors or as `torch.save` writes it (pytorch-a2c-ppo-acktr's
    names, CleanRL's, Stable-Baselines3's DQN's, a plain chain of Q-value layers); an .onnx file; with `trust` also
    TorchScript and torch.export.

    No code in the file is run unless it is trusted, and its sizes are checked before memory is taken for them.

    Args:
        name: a path, `zoo:pong`, or `hf://owner/repository[/file]`.
        task: what it plays, for .onnx and trusted files whose names don't say it, and for files of several tasks.
        trust: run the program that a TorchScript or torch.export file is.

    Raises:
        PotstillError: it is none of these, or can't be loaded safely; the message says what it is.
    """
    return of_task(load_all(name, task, trust), task, name)


def load_all(name: str | Path, task: str | None = None, trust: bool = False) -> list[Policy]:
    """All policies of a file, as `load` loads one: several only where a multi-task student is in it.

    Raises:
        PotstillError: as `load`.
    """
    path = find(name)
    with reading(path):
        if path.is_dir():
            raise PotstillError(f"{path} is a folder: name the policy file in it")
        with path.open("rb") as file:
            start = file.read(16)
    refuse_pointer(path, start)
    if path.suffix == ".onnx":
        return onnx.load(path, task)
    if start.startswith(b"PK"):
        return [_load_zip(path, task, trust)]
    if start.startswith(OLD_TORCH):
        return [_load_torch(path)]
    if path.suffix == ".zip":
        raise PotstillError(f"{path} is no zip, whatever its name says: get it again from where it came from")
    try:
        metadata, shapes = artifact.read_metadata(path)
    except PotstillError:
        if start[:1] == b"\x80":  # the first byte of a pickle, but also of some .safetensors files
            statistics = vecnormalize.is_called_so(path)
            mend = "name the zip that they belong to" if statistics else "save its state dict as .safetensors"
            what = "holds statistics, no policy" if statistics else "is a pickle, which can run code when read"
            raise PotstillError(f"{path} {what}: {mend}") from None
        if path.suffix not in artifact.SUFFIXES:
            raise PotstillError(
                f"{path} is no .safetensors, .onnx, Stable-Baselines3's zip or PyTorch's state dict, by what it holds"
            ) from None
        raise
    if artifact.KEY in metadata:
        return policies.load(path, metadata, shapes)
    return [state_dict.load(path, metadata, artifact.read_tensors(path))]


def checksum(path: Path, policy: Policy) -> str:
    """Of all that decides what a file's policy does: the file's SHA-256, or where statistics or weights lie beside it
    that of both checksums."""
    beside = [Path(f"{path}{end}") for end in OF_WEIGHTS if path.suffix == ".onnx"]
    of_another = (
        path.suffix not in artifact.SUFFIXES
    )  # a file of ours holds its statistics, and says where they are from
    if of_another and "observations" in policy.provenance and (statistics := vecnormalize.beside(path)):
        beside.append(statistics)
    checksums = [sha256(each) for each in (path, *beside) if each.is_file()]
    return hashlib.sha256("".join(checksums).encode()).hexdigest() if checksums[1:] else checksums[0]


def _load_torch(path: Path) -> Policy:
    return state_dict.load(path, {}, read_state_dict(path, "the file", read_bytes(path, MAX_WEIGHTS)))


def _load_zip(path: Path, task: str | None, trust: bool) -> Policy:
    content = read_bytes(path, MAX_WEIGHTS)
    try:
        check_members(content)
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            names = archive.namelist()
            # Where the end is missing, zipfile takes the end of a zip within it.
            if min((info.header_offset for info in archive.filelist), default=0) > 0:
                raise zipfile.BadZipFile("its end is missing")
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise PotstillError(f"{path} is a damaged zip ({error})") from error
    if "data" in names and "policy.pth" in names:
        return sb3.load(path)
    if kind := trusted.kind_of(names):
        return trusted.load(path, kind, task, trust)
    if any(name.endswith("data.pkl") for name in names):
        return _load_torch(path)
    raise PotstillError(f"{path} is a zip, but neither Stable-Baselines3's (no data, policy.pth) nor PyTorch's")
