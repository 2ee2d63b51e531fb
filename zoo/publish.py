"""Put a trained teacher into the zoo: its weights in half precision, its curve and every episode, its card.

    python zoo/publish.py runs/freeway

The float16 file plays the 100 episodes that the run ended with, others than those its policy was chosen by, and 20
more without chance. It isn't published if it scores surely less than the run's policy did.
"""

import argparse
import shlex
import tempfile
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import save

from potstill import load
from potstill.cli.show import show_progress
from potstill.evaluate import Player, Score, difference, scores
from potstill.files import sha256, write_bytes, write_json
from potstill.machine import cores
from potstill.report.plots import GREY, PAGE_COLOURS, drawing, training
from potstill.report.read import interval, read_result
from potstill.tasks import make_task

ZOO = Path(__file__).parent
EPISODES = 100
NATURE = {"BeamRider": 6846, "Breakout": 401, "Enduro": 302, "Freeway": 30.3, "MsPacman": 2311, "Pong": 18.9,
          "Qbert": 10596, "Riverraid": 8316, "Seaquest": 5286, "SpaceInvaders": 1976}  # fmt: skip
"""No-op scores of Mnih et al. 2015."""
CARD = """# zoo:{name}

A DQN for {task}: 84×84×4 frames, {actions} actions, {parameters:,} parameters, float16 in
[{name}.safetensors]({name}.safetensors), Apache-2.0.

| | |
|---|---|
| command | `{command}` |
| trained | {steps:,} decisions, {updates:,} updates, {seconds:,.0f} s, {gpu}{threads} of {cores} cores ({processor}) |
| kept | the best of the curve, at {best:,} decisions |
| score, no-op starts, ε = 0.05 | {half}, {episodes} episodes, seed {seed} |
| the run's own, float32 | {full}, {of_run} episodes |
| greedy | {greedy}, 20 episodes, seed {seed} |
| Nature DQN (Mnih et al. 2015), ε = 0.05 | {nature} |

![Scores on the way, with 95 % intervals]({name}.svg)

Every episode of the file is in [{name}.json]({name}.json).
"""


def halved(path: Path) -> bytes:
    """A policy's file in float16."""
    with safe_open(path, framework="pt") as file:
        return save({name: file.get_tensor(name).half() for name in file.keys()}, file.metadata())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    run = parser.parse_args().run
    result = read_result(run)
    [task] = result["tasks"]
    game = task.removeprefix("ALE/").removesuffix("-v5")
    name = game.lower()
    out, seed = ZOO / f"{name}.safetensors", result["seed"]
    content = halved(run / result["best"]["file"])
    with tempfile.TemporaryDirectory() as folder:
        write_bytes(Path(folder) / out.name, content)
        half = load(Path(folder) / out.name)
    players = [Player(half, "greedy", epsilon, episodes) for epsilon, episodes in ((0.05, EPISODES), (0.0, 20))]
    published, greedy = show_progress(scores(players, make_task(task), seed, cores(0)))
    full = Score(tuple(result["best"]["scores"][task]["returns"]))
    if difference(published, full).ci95[1] < 0:
        raise SystemExit(f"{run} scores surely less in float16: publish it as it is")
    write_bytes(out, content)
    with drawing():
        curve = str(training(result, task))
    for colour in PAGE_COLOURS.values():  # there is no page around it
        curve = curve.replace(colour, GREY)
    write_bytes(ZOO / f"{name}.svg", curve.encode())
    there = result["machine"]
    of_half = {"sha256": sha256(out), "seed": seed, "score": published.record(), "greedy": greedy.record()}
    write_json(ZOO / f"{name}.json", {**result, "published": of_half})
    card = CARD.format(
        name=name,
        task=task,
        actions=half.num_actions,
        parameters=half.num_parameters,
        command=shlex.join(word for word in result["command"] if word != "--resume"),  # whoever types it begins
        steps=result["budget"]["steps"],
        updates=result["budget"]["updates"],
        seconds=result["budget"]["seconds"]["total"],
        gpu=f"one {there['gpu']} and " if "--device cuda" in " ".join(result["command"]) else "",
        threads=there["threads"],
        cores=there["cores"],
        processor=there["processor"],
        best=result["best"]["steps"],
        episodes=EPISODES,
        of_run=len(full.returns),
        seed=seed,
        nature=NATURE.get(game, "–"),
        **{key: interval(of.record(), 1) for key, of in (("half", published), ("full", full), ("greedy", greedy))},
    )
    write_bytes(ZOO / f"{name}.md", card.encode())
    print(card)


if __name__ == "__main__":
    main()
