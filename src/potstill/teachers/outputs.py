"""Which of a foreign file's outputs a policy plays by, and what it means: its name says so, or nothing does."""

from potstill.policy import Meaning
from potstill.tasks import Task

Q_VALUES = ("q", "q_values", "qvalues", "q_value")
TELLING = ("logits", "action_logits", *Q_VALUES, "mean", "mean_actions", "actions", "action")
"""Names of outputs that a policy plays by, best first. "actions" are what it chose, or logits."""


def choose_output(names: list[str], task: Task) -> tuple[str, Meaning]:
    """The output's name and what it means for the task; where none has a telling name, the first, taken for logits."""
    known = {name.lower(): name for name in reversed(names)}
    telling = next((name for name in TELLING if name in known), None)
    meaning: Meaning = "q" if telling in Q_VALUES else "logits"
    if task.bounds is not None:
        meaning = "gaussian"
    return known[telling] if telling else names[0], meaning
