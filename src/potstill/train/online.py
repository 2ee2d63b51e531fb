"""Students that follow a policy which is still learning (online distillation, Rusu et al. 2016).

Whenever the learner's score is a new best, that policy becomes the teacher; after every score the teacher plays an hour
and the students learn from it, in the loop that distils finished teachers. `follow` doesn't ask who the learner is.
"""

import copy
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from potstill.distill import checkpoint
from potstill.distill.learning import cooled
from potstill.distill.loop import distill
from potstill.distill.options import Options
from potstill.distill.plan import Plan, plan
from potstill.distill.state import LoopProgress, State, new_state
from potstill.learners.options import DQNOptions
from potstill.policies import save
from potstill.policy import Policy

HOURS = 1
"""Hours that the teacher plays after each score."""
MEMORY_HOURS = 3.0
"""Hours of play that the students remember: older teachers' play is forgotten."""
FOLDER = "students"


@dataclass(frozen=True)
class Following:
    """What follows, and how much it learns."""

    students: tuple[str, ...] = ()
    """Networks, as `potstill distill --student` takes them; none: nothing follows."""
    updates: int = 2500
    """Updates after each score."""

    def options(self, learner: DQNOptions, checks: int, threads: int) -> Options:
        """The distillation's, for a run of so many scores."""
        return Options(
            self.students,
            hours=HOURS * checks,
            updates=self.updates,
            memory_hours=MEMORY_HOURS,
            seed=learner.seed,
            precision=learner.precision,
            device=learner.device,
            threads=threads,
        )


@dataclass
class Followers:
    """Students, and the policy that is replaced under them; no plan, state or students where nothing follows."""

    plan: Plan | None
    state: State | None
    teacher: Policy
    loop: Iterator[LoopProgress]
    policies: dict[str, Policy] = field(default_factory=dict[str, Policy])
    """The students as they play now, by name."""

    def follow(self, best: Policy, check: int) -> Iterator[LoopProgress]:
        """Learn an hour from the best policy so far.

        Args:
            best: it.
            check: how many scores there have been. What was learnt after this one before a kill isn't learnt again.
        """
        self.teacher.network = best.to(self.teacher.device).network
        if self.state and self.state.hours < check:
            for progress in self.loop:
                if progress.stage == "hour":
                    break
                yield progress
        yield from self._cool()

    def save(self, folder: Path, students: Path) -> None:
        """Save the point to go on from, and the students' policies."""
        if self.plan and self.state:
            checkpoint.save(folder / FOLDER, self.state, self.plan.options)
            for name, policy in self.policies.items():
                save([policy], students / f"{name}.safetensors")

    def load(self, folder: Path) -> Iterator[LoopProgress]:
        """Come back to the point that was saved."""
        if self.plan and self.state:
            checkpoint.load(folder / FOLDER, self.state, self.plan.options)
            yield from self._cool()

    def _cool(self) -> Iterator[LoopProgress]:
        """Let the students play as they would if learning ended here."""
        if (plan := self.plan) and self.state:
            copies = yield from cooled(plan, self.state)
            self.policies = {name: policies[0] for name, policies in copies.items()}


def begin(following: Following, learner: Policy, options: DQNOptions, checks: int, threads: int) -> Followers:
    """Fresh students of a learner.

    Args:
        following: what follows.
        learner: whom they follow; it isn't changed.
        options: of the learner.
        checks: how often it will be scored.
        threads: of emulators and arithmetic.

    Raises:
        PotstillError: a student can't see the task.
    """
    teacher = copy.deepcopy(learner)
    teacher.network.requires_grad_(False)
    if not following.students:
        return Followers(None, None, teacher, iter(()))
    planned = plan(following.options(options, checks, threads), teacher, may_play_ahead=False)
    state = new_state(planned)
    return Followers(planned, state, teacher, distill(planned, state))
