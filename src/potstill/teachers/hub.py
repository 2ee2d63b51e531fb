"""Policies on the Hugging Face Hub, by huggingface_hub (`pip install potstill[hub]`), its cache and offline mode."""

import re
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from potstill.errors import PotstillError, in_a_line, need
from potstill.teachers import vecnormalize
from potstill.teachers.tensors import MAX_WEIGHTS

SUFFIXES = {".safetensors", ".zip", ".onnx", ".pth", ".pt", ".pt2", ".cleanrl_model"}
NO_POLICIES = {"train_eval_metrics.zip"}
"""What RL Zoo uploads beside a policy."""
OF_WEIGHTS = (".data", "_data")
"""What follows an ONNX file's name where its weights lie beside it."""
NAME = re.compile(r"(?P<repository>[\w.-]+/[\w.-]+?)(@(?P<revision>[\w.-]+))?(/(?P<file>.+))?")


def download(name: str) -> Path:
    """The file of `owner/repository[@revision][/file]`, with the statistics and weights that belong to it beside it.

    Without a file's name the repository must hold one policy, or one that is named like the repository.

    Raises:
        PotstillError: huggingface_hub is missing, the Hub doesn't answer and the cache doesn't have it, the repository
            or the file doesn't exist, or it is too large.
    """
    match = NAME.fullmatch(name)
    if match is None:
        raise PotstillError(
            f"hf://{name}: the Hub's names look like hf://owner/repository or hf://owner/repository/file"
        )
    need(f"hf://{name}", "huggingface_hub", install="potstill[hub]")
    from huggingface_hub import HfApi, hf_hub_download

    repository, revision = match["repository"], match["revision"]
    try:
        info = HfApi().model_info(repository, revision=revision, files_metadata=True)
    except Exception as error:  # no network, offline mode, no such repository: the cache may have it all the same
        folder = _cached(repository, revision)
        if folder is None:
            raise PotstillError(f"hf://{name}: {in_a_line(error)}") from error
        return folder / _choose(name, match, [path.relative_to(folder).as_posix() for path in folder.rglob("*")])
    sizes = {sibling.rfilename: sibling.size or 0 for sibling in info.siblings or []}
    file = _choose(name, match, list(sizes))
    beside = [other for other in sizes if _belongs(other, file, sizes)]
    wanted = [*beside, file]  # the policy last, so that it is never there alone
    if (total := sum(sizes[each] for each in wanted)) > MAX_WEIGHTS:
        raise PotstillError(f"hf://{name}: {file} has {total} bytes, over {MAX_WEIGHTS} are not read")
    try:
        return [Path(hf_hub_download(repository, each, revision=revision)) for each in wanted][-1]
    except Exception as error:  # whatever goes wrong on the way
        raise PotstillError(f"hf://{name}: {in_a_line(error)}") from error


def _cached(repository: str, revision: str | None) -> Path | None:
    """The folder of what was downloaded before."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        nothing = ["none of them"]  # only where it is
        return Path(snapshot_download(repository, revision=revision, local_files_only=True, allow_patterns=nothing))
    except (LocalEntryNotFoundError, ValueError):
        return None


def _choose(name: str, match: re.Match[str], files: list[str]) -> str:
    if match["file"]:
        if match["file"] not in files:
            raise PotstillError(f"hf://{name}: the repository has {_listed(files)}")
        return match["file"]
    policies = [f for f in files if PurePosixPath(f).suffix in SUFFIXES and PurePosixPath(f).name not in NO_POLICIES]
    namesake = [f for f in policies if PurePosixPath(f).stem == match["repository"].partition("/")[2]]
    for found in (namesake, policies):
        if len(found) == 1:
            return found[0]
    raise PotstillError(f"hf://{name}: name the policy's file, hf://{match['repository']}/FILE, of {_listed(files)}")


def _belongs(other: str, file: str, files: Iterable[str]) -> bool:
    """Whether a file is a policy's statistics and no other policy's, or an ONNX file's weights."""
    path, policy = PurePosixPath(other), PurePosixPath(file)
    folder = path.parent
    below = folder.name == policy.stem or vecnormalize.shares(policy.stem, folder.name)
    near = folder == policy.parent or (folder.parent == policy.parent and below)
    beside = vecnormalize.is_called_so(path) and near
    others = [each for each in map(PurePosixPath, files) if each.suffix == ".zip" and each != policy]
    called = (path.parent, vecnormalize.key(path.stem))
    another_s = called in [(each.parent, vecnormalize.key(each.stem)) for each in others]
    return (beside and not another_s) or other in {f"{file}{end}" for end in OF_WEIGHTS}


def _listed(files: list[str]) -> str:
    return ", ".join(sorted(files)[:20])[:500] or "no files"
