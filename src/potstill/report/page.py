"""The report of one run: a distillation's scores, sizes and every episode; a training's curve."""

import io
import json
import shlex
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined, UndefinedError
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from potstill.errors import PotstillError
from potstill.files import atomic_write, read_json

GREY = "#808890"  # readable on white and on black
COLOURS = ("#d1495b", "#2e86ab", "#3a9d5d", "#b07d2b", "#8e5ea2", "#30a0a0", "#7a8b2f", "#d977a8", "#5b6ee1", "#996b5d")
INLINE: Any = {"svg.fonttype": "none", "svg.hashsalt": "potstill", "font.size": 11, "font.family": "sans-serif"}


def write_report(run: Path) -> Path:
    """Write `report.html` into a run directory from the result.json and metrics.jsonl in it.

    Raises:
        PotstillError: there is no result.json of this schema, or the page can't be written.
    """
    if not (run / "result.json").exists():
        raise PotstillError(f"{run} has no result.json: it is no run directory, or its run is not finished")
    result = read_json(run / "result.json")
    if not isinstance(result, dict) or result.get("schema") != 1:
        raise PotstillError(f"{run / 'result.json'} is not of schema 1, which this potstill reads")
    try:
        html = _page(result, run)
    except (KeyError, IndexError, TypeError, ValueError, UndefinedError) as error:
        raise PotstillError(
            f"{run / 'result.json'} is not what a run writes ({type(error).__name__}: {error})"
        ) from error
    with atomic_write(run / "report.html") as file:
        file.write(html.encode())
    return run / "report.html"


def _page(result: dict[str, Any], run: Path) -> str:
    """The page of whatever made the result."""
    if "table" in result:
        return _table_page(result, run)
    return _training_page(result) if "curve" in result else _distillation_page(result, run)


def _distillation_page(result: dict[str, Any], run: Path) -> str:
    return _render(
        "report.html.jinja",
        result,
        title=", ".join(dict.fromkeys(teacher["name"] for teacher in result["teachers"])),
        tasks=[_task(result, index) for index in range(len(result["teachers"]))],
        of_all=_parameters_of_all(result["teachers"]),
        curves=_curve_plots(_read_metrics(run / "metrics.jsonl")),
    )


def _parameters_of_all(teachers: list[dict[str, Any]]) -> int:
    """Of all teachers together, which one student takes the place of; 0 where one's aren't known."""
    parameters = [teacher["parameters"] for teacher in teachers]
    return sum(parameters) if all(parameters) else 0


def _training_page(result: dict[str, Any]) -> str:
    plots = [_training_plot(result, task) for task in result["tasks"]]
    return _render("training.html.jinja", result, plots=plots, students=result.get("students", []))


def _table_page(result: dict[str, Any], run: Path) -> str:
    if result["table"] == "online":
        plots = [
            _training_plot({**of, "tasks": [f"ALE/{game}-v5"]}, f"ALE/{game}-v5")
            for game, of in result["games"].items()
        ]
        return _render("online.html.jinja", result, plots=plots)
    picture = run / "activations.json"
    plots = [_paper_plot(result)]
    plots += _activation_plots(read_json(picture)) if picture.exists() else []
    return _render("table.html.jinja", result, plots=plots)


def _render(template: str, result: dict[str, Any], **values: Any) -> str:
    page = _environment().get_template(template)
    return page.render(result=result, command=shlex.join(result["command"]), **values)


def _task(result: dict[str, Any], index: int) -> dict[str, Any]:
    """What the page shows of one task."""
    teacher = result["teachers"][index]
    students = [{**student, "played": student["tasks"][index]} for student in result["students"]]
    random = teacher.get("random", result.get("random"))  # where runs before 0.2 wrote it
    plots = [_size_plot(teacher, students), _episode_plot(teacher, students, random)] if teacher["score"] else []
    return {"teacher": teacher, "students": students, "random": random, "plots": plots}


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("potstill.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    environment.filters |= {"interval": _interval, "percent": _percent}
    return environment


def _interval(estimate: dict[str, Any] | None, digits: int) -> str:
    if estimate is None:
        return "–"
    low, high = estimate["ci95"]
    return f"{estimate['mean']:,.{digits}f} [{low:,.{digits}f}, {high:,.{digits}f}]"


def _percent(share: dict[str, Any] | None) -> str:
    if share is None:
        return "–"
    low, high = share["ci95"]
    return f"{100 * share['mean']:.1f} [{100 * low:.1f}, {100 * high:.1f}]"


def _read_metrics(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().splitlines()]


def _axes(title: str, x: str, y: str, height: float = 3.2) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(6.4, height), layout="constrained")
    axes = figure.subplots()
    axes.set_title(title, color=GREY)
    axes.set_xlabel(x, color=GREY)
    axes.set_ylabel(y, color=GREY)
    axes.tick_params(colors=GREY, which="both")
    axes.patch.set_alpha(0)
    figure.patch.set_alpha(0)
    for side in axes.spines.values():
        side.set_color(GREY)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _svg(figure: Figure) -> Markup:
    buffer = io.StringIO()
    with matplotlib.rc_context(INLINE):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return Markup(buffer.getvalue()[buffer.getvalue().index("<svg") :])


def _size_plot(teacher: dict[str, Any], students: list[dict[str, Any]]) -> Markup:
    """Normalised score against parameters, with confidence intervals."""
    figure, axes = _axes("Score against size", "parameters", "share of the teacher's score (normalised)")
    for student, colour in zip(students, _colours(), strict=False):
        share = student["played"]["normalised"]
        if share is None:
            continue
        error = [[share["mean"] - share["ci95"][0]], [share["ci95"][1] - share["mean"]]]
        axes.errorbar(
            student["parameters"],
            share["mean"],
            error,
            fmt="o",
            color=colour,
            capsize=4,
            label=student["name"],
        )
    axes.plot(teacher["parameters"], 1, "s", color=GREY, label="teacher")
    axes.axhline(1, color=GREY, linewidth=0.8, linestyle=":")
    axes.set_xscale("log")
    axes.legend(frameon=False, labelcolor=GREY)
    return _svg(figure)


def _episode_plot(teacher: dict[str, Any], students: list[dict[str, Any]], random: dict[str, Any]) -> Markup:
    """Every episode's return as a dot."""
    rows = [("random", random, GREY), ("teacher", teacher["score"], GREY)]
    rows += [(s["name"], s["played"]["score"], c) for s, c in zip(students, _colours(), strict=False)]
    figure, axes = _axes("Every episode", "return", "", height=0.7 + 0.45 * len(rows))
    rng = np.random.default_rng(0)  # vertical jitter only
    for place, (_, score, colour) in enumerate(rows):
        returns = score["returns"]
        axes.plot(
            returns,
            place + rng.uniform(-0.25, 0.25, len(returns)),
            ".",
            color=colour,
            alpha=0.45,
            markersize=5,
        )
        axes.plot([score["mean"]] * 2, [place - 0.35, place + 0.35], color=colour, linewidth=2)
    axes.set_yticks(range(len(rows)), [name for name, *_ in rows])
    axes.invert_yaxis()
    return _svg(figure)


def _training_plot(result: dict[str, Any], task: str) -> Markup:
    """Scores on the way: the learner's, the best so far, and what follows it (Rusu et al. 2016, figure 5)."""
    figure, axes = _axes(task, "control steps", "score")
    curve = result["curve"]
    steps = [point["steps"] for point in curve]
    followed = {s["name"]: [point["students"][s["name"]] for point in curve] for s in result.get("students", [])}
    lines = {"the learner": [point["scores"][task] for point in curve], **followed}
    for (name, scores), colour in zip(lines.items(), _colours(), strict=False):
        means = [score["mean"] for score in scores]
        low, high = zip(*(score["ci95"] for score in scores), strict=True)
        axes.fill_between(steps, low, high, color=colour, alpha=0.15)
        axes.plot(steps, means, color=colour, label=name, linewidth=1.2, marker=".")
    if len(result["tasks"]) == 1:
        best = np.maximum.accumulate([score["mean"] for score in lines["the learner"]])
        axes.plot(steps, best, color=GREY, label="best so far", linewidth=1, linestyle=":")
    axes.legend(frameon=False, labelcolor=GREY)
    return _svg(figure)


def _paper_plot(result: dict[str, Any]) -> Markup:
    """Each game's students, with confidence intervals; the paper's as hollow diamonds."""
    columns, rows = list(result["geometric_mean"]), result["rows"]
    figure, axes = _axes("Student / teacher", "% of the teacher's score", "", height=1 + 0.2 * len(rows) * len(columns))
    for place, (column, colour) in enumerate(zip(columns, _colours(), strict=False)):
        for number, row in enumerate(rows):
            cell, at = row["columns"][column], number + 0.7 * (place + 0.5) / len(columns) - 0.35
            if cell["relative"]:
                mean, (low, high) = cell["relative"]["mean"], cell["relative"]["ci95"]
                error = [[100 * (mean - low)], [100 * (high - mean)]]
                axes.errorbar(100 * mean, at, xerr=error, fmt="o", color=colour, markersize=5)
            if cell["paper"] is not None:
                axes.plot(cell["paper"], at, "D", color=colour, fillstyle="none", markersize=6)
        axes.plot([], [], "o", color=colour, label=column)
    axes.plot([], [], "D", color=GREY, fillstyle="none", label="paper")
    axes.axvline(100, color=GREY, linewidth=0.8, linestyle=":")
    axes.set_yticks(range(len(rows)), [row["game"] for row in rows])
    axes.invert_yaxis()
    axes.legend(frameon=False, labelcolor=GREY)
    return _svg(figure)


def _activation_plots(picture: dict[str, Any]) -> list[Markup]:
    """Where states of each game lie, as the first and the last layer of a multi-task student see them (appendix D)."""
    plots: list[Markup] = []
    for layer, points in picture["layers"].items():
        figure, axes = _axes(f"t-SNE of the {layer}", "", "", height=5)
        at, games = np.array(points), np.array(picture["games"])
        for game, colour in zip(dict.fromkeys(picture["games"]), _colours(), strict=False):
            axes.plot(*at[games == game].T, ".", color=colour, label=game, markersize=4, alpha=0.7)
        axes.set_xticks([])
        axes.set_yticks([])
        axes.legend(frameon=False, labelcolor=GREY)
        plots.append(_svg(figure))
    return plots


def _curve_plots(metrics: list[dict[str, Any]]) -> list[Markup]:
    """Loss and agreement with the teacher over the updates."""
    plots: list[Markup] = []
    for key, title, y in (
        ("loss", "Loss", "loss"),
        ("agreement", "Agreement with the teacher", "share of states"),
    ):
        if not metrics:
            continue
        figure, axes = _axes(title, "updates", y)
        for name, colour in zip(metrics[0][key], _colours(), strict=False):
            axes.plot(
                [m["update"] for m in metrics],
                [m[key][name] for m in metrics],
                color=colour,
                label=name,
                linewidth=1.2,
            )
        axes.legend(frameon=False, labelcolor=GREY)
        plots.append(_svg(figure))
    return plots


def _colours() -> tuple[str, ...]:
    return COLOURS * 10
