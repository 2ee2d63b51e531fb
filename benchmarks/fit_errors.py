"""How often a fit's statement is wrong: it is made again and again, each time on other episodes.

    potstill evaluate STUDENT --teacher TEACHER --task TASK --episodes 4000 --seed 1000004 --json > played.json
    python benchmarks/fit_errors.py played.json --batches 40 --keep 0.95 --out fit-errors.json

The student's true share is taken from all episodes together. "At least the true share" is the statement that is easiest
to make wrongly: at 95 % confidence it may come out for 5 of 100 batches. Beside it stands how often it comes out that
the student keeps `--keep`.
"""

import argparse
import json
from pathlib import Path

from potstill.evaluate import Score, normalised
from potstill.files import read_json, write_json
from potstill.fit.statement import statement


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("played", type=Path)
    parser.add_argument("--batches", type=int, default=40)
    parser.add_argument("--keep", type=float, default=0.95)
    parser.add_argument("--confidence", type=float, default=0.95)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    played = read_json(options.played)
    teacher, student = played["policies"]
    everybody = [Score(tuple(of["returns"])) for of in (student["score"], teacher["score"], teacher["random"])]
    share = normalised(*everybody)
    assert share is not None, "a teacher that isn't surely better than chance"
    true = share.mean
    sizes = [len(score.returns) // options.batches for score in everybody]
    batches = [
        [Score(score.returns[n * size : (n + 1) * size]) for score, size in zip(everybody, sizes, strict=True)]
        for n in range(options.batches)
    ]
    at_true = [statement(*of, keep=true, confidence=options.confidence) for of in batches]
    at_keep = [statement(*of, keep=options.keep, confidence=options.confidence) for of in batches]
    record = {
        "schema": 1,
        "played": {key: played[key] for key in ("command", "seed", "versions")},
        "task": student["task"],
        "student": student["file"],
        "batches": options.batches,
        "episodes": sizes[0],
        "confidence": options.confidence,
        "true_share": true,
        "wrong": sum(said.holds for said in at_true),
        "keep": options.keep,
        "made": sum(said.holds for said in at_keep),
        "at_least": [said.at_least for said in at_true],
    }
    write_json(options.out, record)
    print(json.dumps({key: value for key, value in record.items() if key not in ("played", "at_least")}))


if __name__ == "__main__":
    main()
