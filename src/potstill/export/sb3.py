"""Back into Stable-Baselines3: a zip that it loads, and plays and scores as one of its own.

Q-values become a DQN, logits a PPO, continuous actions a SAC where they are squashed and a PPO where they are clipped.
MLPs need nothing of ours to be loaded there, CNNs need `potstill` to be importable: theirs come in one size.
"""

import io
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from potstill.errors import PotstillError, need
from potstill.networks import NetworkSpec
from potstill.policy import Policy
from potstill.tasks import Task
from potstill.tasks.spec import make_gymnasium_env


def check(policy: Policy) -> None:
    """Check that Stable-Baselines3 is there and has a place for a policy.

    Raises:
        PotstillError: it isn't, or it hasn't.
    """
    need("--to sb3", "stable_baselines3", install="stable-baselines3")
    policy.describe()  # refuses networks that aren't ours
    if policy.sees is not None or policy.clip is not None or policy.time_feature:
        raise PotstillError(
            "--to sb3: a policy that selects or normalises what it sees, or sees the time, has no place there; use onnx"
        )
    if cast(NetworkSpec, policy.spec).frames is not None:
        raise PotstillError(f"--to sb3: {policy.spec} looks at fewer frames than it is shown; use onnx")


def to_sb3(policy: Policy, task: Task, observations: np.ndarray) -> Any:
    """A model of Stable-Baselines3 that plays as the policy does; it has no critic to speak of.

    Where actions are clipped, PPO's spread is the same in every state: the policy's own on average. The best actions
    don't depend on it.

    Args:
        policy: of this package's networks.
        task: what it plays.
        observations: (n, *observation_shape), what the spread is averaged over.

    Raises:
        PotstillError: Stable-Baselines3 is missing, or has no place for such a policy.
    """
    check(policy)
    import stable_baselines3 as sb3

    spec = cast(NetworkSpec, policy.spec)
    layers = [layer for layer in policy.ours.trunk if isinstance(layer, nn.Conv2d | nn.Linear)]
    convs, dense = len(spec.convs), [*spec.hidden, *spec.controller]
    kwargs: dict[str, Any] = {"activation_fn": nn.Tanh if spec.activation == "tanh" else nn.ReLU}
    if convs:
        from potstill.export.sb3_network import PotstillCNN

        width, *dense = dense
        kwargs["features_extractor_class"] = PotstillCNN
        kwargs["features_extractor_kwargs"] = {"convs": list(spec.convs), "features_dim": width}
    head, dense_layers = policy.ours.head, layers[convs + bool(convs) :]

    def model_of(algorithm: Any, net_arch: Any, **rest: float) -> Any:
        kwargs["net_arch"] = net_arch
        made = algorithm("MlpPolicy", None, policy_kwargs=kwargs, device="cpu", _init_setup_model=False, **rest)
        return _set_up(made, task)

    extractor = "features_extractor"
    if policy.outputs_are == "q":
        model, extractor = model_of(sb3.DQN, dense, buffer_size=1), "q_net.features_extractor"
        copies = {"q_net.q_net": [*dense_layers, head]}
    elif policy.actions is None:
        model = model_of(sb3.PPO, {"pi": dense, "vf": []}, n_steps=2, batch_size=2)
        copies = {"mlp_extractor.policy_net": dense_layers, "action_net": [head]}
    elif policy.actions.squashed:
        model, extractor = (
            model_of(sb3.SAC, {"pi": dense, "qf": [1]}, buffer_size=1, target_entropy=0.0),
            "actor.features_extractor",
        )
        means, log_stds = _halves(head)
        copies = {"actor.latent_pi": dense_layers, "actor.mu": [means], "actor.log_std": [log_stds]}
    else:
        model = model_of(sb3.PPO, {"pi": dense, "vf": []}, n_steps=2, batch_size=2)
        copies = {"mlp_extractor.policy_net": dense_layers, "action_net": [_halves(head)[0]]}
        model.policy.log_std.data = policy.outputs(observations).chunk(2, -1)[1].mean(0)
    if convs:
        copies |= {f"{extractor}.cnn": layers[:convs], f"{extractor}.linear": layers[convs : convs + 1]}
    _copy(copies, model.policy)
    if policy.outputs_are == "q":
        model.policy.q_net_target.load_state_dict(model.policy.q_net.state_dict())
    return model


def outputs_of(model: Any, policy: Policy, observations: np.ndarray) -> Tensor:
    """What the model's own network says: Q-values, log-probabilities, or means."""
    with torch.no_grad():
        seen, _ = model.policy.obs_to_tensor(observations)
        if policy.outputs_are == "q":
            return model.q_net(seen)
        if policy.outputs_are == "logits":
            return model.policy.get_distribution(seen).distribution.logits
        if hasattr(model, "actor"):
            return model.actor.get_action_dist_params(seen)[0]
        return model.policy.get_distribution(seen).distribution.mean


def best_actions(model: Any, observations: np.ndarray) -> np.ndarray:
    """As Stable-Baselines3 plays them."""
    return model.predict(observations, deterministic=True)[0]


def to_bytes(model: Any) -> bytes:
    """The zip."""
    buffer = io.BytesIO()
    model.save(buffer)
    return buffer.getvalue()


def _set_up(model: Any, task: Task) -> Any:
    """Give a model without an environment its spaces and its networks."""
    from gymnasium.spaces import Box, Discrete

    if task.is_atari:
        model.observation_space = Box(0, 255, task.observation_shape, np.uint8)
        model.action_space = Discrete(task.num_actions)
    else:  # to the letter: an environment given at loading is compared
        env = make_gymnasium_env(task.id)
        model.observation_space, model.action_space = env.observation_space, env.action_space
        env.close()
    model.n_envs = 1
    model._setup_model()
    return model


def _halves(head: nn.Linear) -> tuple[nn.Linear, nn.Linear]:
    """A Gaussian's last layer as one for means and one for the logs of standard deviations."""
    halves: list[nn.Linear] = []
    for weight, bias in zip(head.weight.chunk(2), head.bias.chunk(2), strict=True):
        layer = nn.Linear(head.in_features, len(bias))
        layer.weight.data, layer.bias.data = weight.detach().clone(), bias.detach().clone()
        halves.append(layer)
    return halves[0], halves[1]


def _copy(copies: dict[str, list[Any]], into: nn.Module) -> None:
    """Give their parts our layers' weights, in order."""
    with torch.no_grad():
        for name, layers in copies.items():
            part = into.get_submodule(name)
            theirs = [layer for layer in part.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
            for target, layer in zip(theirs, layers, strict=True):
                target.load_state_dict(layer.state_dict())
