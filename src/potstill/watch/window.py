"""A film in a window, while it is made."""

import os
import warnings
from collections.abc import Iterator

from PIL import Image

from potstill.errors import PotstillError


def show(pictures: Iterator[Image.Image], rate: float, title: str) -> None:
    """Show pictures at their pace, until they end or somebody closes the window: by its button, q or Esc.

    Args:
        pictures: of one size.
        rate: pictures a second.
        title: of the window.

    Raises:
        PotstillError: pygame is missing, or there is no display.
    """
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
    try:
        import pygame
    except ImportError as error:
        raise PotstillError("a window needs pygame: pip install potstill[play], or add --out FILE.mp4") from error
    try:
        pygame.display.init()
        if pygame.display.get_driver() in ("offscreen", "dummy") and "SDL_VIDEODRIVER" not in os.environ:
            raise pygame.error("the display doesn't answer")  # SDL would show it to nobody
        pygame.display.set_caption(title)
        clock, window = pygame.time.Clock(), None
        for picture in pictures:
            if window is None:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # there is no fast renderer: it is fast enough
                    window = pygame.display.set_mode(picture.size, pygame.SCALED | pygame.RESIZABLE)
            window.blit(pygame.image.frombuffer(picture.tobytes(), picture.size, "RGB"), (0, 0))
            pygame.display.flip()
            clock.tick(rate)
            for event in pygame.event.get():
                closing = event.type == pygame.KEYDOWN and event.key in (pygame.K_q, pygame.K_ESCAPE)
                if closing or event.type == pygame.QUIT:
                    return
    except pygame.error as error:
        raise PotstillError(f"no window can be opened here ({error}): add --out FILE.mp4") from error
    finally:
        pygame.display.quit()
