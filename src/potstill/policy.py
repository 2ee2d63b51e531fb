"""A policy: a network, what its outputs mean, and the task it plays."""

import copy
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Int64, Shaped
from torch import Tensor, nn

from potstill import artifact
from potstill.errors import PotstillError
from potstill.networks import GsdeHead, NetworkSpec, Normalize, build, num_parameters
from potstill.networks.build import Network
from potstill.tasks.spec import Act

Meaning = Literal["q", "logits", "gaussian"]
"""What the outputs are: action values; the logits of a distribution over actions; or the means, then the logs of the
standard deviations, of a Gaussian over continuous actions."""
TEMPERATURE: dict[Meaning, float] = {"q": 0.01, "logits": 1.0, "gaussian": 1.0}
"""The distillation temperature that outputs ask for: Q-values are sharpened, the others are a distribution already."""
LOG_STD = (-20.0, 2.0)
"""Where the logs of standard deviations end, as in Stable-Baselines3's SAC."""
SAME = 0.05
"""Share of a continuous action's range within which two count as the same."""

Observations = Shaped[np.ndarray, "batch ..."]


@dataclass(frozen=True)
class Actions:
    """How a Gaussian policy's outputs become continuous actions."""

    low: tuple[float, ...]
    high: tuple[float, ...]
    squashed: bool
    """By tanh, then scaled to the bounds (SAC, TD3); otherwise clipped to them (PPO)."""

    def of(self, means: Float[Tensor, "batch actions"]) -> Float[Tensor, "batch actions"]:
        """Actions from means or samples."""
        low, high = (torch.tensor(bound, device=means.device) for bound in (self.low, self.high))
        if self.squashed:
            return low + (means.tanh() + 1) / 2 * (high - low)
        return means.clamp(low, high)

    def choose(
        self, outputs: Float[Tensor, "batch outputs"], epsilon: float, rng: np.random.Generator, act: Act
    ) -> Float32[np.ndarray, "batch actions"]:
        """The mean action or one that is drawn; with probability ε one drawn uniformly from the bounds instead."""
        means, log_stds = outputs.chunk(2, -1)
        if act == "sample":
            means = means + log_stds.exp() * torch.as_tensor(rng.normal(size=means.shape), dtype=means.dtype)
        actions = self.of(means).numpy()
        explore = rng.random(len(actions)) < epsilon
        anywhere = rng.uniform(self.low, self.high, actions.shape)
        return np.where(explore[:, None], anywhere, actions).astype(np.float32)


@dataclass
class Policy:
    """Something that plays: observations in, one output an action (continuous: two a dimension)."""

    network: Network
    spec: NetworkSpec
    outputs_are: Meaning
    observation_shape: tuple[int, ...]
    observation_dtype: Literal["uint8", "float32"]
    task: str | None = None
    """The id of the task it was trained for, where its file says so."""
    provenance: dict[str, Any] = field(default_factory=dict[str, Any])
    """Where it came from, as JSON."""
    clip: float | None = None
    """Its network begins with `Normalize`, clipped to this; None: it sees observations as they are."""
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
        **rest: Any,
    ) -> "Policy":
        """A policy with a freshly initialised network."""
        network = build(spec, observation_shape, num_actions * (2 if outputs_are == "gaussian" else 1))
        if outputs_are == "gaussian":  # every standard deviation begins at 1
            nn.init.zeros_(network.head.weight[num_actions:])
        policy = cls(network, spec, outputs_are, observation_shape, observation_dtype, **rest)
        return policy if policy.clip is None else policy.normalised(policy.clip)

    def normalised(self, clip: float) -> "Policy":
        """Let the network begin with `Normalize`, statistics 0 and 1; returns self."""
        self.network.trunk.insert(0, Normalize(self.observation_shape[0], clip))
        self.clip = clip
        return self

    @property
    def num_actions(self) -> int:
        """How many there are to choose from; or, of a continuous action, its dimensions."""
        return self.network.head.out_features // (1 if self.actions is None else 2)

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
        return self.network.head.weight.device.type

    def to(self, device: str) -> "Policy":
        """Move the network to a device; returns self."""
        self.network.to(device)
        return self

    def in_bfloat16(self) -> "Policy":
        """A copy that is computed in bfloat16.

        For labels that are logits: 1.4 times as fast, and 1e-5 nats from what float32 gives (docs/log.md). Q-values
        near 1 would be wrong by half a nat after division by τ = 0.01.
        """
        return replace(self, network=copy.deepcopy(self.network).to(torch.bfloat16))

    @torch.no_grad()
    def outputs(self, observations: Observations) -> Float[Tensor, "batch actions"]:
        """Q-values, logits, or means and log standard deviations, on the CPU.

        Args:
            observations: (batch, *observation_shape), uint8 frames or float32 vectors.

        Raises:
            PotstillError: the observations have another shape.
        """
        if observations.shape[1:] != self.observation_shape:
            raise PotstillError(
                f"the policy sees observations of shape {self.observation_shape}, not {observations.shape[1:]};"
                f" pass a batch: (N, {', '.join(map(str, self.observation_shape))})"
            )
        inputs = torch.as_tensor(np.asarray(observations, dtype=self.observation_dtype))
        outputs = self.network(inputs.to(self.network.head.weight.device)).float().cpu()
        if self.actions is not None:
            outputs[:, self.num_actions :].clamp_(*LOG_STD)
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
        """
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
        one, other = (self.actions.of(each.chunk(2, -1)[0]) for each in (outputs, others))
        ranges = torch.tensor(self.actions.high) - torch.tensor(self.actions.low)
        return ((one - other).abs() <= SAME * ranges.to(one.device)).all(-1)

    def save(self, path: str | Path) -> None:
        """Write one .safetensors file, atomically.

        Raises:
            PotstillError: the file can't be written, or the network is of a kind that only other files hold.
        """
        description: dict[str, Any] = {
            "network": str(self.spec),
            "outputs": self.outputs_are,
            "num_actions": self.num_actions,
            "observation": {"shape": list(self.observation_shape), "dtype": self.observation_dtype},
            "task": self.task,
            "provenance": self.provenance,
        }
        if isinstance(self.network.head, GsdeHead):
            raise PotstillError(f"cannot write {path}: gSDE's standard deviations have no place in such a file")
        if self.actions is not None:
            description["actions"] = asdict(self.actions)
        if self.clip is not None:
            description["normalise"] = {"clip": self.clip}
        artifact.write(Path(path), description, dict(self.network.state_dict()))

    @classmethod
    def from_file(cls, path: Path) -> "Policy":
        """Read a file that `save` wrote.

        Raises:
            PotstillError: it is damaged, of a newer schema, or its tensors don't fit its description.
        """
        metadata, shapes = artifact.read_metadata(path)
        description = artifact.read_description(path, metadata)
        try:
            policy = cls._skeleton(description)
        except (KeyError, TypeError, ValueError, PotstillError) as error:
            raise PotstillError(f"{path}: its header does not describe a policy ({error})") from error
        policy.load_tensors(path, shapes)
        return policy

    def load_tensors(self, path: Path, shapes: dict[str, tuple[int, ...]]) -> None:
        """Fill a network on the meta device from a file whose tensors have these shapes."""
        expected = {name: tuple(tensor.shape) for name, tensor in self.network.state_dict().items()}
        if shapes != expected:
            name = min(n for n in {*shapes, *expected} if shapes.get(n) != expected.get(n))
            raise PotstillError(
                f"{path}: tensor {name} is {shapes.get(name, 'missing')}, {self.spec} has {expected.get(name, 'none')}"
            )
        self.network.load_state_dict(artifact.read_tensors(path), assign=True)
        self.network.requires_grad_(False)

    @classmethod
    def _skeleton(cls, description: dict[str, Any]) -> "Policy":
        """The described policy, without memory for its weights: a header can ask for any size."""
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
        if clip is not None and not (isinstance(clip, int | float) and clip > 0 and len(shape) == 1):
            raise ValueError(f"normalise {str(clip)[:60]}")
        with torch.device("meta"):
            return cls.new(
                NetworkSpec.parse(description["network"]),
                description["outputs"],
                tuple(shape),
                dtype,
                num_actions,
                task=task,
                provenance=cast(dict[str, Any], provenance),
                clip=clip,
                actions=actions,
            )


def read_actions(described: Any, num_actions: int) -> Actions:
    """Continuous actions from JSON.

    Raises:
        ValueError, TypeError, KeyError: it describes none.
    """
    low, high = (tuple(float(bound) for bound in described[name]) for name in ("low", "high"))
    ordered = all(-1e6 <= lowest < highest <= 1e6 for lowest, highest in zip(low, high, strict=False))
    if not ordered or not len(low) == len(high) == num_actions:
        raise ValueError("the bounds of its actions")
    return Actions(low, high, bool(described["squashed"]))


def choose(
    outputs: Float[Tensor, "batch actions"], epsilon: float, rng: np.random.Generator, act: Act = "greedy"
) -> Int64[np.ndarray, " batch"]:
    """Actions from outputs: the best or drawn from softmax(outputs); with probability ε a random one instead."""
    batch, num_actions = outputs.shape
    if act == "sample":
        gumbel = torch.as_tensor(rng.gumbel(size=(batch, num_actions)))
        actions = (outputs + gumbel).argmax(-1).numpy()  # the Gumbel-max trick: a draw from softmax(outputs)
    else:
        actions = outputs.argmax(-1).numpy()
    explore = rng.random(batch) < epsilon
    return np.where(explore, rng.integers(0, num_actions, batch), actions)
