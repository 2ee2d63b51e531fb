"""From a teacher to the smallest student that keeps enough of it, with a statement that can be checked.

Students of all sizes learn from one stream of play. Late in it those that are surely far behind are dropped. At
the end all that are left play; those that seem good enough play again, episodes that nothing was chosen by, from the
largest to the smallest until one fails. Each test is at the full level: a student is tested only if the one before it
held, so that one false statement in the whole sequence is as improbable as in one test (a fixed sequence, Maurer et al.
1995; who is in it comes from other episodes, the order from sizes).
"""

import math
import time
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

from potstill.distill.learning import cooled
from potstill.distill.options import DistillOptions
from potstill.distill.plan import Lesson, Plan, plan, sketch
from potstill.distill.result import results
from potstill.distill.run import LEARNT, begin, complete, conclude, go_on, learn_and_save, read_learnt
from potstill.distill.scoring import Played, score
from potstill.distill.state import State, new_state
from potstill.errors import PotstillError
from potstill.evaluate import Player, Score, normalised, random_episodes, random_player, relative, scores
from potstill.files import read_json, write_json
from potstill.fit.options import Goal, ladder
from potstill.fit.statement import (
    MIN_EPISODES,
    Statement,
    check_episodes,
    episodes_needed,
    p_value,
    statement,
)
from potstill.policy import Policy
from potstill.progress import Progress
from potstill.run_directory import as_written, student_file

FIRST_LOOK = 20
"""Episodes of everybody at a first look."""
LATE = 2 / 3
"""Share of the schedule before which nobody is looked at."""
SURE = 0.99
"""Confidence with which a student is behind before it is dropped."""
AFRESH = 1_000_003
"""Added to the seed for the episodes that statements are made on."""


def prepare(options: DistillOptions, goal: Goal) -> Plan:
    """The plan of a fit, checked before any work starts.

    Raises:
        PotstillError: something doesn't fit; the message names it.
    """
    goal.check()
    check_episodes("--max-episodes", goal.max_episodes, goal.keep, goal.confidence)
    if not options.teacher:
        raise PotstillError("fit: name the policy to be replaced with --teacher")
    if len(options.teacher) > 1:
        raise PotstillError("fit: one --teacher at a time")
    if len(options.loss) > 1:
        raise PotstillError(f"--loss {' '.join(options.loss)}: fit compares sizes; name one loss")
    if options.starts != "noop":
        raise PotstillError(f"--starts {options.starts}: there are too few starts to choose by some and test on others")
    if options.episodes < MIN_EPISODES:
        raise PotstillError(f"--episodes {options.episodes}: must be at least {MIN_EPISODES}")
    planned = plan(options)
    if not options.student:
        planned = planned.teaching(ladder(planned.lessons[0].task))
    if taken := {"teacher", "random"} & planned.students.keys():
        raise PotstillError(f"--student {taken.pop()}=…: the name is taken, choose another")
    return planned


def fit(plan: Plan, goal: Goal, out: Path, resume: bool, command: list[str]) -> Iterator[Progress]:
    """Distil, drop, choose, test; write everything to `out`. Complete when the iterator ends.

    Args:
        plan: of `prepare`.
        goal: what the student must keep.
        out: the run directory.
        resume: go on from its checkpoint; where all is learnt, with the scoring.
        command: what was typed, for the record.

    Raises:
        PotstillError: `out` holds another run, or can't be written.
    """
    begin(plan, out, resume, command, {**plan.record(), "fit": goal.record()})
    if not (out / "result.json").exists():
        if not (out / LEARNT).exists():
            yield from _learn(plan, goal, out, resume)
        yield from _conclude(plan, goal, out, command)
    yield from complete(plan, out)


def _learn(plan: Plan, goal: Goal, out: Path, resume: bool) -> Iterator[Progress]:
    """Distil and drop."""
    looks = _read_looks(out) if (out / "looks.json").exists() else {}
    with closing(new_state(plan)) as state:
        _drop(state, looks)
        go_on(state, out, resume)
        if "0" not in looks:
            yield from _look_at_teacher(plan.lessons[0], plan.options, plan.threads, looks, out)
        yield from _look(plan, goal, state, looks, out)  # the last hour's, should the run have been stopped within it
        for progress in learn_and_save(plan, state, out):
            yield progress
            if progress.stage == "hour":
                yield from _look(plan, goal, state, looks, out)


def _conclude(plan: Plan, goal: Goal, out: Path, command: list[str]) -> Iterator[Progress]:
    """Choose, test, and write the result."""
    [lesson], options = plan.lessons, plan.options
    looks = _read_looks(out)
    gone = _gone(looks)
    learnt, students = read_learnt(plan, [name for name in plan.students if name not in gone], out)
    [played] = yield from score(plan, students, out, both_acts=False)
    assert played is not None
    start = time.perf_counter()
    rungs = _rungs(plan, goal, students, played, looks)
    found = yield from _test(lesson, goal, rungs, students, options, plan.threads)
    chosen = next((rung["name"] for rung in reversed(rungs) if rung.get("tested", {}).get("holds")), None)
    fitted = {"seed": options.seed + AFRESH, "chosen": chosen, "statement": _in_words(lesson, goal, rungs, chosen)}
    fitted["test_by_hand"] = _test_by_hand(plan, goal, rungs, out)
    said = _afresh(results(plan, students, [played]), found)
    said["fit"] = {**goal.record(), "rungs": rungs, **fitted}
    played = replace(played, seconds=played.seconds + time.perf_counter() - start)
    conclude(plan, learnt, said, [played], out, command)


def _look_at_teacher(
    lesson: Lesson, options: DistillOptions, threads: int, looks: dict[str, Any], out: Path
) -> Iterator[Progress]:
    """Before anything is learnt: what there is to keep.

    Raises:
        PotstillError: nothing: the teacher isn't surely better than chance.
    """
    found = yield from _play(_players(lesson, {}, FIRST_LOOK), lesson, options.seed, threads)
    if normalised(found["teacher"], found["teacher"], found["random"]) is None:
        raise _nothing_to_keep(lesson, found["teacher"], found["random"])
    looks["0"] = {who: list(score.returns) for who, score in found.items()}
    write_json(out / "looks.json", looks)


def _nothing_to_keep(lesson: Lesson, teacher: Score, random: Score) -> PotstillError:
    means = f"{teacher.mean:.2f} against {random.mean:.2f}"
    name = lesson.teacher_record["name"]
    return PotstillError(f"fit: {name} isn't surely better than chance on {lesson.task.id} ({means}): nothing to keep")


def _shown(lesson: Lesson, goal: Goal, own: Score, teacher: Score, random: Score) -> Statement:
    """What a student is shown to keep.

    Raises:
        PotstillError: chance plays better than the teacher, after all.
    """
    if teacher.mean <= random.mean:
        raise _nothing_to_keep(lesson, teacher, random)
    return statement(own, teacher, random, goal.keep, goal.confidence)


def _look(plan: Plan, goal: Goal, state: State, looks: dict[str, Any], out: Path) -> Iterator[Progress]:
    """After a late hour of play, but the last: drop those surely below half of what they must keep; remember why."""
    hour, options = state.hours, plan.options
    if not LATE <= hour / options.hours < 1 or str(hour) in looks or len(state.students) < 2:
        return
    [lesson] = plan.lessons
    due = goal.keep / 2
    copies = yield from cooled(plan, state)
    players = _players(lesson, {name: policies[0] for name, policies in copies.items()}, FIRST_LOOK)
    players = {who: player for who, player in players.items() if who not in looks["0"]}
    found = yield from _play(players, lesson, options.seed, plan.threads)
    found |= {who: Score(tuple(returns)) for who, returns in looks["0"].items()}
    said: dict[str, Any] = {}
    for student in state.students:
        own, teacher, random = found[student.name], found["teacher"], found["random"]
        share = statement(own, teacher, random, due, goal.confidence).share
        behind = _surely_below(own, teacher, random, due)
        said[student.name] = {"share": share, "due": due, "episodes": FIRST_LOOK, "dropped": behind}
    if all(of["dropped"] for of in said.values()):  # then it is too early to tell
        for of in said.values():
            of["dropped"] = False
    looks[str(hour)] = said
    write_json(out / "looks.json", looks)
    _drop(state, looks)


def _surely_below(student: Score, teacher: Score, random: Score, share: float) -> bool:
    """Whether a student surely keeps less than a share: the statement turned round."""
    turned = (Score(tuple(-value for value in of.returns)) for of in (student, teacher, random))
    return teacher.mean > random.mean and p_value(*turned, keep=share) <= 1 - SURE


def _read_looks(out: Path) -> dict[str, Any]:
    """What was seen on the way, by hour; maybe brought from another machine.

    Raises:
        PotstillError: it is something else.
    """
    with as_written(out / "looks.json"):
        looks: dict[str, Any] = read_json(out / "looks.json")
        for hour, of in looks.items():
            if hour == "0":
                good = {"teacher", "random"} <= of.keys() and all(
                    returns and math.isfinite(sum(returns)) for returns in of.values()
                )
            else:
                good = all(type(said["dropped"]) is bool and math.isfinite(said["share"]) for said in of.values())
            if not good:
                raise ValueError(f"what it says of hour {hour}")
    return looks


def _drop(state: State, looks: dict[str, Any]) -> None:
    gone = _gone(looks)
    state.students = [student for student in state.students if student.name not in gone]


def _gone(looks: dict[str, Any]) -> set[str]:
    """The students that were dropped."""
    return {name for hour, of in looks.items() if hour != "0" for name, said in of.items() if said["dropped"]}


def _rungs(
    plan: Plan, goal: Goal, students: dict[str, list[Policy]], played: Played, looks: dict[str, Any]
) -> list[dict[str, Any]]:
    """Every size, the largest first: what was seen of it, and how many episodes a statement would take."""
    teacher, random = played.scores["teacher"], played.scores["random"]
    rungs: list[dict[str, Any]] = []
    for name, spec in plan.students.items():
        parameters = sketch(spec, plan.lessons[0].task, plan.student_sees).num_parameters
        rung: dict[str, Any] = {"name": name, "spec": str(spec), "parameters": parameters}
        rung["looks"] = {hour: of[name] for hour, of in looks.items() if hour != "0" and name in of}
        if name in students:
            own = played.scores[f"student {name}"]
            seen = _shown(plan.lessons[0], goal, own, teacher, random)
            needed = episodes_needed(own, teacher, random, goal.keep, goal.confidence, goal.power)
            rung |= {"share": seen.share, "episodes": seen.episodes, "needed": needed}
        rungs.append(rung)
    return sorted(rungs, key=lambda rung: -rung["parameters"])


def _test(
    lesson: Lesson,
    goal: Goal,
    rungs: list[dict[str, Any]],
    students: dict[str, list[Policy]],
    options: DistillOptions,
    threads: int,
) -> Generator[Progress, None, dict[str, Score]]:
    """Fresh episodes for the students that seem good enough, the largest first; returns everybody's scores."""
    able = [rung for rung in rungs if rung.get("needed") is not None and rung["needed"] <= goal.max_episodes]
    found: dict[str, Score] = {}
    seed, most = options.seed + AFRESH, max((options.episodes, *(rung["needed"] for rung in able)))
    for number, rung in enumerate(able, 1):
        name = rung["name"]
        if not found:
            found = yield from _play(_players(lesson, {}, most), lesson, seed, threads)
        own = _players(lesson, {name: students[name][0]}, max(options.episodes, rung["needed"]))[name]
        found |= yield from _play({name: own}, lesson, seed + number, threads)  # the test takes scores for independent
        said = _shown(lesson, goal, found[name], found["teacher"], found["random"])
        rung["tested"] = {**said.record(), "seed": seed + number, "score": found[name].record()}
        if not said.holds:
            break
    return found


def _afresh(result: dict[str, Any], found: dict[str, Score]) -> dict[str, Any]:
    """`result.json`'s part about policies, with fresh scores where there are any: others were chosen by."""
    if not found:
        return result
    teacher, random = found["teacher"], found["random"]
    result["teachers"][0] |= {"score": teacher.record(), "random": random.record()}
    for student in result["students"]:
        if own := found.get(student["name"]):
            share, ratio = normalised(own, teacher, random), relative(own, teacher)
            student["tasks"][0] |= {
                "score": own.record(),
                "normalised": share and share.record(),
                "relative": ratio and ratio.record(),
                "random": random.mean,
            }
    return result


def _in_words(lesson: Lesson, goal: Goal, rungs: list[dict[str, Any]], chosen: str | None) -> str:
    keep, confidence = (f"{100 * share:g} %" for share in (goal.keep, goal.confidence))
    wanted = f"at least {keep} of the score above chance of {lesson.teacher_record['name']} on {lesson.task.id}"
    tested = [rung for rung in rungs if "tested" in rung]
    if chosen is not None:
        rung = next(rung for rung in tested if rung["name"] == chosen)
        said = rung["tested"]
        order = f", {len(tested)} sizes tested from the largest to the smallest" if len(tested) > 1 else ""
        return (
            f"{chosen} ({rung['parameters']:,} parameters) keeps {wanted}: shown with {confidence} confidence,"
            f" one-sided, on {said['episodes']} episodes of it that no choice was made by{order}. Measured:"
            f" {said['share']:.3f}; at this confidence {said['at_least']:.3f} or more."
        )
    if tested:
        said = tested[0]["tested"]
        able = [rung for rung in rungs if rung.get("needed") is not None and rung["needed"] <= goal.max_episodes]
        left = [rung["name"] for rung in able if "tested" not in rung]
        return (
            f"No size qualifies: {tested[0]['name']} seemed to keep {wanted}, but on {said['episodes']} fresh episodes"
            f" it kept {said['share']:.3f}, which doesn't show it with {confidence} confidence."
            + (f" Smaller ones weren't tested then: {', '.join(left)}." if left else "")
        )
    best = _best(rungs)
    needed = f"it would take {best['needed']:,} episodes" if best["needed"] else "no number of episodes would show more"
    return (
        f"No size qualifies: none seemed to keep {wanted} so clearly that {goal.max_episodes} episodes would show it."
        f" The best, {best['name']}, kept {best['share']:.3f} ({best['episodes']} episodes); {needed}."
    )


def _best(rungs: list[dict[str, Any]]) -> dict[str, Any]:
    return max((rung for rung in rungs if "share" in rung), key=lambda rung: rung["share"])


def _test_by_hand(plan: Plan, goal: Goal, rungs: list[dict[str, Any]], out: Path) -> list[str] | None:
    """The command that makes the test for the best size, where it takes more episodes than were allowed and
    `evaluate` can make it; else None."""
    options = plan.options
    if options.teacher_sees or any("tested" in rung for rung in rungs) or not (best := _best(rungs))["needed"]:
        return None
    command = ["potstill", "evaluate", out / student_file(best["name"]), "--teacher", *options.teacher]
    command += ["--task", plan.lessons[0].task.id, "--act", options.act, "--keep", goal.keep]
    command += ["--confidence", goal.confidence, "--episodes", best["needed"], "--seed", options.seed + AFRESH]
    return [*map(str, command), *(["--trust"] if options.trust else [])]


def _players(lesson: Lesson, students: dict[str, Policy], episodes: int) -> dict[str, Player]:
    assert lesson.teacher is not None
    policies = {"teacher": lesson.teacher, **students}
    players = {name: Player.by_protocol(policy, lesson.task, episodes) for name, policy in policies.items()}
    return players | {"random": random_player(lesson.task, random_episodes(episodes))}


def _play(
    players: dict[str, Player], lesson: Lesson, seed: int, threads: int
) -> Generator[Progress, None, dict[str, Score]]:
    """Everybody's returns, by name."""
    found = yield from scores(list(players.values()), lesson.task, seed, threads)
    return dict(zip(players, found, strict=True))
