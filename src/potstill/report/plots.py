"""The report's plots: inline SVG whose ink follows the page, light or dark."""

import hashlib
import io
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib
import numpy as np
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, LogLocator, NullLocator

INK, GREY = "#010203", "#808890"
PAGE_COLOURS = {INK: "currentColor", GREY: "var(--quiet)"}
"""What stands in a plot for a colour of the page."""
COLOURS = ("#d1495b", "#2e86ab", "#3a9d5d", "#b07d2b", "#8e5ea2", "#30a0a0", "#7a8b2f", "#d977a8", "#5b6ee1", "#996b5d")
"""Readable on white and on black."""
STYLE: Any = {"svg.fonttype": "none", "svg.hashsalt": "potstill", "font.size": 10, "text.parse_math": False}
"""Text stays text, and a name with dollar signs is no formula."""
WIDTH = 5.0
"""Inches; a phone shows it at about its own size, so that its text is as large as the page's."""
LETTERS = 56
"""In a line of a legend, six of them for a colour and the space beside it."""


@contextmanager
def drawing() -> Iterator[None]:
    """All plots are drawn within: a name in letters that matplotlib's font lacks is no warning, the page's has them."""
    with matplotlib.rc_context(STYLE), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def pareto(teacher: dict[str, Any], students: list[dict[str, Any]], by: str) -> Markup | None:
    """Score against what it costs, with confidence intervals, and a line through what nothing beats in both.

    Args:
        teacher, students: as in result.json, the students with what they `played`.
        by: "parameters", "macs" or "latency".

    Returns:
        None where a cost isn't known.
    """
    label, of = MEASURES[by]
    policies = [teacher, *students]
    if not all(of(policy) for policy in policies):
        return None
    shares = [student["played"]["normalised"] for student in students]
    normalised = all(shares)
    scores = [{"mean": 1.0, "ci95": [1.0, 1.0]}, *shares] if normalised else [s["played"]["score"] for s in students]
    if not normalised:
        scores = [teacher["score"], *scores]
    figure, axes = _axes(
        f"Score against {label.partition(',')[0]}", label, "normalised score" if normalised else "score"
    )
    costs = [float(of(policy)) for policy in policies]
    front = _front(costs, [score["mean"] for score in scores])
    axes.plot(*zip(*front, strict=True), color=GREY, linewidth=1, linestyle="--", label="_front", zorder=1)
    for policy, cost, score, colour in zip(policies, costs, scores, (INK, *_colours()), strict=False):
        low, high = score["ci95"]
        error = [[score["mean"] - low], [high - score["mean"]]]
        name, marker = ("teacher", "s") if policy is teacher else (policy["name"], "o")
        axes.errorbar(cost, score["mean"], error, fmt=marker, color=colour, capsize=3, label=name, zorder=2)
    axes.set_xscale("log")
    axes.set_xlim(min(costs) / 2, max(costs) * 2)
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 3)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(EngFormatter() if by != "latency" else "{x:g}")
    _legend(figure)
    return _svg(figure)


MEASURES: dict[str, Any] = {
    "parameters": ("parameters", lambda policy: policy["parameters"]),
    "macs": ("multiply-adds, for an observation", lambda policy: (policy.get("cost") or {}).get("macs")),
    "latency": (
        "latency, median ms for an observation",
        lambda policy: ((policy.get("cost") or {}).get("latency_ms") or {}).get("p50"),
    ),
}


def _front(costs: list[float], scores: list[float]) -> list[tuple[float, float]]:
    """The points that no other is both cheaper and better than."""
    front: list[tuple[float, float]] = []
    for cost, score in sorted(zip(costs, scores, strict=True), key=lambda point: (point[0], -point[1])):
        if not front or score > front[-1][1]:
            front.append((cost, score))
    return front


def episodes(teacher: dict[str, Any], students: list[dict[str, Any]], random: dict[str, Any] | None) -> Markup:
    """Every episode's return as a dot, the means as lines with their confidence intervals."""
    rows: list[tuple[str, dict[str, Any], str]] = [("teacher", teacher["score"], INK)]
    rows += [(s["name"], s["played"]["score"], c) for s, c in zip(students, _colours(), strict=False)]
    if random:
        rows.append(("random", random, GREY))
    figure, axes = _axes("Every episode", "return", "", height=1.0 + 0.4 * len(rows))
    rng = np.random.default_rng(0)  # vertical jitter only
    for place, (_, score, colour) in enumerate(rows):
        returns = score["returns"]
        jitter = place + rng.uniform(-0.28, 0.28, len(returns))
        axes.plot(returns, jitter, ".", color=colour, alpha=0.4, markersize=5, markeredgewidth=0)
        axes.plot([score["mean"]] * 2, [place - 0.38, place + 0.38], color=colour, linewidth=2)
        axes.plot(score["ci95"], [place] * 2, color=colour, linewidth=2)
    _rows(axes, [name for name, *_ in rows])
    return _svg(figure)


def agreement_by_action(students: list[dict[str, Any]]) -> Markup | None:
    """Of the states where the teacher would take an action, the share where each student would too.

    Returns:
        None where it wasn't counted.
    """
    counted = [
        (student["name"], student["played"].get("agreement_by_action"), colour)
        for student, colour in zip(students, _colours(), strict=False)
    ]
    counted = [(name, [of for of in actions if of["states"]], colour) for name, actions, colour in counted if actions]
    if not counted or not counted[0][1]:
        return None
    actions = counted[0][1]
    figure, axes = _axes(
        "Agreement by the teacher's action", "% of its states", "", height=1.2 + 0.3 * len(actions), x_line=100
    )
    for number, (name, by_action, colour) in enumerate(counted):
        shares = [100 * of["agreed"] / of["states"] for of in by_action]
        places = np.arange(len(shares)) + 0.4 * ((number + 0.5) / len(counted) - 0.5)
        axes.plot(shares, places, "o", color=colour, markersize=6, alpha=0.85, label=name)
    axes.set_xlim(min(axes.get_xlim()[0], 50), 102)
    _rows(axes, [f"{of['name']} ({of['states']:,})" for of in actions])
    axes.grid(axis="y", color=GREY, linewidth=0.5, alpha=0.4)
    _legend(figure)
    return _svg(figure)


def runs(rows: Sequence[dict[str, Any]]) -> Markup | None:
    """The normalised scores of several runs' students, one below the other.

    Args:
        rows: "run", "policy" and "normalised", an estimate or None.
    """
    rows = [row for row in rows if row["normalised"]]
    if not rows:
        return None
    names = list(dict.fromkeys(row["run"] for row in rows))
    figure, axes = _axes("All students", "normalised score", "", height=1.0 + 0.24 * len(rows), x_line=1)
    for place, row in enumerate(rows):
        mean, (low, high) = row["normalised"]["mean"], row["normalised"]["ci95"]
        colour = COLOURS[names.index(row["run"]) % len(COLOURS)]
        axes.errorbar(mean, place, xerr=[[mean - low], [high - mean]], fmt="o", color=colour, markersize=5, capsize=2)
    _rows(axes, [f"{row['run']} · {row['policy']}" for row in rows])
    return _svg(figure)


def training(result: dict[str, Any], task: str) -> Markup:
    """Scores on the way: the learner's, the best so far, and what follows it (Rusu et al. 2016, figure 5)."""
    figure, axes = _axes(task, "control steps", "score")
    curve = result["curve"]
    steps = [point["steps"] for point in curve]
    followed = {s["name"]: [point["students"][s["name"]] for point in curve] for s in result.get("students", [])}
    lines = {"the learner": [point["scores"][task] for point in curve], **followed}
    for (name, scores), colour in zip(lines.items(), _colours(), strict=False):
        means = [score["mean"] for score in scores]
        low, high = zip(*(score["ci95"] for score in scores), strict=True)
        axes.fill_between(steps, low, high, color=colour, alpha=0.15, linewidth=0)
        axes.plot(steps, means, color=colour, label=name, linewidth=1.2, marker=".")
    if len(result["tasks"]) == 1:
        best = np.maximum.accumulate([score["mean"] for score in lines["the learner"]])
        axes.plot(steps, best, color=GREY, label="best so far", linewidth=1, linestyle=":")
    axes.xaxis.set_major_formatter(EngFormatter())
    _legend(figure)
    return _svg(figure)


def paper(result: dict[str, Any]) -> Markup:
    """Each game's students, with confidence intervals; the paper's as hollow diamonds."""
    columns, rows = list(result["geometric_mean"]), result["rows"]
    height = 1.4 + 0.2 * len(rows) * len(columns)
    figure, axes = _axes("Student / teacher", "% of the teacher's score", "", height, x_line=100)
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
    _rows(axes, [row["game"] for row in rows])
    _legend(figure)
    return _svg(figure)


def activations(picture: dict[str, Any]) -> list[Markup]:
    """Where states of each game lie, as the first and the last layer of a multi-task student see them (appendix D)."""
    plots: list[Markup] = []
    for layer, points in picture["layers"].items():
        figure, axes = _axes(f"t-SNE of the {layer}", "", "", height=5)
        at, games = np.array(points), np.array(picture["games"])
        for game, colour in zip(dict.fromkeys(picture["games"]), _colours(), strict=False):
            axes.plot(*at[games == game].T, ".", color=colour, label=game, markersize=4, alpha=0.7)
        axes.set_xticks([])
        axes.set_yticks([])
        _legend(figure)
        plots.append(_svg(figure))
    return plots


def learning(metrics: list[dict[str, Any]]) -> list[Markup]:
    """Loss and agreement with the teacher over the updates."""
    plots: list[Markup] = []
    for key, title, y in (("loss", "Loss", "loss"), ("agreement", "Agreement with the teacher", "share of states")):
        if not metrics:
            continue
        figure, axes = _axes(title, "updates", y)
        for name, colour in zip(metrics[0][key], _colours(), strict=False):
            line = [(m["update"], m[key][name]) for m in metrics if name in m[key]]  # a fit drops students
            axes.plot(*zip(*line, strict=True), color=colour, label=name, linewidth=1.2)
        if key == "loss" and all(value > 0 for m in metrics for value in m[key].values()):
            axes.set_yscale("log")  # the first updates would hide the rest
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 3)))
            axes.yaxis.set_minor_locator(NullLocator())
            axes.yaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_major_formatter(EngFormatter())
        _legend(figure)
        plots.append(_svg(figure))
    return plots


def _axes(title: str, x: str, y: str, height: float = 3.4, x_line: float | None = None) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    axes = figure.subplots()
    axes.set_title(title, color=INK, fontsize=11)
    axes.set_xlabel(x, color=INK)
    axes.set_ylabel(y, color=INK)
    axes.tick_params(color=GREY, labelcolor=INK, which="both")
    axes.patch.set_alpha(0)
    figure.patch.set_alpha(0)
    for side in axes.spines.values():
        side.set_color(GREY)
    axes.spines[["top", "right"]].set_visible(False)
    if x_line is not None:
        axes.axvline(x_line, color=GREY, linewidth=1, linestyle=":")
    return figure, axes


def _rows(axes: Axes, names: list[str]) -> None:
    """Name the rows, the first one at the top."""
    axes.set_yticks(range(len(names)), [name if len(name) <= 28 else f"{name[:27]}…" for name in names])
    axes.set_ylim(len(names) - 0.5, -0.5)


def _legend(figure: Figure) -> None:
    """Below the axes, where it hides nothing."""
    longest = max((len(label) for axes in figure.axes for label in axes.get_legend_handles_labels()[1]), default=0)
    columns = max(1, min(4, LETTERS // (longest + 6)))
    figure.legend(loc="outside lower center", ncols=columns, frameon=False, labelcolor=INK, handlelength=1.2)


def _svg(figure: Figure) -> Markup:
    """An <svg> whose ids are no other plot's, and whose ink and font are the page's."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    svg = buffer.getvalue()
    own = hashlib.sha256(svg.encode()).hexdigest()[:8]
    svg = re.sub(r'( id="| xlink:href="#|url\(#)', rf"\1p{own}-", svg[svg.index("<svg") :])
    svg = re.sub(r"font-family: [^;<]*; ", "", svg)
    for stand_in, colour in PAGE_COLOURS.items():
        svg = svg.replace(stand_in, colour)
    title = escape(figure.axes[0].get_title())
    return Markup(svg.replace("<svg ", f'<svg role="img" aria-label="{title}" ', 1))


def _colours() -> tuple[str, ...]:
    return COLOURS * 10
