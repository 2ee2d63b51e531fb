"""How often a fit's statement is wrong: it is made again and again, each time on fresh episodes.

    python benchmarks/fit_errors.py runs/fit --teacher my-policy.zip --batches 40 --out fit-errors.json

The student's true share is taken from all episodes together. "At least the true share" is the statement that is easiest
to make wrongly: at 95 % confidence it may come out for 5 of 100 batches. Beside it stands how often the statement that
the fit was asked for comes out.
"""

import argparse
import json
import os
from pathlib import Path

from potstill.evaluate import RANDOM_SHARE, Player, Score, random_player, scores
from potstill.files import read_json, write_json
from potstill.fit.run import AFRESH
from potstill.fit.statement import statement
from potstill.machine import machine, versions
from potstill.tasks import make_task
from potstill.teachers import load


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--teacher", required=True)
    parser.add_argument("--student", help="default: the one that the fit chose")
    parser.add_argument("--batches", type=int, default=40)
    parser.add_argument("--episodes", type=int, default=100)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    result = read_json(options.run / "result.json")
    fit, name = result["fit"], options.student or result["fit"]["chosen"]
    task = make_task(result["teachers"][0]["task"])
    teacher, student = load(options.teacher), load(options.run / "students" / f"{name}.safetensors")
    total, threads = options.batches * options.episodes, os.cpu_count() or 1
    act, epsilon = task.protocol.act, task.protocol.epsilon
    players = [Player(policy, act, epsilon, total) for policy in (student, teacher)]
    players.append(random_player(task, round(total * RANDOM_SHARE)))
    playing = scores(players, task, fit["seed"] + AFRESH, threads)  # none of the fit's own episodes
    while True:
        try:
            next(playing)
        except StopIteration as end:
            found: list[Score] = end.value
            break
    means = [score.mean for score in found]
    true = (means[0] - means[2]) / (means[1] - means[2])

    def batch(score: Score, number: int) -> Score:
        size = len(score.returns) // options.batches
        return Score(score.returns[number * size : (number + 1) * size])

    batches = [[batch(score, number) for score in found] for number in range(options.batches)]
    at_true = [statement(*of, keep=true, confidence=fit["confidence"]) for of in batches]
    at_keep = [statement(*of, keep=fit["keep"], confidence=fit["confidence"]) for of in batches]
    record = {
        "schema": 1,
        "versions": versions(),
        "machine": machine(threads),
        "task": task.id,
        "student": name,
        "batches": options.batches,
        "episodes": options.episodes,
        "confidence": fit["confidence"],
        "true_share": true,
        "wrong": sum(said.holds for said in at_true),
        "keep": fit["keep"],
        "made": sum(said.holds for said in at_keep),
        "at_least": [said.at_least for said in at_true],
    }
    write_json(options.out, record)
    print(json.dumps({key: value for key, value in record.items() if key not in ("versions", "machine", "at_least")}))


if __name__ == "__main__":
    main()
