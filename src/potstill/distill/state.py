"""All that changes while the loop runs, and how it begins."""

import copy
import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from potstill.actions import read_actions
from potstill.chance import Stream
from potstill.cuda_graphs import Graphs
from potstill.distill.options import DistillOptions
from potstill.distill.plan import Lesson, Plan
from potstill.distill.schedule import capacity
from potstill.memory import Replay
from potstill.memory.shards import Shards
from potstill.networks import MultiHead, NetworkSpec, drawn_from, fold_batch_norm, with_batch_norm
from potstill.policies import as_one, count_parameters, use
from potstill.policy import Policy
from potstill.progress import Progress
from potstill.tasks import Envs, EpisodeSeeds
from potstill.version import __version__


@dataclass
class Student:
    """A network that learns, for one task or for several."""

    name: str
    policies: list[Policy]
    """One a task, as they were at the end of the last hour: what is saved."""
    learner: MultiHead
    """The policies' network as it learns, batch-normalised or not."""
    optimizer: torch.optim.Optimizer
    loss: str
    """One of LOSSES: what it learns by."""
    graphs: Graphs = field(default_factory=Graphs)
    """Of its updates, on a GPU."""

    def keep(self) -> None:
        """Make the policies what the learner has become."""
        use(self.policies, fold_batch_norm(self.learner))

    @property
    def num_parameters(self) -> int:
        """Of the network that is saved."""
        return count_parameters(self.policies)


@dataclass
class State:
    """All that changes while the loop runs, and so all that a checkpoint holds."""

    envs: list[Envs]
    """A task's each; none where play was recorded before."""
    memories: list[Replay]
    """A task's each."""
    students: list[Student]
    play_rng: np.random.Generator
    sample_rng: np.random.Generator
    hours: int = 0
    """Hours begun and done, the last may be a fraction."""
    updates: int = 0
    shards: Shards = field(default_factory=Shards)
    """Of the memories, that a checkpoint holds already."""
    seconds: dict[str, float] = field(default_factory=lambda: {"play": 0.0, "label": 0.0, "learn": 0.0})
    began: float = field(default_factory=time.perf_counter)
    """When the run began, had it never been interrupted."""

    @property
    def elapsed(self) -> float:
        """Seconds of the run so far; those lost with a killed process apart."""
        return time.perf_counter() - self.began

    def close(self) -> None:
        """End the environments."""
        for envs in self.envs:
            envs.close()


@dataclass(frozen=True)
class LoopProgress(Progress):
    """What the loop is doing. At stage "hour" an hour is complete: the moment to save."""

    hour: int
    losses: dict[str, float] = field(default_factory=dict)
    """Mean loss of each student since the last record."""
    agreement: dict[str, float] = field(default_factory=dict)
    """Share of the minibatches' states on which a student's best action is the teacher's."""


def new_state(plan: Plan) -> State:
    """Environments, empty memories and fresh students, all from the seed."""
    options = plan.options
    rows = max(capacity(options, plan.ahead), plan.protocol.stack)
    play_rng, sample_rng = (np.random.default_rng([options.seed, stream]) for stream in (Stream.PLAY, Stream.SAMPLE))
    students: list[Student] = []
    for index, (name, spec) in enumerate(plan.students.items()):
        with drawn_from(options.seed, Stream.STUDENTS, index):
            policies = [_fresh(spec, plan.losses[name], lesson, plan) for lesson in plan.lessons]
        students.append(_student(name, plan.losses[name], policies, options))
    envs = [
        Envs(lesson.task, options.envs, EpisodeSeeds(options.seed, "training"), plan.threads)
        for lesson in plan.lessons
        if lesson.recording is None
    ]
    memories = [
        Replay(
            rows,
            options.envs,
            lesson.task.observation_shape,
            lesson.task.protocol.stack,
            getattr(torch, lesson.task.observation_dtype),
            lesson.task.num_outputs,
            options.device,
        )
        for lesson in plan.lessons
    ]
    return State(envs, memories, students, play_rng, sample_rng)


def _fresh(spec: NetworkSpec, loss: str, lesson: Lesson, plan: Plan) -> Policy:
    """A policy that is to learn a lesson."""
    options, task, teacher = plan.options, lesson.task, lesson.teacher_record
    actions = teacher.get("actions")
    actions = actions and read_actions(actions, task.num_actions)
    of_all = [other.teacher_record for other in plan.lessons]
    several = len(of_all) > 1
    provenance: dict[str, Any] = {
        "method": "policy distillation (Rusu et al. 2016)",
        "teacher": [other["name"] for other in of_all] if several else teacher["name"],
        "teacher_sha256": [other["sha256"] for other in of_all] if several else teacher["sha256"],
        "loss": loss,
        "temperature": plan.temperatures if several else lesson.temperature,
        "hours": options.hours,
        "seed": options.seed,
        "potstill": __version__,
    }
    if task.protocol.time_feature:
        provenance["time_feature"] = True
    return Policy.new(
        spec,
        teacher["outputs"] if loss == "mse" or actions else "logits",
        task.observation_shape,
        task.observation_dtype,
        task.num_actions,
        plan.student_sees,
        task=task.id,
        provenance=provenance,
        actions=actions,
    )


def _student(name: str, loss: str, policies: list[Policy], options: DistillOptions) -> Student:
    """A student that begins as `policies`, which from now on share the first one's trunk."""
    network = as_one(policies)
    use(policies, network)
    learner = (with_batch_norm(network) if options.batch_norm else copy.deepcopy(network)).to(options.device)
    for policy in policies:
        policy.to(options.device)
    parameters, graphs = list(learner.parameters()), options.device == "cuda"
    rate = torch.zeros((), device=options.device) if graphs else 0.0  # a graph reads it from where it lies
    if options.optimizer == "rmsprop":
        optimizer = torch.optim.RMSprop(parameters, lr=rate, capturable=graphs)
    else:
        optimizer = torch.optim.Adam(parameters, lr=rate, betas=(0.9, 0.99), fused=True, capturable=graphs)
    return Student(name, policies, learner, optimizer, loss)
