import math
from itertools import islice, pairwise

import imageio_ffmpeg
import numpy as np
import pytest
from PIL import Image

from potstill import Policy, load
from potstill.actions import Actions
from potstill.errors import PotstillError
from potstill.evaluate import random_player
from potstill.networks import NetworkSpec
from potstill.tasks import make_task
from potstill.watch import Actor, Scene, frames, write
from potstill.watch.film import rows

PONG, CARTPOLE, PENDULUM = (make_task(name) for name in ("ALE/Pong-v5", "CartPole-v1", "Pendulum-v1"))
PICTURES = [Image.new("RGB", (64, 48), (shade, 0, 0)) for shade in range(0, 250, 10)]


def left_and_right(picture: Image.Image) -> tuple[np.ndarray, np.ndarray]:
    whole = np.asarray(picture)
    return whole[:, 12:332], whole[:, 344:664]


def test_pong_side_by_side_read_back_from_the_film(teacher_pong, read_film, tmp_path):
    policy = load(teacher_pong)
    actors = [Actor(f"ε {e}", policy, PONG.under(epsilon=e)) for e in (0.05, 1.0)]
    made = list(islice(frames(actors, seed=0), 40))
    first, second = (left_and_right(made[n]) for n in (0, -1))
    name, game = slice(0, 30), slice(40, 450)
    assert (first[0][game] == first[1][game]).all(), "from the same start"
    assert (second[0][game] != second[1][game]).any(), "to somewhere else"
    assert (first[0][name] != first[1][name]).any(), "below their names"
    write(made, tmp_path / "pong.mp4", 15)
    facts, pictures = read_film(tmp_path / "pong.mp4")
    assert (facts["size"], facts["fps"], facts["codec"]) == ((676, 600), 15, "h264")
    assert "yuv420p" in facts["pix_fmt"]
    assert len(pictures) == 40
    assert np.abs(pictures[-1].astype(int) - np.asarray(made[-1])).mean() < 4
    content = (tmp_path / "pong.mp4").read_bytes()
    assert content.index(b"moov") < content.index(b"mdat"), "it begins to play before it is fetched whole"


def test_who_ends_first_stays_as_it_is_and_the_last_picture_stands_still(cartpole_teacher):
    chance = Actor("chance", random_player(CARTPOLE, 1).policy, CARTPOLE.under(epsilon=1.0))
    both = frames([Actor("teacher", cartpole_teacher, CARTPOLE), chance], 0)
    made = [left_and_right(picture) for picture in islice(both, 50)]
    assert all((one[1] == other[1]).all() for one, other in pairwise(made[-5:]))
    assert all((one[0] != other[0]).any() for one, other in pairwise(made[-5:]))
    alone = [np.asarray(picture) for picture in frames([chance], 0, episodes=2)]
    still = [(one == other).all() for one, other in pairwise(alone)]
    assert still.count(True) == 2 * 24  # a second, twice
    assert not still[0]


def test_q_values_are_shown_sharpened_and_the_chosen_action_marked(teacher_pong):
    scene = Scene(np.zeros((2, 2, 3), np.uint8), np.array([1, 1.01, 1, 0, 0, 0], np.float32), 2, 0.0, False)
    title, shown = rows(Actor("", load(teacher_pong), PONG), scene)
    assert title == "softmax(Q / 0.01)"
    assert [row.name for row in shown] == ["NOOP", "FIRE", "RIGHT", "LEFT", "RIGHTFIRE", "LEFTFIRE"]
    shares = [1 / (2 + math.e), math.e / (2 + math.e), 1 / (2 + math.e), 0, 0, 0]
    assert [row.bar[1] for row in shown] == pytest.approx(shares, rel=1e-4)
    assert [row.chosen for row in shown] == [False, False, True, False, False, False]
    assert [row.figure for row in shown] == ["0.21", "0.58", "0.21", "0.00", "0.00", "0.00"]


def test_logits_are_shown_as_probabilities(cartpole_teacher):
    scene = Scene(np.zeros((2, 2, 3), np.uint8), np.array([0, math.log(3)], np.float32), 1, 0.0, False)
    title, shown = rows(Actor("", cartpole_teacher, CARTPOLE), scene)
    assert title == "probability"
    assert [row.figure for row in shown] == ["0.25", "0.75"]


def test_a_gaussian_is_a_bar_from_the_middle_of_its_range():
    actions = Actions((-2.0,), (2.0,), squashed=False)
    policy = Policy.new(NetworkSpec.parse("mlp:4"), "gaussian", (3,), "float32", 1, actions=actions)
    scene = Scene(np.zeros((2, 2, 3), np.uint8), np.array([1, math.log(0.5)], np.float32), np.array([-2.0]), 0, False)
    _, [row] = rows(Actor("", policy, PENDULUM), scene)
    assert row.bar == pytest.approx((0.5, 0.75))
    assert row.spread == pytest.approx((0.625, 0.875))
    assert (row.chosen, row.figure, row.name) == (0.0, "1.00", "0 (-2 to 2)")
    picture = np.asarray(next(frames([Actor("", policy, PENDULUM)], 0)))
    assert picture.shape[0] % 2 == picture.shape[1] % 2 == 0


def test_a_gif(tmp_path):
    write(PICTURES, tmp_path / "a.gif", 10)
    with Image.open(tmp_path / "a.gif") as film:
        assert (film.n_frames, film.size, film.info["duration"]) == (len(PICTURES), (64, 48), 100)
        film.seek(20)
        assert film.convert("RGB").getpixel((5, 5)) == pytest.approx((200, 0, 0), abs=8)


def test_an_interrupted_film_leaves_the_old_one(tmp_path):
    path = tmp_path / "a.mp4"
    path.write_bytes(b"old")

    def pictures():
        yield from PICTURES
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write(pictures(), path, 10)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_what_goes_wrong_is_one_line_and_leaves_nothing(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    wrong = {"file/a.mp4": "cannot write", "a.avi": "ends in .mp4 or .gif", "a.mp4": "nothing to show"}
    for name, message in wrong.items():
        pictures = [] if name == "a.mp4" else PICTURES
        with pytest.raises(PotstillError, match=message):
            write(pictures, tmp_path / name, 10)
    (tmp_path / "ffmpeg").write_text("#!/bin/sh\necho no such codec >&2; exit 1\n")
    (tmp_path / "ffmpeg").chmod(0o755)
    monkeypatch.setattr(imageio_ffmpeg, "get_ffmpeg_exe", lambda: str(tmp_path / "ffmpeg"))
    with pytest.raises(PotstillError, match=r"cannot write .*a.mp4: ffmpeg: no such codec"):
        write(PICTURES * 100, tmp_path / "a.mp4", 10)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ffmpeg", "file"]
