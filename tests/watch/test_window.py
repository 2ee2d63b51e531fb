"""The window, on SDL's dummy driver: everything but the screen."""

import sys
import time

import pytest
from PIL import Image

from potstill.errors import PotstillError
from potstill.watch import show
from potstill.watch.scenes import has_display

PICTURES = [Image.new("RGB", (64, 48), (shade, 0, 0)) for shade in range(0, 200, 10)]


@pytest.fixture
def pygame(monkeypatch):
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    return pytest.importorskip("pygame")


def test_pictures_are_shown_at_their_pace(pygame):
    begun = time.monotonic()
    shown = []

    def pictures():
        for picture in PICTURES:
            yield picture
            shown.append(tuple(pygame.display.get_surface().get_at((5, 5)))[:3])

    show(pictures(), 40, "a title")
    assert shown == [picture.getpixel((5, 5)) for picture in PICTURES]
    assert time.monotonic() - begun > 0.4
    assert not pygame.display.get_init()


@pytest.mark.parametrize("how", ["q", "escape", "button"])
def test_it_closes(pygame, how):
    key = {"q": pygame.K_q, "escape": pygame.K_ESCAPE}.get(how)
    event = pygame.event.Event(*((pygame.QUIT,) if key is None else (pygame.KEYDOWN, {"key": key})))
    taken = []

    def pictures():
        for picture in PICTURES:
            taken.append(picture)
            if len(taken) == 3:
                pygame.event.post(event)
            yield picture

    show(pictures(), 1000, "a title")
    assert len(taken) == 3


def test_without_pygame_the_mend_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "pygame", None)
    with pytest.raises(PotstillError, match=r"pip install potstill\[play\], or add --out FILE.mp4"):
        show(iter(PICTURES), 10, "a title")


def test_a_display_that_does_not_answer(pygame, monkeypatch):
    monkeypatch.delenv("SDL_VIDEODRIVER")
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.setenv("DISPLAY", ":4711")
    with pytest.raises(PotstillError, match="no window can be opened here"):
        show(iter(PICTURES), 10, "a title")


@pytest.mark.skipif(sys.platform in ("darwin", "win32"), reason="there is always one")
def test_where_there_is_a_display(monkeypatch):
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    assert not has_display()
    monkeypatch.setenv("DISPLAY", ":0")
    assert has_display()
