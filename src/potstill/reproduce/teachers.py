"""Which teacher there is for each game."""

from contextlib import suppress
from pathlib import Path

from potstill.errors import PotstillError
from potstill.policy import Policy
from potstill.reproduce.paper import GAMES
from potstill.teachers import load_all
from potstill.teachers.hub import SUFFIXES
from potstill.teachers.names import zoo_names


def find_teachers(where: tuple[str, ...]) -> dict[str, Path]:
    """Each game's first teacher in `where`: the zoo, folders or files.

    Raises:
        PotstillError: a folder or a file that was named isn't there, or the file is no teacher of these games.
    """
    found: dict[str, Path] = {}

    def add(path: Path) -> bool:
        games = [game for game in map(_game, load_all(path)) if game]
        for game in games:
            found.setdefault(game, path)
        return bool(games)

    for place in where:
        if place == "zoo":
            for name in zoo_names():
                add(Path(f"zoo:{name}"))
        elif Path(place).is_dir():
            for path in sorted(path for path in Path(place).iterdir() if path.suffix in SUFFIXES):
                with suppress(PotstillError):  # a folder may hold other things
                    add(path)
        elif not add(Path(place)):
            raise PotstillError(f"--teachers {place}: it plays none of {', '.join(GAMES)}")
    return found


def choose(games: tuple[str, ...], known: dict[str, Path], of_paper: tuple[str, ...]) -> tuple[list[str], list[str]]:
    """The games that are played, and, where the user named none, those of the paper that lack a teacher.

    Args:
        games: the user's wish; empty: the paper's.
        known: the teachers there are.
        of_paper: the table's games.

    Raises:
        PotstillError: a game that was wished for has none, or no game is left.
    """
    for game in games:
        if game not in GAMES:
            raise PotstillError(f"--games {game}: the paper's games are {', '.join(GAMES)}")
        if game not in known:
            raise PotstillError(f"--games {game}: no teacher in --teachers, which has {', '.join(known) or 'none'}")
    chosen = list(dict.fromkeys(games)) or [game for game in of_paper if game in known]
    if not chosen:
        raise PotstillError(f"no teacher of {', '.join(of_paper)} in --teachers: name a folder that has some")
    return chosen, [] if games else [game for game in of_paper if game not in known]


def _game(policy: Policy) -> str | None:
    game = (policy.task or "").removeprefix("ALE/").removesuffix("-v5")
    return game if game in GAMES else None
