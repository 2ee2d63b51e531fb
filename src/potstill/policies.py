"""Policies of several tasks in one network and in one file; which task a policy plays."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np

from potstill import artifact
from potstill.errors import PotstillError, in_a_line
from potstill.networks import MultiHead, NetworkSpec, num_parameters
from potstill.policy import Policy
from potstill.tasks import Task

MAX_HEADS = 64
OF_A_HEAD = ("task", "outputs", "num_actions", "actions")
"""What a file says of each task; the rest is true of all."""


def as_one(policies: Sequence[Policy]) -> MultiHead:
    """The network of policies that share a trunk, or that are of the same sizes and shall share the first one's."""
    first = policies[0].spec
    assert isinstance(first, NetworkSpec)
    return MultiHead.join([policy.ours for policy in policies], own=2 * len(first.controller))


def count_parameters(policies: Sequence[Policy]) -> int:
    """Of all of them together. What one of another library's policies says is true of its file."""
    together = len(policies) > 1 and all(policy.is_ours for policy in policies)
    return num_parameters(as_one(policies)) if together else policies[0].num_parameters


def use(policies: Sequence[Policy], network: MultiHead) -> None:
    """Give each policy its part of a network."""
    for index, policy in enumerate(policies):
        policy.network = network.of(index)


def save(policies: Sequence[Policy], path: Path) -> None:
    """Write policies that share a trunk into one .safetensors file, atomically; a single one as `Policy.save` does.

    Raises:
        PotstillError: the file can't be written.
    """
    if len(policies) == 1:
        policies[0].save(path)
        return
    artifact.write(path, describe(policies), dict(as_one(policies).state_dict()))


def describe(policies: Sequence[Policy]) -> dict[str, Any]:
    """What a file says of policies that share a trunk, as JSON; of a single one, what `Policy.describe` does.

    Raises:
        PotstillError: their networks are of a kind that only other files hold.
    """
    descriptions = [policy.describe() for policy in policies]
    if len(policies) == 1:
        return descriptions[0]
    heads = [{key: value for key, value in each.items() if key in OF_A_HEAD} for each in descriptions]
    return {**{key: value for key, value in descriptions[0].items() if key not in OF_A_HEAD}, "heads": heads}


def load(path: Path, metadata: dict[str, str], shapes: dict[str, tuple[int, ...]]) -> list[Policy]:
    """Read a file that `save` or `Policy.save` wrote.

    Args:
        path: the file.
        metadata: of its header.
        shapes: its tensors'.

    Raises:
        PotstillError: it is damaged, of a newer schema, or its tensors don't fit its description.
    """
    description = artifact.read_description(path, metadata)
    policies = skeletons(description, path)
    first = policies[0]
    if len(policies) == 1:
        artifact.fill(first.network, path, shapes, first.spec)
        return policies
    network = as_one(policies)
    artifact.fill(network, path, shapes, first.spec)
    use(policies, network)
    return policies


def skeletons(description: dict[str, Any], path: Path) -> list[Policy]:
    """The policies that `describe` described, without memory for their weights: a file can ask for any size.

    Raises:
        PotstillError: it describes none.
    """
    try:
        heads = _read_heads(description["heads"]) if "heads" in description else [{}]
        policies = [Policy.skeleton({**description, **head}) for head in heads]
        as_one(policies)
    except (KeyError, TypeError, ValueError, PotstillError) as error:
        raise PotstillError(f"{path}: its header does not describe a policy ({error})") from error
    return policies


def of_task(policies: Sequence[Policy], task: str | None, name: str | Path) -> Policy:
    """The policy for a task; a single one is for any.

    Raises:
        PotstillError: there are several and none of them is for it.
    """
    if len(policies) == 1:
        return policies[0]
    for policy in policies:
        if task is not None and policy.task == task:
            return policy
    known = ", ".join(str(policy.task) for policy in policies)
    raise PotstillError(f"{name} plays {known}: name one of them with --task" + (f", not {task}" if task else ""))


def id_of_task(policy: Policy, wanted: str | None, name: object) -> str:
    """What a policy plays: what the user wants, else what its file says.

    Raises:
        PotstillError: neither says it.
    """
    task_id = policy.task if wanted is None else wanted
    if task_id is None:
        raise PotstillError(f"{name} doesn't say what it plays: add --task, for example --task ALE/Pong-v5")
    return task_id


def sees_time(policy: Policy, task: Task) -> bool | None:
    """Whether a policy whose last input is like RL Zoo's time sees it beside all that a task shows."""
    return policy.time_feature if policy.observation_shape != task.observation_shape else None


def check_plays(policy: Policy, task: Task, name: str) -> None:
    """Check that a policy fits a task.

    Raises:
        PotstillError: its observations or actions are others than the task's.
    """
    bounds = policy.actions and (policy.actions.low, policy.actions.high)
    if (policy.actions is None) != (task.bounds is None):
        kinds = {True: "discrete", False: "continuous"}
        raise PotstillError(
            f"{name} has {kinds[policy.actions is None]} actions, {task.id} {kinds[task.bounds is None]} ones: name its"
            " own task with --task"
        )
    if bounds and task.bounds and policy.num_actions == task.num_actions and not np.allclose(bounds, task.bounds):
        raise PotstillError(
            f"{name} acts within {bounds}, {task.id} within {task.bounds}: name its own task with --task"
        )
    if policy.observation_shape != task.observation_shape or policy.num_actions != task.num_actions:
        vectors = len(policy.observation_shape) == 1 == len(task.observation_shape)
        part = vectors and policy.num_actions == task.num_actions and policy.observation_shape < task.observation_shape
        raise PotstillError(
            f"{name} sees {policy.observation_shape} and has {policy.num_actions} actions,"
            f" {task.id} shows {task.observation_shape} and has {task.num_actions}: name its own task with --task"
            + (", or what it sees of this one with --teacher-sees (evaluate: --sees)" if part else "")
        )
    keys, shown = policy.provenance.get("keys"), [key for key, *_ in task.keys]
    if policy.sees is None and shown and isinstance(keys, list) and keys != shown:
        seen = ",".join(map(str, keys))
        raise PotstillError(
            f"{name} sees {in_a_line(seen, 100)} in this order, {task.id} shows {','.join(shown)}: add --teacher-sees"
            f" {in_a_line(seen, 100)} (evaluate: --sees)"
        )
    if policy.observation_dtype != task.observation_dtype:
        raise PotstillError(
            f"{name} sees {policy.observation_dtype} observations, {task.id} shows {task.observation_dtype}: name its"
            " own task with --task"
        )


def _read_heads(described: Any) -> list[dict[str, Any]]:
    """What a header says of each task.

    Raises:
        KeyError, TypeError, ValueError: it is something else.
    """
    heads = [{key: head[key] for key in OF_A_HEAD if key in head} for head in described]
    tasks = {cast(str, head["task"]) for head in heads}
    if not 2 <= len(heads) <= MAX_HEADS or len(tasks) < len(heads) or not all(type(task) is str for task in tasks):
        raise ValueError(f"{len(heads)} heads for {len(tasks)} tasks")
    return heads
