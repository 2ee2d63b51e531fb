"""Reading a run's folder, which may be a stranger's: only files within it, only of the form that runs have."""

import json
import shlex
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from potstill.errors import PotstillError
from potstill.files import read_json
from potstill.run_directory import SCHEMA, as_written


def read_result(run: Path) -> dict[str, Any]:
    """The result.json of a finished run.

    Raises:
        PotstillError: there is none of this schema.
    """
    if not (run / "result.json").exists():
        raise PotstillError(f"{run} has no result.json: it is no run directory, or its run is not finished")
    result = read_json(run / "result.json")
    if not isinstance(result, dict) or result.get("schema") != SCHEMA:
        raise PotstillError(f"{run / 'result.json'} is not of schema {SCHEMA}, which this potstill reads")
    return result


def parameters_of_all(teachers: list[dict[str, Any]]) -> int:
    """Of a result's teachers together, which one student takes the place of; 0 where one's aren't known."""
    parameters = [teacher["parameters"] for teacher in teachers]
    return sum(parameters) if all(parameters) else 0


def read_metrics(run: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl; none where there is no such file."""
    path = run / "metrics.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def as_runs_write_it(run: Path) -> AbstractContextManager[None]:
    """Within it other contents of result.json or metrics.jsonl than a run's are one line."""
    return as_written(f"{run}: result.json or metrics.jsonl", mend="")


def inside(run: Path, name: Any, suffix: str) -> Path | None:
    """The file that a result names, by its path from the run's folder; None where it isn't there.

    Raises:
        PotstillError: it lies elsewhere, or has another suffix.
    """
    path = (run / str(name)).resolve()
    if not path.is_relative_to(run.resolve()) or path.suffix != suffix:
        raise PotstillError(f"{run / 'result.json'} names {name}: no {suffix} file of this run")
    return path if path.is_file() else None


def environment(autoescape: bool) -> Environment:
    """The templates, with the filters they share."""
    made = Environment(
        loader=PackageLoader("potstill.report", "."),
        autoescape=autoescape,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    mean_above = _mean_above if autoescape else str
    made.filters |= {
        "interval": lambda estimate, digits: mean_above(interval(estimate, digits)),
        "percent": lambda share: mean_above(percent(share)),
        "deviation": deviation,
        "thousands": _thousands,
        "short": _short,
        "quoted": json.dumps,
        "shell": shlex.quote,
    }
    return made


def deviation(value: float | None) -> str:
    """How steady a curve is; of a single point nothing is known."""
    return "–" if value is None else f"{value:.2f}"


def interval(estimate: dict[str, Any] | None, digits: int) -> str:
    """16.84 [16.21, 17.32], large numbers without decimals."""
    if estimate is None:
        return "–"
    low, high = estimate["ci95"]
    if digits == 1 and abs(estimate["mean"]) >= 1000:
        digits = 0
    if estimate.get("episodes") == 1:  # which says nothing of the others
        return f"{estimate['mean']:,.{digits}f}"
    return f"{estimate['mean']:,.{digits}f} [{low:,.{digits}f}, {high:,.{digits}f}]"


def percent(share: dict[str, Any] | None) -> str:
    """A share in per cent, likewise."""
    if share is None:
        return "–"
    low, high = share["ci95"]
    return f"{100 * share['mean']:.1f} [{100 * low:.1f}, {100 * high:.1f}]"


def _mean_above(shown: str) -> Markup:
    """In a narrow table a line may end between a mean and its interval, nowhere else."""
    mean, space, bounds = shown.partition(" ")
    if not bounds:
        return Markup.escape(mean)
    return Markup("{}{}<small>{}</small>").format(mean, space, bounds)


def _short(number: float | None, unit: str = "") -> str:
    """9,200,000 → 9.2 M."""
    if not number:
        return "–"
    for letter, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= size:
            return f"{number / size:.3g} {letter}{unit}"
    return f"{number:.3g} {unit}".rstrip()


def _thousands(number: float | None) -> str:
    return f"{number:,}" if number else "–"
