"""One HTML page of a run or of several: what was distilled, scores, sizes, cost, every episode; a training's curve."""

import base64
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from potstill.files import read_json, write_bytes
from potstill.report import plots
from potstill.report.read import as_runs_write_it, environment, inside, parameters_of_all, read_metrics, read_result

MAX_VIDEO = 32 * 2**20
"""Bytes of a video that goes into a page."""


@dataclass(frozen=True)
class Section:
    """A run's part of the page."""

    run: str
    """Its folder's name."""
    title: str
    body: Markup
    rows: list[dict[str, Any]]
    """Its policies, for the summary of several runs: "run", "task", "policy", "parameters", "score", "normalised"."""


def write_report(*runs: Path, out: Path | None = None) -> Path:
    """Write one self-contained page from the result.json and metrics.jsonl of finished runs.

    Args:
        runs: their folders.
        out: the page; default: `report.html` in the run's folder, or in the current folder for several runs.

    Returns:
        The page's path.

    Raises:
        PotstillError: a run has no result.json of this schema, or the page can't be written.
    """
    out = out or (runs[0] / "report.html" if len(runs) == 1 else Path("report.html"))
    write_bytes(out, make_report({run: read_result(run) for run in runs}))
    return out


def make_report(results: dict[Path, dict[str, Any]]) -> bytes:
    """The page of what the runs in these folders say of themselves; their curves and films are read from there.

    Raises:
        PotstillError: one isn't what a run writes.
    """
    with plots.drawing():
        sections = [_section(run, result) for run, result in results.items()]
        page = environment(autoescape=True).get_template("page.html.jinja")
        rows = [row for section in sections for row in section.rows]
        with as_runs_write_it(next(iter(results))):
            overview = plots.runs(rows) if len(sections) > 1 else None
            return page.render(sections=sections, overview=overview).encode()


def _section(run: Path, result: dict[str, Any]) -> Section:
    """Of whatever made the result."""
    with as_runs_write_it(run):
        if "table" in result:
            title, rows, body = f"{result['table']}: Policy Distillation reproduced", [], _table(result, run)
        elif "curve" in result:
            title, rows, body = f"{', '.join(result['tasks'])} trained", _training_rows(result), _training(result)
        else:
            names = ", ".join(dict.fromkeys(teacher["name"] for teacher in result["teachers"]))
            title, rows, body = f"{names} distilled", _rows(result), _distillation(result, run)
    name = run.resolve().name
    return Section(name, title, Markup(body), [{"run": name, **row} for row in rows])


def _rows(result: dict[str, Any]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for index, teacher in enumerate(result["teachers"]):
        one = {"task": teacher["task"], "policy": f"teacher {teacher['name']}", "parameters": teacher["parameters"]}
        rows.append({**one, "score": teacher["score"], "normalised": None})
        for student in result["students"]:
            played = student["tasks"][index]
            one = {"task": teacher["task"], "policy": student["name"], "parameters": student["parameters"]}
            rows.append({**one, "score": played["score"], "normalised": played["normalised"]})
    return rows


def _training_rows(result: dict[str, Any]) -> list[dict[str, Any]]:
    one = {"policy": "dqn, its best", "parameters": result["parameters"], "normalised": None}
    rows = [{**one, "task": task, "score": score} for task, score in result["best"]["scores"].items()]
    for student in result.get("students", []):
        one = {"task": result["tasks"][0], "policy": student["name"], "parameters": student["parameters"]}
        rows.append({**one, "score": student["score"], "normalised": None})
    return rows


def _distillation(result: dict[str, Any], run: Path) -> str:
    return _render(
        "distillation.html.jinja",
        result,
        tasks=[_task(result, index, run) for index in range(len(result["teachers"]))],
        of_all=parameters_of_all(result["teachers"]),
        curves=plots.learning(read_metrics(run)),
        fit=(fit := result.get("fit")),
        to_use=_to_use(result["students"], fit),
    )


def _to_use(students: list[dict[str, Any]], fit: dict[str, Any] | None) -> dict[str, Any]:
    """The student that the page shows how to use: the smallest; of a fit the one it chose, else the best."""
    if fit:
        best = max((rung for rung in fit["rungs"] if "share" in rung), key=lambda rung: rung["share"])
        students = [student for student in students if student["name"] == (fit["chosen"] or best["name"])]
    return min(students, key=lambda student: student["parameters"])


def _task(result: dict[str, Any], index: int, run: Path) -> dict[str, Any]:
    """What the page shows of one task."""
    teacher = result["teachers"][index]
    students = [{**student, "played": student["tasks"][index]} for student in result["students"]]
    videos = [(student["name"], _video(run, student["played"].get("video"))) for student in students]
    random = teacher.get("random", result.get("random"))  # where earlier commits wrote it
    drawn: list[Markup | None] = []
    if teacher["score"]:
        drawn = [plots.episodes(teacher, students, random)]
        drawn += [plots.pareto(teacher, students, by) for by in plots.MEASURES]
        drawn.append(plots.agreement_by_action(students))
    return {
        "teacher": teacher,
        "students": students,
        "random": random,
        "plots": [plot for plot in drawn if plot],
        "videos": [(name, video) for name, video in videos if video],
        "no_video": next((why for student in students if (why := student["played"].get("no_video"))), None),
    }


def _video(run: Path, name: str | None) -> str | None:
    """A video of the run's folder as a data URI; None where there is none, or it is too large for a page."""
    path = inside(run, name, ".mp4") if name else None
    if path is None or path.stat().st_size > MAX_VIDEO:
        return None
    return "data:video/mp4;base64," + base64.b64encode(path.read_bytes()).decode()


def _training(result: dict[str, Any]) -> str:
    drawn = [plots.training(result, task) for task in result["tasks"]]
    return _render("training.html.jinja", result, plots=drawn, students=result.get("students", []))


def _table(result: dict[str, Any], run: Path) -> str:
    if result["table"] == "online":
        drawn = [
            plots.training({**of, "tasks": [f"ALE/{game}-v5"]}, f"ALE/{game}-v5")
            for game, of in result["games"].items()
        ]
        return _render("online.html.jinja", result, plots=drawn)
    picture = run / "activations.json"
    drawn = [plots.paper(result)]
    drawn += plots.activations(read_json(picture)) if picture.exists() else []
    return _render("table.html.jinja", result, plots=drawn)


def _render(template: str, result: dict[str, Any], **values: Any) -> str:
    command = shlex.join(result["command"])
    return environment(autoescape=True).get_template(template).render(result=result, command=command, **values)
