"""A Potstill teacher and student inside Stable-Baselines3, for its tools to work with: same networks, same task."""

from functools import partial
from typing import Any

import ale_py
import gymnasium
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.env_util import make_atari_env
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.vec_env import VecFrameStack

from potstill.networks import NetworkSpec
from potstill.policy import Policy

SETTINGS = {"learning_rate": 3e-4, "gamma": 0.999, "ent_coef": 0.01}
"""As in sb3_distill's example of teacher-distill and student-distill, with its 16 environments."""


class Trunk(BaseFeaturesExtractor):
    """A potstill network's trunk inside a Stable-Baselines3 policy."""

    def __init__(self, space: Any, trunk: torch.nn.Module, width: int) -> None:
        super().__init__(space, width)
        self.trunk = trunk

    def forward(self, observations: torch.Tensor) -> torch.Tensor:
        return self.trunk(observations)


def make_env(task: str, vec_env: type, num_envs: int = 16) -> VecFrameStack:
    """Games under the protocol that Potstill plays by."""
    wrappers = {"terminal_on_life_loss": False, "clip_reward": False}
    make = partial(_make_game, task)
    return VecFrameStack(make_atari_env(make, n_envs=num_envs, seed=0, vec_env_cls=vec_env, wrapper_kwargs=wrappers), 4)


def make_teacher(teacher: Policy, env: VecFrameStack) -> PPO:
    """The teacher's policy as a PPO model; its critic is not the teacher's, and nobody asks it."""
    trunk = {name: tensor.clone() for name, tensor in teacher.network.trunk.state_dict().items()}
    model = PPO("CnnPolicy", env, policy_kwargs=_kwargs(teacher), device="cpu")
    teacher.network.trunk.load_state_dict(trunk)  # the same modules: PPO has initialised them
    model.policy.action_net.load_state_dict(teacher.network.head.state_dict())
    return model


def make_student(algorithm: type, student: str, env: VecFrameStack, **settings: Any) -> tuple[Any, Policy]:
    """A model of SB3's kind, and the potstill policy that shares its trunk (the head is the model's action_net)."""
    policy = Policy.new(NetworkSpec.parse(student), "logits", (4, 84, 84), "uint8", int(env.action_space.n))
    model = algorithm("CnnPolicy", env, policy_kwargs=_kwargs(policy), device="cpu", **{**SETTINGS, **settings})
    return model, policy


def _kwargs(policy: Policy) -> dict[str, Any]:
    network = policy.network
    extractor = {"trunk": network.trunk, "width": network.head.in_features}
    # The trunk takes bytes as they are, so that nothing has to divide them, here either.
    return {
        "features_extractor_class": Trunk,
        "features_extractor_kwargs": extractor,
        "net_arch": [],
        "normalize_images": False,
    }


def _make_game(task: str, **_: Any) -> gymnasium.Env[Any, Any]:
    """One game without the wrappers that Stable-Baselines3 adds."""
    gymnasium.register_envs(ale_py)
    return gymnasium.make(task, frameskip=1, repeat_action_probability=0.0)
