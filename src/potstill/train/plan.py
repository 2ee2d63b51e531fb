"""A training run's options with every default resolved, and checked before any work starts."""

from dataclasses import dataclass
from typing import Any

from potstill.distill.options import name_students
from potstill.distill.plan import sketch
from potstill.distill.schedule import STEPS_PER_HOUR
from potstill.errors import PotstillError, must_be
from potstill.learners.dqn import REPORT_EVERY, UPDATES_AT_A_TIME
from potstill.learners.options import DQNOptions
from potstill.machine import cores, learns_in_bf16, memory_bytes, prepare_device
from potstill.memory import step_bytes
from potstill.networks import NetworkSpec
from potstill.tasks import Task, check_share_a_trunk, make_task
from potstill.train import online


@dataclass(frozen=True)
class Plan:
    """The options with every default resolved."""

    options: DQNOptions
    tasks: tuple[Task, ...]
    network: NetworkSpec
    bf16: bool
    threads: int
    eval_every: int
    eval_episodes: int
    episodes: int
    following: online.Following
    """What learns from the best policy so far all the while."""

    @property
    def checks(self) -> int:
        """How often the policy is scored; the last time at the end."""
        return max(1, self.options.steps // self.eval_every)

    def record(self) -> dict[str, Any]:
        """What decides the weights and the scores, as JSON."""
        return {
            **self.options.record(),
            "algo": "dqn",
            "task": [task.id for task in self.tasks],
            "network": str(self.network),
            "precision": "bf16" if self.bf16 else "fp32",
            "threads": self.threads,
            "eval_every": self.eval_every,
            "eval_episodes": self.eval_episodes,
            "episodes": self.episodes,
            "protocol": self.tasks[0].protocol.record(),
            "distill_online": list(self.following.students),
            "online_updates": self.following.updates,
        }

    @property
    def may_differ(self) -> tuple[str, ...]:
        """What of the record may be another later: a run may be made longer, unless students share its schedule."""
        return ("episodes",) if self.following.students else ("episodes", "steps")


def plan(
    options: DQNOptions,
    task_ids: tuple[str, ...],
    eval_every: int,
    eval_episodes: int,
    episodes: int,
    following: online.Following | None = None,
) -> Plan:
    """Resolve the options and check them, before any work starts.

    Raises:
        PotstillError: something doesn't fit; the message names it.
    """
    options.check()
    prepare_device(options.device)
    if not task_ids:
        raise PotstillError("train: name what to play, for example ALE/Pong-v5")
    if len(set(task_ids)) < len(task_ids):
        raise PotstillError(f"train {' '.join(task_ids)}: a task is named twice")
    following = following or online.Following()
    if following.students:
        if len(task_ids) > 1:
            raise PotstillError("--distill-online: one task at a time")
        if following.updates < 1:
            raise PotstillError(f"--online-updates {following.updates}: must be at least 1")
        if eval_every < (block := shortest_interval(options)):
            raise PotstillError(f"--eval-every {eval_every}: with --distill-online it must be at least {block:.0f}")
    elif following.updates != online.Following.updates:
        raise PotstillError(f"--online-updates {following.updates}: nobody learns online; add --distill-online")
    tasks = tuple(map(make_task, task_ids))
    first = tasks[0]
    for task in tasks:
        if task.bounds is not None:
            raise PotstillError(f"{task.id} has continuous actions, DQN chooses from discrete ones")
    check_share_a_trunk(tasks)
    default = (
        ("dqn" if len(tasks) == 1 else f"multitask-{3 if len(tasks) <= 3 else 10}") if first.is_atari else "mlp:64-64"
    )
    network = NetworkSpec.parse(options.network or default)
    for spec in (network, *map(NetworkSpec.parse, name_students(following.students).values())):
        sketch(spec, first, None)
    followers = int(online.MEMORY_HOURS * STEPS_PER_HOUR) * step_bytes(first) if following.students else 0
    a_step = len(tasks) * step_bytes(first)
    needed = options.memory * a_step + followers
    if needed > (there := memory_bytes(options.device)):
        also = " and the students' play" if followers else ""
        fits = int((0.7 * there - followers) / a_step)
        mend = f"add --memory {fits}" if fits >= options.least_memory else "there is too little for any --memory"
        raise PotstillError(
            f"--memory {options.memory} steps of {len(tasks)} tasks{also} take {needed / 2**30:.0f} GB, this machine"
            f" has {there / 2**30:.0f}: {mend}"
        )
    bf16 = learns_in_bf16(options.precision, options.device, frames=first.is_atari)
    threads = cores(options.threads)
    planned = Plan(options, tasks, network, bf16, threads, eval_every, eval_episodes, episodes, following)
    must_be("at least 1", planned, "eval_every", "eval_episodes", "episodes")
    return planned


def shortest_interval(options: DQNOptions) -> float:
    """Steps between two scores below which one could be passed over: what is played between two progress records."""
    learning = UPDATES_AT_A_TIME * options.batch / options.replay_ratio + options.envs
    return learning + REPORT_EVERY * options.envs
