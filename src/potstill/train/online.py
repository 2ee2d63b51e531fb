"""Students that follow a policy which is still learning (online distillation, Rusu et al. 2016).

Whenever the learner's score is a new best, that policy becomes the teacher; after every score the teacher plays an hour
and the students learn from it, in the loop that distils finished teachers. `follow` doesn't ask who the learner is.
"""

import copy
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

from potstill.distill import checkpoint
from potstill.distill.learning import cooled
from potstill.distill.loop import distill
from potstill.distill.options import DistillOptions
from potstill.distill.plan import Plan, check_memory, plan
from potstill.distill.state import LoopProgress, State, new_state
from potstill.learners.options import DQNOptions
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

    def options(self, learner: DQNOptions, checks: int, threads: int) -> DistillOptions:
        """The distillation's, for a run of so many scores."""
        return DistillOptions(
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
    """Students, and the policy that is replaced under them."""

    plan: Plan
    state: State
    teacher: Policy
    loop: Generator[LoopProgress, None, None]

    def follow(self, best: Policy, check: int) -> Generator[LoopProgress, None, dict[str, Policy]]:
        """Learn an hour from the best policy so far.

        Args:
            best: it.
            check: how many scores there have been. What was learnt after this one before a kill isn't learnt again.

        Returns:
            The students by name, as they would play if learning ended here.
        """
        self.teacher.network = best.to(self.teacher.device).network
        if self.state.hours < check:
            for progress in self.loop:
                if progress.stage == "hour":
                    break
                yield progress
        copies = yield from cooled(self.plan, self.state)
        return {name: policies[0] for name, policies in copies.items()}

    def close(self) -> None:
        """End the loop and its environments."""
        self.loop.close()
        self.state.close()

    def save(self, folder: Path) -> None:
        """Save the point to go on from."""
        checkpoint.save(folder / FOLDER, self.state)

    def load(self, folder: Path, mend: str) -> None:
        """Come back to the point that was saved.

        Raises:
            PotstillError: it is damaged, with the mend.
        """
        checkpoint.load(folder / FOLDER, self.state, mend)


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
    planned = plan(following.options(options, checks, threads), teacher, may_play_ahead=False)
    check_memory(planned)
    state = new_state(planned)
    return Followers(planned, state, teacher, distill(planned, state))
