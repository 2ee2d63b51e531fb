"""A student onto the Hugging Face Hub, by huggingface_hub: its file, its card, what was measured; never the teacher."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from potstill.errors import PotstillError, in_a_line
from potstill.files import to_json
from potstill.report.card import find_student, make_card, without_folders
from potstill.report.page import make_report
from potstill.report.read import as_runs_write_it, inside, read_result

if TYPE_CHECKING:
    from huggingface_hub import HfApi

LOGIN = "log in with a token that may write: hf auth login"


def push(run: Path, student: str, to: str, license: str | None, private: bool, quiet: bool) -> str:
    """Upload a student in one commit, into a repository that is made where there is none.

    Args:
        run: the folder of a finished distillation.
        student: its name.
        to: the repository, owner/name.
        license: for the card, by the Hub's names for them.
        private: whether the repository is private, if it is made.
        quiet: show no progress.

    Returns:
        The repository's address.

    Raises:
        PotstillError: huggingface_hub, the run, its student or its file is missing; nobody is logged in; the Hub
            doesn't answer, or refuses.
    """
    card = make_card(run, student, to, license)
    with as_runs_write_it(run):
        result = without_folders(read_result(run))
    files = _files(run, result, student)
    from huggingface_hub import CommitOperationAdd, HfApi, get_token
    from huggingface_hub.utils import disable_progress_bars

    if get_token() is None:
        raise PotstillError(f"push: nobody is logged in to the Hub; {LOGIN}")
    if quiet:
        disable_progress_bars()
    api = HfApi()
    written = {"README.md": card.encode(), "result.json": to_json(result), "report.html": make_report({run: result})}
    content: dict[str, bytes | str] = {**written, **files}
    with _one_line(to, api):
        address = api.create_repo(to, private=private or None, exist_ok=True)
        stays_public = private and not api.model_info(to).private
    if stays_public:
        raise PotstillError(f"--private: {to} is there and public; make it private in its settings, or name another")
    added = [CommitOperationAdd(path_in_repo=name, path_or_fileobj=of) for name, of in content.items()]
    with _one_line(to, api):
        api.create_commit(to, added, commit_message=f"{student}, distilled with Potstill")
    return str(address)


def _files(run: Path, result: dict[str, Any], student: str) -> dict[str, str]:
    """The student's file and its films, by their names on the Hub."""
    with as_runs_write_it(run):
        record = find_student(result, student, run)
        policy = inside(run, record["file"], ".safetensors")
        if policy is None:
            raise PotstillError(f"{run} has no {record['file']}: the student's file is missing")
        films = [inside(run, played["video"], ".mp4") for played in record["tasks"] if played.get("video")]
    more = {film.relative_to(run.resolve()).as_posix(): str(film) for film in films if film}
    return {f"{student}.safetensors": str(policy), **more}


@contextmanager
def _one_line(to: str, api: "HfApi") -> Iterator[None]:
    """Whatever goes wrong within: no network, no permission, the Hub's own trouble."""
    try:
        yield
    except Exception as error:
        raise _refusal(to, error, api) from error


def _refusal(to: str, error: Exception, api: "HfApi") -> PotstillError:
    """In one line, with the mend."""
    from huggingface_hub.errors import HFValidationError, OfflineModeIsEnabled

    cause = error.__cause__ if isinstance(error, RuntimeError) and error.__cause__ else error  # what stopped an upload
    status = getattr(getattr(cause, "response", None), "status_code", None)
    said = in_a_line(getattr(cause, "server_message", None) or cause)
    if status == 401:
        return PotstillError(f"push: the Hub doesn't know this token; {LOGIN}")
    if status == 403:
        return PotstillError(f"--to {to}: this token may not write there ({said}); name your own, or {LOGIN}")
    if isinstance(error, HFValidationError):
        return PotstillError(f"--to {to}: {said}")
    if isinstance(error, OfflineModeIsEnabled):
        return PotstillError("push: HF_HUB_OFFLINE is set; unset it to reach the Hub")
    if isinstance(error, ValueError):  # the Hub read the card, and complains of it: of an unknown licence, say
        return PotstillError(f"push: {said}")
    if status is None:
        return PotstillError(f"push: {api.endpoint} doesn't answer as the Hub does ({said})")
    return PotstillError(f"push: the Hub answers {status}: {said}")
