"""A policy: a network, what its outputs mean, and the task it plays."""

import copy
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, cast, get_args

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Int64, Shaped
from torch import Tensor, nn

from potstill import artifact
from potstill.actions import LOG_STD, Actions, choose, read_actions
from potstill.choices import Act
from potstill.errors import PotstillError, named
from potstill.networks import (
    Foreign,
    GsdeHead,
    Network,
    NetworkSpec,
    Normalize,
    OnArrays,
    Select,
    build,
    num_parameters,
)
from potstill.tasks import Task, make_task
from potstill.tasks.spec import MAX_PARTS

Meaning = Literal["q", "logits", "gaussian"]
"""What the outputs are: action values; the logits of a distribution over actions; or the means, then the logs of the
standard deviations, of a Gaussian over continuous actions."""
TEMPERATURE: dict[Meaning, float] = {"q": 0.01, "logits": 1.0, "gaussian": 1.0}
"""The distillation temperature that outputs ask for: Q-values are sharpened, the others are a distribution already."""
Observations = Shaped[np.ndarray, "batch ..."]


@dataclass
class Policy:
    """Something that plays: observations in, one output an action (continuous: two a dimension)."""

    network: Network | Foreign
    spec: NetworkSpec | str
    """Its network's sizes; or, where that is none of ours, what it is: "onnx", "callable", …"""
    outputs_are: Meaning
    observation_shape: tuple[int, ...]
    observation_dtype: Literal["uint8", "float32"]
    task: str | None = None
    """The id of the task it was trained for, where its file says so."""
    provenance: dict[str, Any] = field(default_factory=dict[str, Any])
    """Where it came from, as JSON."""
    clip: float | None = None
    """Its network begins with `Normalize`, clipped to this; None: it sees observations as they are."""
    sees: tuple[tuple[int, int], ...] | None = None
    """Its network begins with `Select`: from where until before where it sees a vector; None: all of it."""
    actions: Actions | None = None
    """Of a Gaussian policy; None: it chooses from `num_actions`."""

    @classmethod
    def new(
        cls,
        spec: NetworkSpec,
        outputs_are: Meaning,
        observation_shape: tuple[int, ...],
        observation_dtype: Literal["uint8", "float32"],
        num_actions: int,
        sees: tuple[tuple[int, int], ...] | None = None,
        **rest: Any,
    ) -> "Policy":
        """A policy with a freshly initialised network.

        Args:
            spec: its network.
            outputs_are: what they mean.
            observation_shape: of what the task shows.
            observation_dtype: likewise.
            num_actions: to choose from; of a Gaussian, its dimensions.
            sees: where it sees parts of a vector; None: all of it.
            rest: the dataclass's other fields, as task, provenance, clip and actions.

        Raises:
            PotstillError: such a network can't see such observations.
        """
        seen = observation_shape if sees is None else (sum(stop - start for start, stop in sees),)
        network = build(spec, seen, num_actions * (2 if outputs_are == "gaussian" else 1))
        if (observation_dtype == "uint8") != (spec.kind == "cnn"):
            raise PotstillError(f"{spec} can't see {observation_dtype}: a CNN takes frames as bytes, an MLP float32")
        if outputs_are == "gaussian":  # every standard deviation begins at 1
            nn.init.zeros_(network.head.weight[num_actions:])
        policy = cls(network, spec, outputs_are, seen, observation_dtype, **rest)
        if policy.clip is not None:
            policy.normalised(policy.clip)
        return policy if sees is None else policy.seeing(sees, observation_shape)

    @classmethod
    def from_callable(
        cls,
        function: Callable[[Any], Any],
        task: str | Task,
        outputs_are: Meaning | None = None,
        *,
        kind: str = "callable",
        num_parameters: int = 0,
    ) -> "Policy":
        """Anything that can be called, as a policy: to distil, to evaluate, to compare with.

        It plays in this process, and can't be saved.

        Args:
            function: takes a batch of observations as the task shows them, (batch, *observation_shape), uint8 frames or
                float32 vectors: a tensor if it is an `nn.Module` (which is set to evaluate), else a NumPy array. It
                returns Q-values or logits, (batch, actions); or the actions themselves, integers (batch,); or, where
                actions are continuous, (batch, dimensions) of them; or means followed by log standard deviations.
            task: the task, or its id.
            outputs_are: "q" for Q-values; by default "logits", or "gaussian" where actions are continuous.
            kind: what to call it in results.
            num_parameters: of it, if it is no `nn.Module`.

        Raises:
            PotstillError: the task can't be made, or the function can't be called so.
        """
        task = make_task(task) if isinstance(task, str) else task
        continuous = task.bounds is not None
        outputs_are = outputs_are or ("gaussian" if continuous else "logits")
        if outputs_are not in TEMPERATURE:
            raise PotstillError(f"{kind}: outputs can't be {outputs_are!r}, but {', '.join(TEMPERATURE)}")
        if (outputs_are == "gaussian") != continuous:
            kinds = "continuous" if continuous else "discrete"
            raise PotstillError(f"{kind}: outputs can't be {outputs_are}, {task.id} has {kinds} actions")
        module = function.eval() if isinstance(function, nn.Module) else OnArrays(function)
        network = _probed(module, task, kind, num_parameters)
        actions = task.bounds and Actions(*task.bounds, squashed=False)
        shape, dtype = task.observation_shape, task.observation_dtype
        return cls(network, kind, outputs_are, shape, dtype, task.id, {"format": kind}, actions=actions)

    @property
    def is_ours(self) -> bool:
        """Whether its network is of this package: then it can be saved, and sent to other processes."""
        return isinstance(self.network, Network)

    @property
    def thread_safe(self) -> bool:
        """Whether several threads may ask it at once."""
        return isinstance(self.network, Network) or self.network.thread_safe

    @property
    def ours(self) -> Network:
        """Its network, which must be of this package."""
        assert isinstance(self.network, Network)
        return self.network

    def seeing(self, sees: tuple[tuple[int, int], ...], observation_shape: tuple[int, ...]) -> "Policy":
        """The same policy, seeing parts of longer vectors; they share their weights.

        Raises:
            PotstillError: the parts aren't as long as what it sees, or it sees parts already.
        """
        if self.sees is not None:
            raise PotstillError("the policy's file says already which parts it sees")
        if (length := sum(stop - start for start, stop in sees),) != self.observation_shape:
            raise PotstillError(f"the policy sees {self.observation_shape}, the chosen parts are {length} numbers")
        if isinstance(self.network, Foreign):
            network = self.network.behind(Select(sees))
        else:
            network = Network(nn.Sequential(Select(sees), *self.network.trunk), self.network.head)
        return replace(self, network=network, sees=sees, observation_shape=observation_shape)

    def normalised(self, clip: float) -> "Policy":
        """Let the network begin with `Normalize`, statistics 0 and 1; returns self."""
        self.ours.trunk.insert(0, Normalize(self.observation_shape[0], clip))
        self.clip = clip
        return self

    @property
    def num_actions(self) -> int:
        """How many there are to choose from; or, of a continuous action, its dimensions."""
        return self.network.num_outputs // (1 if self.actions is None else 2)

    @property
    def time_feature(self) -> bool | None:
        """Whether its last input is the share of the time limit that is left (`Protocol.time_feature`)."""
        return self.provenance.get("time_feature") is True or None

    @property
    def num_parameters(self) -> int:
        return num_parameters(self.network)

    @property
    def temperature(self) -> float:
        """The distillation temperature its outputs ask for."""
        return TEMPERATURE[self.outputs_are]

    @property
    def device(self) -> str:
        """Where its network is computed: cpu or cuda."""
        return next(self.network.parameters(), torch.empty(0)).device.type

    def to(self, device: str) -> "Policy":
        """Move the network to a device; returns self."""
        self.network.to(device)
        return self

    def in_bfloat16(self) -> "Policy":
        """A copy that is computed in bfloat16; itself, where its network isn't ours.

        For labels that are logits: 1.4 to 2.1 times as fast, and 1e-5 nats from what float32 gives (docs/log.md).
        Q-values near 1 would be wrong by half a nat after division by τ = 0.01.
        """
        return replace(self, network=copy.deepcopy(self.network).to(torch.bfloat16)) if self.is_ours else self

    @torch.no_grad()
    def outputs(self, observations: Observations) -> Float[Tensor, "batch outputs"]:
        """Q-values, logits, or means and log standard deviations, on the CPU.

        Args:
            observations: (batch, *observation_shape), uint8 frames or float32 vectors.

        Raises:
            PotstillError: the observations have another shape, are no finite numbers, or fractions in place of frames'
                bytes; or a network that isn't ours fails.
        """
        observations = np.asarray(observations)
        if observations.shape[1:] != self.observation_shape:
            raise PotstillError(
                f"the policy sees observations of shape {self.observation_shape}, not {observations.shape[1:]};"
                f" pass a batch: (N, {', '.join(map(str, self.observation_shape))})"
            )
        if self.observation_dtype == "uint8" and observations.dtype.kind == "f":  # scaled ones would all be black
            raise PotstillError(f"the policy sees frames as bytes from 0 to 255, not as {observations.dtype}")
        if self.observation_dtype == "uint8" and observations.dtype != np.uint8 and observations.size:
            lowest, highest = observations.min(), observations.max()
            if not 0 <= lowest <= highest <= 255:
                raise PotstillError(f"the policy sees frames as bytes, not numbers from {lowest} to {highest}")
        given = np.ascontiguousarray(observations, dtype=self.observation_dtype)
        check_finite(given)
        inputs = torch.as_tensor(given)
        try:
            outputs = self.network(inputs.to(self.device)).float().cpu()
        except Exception as error:
            if self.is_ours:
                raise
            reason = named(error)  # a stranger's may raise anything
            raise PotstillError(f"{self.spec} failed on an observation: {reason}") from error
        if self.actions is not None:
            means, log_stds = outputs.chunk(2, -1)
            lowest, highest = self.actions.log_std
            if self.is_ours and isinstance(self.ours.head, GsdeHead):
                highest = LOG_STD[1]  # Stable-Baselines3's SAC ends its other spreads alone
            outputs = torch.cat([means, log_stds.clamp(lowest, highest)], -1)
        return outputs

    def act(
        self,
        observations: Observations,
        epsilon: float = 0.0,
        rng: np.random.Generator | None = None,
        act: Act = "greedy",
    ) -> Int64[np.ndarray, " batch"] | Float32[np.ndarray, "batch actions"]:
        """One action an observation.

        Args:
            observations: (batch, *observation_shape).
            epsilon: probability of a uniformly random action instead.
            rng: where chance comes from; needed to repeat a run.
            act: "greedy" for the best action, "sample" to draw from the policy's distribution.

        Returns:
            (batch,) numbers of actions; or (batch, dimensions) continuous ones, within their bounds.

        Raises:
            PotstillError: as `outputs` does; or ε is no probability, or nothing can be drawn so.
        """
        if not 0 <= epsilon <= 1:
            raise PotstillError(f"epsilon {epsilon}: a probability is from 0 to 1")
        if act not in get_args(Act):
            raise PotstillError(f"act {act!r}: {' or '.join(get_args(Act))}")
        if act == "sample" and self.outputs_are == "q":
            raise PotstillError("act sample: Q-values are no distribution to draw from")
        return self.choose(self.outputs(observations), epsilon, rng or np.random.default_rng(), act)

    def choose(
        self, outputs: Float[Tensor, "batch outputs"], epsilon: float, rng: np.random.Generator, act: Act = "greedy"
    ) -> Int64[np.ndarray, " batch"] | Float32[np.ndarray, "batch actions"]:
        """Actions from outputs, this policy's or another's for the same task."""
        if self.actions is not None:
            return self.actions.choose(outputs, epsilon, rng, act)
        return choose(outputs, epsilon, rng, act)

    def agree(
        self, outputs: Float[Tensor, "batch outputs"], others: Float[Tensor, "batch outputs"]
    ) -> Bool[Tensor, " batch"]:
        """Whether the best actions are the same: continuous ones, within 5 % of their range in every dimension."""
        if self.actions is None:
            return outputs.argmax(-1) == others.argmax(-1)
        return self.actions.same(outputs, others)

    def describe(self) -> dict[str, Any]:
        """What its file says of it, as JSON.

        Raises:
            PotstillError: its network is of a kind that only other files hold.
        """
        if not isinstance(self.network, Network):
            raise PotstillError(f"a policy of kind {self.spec} has no network of ours to save")
        if isinstance(self.network.head, GsdeHead):
            raise PotstillError("gSDE's standard deviations have no place in such a file: distil it first")
        description: dict[str, Any] = {
            "network": str(self.spec),
            "outputs": self.outputs_are,
            "num_actions": self.num_actions,
            "observation": {"shape": list(self.observation_shape), "dtype": self.observation_dtype},
            "task": self.task,
            "provenance": self.provenance,
        }
        if self.actions is not None:
            description["actions"] = asdict(self.actions)
        if self.clip is not None:
            description["normalise"] = {"clip": self.clip}
        if self.sees is not None:
            description["sees"] = self.sees
        return description

    def save(self, path: str | Path) -> None:
        """Write one .safetensors file, atomically.

        Raises:
            PotstillError: the file can't be written, its name ends otherwise, or the network is of a kind that only
                other files hold.
        """
        try:
            description = self.describe()
        except PotstillError as error:
            raise PotstillError(f"cannot write {path}: {error}") from error
        artifact.write(Path(path), description, dict(self.network.state_dict()))

    @classmethod
    def skeleton(cls, description: dict[str, Any]) -> "Policy":
        """The described policy, without memory for its weights: a header can ask for any size.

        Raises:
            KeyError, TypeError, ValueError, PotstillError: it describes none.
        """
        shape, dtype = description["observation"]["shape"], description["observation"]["dtype"]
        if not all(type(side) is int and 0 < side <= 4096 for side in shape) or not 1 <= len(shape) <= 3:
            raise ValueError(f"observation shape {shape}")
        if dtype not in ("uint8", "float32"):
            raise ValueError(f"observation dtype {dtype}")
        if not isinstance(description["network"], str):
            raise ValueError(f"network {description['network']}")
        if description["outputs"] not in TEMPERATURE:
            raise ValueError(f"outputs {description['outputs']}")
        num_actions = description["num_actions"]
        if type(num_actions) is not int or not 1 <= num_actions <= 4096:
            raise ValueError(f"num_actions {num_actions}")
        actions = None
        if description["outputs"] == "gaussian":
            actions = read_actions(description["actions"], num_actions)
        task, provenance = description["task"], description["provenance"]
        # Gymnasium imports what stands before a colon in an id: a file may not ask for that.
        if not (task is None or (isinstance(task, str) and ":" not in task)) or not isinstance(provenance, dict):
            raise ValueError(f"task {str(task)[:60]!r} or provenance")
        clip = description["normalise"]["clip"] if "normalise" in description else None
        if clip is not None and not (isinstance(clip, int | float) and 0 < clip < 1e30 and len(shape) == 1):
            raise ValueError(f"normalise {str(clip)[:60]}")
        sees = _read_ranges(description["sees"], shape) if "sees" in description else None
        with torch.device("meta"):
            return cls.new(
                NetworkSpec.parse(description["network"]),
                description["outputs"],
                tuple(shape),
                dtype,
                num_actions,
                sees,
                task=task,
                provenance=cast(dict[str, Any], provenance),
                clip=clip,
                actions=actions,
            )


def check_finite(observations: np.ndarray) -> None:
    """Refuse what no network makes anything of.

    Raises:
        PotstillError: an observation is no finite number.
    """
    if observations.dtype.kind == "f" and not np.isfinite(observations).all():
        raise PotstillError("the policy is shown what is no finite number: mend the environment")


def _read_ranges(described: Any, shape: list[int]) -> tuple[tuple[int, int], ...]:
    """Which parts of a vector are seen, from JSON.

    Raises:
        ValueError, TypeError: it describes none.
    """
    ranges = tuple((start, stop) for start, stop in described)
    integers = all(type(end) is int for part in ranges for end in part)
    if not ranges or not integers or len(ranges) > MAX_PARTS or shape[1:]:
        raise ValueError(f"sees {str(described)[:60]}")
    if not all(0 <= start < stop <= shape[0] for start, stop in ranges):
        raise ValueError(f"sees {str(described)[:60]}")
    return ranges


def _probed(function: nn.Module, task: Task, kind: str, num_parameters: int) -> Foreign:
    """A function in a network's place, called once with two observations and, if it won't have them, with one."""
    half_ranges = task.bounds and tuple((high - low) / 2 for low, high in zip(*task.bounds, strict=True))
    complaints: list[str] = []
    for one_by_one in (False, True):
        network = Foreign(function, task.num_outputs, half_ranges, num_parameters, one_by_one)
        try:
            with torch.no_grad():
                network(torch.zeros(2, *task.observation_shape, dtype=getattr(torch, task.observation_dtype)))
            return network
        except Exception as error:  # a stranger's function may raise anything
            complaints.append(named(error))
    raise PotstillError(f"{kind} can't play {task.id}: given observations of {task.observation_shape}: {complaints[0]}")
