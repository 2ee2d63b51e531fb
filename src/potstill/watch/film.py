"""Scenes as a film: policies side by side from the same seed, what each of them says in bars below its picture."""

import contextlib
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from potstill.errors import PotstillError
from potstill.files import atomic_write
from potstill.policy import Policy
from potstill.tasks import Task
from potstill.tasks.starts import Start
from potstill.watch.scenes import Scene, pace, watch

WIDTH, MARGIN, LINE = 320, 12, 18
"""Of a policy's column, around it, and of a line of text; in pixels."""
BARS = (116, 270)
"""From where to where bars go."""
MAX_ROWS = 18
"""Actions that are shown: all of Atari's."""
BACKGROUND, TEXT, FAINT, BAR, CHOSEN = "#16161c", "#f0f0f0", "#8a8a96", "#4a90d9", "#f5a623"
ENCODERS = {
    ".mp4": "-c:v libx264 -preset medium -crf 23 -pix_fmt yuv420p -movflags +faststart -f mp4",
    ".gif": "-vf split[a][b];[a]palettegen=stats_mode=single[p];[b][p]paletteuse=new=1:dither=none -f gif",
}
"""ffmpeg's options by the kind of file."""


@dataclass(frozen=True)
class Actor:
    """Who is watched."""

    name: str
    policy: Policy
    task: Task


@dataclass(frozen=True)
class Row:
    """An action as it is shown: its share of the bar's room, from where to where, and in figures."""

    name: str
    bar: tuple[float, float]
    spread: tuple[float, float] | None
    """One standard deviation to both sides, of continuous actions."""
    chosen: float | bool
    """Where in the bar's room what was chosen lies; of discrete actions, whether this one was."""
    figure: str


def frames(
    actors: Sequence[Actor], seed: int, episodes: int = 1, starts: Sequence[Start] | None = None
) -> Iterator[Image.Image]:
    """Pictures at the pace of the first one's task, all of a size, sides even.

    Args:
        actors: who is shown, side by side; whoever ends first stays as it is until all have.
        seed: of everybody's starts and chance.
        episodes: how many. After each the last picture stands still for a second.
        starts: where they begin, as for `play_episodes`.

    Raises:
        PotstillError: a task can't be drawn here.
    """
    rate, every = pace(actors[0].task)
    with contextlib.ExitStack() as stack:
        watched = [stack.enter_context(closing(watch(a.policy, a.task, seed, every, starts))) for a in actors]
        for _ in range(episodes):
            scenes = [next(each) for each in watched]
            while not all(scene.ended for scene in scenes):
                yield _compose(actors, scenes)
                scenes = [now if now.ended else next(each) for each, now in zip(watched, scenes, strict=True)]
            last = _compose(actors, scenes)
            for _ in range(round(rate)):
                yield last


def check_name(path: Path) -> None:
    """Check that a film can be called so.

    Raises:
        PotstillError: neither .mp4 nor .gif.
    """
    if path.suffix not in ENCODERS:
        raise PotstillError(f"--out {path}: a film's name ends in .mp4 or .gif")


def write(pictures: Iterable[Image.Image], path: Path, rate: float) -> None:
    """Write a film, atomically.

    Args:
        pictures: of one size, sides even.
        path: .mp4 (H.264) or .gif; what is there is replaced.
        rate: pictures a second.

    Raises:
        PotstillError: it can't be written, or there is no picture.
    """
    check_name(path)
    pictures = iter(pictures)
    picture = next(pictures, None)
    if picture is None:
        raise PotstillError(f"cannot write {path}: there is nothing to show")
    width, height = picture.size
    source = f"-f rawvideo -pix_fmt rgb24 -s {width}x{height} -r {rate} -i - -an".split()
    command = [_ffmpeg(), "-loglevel", "error", "-y", *source, *ENCODERS[path.suffix].split()]
    with (
        atomic_write(path) as file,
        subprocess.Popen(
            [*command, file.name], stdin=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
        ) as process,  # Ctrl-C is ours to handle
    ):
        assert process.stdin is not None
        try:
            with contextlib.suppress(BrokenPipeError):  # why it ended is in its complaint
                process.stdin.write(picture.tobytes())
                for picture in pictures:
                    process.stdin.write(picture.tobytes())
            _, complaint = process.communicate()
        except BaseException:
            process.kill()
            with contextlib.suppress(OSError):
                process.stdin.close()
            raise
        if process.returncode:
            reason = " ".join(complaint.decode(errors="replace").split())[-300:] or f"status {process.returncode}"
            raise PotstillError(f"cannot write {path}: ffmpeg: {reason}")


def _ffmpeg() -> str:
    import imageio_ffmpeg

    try:
        return imageio_ffmpeg.get_ffmpeg_exe()
    except RuntimeError as error:
        raise PotstillError("films need ffmpeg: install it, or set IMAGEIO_FFMPEG_EXE to its path") from error


def rows(actor: Actor, scene: Scene) -> tuple[str, list[Row]]:
    """What a policy says of a moment, as bars, and what they are."""
    policy, outputs = actor.policy, torch.from_numpy(np.asarray(scene.outputs))
    if policy.actions is None:
        shares = (outputs / policy.temperature).softmax(-1).tolist()
        names = actor.task.action_names or [f"action {n}" for n in range(len(shares))]
        title = f"softmax(Q / {policy.temperature:g})" if policy.outputs_are == "q" else "probability"
        return title, [
            Row(name, (0.0, share), None, bool(n == scene.action), f"{share:.2f}")
            for n, (name, share) in enumerate(zip(names, shares, strict=True))
        ]
    means, log_stds = outputs.chunk(2, -1)
    low, high = (np.array(bound) for bound in (policy.actions.low, policy.actions.high))
    stds = log_stds.exp()
    ends = policy.actions.of(torch.stack([means, means - stds, means + stds])).numpy()
    mean, below, above, chosen = ((each - low) / (high - low) for each in (*ends, np.asarray(scene.action)))
    return "mean ± standard deviation", [
        Row(
            f"{n} ({low[n]:g} to {high[n]:g})",
            (0.5, mean[n]),
            (below[n], above[n]),
            float(chosen[n]),
            f"{ends[0][n]:.2f}",
        )
        for n in range(len(mean))
    ]


def _compose(actors: Sequence[Actor], scenes: Sequence[Scene]) -> Image.Image:
    """The columns side by side."""
    columns = [_column(actor, scene) for actor, scene in zip(actors, scenes, strict=True)]
    width, height = len(columns) * (WIDTH + MARGIN) + MARGIN, max(column.height for column in columns) + 2 * MARGIN
    whole = Image.new("RGB", (width, height + height % 2), BACKGROUND)
    for n, column in enumerate(columns):
        whole.paste(column, (MARGIN + n * (WIDTH + MARGIN), MARGIN))
    return whole


def _column(actor: Actor, scene: Scene) -> Image.Image:
    """A policy's name and score, what it sees, what it says."""
    picture = Image.fromarray(scene.picture)
    larger = picture.width < WIDTH  # pixels of games stay square and sharp
    size = (WIDTH, round(picture.height * WIDTH / picture.width))
    picture = picture.resize(size, Image.Resampling.NEAREST if larger else Image.Resampling.BOX)
    title, bars = rows(actor, scene)
    shown = bars[:MAX_ROWS]
    top = LINE + 6 + picture.height + 6
    column = Image.new("RGB", (WIDTH, top + (1 + len(shown)) * LINE), BACKGROUND)
    draw = ImageDraw.Draw(column)
    column.paste(picture, (0, LINE + 6))
    score = f"{scene.score:.1f}".removesuffix(".0") + (", over" if scene.ended else "")
    draw.text((WIDTH, 0), score, CHOSEN if scene.ended else TEXT, _font(14), anchor="ra")
    room = WIDTH - draw.textlength(score, _font(14)) - MARGIN
    draw.text((0, 0), _fitting(actor.name, room), TEXT, _font(14))
    left_out = f", {len(shown)} of {len(bars)} actions" if len(shown) < len(bars) else ""
    draw.text((0, top), title + left_out, FAINT, _font(12))
    for n, row in enumerate(shown, 1):
        _draw_row(draw, row, top + n * LINE)
    return column


def _draw_row(draw: ImageDraw.ImageDraw, row: Row, y: int) -> None:
    left, right = BARS

    def x(share: float) -> float:
        return left + min(max(share, 0.0), 1.0) * (right - left)

    colour = TEXT if row.chosen is False else CHOSEN
    middle = y + LINE / 2
    draw.text((0, middle), row.name, colour if row.spread is None else TEXT, _font(12), anchor="lm")
    draw.rectangle((left, y + 4, right, y + LINE - 5), fill="#2a2a34")
    bar = sorted(map(x, row.bar))
    draw.rectangle((bar[0], y + 4, bar[1], y + LINE - 5), fill=CHOSEN if row.chosen is True else BAR)
    if row.spread is not None:
        draw.line((x(row.spread[0]), middle, x(row.spread[1]), middle), TEXT)
        draw.line((x(row.chosen), y + 1, x(row.chosen), y + LINE - 2), CHOSEN, 2)
    draw.text((WIDTH, middle), row.figure, TEXT, _font(12), anchor="rm")


@cache
def _font(size: int) -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    return ImageFont.load_default(size)


def _fitting(name: str, room: float) -> str:
    """A name, its beginning left out where it is too long."""
    shown = name
    while len(shown) > 1 and _font(14).getlength(shown) > room:
        shown = "…" + shown.lstrip("…")[1:]
    return shown
