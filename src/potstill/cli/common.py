"""What several commands need."""

import shlex
import sys
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Annotated, TypeVar

import tyro

from potstill.choices import Act
from potstill.errors import PotstillError

if TYPE_CHECKING:
    from potstill.policy import Policy
    from potstill.tasks import Task

T = TypeVar("T")
Flat = Annotated[T, tyro.conf.arg(name="")]
"""Options that stand among a command's own in its help."""
Several = Annotated[tuple[T, ...], tyro.conf.Positional, tyro.conf.arg(help_behavior_hint="(at least one)")]
"""What a command is about, named without a flag."""


@contextmanager
def resumable(command: list[str]) -> Generator[None]:
    """On Ctrl-C, say how to go on."""
    try:
        yield
    except KeyboardInterrupt:
        goes_on = "--resume" in command or command[1:2] == ["demo"]  # the demo does by itself
        mend = command if goes_on else [*command, "--resume"]
        print(f"\npotstill: interrupted; go on with: {shlex.join(mend)}", file=sys.stderr)
        sys.exit(130)


def check_out(out: Path, suffix: str, *inputs: Path) -> None:
    """Refuse, before any work, a file that can't be written, isn't called as such a file is, or is one that is read.

    Raises:
        PotstillError: with the mend.
    """
    if out.is_dir():
        raise PotstillError(f"--out {out} is a folder: name a file, as in {out / f'potstill{suffix}'}")
    if out.suffix != suffix:
        raise PotstillError(f"--out {out}: name a file that ends in {suffix}")
    try:
        with TemporaryFile(dir=next(folder for folder in out.absolute().parents if folder.exists())):
            pass
    except OSError as error:
        raise PotstillError(f"--out {out} can't be written ({error.strerror}): name another") from error
    if out.exists() and any(given.exists() and out.samefile(given) for given in inputs):
        raise PotstillError(f"--out {out} is the file that is read: name another")


def say_other_task(policy: "Policy", task: "Task", name: object) -> None:
    """On stderr, if a policy is to play another task than its file says: it is allowed, and often a mistake."""
    if policy.task is not None and policy.task.partition("?")[0] != task.id.partition("?")[0]:
        said = f"potstill: {name} says that it plays {policy.task}; here it plays {task.id}"
        print(printable(said), file=sys.stderr)


def printable(text: str) -> str:
    """Words out of a stranger's file, without what would command the terminal."""
    return "".join(character if character.isprintable() else "?" for character in text)


def load_players(
    files: Sequence[Path],
    wanted: str | None,
    act: Act,
    epsilon: float | None,
    sees: str | None,
    trust: bool,
    device: str = "cpu",
) -> "list[tuple[Path, Policy, Task]]":
    """Every policy in the files, and the task it plays; of a file of several tasks only the one that is wanted.

    Args:
        files: what the user named.
        wanted: a task's id; None: what the files say.
        act: whether they take their best action or draw from their distribution.
        epsilon: probability of a random action; None: the task's own.
        sees: what they see of longer vectors, where their files don't say it.
        trust: run those that are programs.
        device: where they are computed.

    Raises:
        PotstillError: one of them can't be loaded, or can't play so.
    """
    from potstill.policies import check_plays, id_of_task, of_task, sees_time
    from potstill.tasks import make_task
    from potstill.teachers import load_all

    if epsilon is not None and not 0 <= epsilon <= 1:
        raise PotstillError(f"--epsilon {epsilon}: must be from 0 to 1")
    players: list[tuple[Path, Policy, Task]] = []
    for path in files:
        policies = load_all(path, wanted, trust)
        for policy in policies if wanted is None else [of_task(policies, wanted, path)]:
            policy.to(device)
            task_id = id_of_task(policy, wanted, path)
            if act == "sample" and policy.outputs_are == "q":
                raise PotstillError(f"--act sample: {path} has Q-values, no distribution to draw from")
            task = make_task(task_id)
            task = task.under(act=act, epsilon=epsilon, time_feature=sees_time(policy, task))
            if sees is not None and policy.sees is None and _sees_else(policy, task):
                try:
                    policy = policy.seeing(task.parts("--sees", sees), task.observation_shape)
                except PotstillError as error:
                    raise PotstillError(f"{path}, --sees {sees}: {error}") from error
            check_plays(policy, task, str(path))
            say_other_task(policy, task, path)
            players.append((path, policy, task))
    return players


def _sees_else(policy: "Policy", task: "Task") -> bool:
    """Whether a policy sees something else than all that a task shows, in its order."""
    return policy.observation_shape != task.observation_shape or "keys" in policy.provenance
