"""What Rusu et al. 2016 published: percentages of the DQN teacher's score, by game."""

from statistics import geometric_mean

GAMES = {
    "BeamRider": "Beam Rider",
    "Breakout": "Breakout",
    "Enduro": "Enduro",
    "Freeway": "Freeway",
    "MsPacman": "Ms. Pacman",
    "Pong": "Pong",
    "Qbert": "Q*bert",
    "Riverraid": "Riverraid",
    "Seaquest": "Seaquest",
    "SpaceInvaders": "Space Invaders",
}
"""The paper's ten games, as they are named in ids."""


def task_of(game: str) -> str:
    """The id of its task."""
    return f"ALE/{game}-v5"


Percentages = dict[str, dict[str, float]]
"""Column → game → student's share of its teacher's score."""


def _columns(names: tuple[str, ...], games: dict[str, tuple[float, ...]]) -> Percentages:
    return {name: {game: row[place] for game, row in games.items()} for place, name in enumerate(names)}


LOSSES = _columns(
    ("mse", "nll", "kl"),
    {
        "Breakout": (33.9, 77.6, 94.7),
        "Freeway": (99.4, 101.4, 103.5),
        "Pong": (94.4, 94.9, 100.9),
        "Qbert": (122.2, 147.6, 155.0),
    },
)
"""Table 1: students of the teacher's size."""

_B1 = {
    "BeamRider": (87.1, 85.3, 75.2, 55.2),
    "Breakout": (105.6, 98.1, 78.6, 71.1),
    "Enduro": (142.5, 141.3, 117.1, 128.9),
    "Freeway": (103.5, 103.5, 103.5, 102.9),
    "MsPacman": (102.5, 86.4, 96.2, 89.3),
    "Pong": (100.6, 103.7, 96.9, 99.6),
    "Qbert": (129.6, 130.6, 107.9, 132.9),
    "Riverraid": (109.3, 102.7, 84.1, 106.4),
    "Seaquest": (142.7, 163.5, 137.4, 154.7),
    "SpaceInvaders": (78.6, 49.4, 20.9, 31.8),
}
COMPRESSION = _columns(("net1", "net2", "net3"), {game: row[:3] for game, row in _B1.items()})
"""Table B1."""
MULTITASK_10 = _columns(("kl",), {game: row[3:] for game, row in _B1.items()})
"""Table B1, its last column."""
MULTITASK_3 = _columns(
    ("multi-dqn", "nll", "kl"),
    {"Freeway": (90.3, 102.7, 102.0), "Pong": (74.1, 91.4, 104.4), "Qbert": (86.9, 123.7, 150.1)},
)
"""Table B2."""
GEOMETRIC_MEANS = {
    "compression": {"net1": 108.3, "net2": 101.7, "net3": 83.9},
    "multitask-3": {"multi-dqn": 83.5, "nll": 105.1, "kl": 116.9},
    "multitask-10": {"kl": 89.3},
}
"""Over all of the table's games, as published."""
TABLES = {
    "losses": LOSSES,
    "compression": COMPRESSION,
    "multitask-3": MULTITASK_3,
    "multitask-10": MULTITASK_10,
}


def paper_mean(table: str, column: str, games: list[str]) -> float | None:
    """The paper's geometric mean over these games: published, or of its figures; None where it lacks one of them."""
    figures = TABLES[table][column]
    if figures.keys() == set(games) and table in GEOMETRIC_MEANS:
        return GEOMETRIC_MEANS[table][column]
    return round(geometric_mean(figures[game] for game in games), 1) if figures.keys() >= set(games) else None
