"""Which of a foreign file's outputs a policy plays by, and what it means: its name says so, or nothing does."""

from potstill.policy import Meaning
from potstill.tasks import Task

NAMED: dict[str, Meaning] = {
    "logits": "logits",
    "action_logits": "logits",
    "q": "q",
    "q_values": "q",
    "qvalues": "q",
    "q_value": "q",
    "mean": "gaussian",
    "mean_actions": "gaussian",
    "actions": "logits",
    "action": "logits",
}
"""Best first. "actions" are what a policy chose, or logits."""


def choose_output(names: list[str], task: Task) -> tuple[str, Meaning]:
    """The output's name and what it means for the task; where none has a telling name, the first, taken for logits."""
    known = {name.lower(): name for name in reversed(names)}
    telling = next((name for name in NAMED if name in known), None)
    if task.bounds is not None:
        meaning: Meaning = "gaussian"
    else:
        meaning = "q" if telling and NAMED[telling] == "q" else "logits"
    return known[telling] if telling else names[0], meaning
