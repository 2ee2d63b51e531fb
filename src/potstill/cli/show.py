"""Progress on stderr, where it is a terminal; results on stdout."""

import json
import shlex
import sys
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any, TypeVar

from PIL.Image import Image
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from rich.table import Table

from potstill.files import read_json
from potstill.machine import cores, machine, versions
from potstill.progress import Progress
from potstill.report.read import deviation, interval, parameters_of_all, percent
from potstill.run_directory import SCHEMA, student_file
from potstill.watch import write

STAGES = {
    "refill": "filling the memory (steps)",
    "train": "training (steps)",
    "play": "playing (steps)",
    "learn": "learning (updates)",
    "cool": "cooling (updates)",
    "evaluate": "evaluating (episodes)",
    "record": "recording (episodes)",
    "observe": "observing (states)",
    "compare": "comparing (tasks)",
    "measure": "measuring",
    "film": "filming (students)",
}
LEFT = ("policy", "runtime", "stage", "unit", "game", "student")
"""Columns of words; numbers end at the right."""
Row = Sequence[str]
"""Of a table; an empty one is a line across."""
T = TypeVar("T")


def show_progress(progress: Iterator[Progress] | Generator[Progress, None, T]) -> T:
    """Drive a run to its end and return what it does; a bar with an ETA for each of its stages.

    What environments print meanwhile goes to stderr: stdout is for results.
    """
    with redirect_stdout(sys.stderr), _bars() as bars:
        rows: dict[str, Any] = {}
        while True:
            try:
                now = next(progress)
            except StopIteration as end:
                return end.value
            if now.stage not in STAGES:
                continue
            if now.stage not in rows:
                rows[now.stage] = bars.add_task(STAGES[now.stage], total=now.total)
            bars.update(rows[now.stage], completed=now.done, total=now.total)


def print_json(command: list[str], threads: int, **said: Any) -> None:
    """One object: what was found, what was typed, and what it depends on."""
    run = {"schema": SCHEMA, "command": command, "versions": versions(), "machine": machine(cores(threads))}
    print(json.dumps({**run, **said}))


def write_under_bar(pictures: Iterable[Image], out: Path, rate: float) -> None:
    """Write a film under a bar."""
    with _bars() as bars:
        write(bars.track(pictures, total=None, description="filming (pictures)"), out, rate)


def show_bench(stages: dict[str, dict[str, Any]]) -> None:
    """The stages' rates beside their limits."""
    rows: list[Row] = []
    for stage, record in stages.items():
        shown = (f"{record[key]:,.0f}" for key in ("rate", "limit"))
        rows.append((stage, *shown, f"{record['fraction']:.2f}", record["unit"]))
    _print_table(_console(), None, ("stage", "rate", "limit", "fraction", "unit"), rows)


def show_score(record: dict[str, Any]) -> None:
    """A policy's score, what it is of a teacher's, and what that shows."""
    score, epsilon = record["score"], record["protocol"]["epsilon"]
    played = f"{score['episodes']} episodes of {record['task']}" + (f" at ε = {epsilon:g}" if epsilon else "")
    share = f", normalised {interval(record['normalised'], 3)}" if "normalised" in record else ""
    print(f"{record['file']}: {interval(score, 2)} over {played}{share}")
    if "statement" in record and not record["statement"]:
        print("  nothing is shown: the teacher isn't surely better than chance")
    if said := record.get("statement"):
        shown = "shown" if said["holds"] else "not shown"
        least = "–" if said["at_least"] is None else f"{said['at_least']:.3f}"
        how = f"at {said['confidence']:g} confidence, one-sided"
        print(f"  keeps at least {said['keep']:g}: {shown} {how} (at least {least})")


def show_result(out: Path, page: Path) -> None:
    """The tables of a finished run, one a task."""
    result = read_json(out / "result.json")
    console = _console()
    for index, teacher in enumerate(result["teachers"]):
        _print_task(console, result, index, teacher)
        if teacher["score"] and all(student["tasks"][index]["normalised"] is None for student in result["students"]):
            one = teacher["score"]["episodes"] == 1
            why = "played one episode, which shows nothing," if one else "isn't surely better than chance"
            console.print(f"{teacher['name']} {why} on {teacher['task']}: nothing to compare with")
    for student in result["students"]:
        if "geometric_mean" in student:
            console.print(
                f"{student['name']}: {interval(student['geometric_mean'], 3)} of its teachers, geometric mean"
            )
    seconds = result["budget"]["seconds"]
    console.print(", ".join(f"{name} {seconds[name]:.0f} s" for name in seconds))
    console.print(f"students  {out / 'students'}\nreport    {page}", soft_wrap=True)


def _print_task(console: Console, result: dict[str, Any], index: int, teacher: dict[str, Any]) -> None:
    score, epsilon = teacher["score"], result["protocol"]["epsilon"]
    played = f"{score['episodes']} episodes each, ε = {epsilon}" if score else "not scored: no --teacher"
    headings = ("policy", "parameters", "size", "score [95 % CI]", "normalised [95 % CI]", "agreement")
    of_all = parameters_of_all(result["teachers"])
    rows: list[Row] = [
        (
            f"teacher ({teacher['network']})",
            f"{teacher['parameters']:,}" if teacher["parameters"] else "–",
            f"{100 * teacher['parameters'] / of_all:.0f} %" if of_all else "–",
            interval(score, 1),
            "1",
            "",
        )
    ]
    for student in result["students"]:
        task = student["tasks"][index]
        rows.append(
            (
                student["name"],
                f"{student['parameters']:,}",
                f"{100 * student['parameters'] / of_all:.1f} %" if of_all else "–",
                interval(task["score"], 1),
                interval(task["normalised"], 3),
                "–" if task["agreement"] is None else f"{100 * task['agreement']:.1f} %",
            )
        )
    _print_table(console, f"{teacher['task']}, {played}", headings, rows)


def show_table(out: Path, page: Path) -> None:
    """A table of the paper, beside ours."""
    result = read_json(out / "result.json")
    console = _console(120)
    if result["table"] == "online":
        for game, of in result["games"].items():
            spread = ", ".join(f"{name} {deviation(value)}" for name, value in of["spread"].items())
            ends = ", ".join(f"{student['name']} {interval(student['relative'], 3)}" for student in of["students"])
            console.print(f"{game}: of the best teacher {ends}; spread of the curves' second halves {spread}")
    else:
        _print_paper(console, result)
    console.print(f"report    {page}", soft_wrap=True)


def _print_paper(console: Console, result: dict[str, Any]) -> None:
    quick = " (quick: it shows that it works, no more)" if result["options"]["quick"] else ""
    columns = list(result["geometric_mean"])
    rows: list[Row] = []
    for row in result["rows"]:
        cells = (_beside_the_paper(row["columns"][column]) for column in columns)
        rows.append((row["game"], interval(row["teacher"]["score"], 1), *cells))
    means = (_beside_the_paper({"relative": mean, **mean}) for mean in result["geometric_mean"].values())
    rows += [(), ("geometric mean", "", *means)]
    title = f"{result['table']}: student / teacher, % [95 % CI], paper's below{quick}"
    _print_table(console, title, ("game", "teacher [95 % CI]", *columns), rows)


def _beside_the_paper(cell: dict[str, Any]) -> str:
    share, paper = cell["relative"], cell["paper"]
    return f"{percent(share if share and 'mean' in share else None)}\n{'–' if paper is None else paper}"


def show_fit(out: Path, page: Path) -> None:
    """Every size that was tried, and the statement."""
    result = read_json(out / "result.json")
    [teacher] = result["teachers"]
    headings = ("student", "parameters", "share kept", "episodes needed", "fresh episodes", "share", "at least")
    rows: list[Row] = []
    for rung in result["fit"]["rungs"]:
        cells = [rung["name"], f"{rung['parameters']:,}"]
        if "share" in rung:
            cells += [f"{rung['share']:.3f}", "–" if rung["needed"] is None else f"{rung['needed']:,}"]
        else:
            hour, look = list(rung["looks"].items())[-1]
            cells += [f"{look['share']:.3f} after {hour} h: dropped", ""]
        if said := rung.get("tested"):
            least = "–" if said["at_least"] is None else f"{said['at_least']:.3f}"
            cells += [str(said["episodes"]), f"{said['share']:.3f}", least]
        rows.append(cells)
    title = f"{teacher['task']}, {teacher['name']}: {teacher['parameters']:,} parameters"
    _print_table(_console(), title, headings, rows)
    print(result["fit"]["statement"])
    if by_hand := result["fit"].get("test_by_hand"):
        print(f"to test it, {shlex.join(by_hand)}")
    if chosen := result["fit"]["chosen"]:
        print(f"student   {out / student_file(chosen)}")
    print(f"report    {page}")


def show_training(out: Path, page: Path) -> None:
    """The curve and the end of a finished training."""
    result = read_json(out / "result.json")
    students = [student["name"] for student in result.get("students", ())]
    headings = ("steps", *(f"{task} [95 % CI]" for task in result["tasks"]), *students, "episodes")
    rows: list[Row] = []
    for point in result["curve"]:
        scores = list(point["scores"].values()) + [point["students"][name] for name in students]
        rows.append((f"{point['steps']:,}", *(interval(score, 1) for score in scores), str(scores[0]["episodes"])))
    best = result["best"]
    scores = list(best["scores"].values()) + [student["score"] for student in result.get("students", ())]
    end = (f"best: {best['steps']:,}", *(interval(score, 1) for score in scores), str(scores[0]["episodes"]))
    title = f"{', '.join(result['tasks'])}: {result['network']}, {result['parameters']:,} parameters"
    console = _console()
    _print_table(console, title, headings, [*rows, (), end])
    if "spread" in result:
        spread = ", ".join(f"{name} {deviation(value)}" for name, value in result["spread"].items())
        console.print(f"spread of the curves' second halves (standard deviation): {spread}")
    console.print(f"best      {out / best['file']}\nreport    {page}", soft_wrap=True)


def show_export(record: dict[str, Any]) -> None:
    """What an export was compared with, and where it is."""
    for task in record["tasks"]:
        print(
            f"{task['task']}: on {task['observations']:,} states of play {100 * task['same_actions']:.2f} % of the best"
            f" actions are the same, outputs differ by {task['largest_difference']:.1e} of the largest at most"
        )
        if "export" in task:
            scores = (f"{name} {interval(task[name], 2)}" for name in ("policy", "export", "difference"))
            print(f"{task['task']}: {', '.join(scores)}, {task['export']['episodes']} episodes each")
    print(f"{record['file']}  {record['bytes']:,} bytes")


def show_costs(costs: dict[str, list[dict[str, Any]]]) -> None:
    """What policies cost, the first one's latency the measure."""
    first = next(iter(costs.values()))[0]["latency_ms"]["p50"]
    sizes: list[Row] = []
    speeds: list[Row] = []
    for name, of in costs.items():
        sizes.append((name, *(f"{of[0][key]:,}" if of[0][key] else "–" for key in ("parameters", "macs", "bytes"))))
        for cost in of:
            p50, p99 = (cost["latency_ms"][key] for key in ("p50", "p99"))
            speed = (f"{p50:.3f}", f"{p99:.3f}", f"{first / p50:.1f}×", f"{cost['throughput']:,.0f}")
            speeds.append((name, cost["runtime"], *speed))
    _print_table(_console(), None, ("policy", "parameters", "multiply-adds", "file, bytes"), sizes)
    title = "one thread; latency of one observation, throughput 256 at a time"
    _print_table(_console(), title, ("policy", "runtime", "p50 ms", "p99 ms", "faster", "observations/s"), speeds)


def _print_table(console: Console, title: str | None, headings: Sequence[str], rows: Sequence[Row]) -> None:
    """A table; where it is too wide for the terminal, without its margins and with intervals below their means."""
    for margin, space in ((1, " "), (0, "\n")):
        table = Table(title=title, padding=(0, margin))
        for heading in headings:
            justify = "left" if heading in LEFT else "right"
            table.add_column(heading.replace(" [", f"{space}["), justify=justify, overflow="fold")
        for row in rows:
            if row:
                table.add_row(*(cell.replace(" [", f"{space}[") for cell in row))
            else:
                table.add_section()
        if console.measure(table, options=console.options.update(max_width=1000)).maximum <= console.width:
            break
    console.print(table)


def _console(width: int = 110) -> Console:
    """stdout, so wide where it is no terminal; names are printed as they are, brackets and all."""
    return Console(width=None if Console().is_terminal else width, markup=False, highlight=False)


def _bars() -> Bars:
    console = Console(stderr=True)
    return Bars(
        TextColumn("{task.description:22}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
    )
