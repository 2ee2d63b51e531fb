"""A student's model card: README.md in the Hugging Face Hub's format, its scores in the metadata."""

import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from potstill.errors import PotstillError, need
from potstill.report.read import as_runs_write_it, environment, parameters_of_all, read_result

if TYPE_CHECKING:
    from huggingface_hub import EvalResult


def make_card(run: Path, student: str, repository: str, license: str | None = None) -> str:
    """The card of a student, as the Hub reads it: YAML between dashes, then Markdown.

    Args:
        run: the folder of a finished distillation.
        student: its name.
        repository: owner/name, for the lines that load it.
        license: of the student, by the Hub's names for them; None: the card names none.

    Raises:
        PotstillError: huggingface_hub is missing, or the run is no distillation, or has no such student.
    """
    need("push", "huggingface_hub", install="potstill[hub]")
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repository):
        raise PotstillError(f"--to {repository}: the Hub's repositories are named owner/name")
    from huggingface_hub import ModelCard, ModelCardData

    with as_runs_write_it(run):
        result = without_folders(read_result(run))
        record = find_student(result, student, run)
        tasks = list(zip(result["teachers"], record["tasks"], strict=True))
        data = ModelCardData(
            model_name=student,
            license=license,
            library_name="potstill",
            pipeline_tag="reinforcement-learning",
            tags=[*dict.fromkeys(_plain(teacher["task"]) for teacher, _ in tasks), "reinforcement-learning",
                  "policy-distillation", "potstill"],
            eval_results=[each for teacher, played in tasks for each in _evaluated(teacher["task"], played)] or None,
        )  # fmt: skip
        text = environment(autoescape=False).get_template("card.md.jinja")
        body = text.render(
            result=result,
            student=record,
            tasks=tasks,
            of_all=parameters_of_all(result["teachers"]),
            repository=repository,
            license=license,
            command=shlex.join(result["command"]),
            file=f"{student}.safetensors",
            md=_markdown,
            code=_code,
        )
        return str(ModelCard(f"---\n{data.to_yaml()}\n---\n\n{body}")) + "\n"


def without_folders(result: dict[str, Any]) -> dict[str, Any]:
    """The same result; whole paths that its command was given lose the folders they lie in, wherever they are named:
    what the user's folders are called isn't for the Hub."""
    typed = (word.partition("=")[2] if word.startswith("--") else word for word in map(str, result["command"]))
    whole = {path.rstrip("/") for word in typed if (path := word.removeprefix("file://")).startswith("/")} - {""}
    paths = "|".join(re.escape(path) for path in sorted(whole, key=len, reverse=True))
    return _renamed(result, re.compile(rf"(?<![\w.~-])(?:{paths})(?![\w-])")) if whole else result


def _renamed(value: Any, paths: re.Pattern[str]) -> Any:
    if isinstance(value, str):
        return paths.sub(lambda found: Path(found[0]).name, value)
    if isinstance(value, dict):
        return {key: _renamed(each, paths) for key, each in value.items()}
    return [_renamed(each, paths) for each in value] if isinstance(value, list) else value


def find_student(result: dict[str, Any], name: str, run: Path) -> dict[str, Any]:
    """What result.json says of a distillation's student.

    Raises:
        PotstillError: the run is no distillation, or has no such student.
    """
    if "curve" in result or "table" in result:
        raise PotstillError(f"{run} is no distillation: only its students are described and pushed")
    names = [str(student["name"]) for student in result["students"]]
    if name not in names:
        raise PotstillError(f"--student {name}: {run} has {', '.join(names)}")
    return result["students"][names.index(name)]


def _evaluated(task: str, played: dict[str, Any]) -> "list[EvalResult]":
    """A task's scores; mean +/- standard deviation of the episodes, as the Hub's other policies give it."""
    from huggingface_hub import EvalResult

    if played["score"] is None:
        return []
    spread = float(np.std(played["score"]["returns"]))
    metrics: dict[str, Any] = {"mean_reward": f"{played['score']['mean']:.2f} +/- {spread:.2f}"}
    if played["normalised"]:
        metrics["normalised"] = round(played["normalised"]["mean"], 4)
    return [
        EvalResult(
            task_type="reinforcement-learning",
            task_name="reinforcement-learning",
            dataset_type=_plain(task),
            dataset_name=_plain(task),
            metric_type=name,
            metric_name=name,
            metric_value=value,
        )
        for name, value in metrics.items()
    ]


def _plain(text: Any) -> str:
    """On one line, without what isn't printable."""
    return "".join(character if character.isprintable() else " " for character in str(text))


def _code(text: Any) -> str:
    """Words for between backticks."""
    return _plain(text).replace("`", "'")


def _markdown(text: Any) -> str:
    """Words as they are, none of them Markdown or HTML."""
    return re.sub(r"([\\`*_{}\[\]<>#|~$&])", r"\\\1", _plain(text))
