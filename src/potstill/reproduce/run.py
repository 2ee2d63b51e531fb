"""The runs that a table is made of, one after the other; what is finished isn't done again.

runs/<name>/<run>/        a run directory of `potstill distill` or `potstill train` for each
           /result.json   the table
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from potstill.choices import Loss
from potstill.distill import plan as distillation
from potstill.distill import run as distilling
from potstill.distill.options import DistillOptions
from potstill.distill.schedule import STEPS_PER_HOUR
from potstill.errors import PotstillError, need
from potstill.evaluate import Score, geometric_mean, relative
from potstill.files import read_json, write_json
from potstill.learners.options import DQNOptions
from potstill.machine import made_on, prepare_device
from potstill.progress import Progress
from potstill.reproduce.activations import picture
from potstill.reproduce.options import ReproduceOptions, Table
from potstill.reproduce.paper import GAMES, TABLES, paper_mean, task_of
from potstill.reproduce.teachers import choose, find_teachers
from potstill.run_directory import SCHEMA, student_file
from potstill.train import plan as planning
from potstill.train import run as training
from potstill.train.online import MEMORY_HOURS, Following

MULTITASK = ("multitask-3", "multitask-10")
OF_TRAININGS = ("multitask-3", "online")
OF_ONLINE = ("Pong", "Qbert")
"""Games of the online table, where a user names none; it needs no teachers."""
STUDENTS: dict[Table, tuple[str, ...]] = {
    "losses": ("mse=dqn", "nll=dqn", "kl=dqn"),
    "compression": ("net1", "net2", "net3"),
    "multitask-3": ("nll=multitask-3", "kl=multitask-3"),
    "multitask-10": ("kl=multitask-10",),
}
"""Named as the table's columns are; all learn from the same play."""
LOSSES: dict[Table, tuple[Loss, ...]] = {
    "losses": ("mse", "nll", "kl"),
    "compression": ("kl",),
    "multitask-3": ("nll", "kl"),
    "multitask-10": ("kl",),
}
MOST_HOURS = 10.0
"""Of play remembered (Rusu et al. 2016)."""
UPDATES = {True: 1600, False: 2500}
"""Updates after each hour, where it is quick and where it is not."""
ONLINE_UPDATES = {True: 400, False: 2500}
"""Updates of online students after each score."""
EVALUATIONS = {True: 4, False: 20}
"""Scores on the way of a training."""
EVAL_EPISODES = 10
"""Of each such score."""
FEWEST_ENVS, MOST_ENVS = 10, 60
"""Copies of a game."""
STEPS_OF_A_COPY = 2700
"""What each plays where the hours are few: students lose late games that they never saw (docs/log.md)."""
MULTI_DQN: dict[str, Any] = {"batch": 64, "learning_rate": 1e-4, "ez_greedy": True}
"""Minibatches of 32 learnt more in as many steps of one game (docs/log.md), and 64 are faster; Freeway's first points
come from held actions alone."""
LEAST_STEPS = 20_000
"""Of a training: fewer leave no steps between its scores."""


Job = Callable[[Path, bool, list[str]], Iterator[Progress]]
"""A run of the table: from its folder, whether to resume, and the command, to its progress."""


@dataclass(frozen=True)
class Reproduction:
    """A table to be filled."""

    table: Table
    options: ReproduceOptions
    games: list[str]
    missing: list[str]
    """The paper's games that can't be played here."""
    jobs: dict[str, Job]
    """By the names of their folders."""


def prepare(table: Table, options: ReproduceOptions) -> Reproduction:
    """Find the teachers and plan every run, before any work starts.

    Raises:
        PotstillError: something doesn't fit; the message names it.
    """
    prepare_device(options.device)  # before teachers are loaded: what computes by then would keep its ways
    unused = ("teachers", "hours") if table == "online" else () if table in OF_TRAININGS else ("steps",)
    for name in unused:
        if getattr(options, name) != getattr(ReproduceOptions, name):
            raise PotstillError(f"--{name}: {table} has no use for it; leave it out")
    options = options.resolved()
    if table in OF_TRAININGS and options.starts != "noop":
        raise PotstillError(f"--starts {options.starts}: {table} trains, and trainings are scored from no-op starts")
    if table in OF_TRAININGS and options.steps < LEAST_STEPS:
        raise PotstillError(f"--steps {options.steps}: a training takes {LEAST_STEPS} at least")
    if table == "online":
        for game in options.games:
            if game not in GAMES:
                raise PotstillError(f"--games {game}: the paper's games are {', '.join(GAMES)}")
        games = list(options.games or OF_ONLINE)
        return Reproduction(table, options, games, [], {f"{game}-online": _online(game, options) for game in games})
    teachers = find_teachers(options.teachers)
    of_paper = tuple(dict.fromkeys(game for column in TABLES[table].values() for game in column))
    games, missing = choose(options.games, teachers, of_paper)
    if table in MULTITASK:
        need("the picture of multi-task students", "sklearn", install="potstill[tsne]")
    if table in MULTITASK and len(games) < 2:
        raise PotstillError(f"{table}: {games[0]} is the only game with a teacher; a network for several needs two")
    together = list(map(task_of, games if table in MULTITASK else games[:1]))
    fits = distillation.hours_that_fit(together, options.device, options.threads)
    options = replace(options, memory_hours=options.memory_hours or fits)
    jobs: dict[str, Job] = {}
    for seed in options.seeds:
        if table in MULTITASK:
            of_all = {game: teachers[game] for game in games}
            jobs[f"distilled-{seed}"] = _distillation(of_all, table, seed, options)
        else:
            for game in games:
                jobs[f"{game}-{seed}"] = _distillation({game: teachers[game]}, table, seed, options)
        if table == "multitask-3":
            jobs[f"multi-dqn-{seed}"] = _training(games, seed, options, network="multitask-3")
    return Reproduction(table, options, games, missing, jobs)


def run(reproduction: Reproduction, out: Path, command: list[str]) -> Iterator[tuple[str, Iterator[Progress]]]:
    """Each run's name and progress. What is finished ends at once, if it is this run of these teachers."""
    for name, job in reproduction.jobs.items():
        yield name, job(out / name, True, command)


def _distillation(teachers: dict[str, Path], table: Table, seed: int, options: ReproduceOptions) -> Job:
    given = DistillOptions(
        STUDENTS[table],
        tuple(teachers.values()),
        task=tuple(map(task_of, teachers)),
        loss=LOSSES[table],
        hours=options.hours,
        memory_hours=options.memory_hours or MOST_HOURS,
        updates=UPDATES[options.quick],
        envs=int(np.clip(options.hours * STEPS_PER_HOUR / STEPS_OF_A_COPY, FEWEST_ENVS, MOST_ENVS)),
        play_epsilon=0.15,  # students see what to do after a mistake: docs/log.md
        episodes=options.episodes,
        starts=options.starts,
        seed=seed,
        device=options.device,
        threads=options.threads,
    )
    return partial(distilling.run, distillation.plan(given))


def _online(game: str, options: ReproduceOptions) -> Job:
    following = Following(("net1",) * 3, ONLINE_UPDATES[options.quick])
    fits = distillation.hours_that_fit([task_of(game)], options.device, options.threads, besides=MEMORY_HOURS)
    options = replace(options, memory_hours=options.memory_hours or fits)
    return _training([game], options.seeds[0], options, following=following)


def _training(
    games: list[str],
    seed: int,
    options: ReproduceOptions,
    network: str | None = None,
    following: Following | None = None,
) -> Job:
    tasks = tuple(map(task_of, games))
    held = (options.memory_hours or MOST_HOURS) * STEPS_PER_HOUR
    given = DQNOptions(
        steps=options.steps,
        memory=int(min(DQNOptions.memory, held)),
        network=network,
        learn_after=min(20_000, options.steps // 4),
        explore_steps=min(250_000, options.steps // 2),
        seed=seed,
        device=options.device,
        threads=options.threads,
        **(MULTI_DQN if network else {}),
    )
    shortest = math.ceil(planning.shortest_interval(given)) if following else given.envs
    every = max(options.steps // EVALUATIONS[options.quick], shortest)
    planned = planning.plan(given, tasks, every, EVAL_EPISODES, options.episodes, following)
    return partial(training.run, planned)


def collect(reproduction: Reproduction, out: Path, command: list[str]) -> None:
    """Write the table's `result.json` from its finished runs, and the data of its picture."""
    options, table = reproduction.options, reproduction.table
    results = {name: read_json(out / name / "result.json") for name in reproduction.jobs}
    body = _online_rows(reproduction, results) if table == "online" else _rows(reproduction, results)
    first = next(iter(results.values()))
    result = {
        "schema": SCHEMA,
        "command": command,
        "table": table,
        "options": options.record(),
        "versions": first["versions"],
        **made_on(
            one
            for result in results.values()
            for one in (result["machine"], *result.get("scored_on", ()), *result.get("also_on", ()))
        ),
        "protocol": first["protocol"],
        "missing": reproduction.missing,
        **body,
        "runs": {name: result["budget"] for name, result in results.items()},
    }
    if table in MULTITASK:
        seed = options.seeds[0]
        student = out / f"distilled-{seed}" / student_file("kl")
        picture(student, out / "activations.json", seed, options.threads)
    write_json(out / "result.json", result)


def _online_rows(reproduction: Reproduction, results: dict[str, Any]) -> dict[str, Any]:
    kept = ("best", "students", "spread", "curve")
    return {"games": {game: {key: results[f"{game}-online"][key] for key in kept} for game in reproduction.games}}


def _rows(reproduction: Reproduction, results: dict[str, Any]) -> dict[str, Any]:
    """Each game's students beside its teacher, episodes of all seeds together, and their geometric means."""
    table, paper = reproduction.table, TABLES[reproduction.table]
    rows: list[dict[str, Any]] = []
    pairs: dict[str, list[tuple[Score, Score]]] = {column: [] for column in paper}
    for game in reproduction.games:
        teachers: dict[int, dict[str, Any]] = {}  # by seed: all of a seed's runs score it on the same episodes
        columns: dict[str, tuple[Score, list[float]]] = {}
        for column in paper:
            of_seeds: list[Score] = []
            for seed in reproduction.options.seeds:
                of_teacher, of_student = _scores(table, game, column, seed, results)
                if of_teacher:
                    teachers.setdefault(seed, of_teacher)
                of_seeds.append(of_student)
            student = Score(tuple(value for score in of_seeds for value in score.returns))
            columns[column] = (student, [score.mean for score in of_seeds])
        teacher = Score(tuple(value for of in teachers.values() for value in of["score"]["returns"]))
        first = {**next(iter(teachers.values())), "score": teacher.record()}
        row: dict[str, Any] = {"game": GAMES[game], "teacher": first, "columns": {}}
        for column, (student, seeds) in columns.items():
            share = relative(student, teacher)
            pairs[column].append((student, teacher))
            row["columns"][column] = {
                "score": student.record(),
                "of_seeds": seeds,
                "relative": share and share.record(),
                "paper": paper[column].get(game),
            }
        rows.append(row)
    means: dict[str, Any] = {}
    for column, of_games in pairs.items():
        mean = geometric_mean(of_games)
        means[column] = {**(mean.record() if mean else {}), "paper": paper_mean(table, column, reproduction.games)}
    return {"rows": rows, "geometric_mean": means}


def _scores(
    table: Table, game: str, column: str, seed: int, results: dict[str, Any]
) -> tuple[dict[str, Any] | None, Score]:
    """The teacher's record, where the run has one, and the student's score."""
    task = task_of(game)
    if column == "multi-dqn":
        return None, Score(tuple(results[f"multi-dqn-{seed}"]["best"]["scores"][task]["returns"]))
    name = f"distilled-{seed}" if table in MULTITASK else f"{game}-{seed}"
    place = next(i for i, teacher in enumerate(results[name]["teachers"]) if teacher["task"] == task)
    student = next(student for student in results[name]["students"] if student["name"] == column)
    returns = tuple(student["tasks"][place]["score"]["returns"])
    return results[name]["teachers"][place], Score(returns)
