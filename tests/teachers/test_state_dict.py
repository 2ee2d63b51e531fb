"""State dicts of other libraries' layouts against the computation those libraries do."""

import itertools

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

from potstill import PotstillError, load
from potstill.teachers import rename

GAMES = ["Breakout", "Enduro", "MsPacman", "Pong", "Qbert", "Seaquest", "SpaceInvaders"]


def acktr(convs=(32, 64, 32), hidden=512, actions=6) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)

    def make(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator) * 0.05

    channels = (4, *convs)
    tensors = {}
    for i, size in enumerate((8, 4, 3)):
        tensors[f"base.main.{2 * i}.weight"] = make(channels[i + 1], channels[i], size, size)
        tensors[f"base.main.{2 * i}.bias"] = make(channels[i + 1])
    tensors |= {"base.main.7.weight": make(hidden, convs[2] * 49), "base.main.7.bias": make(hidden)}
    tensors |= {"dist.linear.weight": make(actions, hidden), "dist.linear.bias": make(actions)}
    return tensors | {"base.critic_linear.weight": make(1, hidden), "base.critic_linear.bias": make(1)}


def acktr_logits(t: dict[str, torch.Tensor], frames: np.ndarray) -> torch.Tensor:
    """pytorch-a2c-ppo-acktr's CNNBase and Categorical, layer by layer."""
    x = torch.from_numpy(frames) / 255.0
    for i, stride in enumerate((4, 2, 1)):
        x = F.relu(F.conv2d(x, t[f"base.main.{2 * i}.weight"], t[f"base.main.{2 * i}.bias"], stride))
    x = F.relu(F.linear(x.flatten(1), t["base.main.7.weight"], t["base.main.7.bias"]))
    return F.linear(x, t["dist.linear.weight"], t["dist.linear.bias"])


def test_an_acktr_state_dict_computes_its_logits(tmp_path):
    tensors = acktr()
    save_file(tensors, tmp_path / "a.safetensors", {"env": "PongNoFrameskip-v4"})
    policy = load(tmp_path / "a.safetensors")
    frames = np.random.default_rng(0).integers(0, 256, (4, 4, 84, 84), dtype=np.uint8)
    torch.testing.assert_close(policy.outputs(frames), acktr_logits(tensors, frames), rtol=1e-5, atol=1e-6)
    assert (str(policy.spec), policy.outputs_are, policy.task) == (
        "cnn:32-64-32:512",
        "logits",
        "ALE/Pong-v5",
    )
    assert policy.temperature == 1.0


@pytest.mark.parametrize("game", GAMES)
def test_the_third_party_atari_teachers_compute_their_logits(game, teachers_folder):
    path = teachers_folder / "atari" / f"{game}-ppo.safetensors"
    policy = load(path)
    frames = np.random.default_rng(0).integers(0, 256, (4, 4, 84, 84), dtype=np.uint8)
    torch.testing.assert_close(policy.outputs(frames), acktr_logits(load_file(path), frames), rtol=1e-4, atol=1e-5)
    assert policy.task == f"ALE/{game}-v5"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("base.main.7.bias"), "tensor base.main.7.bias is missing"),
        (lambda t: t.pop("base.main.2.weight"), "neither a Nature CNN nor an MLP"),
        (lambda t: t.pop("dist.linear.weight"), "a state dict of no known layout"),
        (lambda t: t.update({"base.main.0.weight": torch.zeros(32, 4, 5, 5)}), "expected"),
        (lambda t: t.update({"base.main.4.bias": torch.zeros(7)}), "expected"),
        (lambda t: t.update({"base.gru.weight_ih_l0": torch.zeros(9, 3)}), "with base.gru.weight_ih_l0, which is not"),
        (lambda t: t["dist.linear.bias"].fill_(torch.nan), "dist.linear.bias holds infinities, or what is no number"),
        (lambda t: t.update({"dist.linear.weight": torch.zeros(0, 512)}), "neither a Nature CNN nor an MLP"),
    ],
)
def test_a_state_dict_with_wrong_shapes_is_one_line(tmp_path, change, message):
    tensors = acktr()
    change(tensors)
    save_file(tensors, tmp_path / "a.safetensors")
    with pytest.raises(PotstillError, match=message) as error:
        load(tmp_path / "a.safetensors")
    assert "\n" not in str(error.value)


def test_a_layer_of_an_absurd_number_is_none():
    assert rename.layers("a", ["a.10.weight", "a.9.weight", f"a.{'9' * 5000}.weight"]) == ["a.9", "a.10"]


def test_an_mlp_of_that_layout_is_refused_as_it_saw_vectors_normalised(tmp_path):
    tensors = {
        name: torch.zeros(*shape)
        for name, shape in {
            "base.actor.0.weight": (8, 3), "base.actor.0.bias": (8,),
            "base.actor.2.weight": (8, 8), "base.actor.2.bias": (8,),
            "dist.linear.weight": (2, 8), "dist.linear.bias": (2,),
            "base.critic_linear.weight": (1, 8), "base.critic_linear.bias": (1,),
        }.items()
    }  # fmt: skip
    save_file(tensors, tmp_path / "a.safetensors")
    with pytest.raises(PotstillError, match=r"obs_rms\): give the policy and that to Policy.from_callable"):
        load(tmp_path / "a.safetensors")


def chain(*sizes: int, prefix: str, first: int = 0) -> dict[str, torch.Tensor]:
    """Linear layers `prefix.0`, `prefix.2`, … of these widths."""
    generator = torch.Generator().manual_seed(len(prefix))
    tensors = {}
    for i, (inputs, outputs) in enumerate(itertools.pairwise(sizes)):
        tensors[f"{prefix}.{first + 2 * i}.weight"] = torch.randn(outputs, inputs, generator=generator)
        tensors[f"{prefix}.{first + 2 * i}.bias"] = torch.randn(outputs, generator=generator)
    return tensors


def nature(prefix: str, hidden: int = 64) -> dict[str, torch.Tensor]:
    """The convolutions and the first linear layer of a DQN, as CleanRL numbers them."""
    renamed = {k.replace("base.main", prefix): v for k, v in acktr((32, 64, 64), hidden).items() if "base.main" in k}
    assert len(renamed) == 8
    return renamed


def forward_nature(t: dict[str, torch.Tensor], prefix: str, frames: np.ndarray) -> torch.Tensor:
    x = torch.from_numpy(frames) / 255.0
    for i, stride in enumerate((4, 2, 1)):
        x = F.relu(F.conv2d(x, t[f"{prefix}.{2 * i}.weight"], t[f"{prefix}.{2 * i}.bias"], stride))
    return F.relu(F.linear(x.flatten(1), t[f"{prefix}.7.weight"], t[f"{prefix}.7.bias"]))


@pytest.mark.parametrize("prefix", ["network", "net"])
def test_a_dqns_chain_of_layers_saved_by_torch_computes_its_values(prefix, tmp_path):
    tensors = nature(prefix) | chain(64, 6, prefix=prefix, first=9)
    torch.save(tensors, tmp_path / "PongNoFrameskip-v4.pth")
    policy = load(tmp_path / "PongNoFrameskip-v4.pth")
    frames = np.random.default_rng(0).integers(0, 256, (4, 4, 84, 84), dtype=np.uint8)
    features = forward_nature(tensors, prefix, frames)
    expected = F.linear(features, tensors[f"{prefix}.9.weight"], tensors[f"{prefix}.9.bias"])
    torch.testing.assert_close(policy.outputs(frames), expected, rtol=1e-4, atol=1e-4)
    assert (policy.outputs_are, str(policy.spec), policy.task) == ("q", "cnn:32-64-64:64", "ALE/Pong-v5")


def test_cleanrls_ppo_on_atari_computes_its_logits(tmp_path):
    tensors = nature("network") | {"actor.weight": torch.randn(6, 64), "actor.bias": torch.randn(6)}
    torch.save(tensors | {"critic.weight": torch.randn(1, 64), "critic.bias": torch.randn(1)}, tmp_path / "a.pt")
    policy = load(tmp_path / "a.pt")
    frames = np.random.default_rng(0).integers(0, 256, (4, 4, 84, 84), dtype=np.uint8)
    expected = F.linear(forward_nature(tensors, "network", frames), tensors["actor.weight"], tensors["actor.bias"])
    torch.testing.assert_close(policy.outputs(frames), expected, rtol=1e-4, atol=1e-4)
    assert policy.outputs_are == "logits"


@pytest.mark.parametrize(
    ("tensors", "meaning", "spec", "activation"),
    [
        (chain(4, 120, 84, 2, prefix="network"), "q", "mlp:120-84", torch.relu),
        (chain(4, 64, 64, 2, prefix="actor") | chain(4, 64, 64, 1, prefix="critic"), "logits", "mlp:64-64:tanh",
         torch.tanh),
    ],
)  # fmt: skip
def test_cleanrls_small_networks_compute_theirs(tensors, meaning, spec, activation, tmp_path):
    torch.save(tensors, tmp_path / "CartPole-v1.pt")
    policy = load(tmp_path / "CartPole-v1.pt")
    x = torch.randn(8, 4, generator=torch.Generator().manual_seed(0))
    observations, prefix = x.numpy(), "network" if meaning == "q" else "actor"
    for layer in (0, 2):
        x = activation(F.linear(x, tensors[f"{prefix}.{layer}.weight"], tensors[f"{prefix}.{layer}.bias"]))
    expected = F.linear(x, tensors[f"{prefix}.4.weight"], tensors[f"{prefix}.4.bias"])
    torch.testing.assert_close(policy.outputs(observations), expected, rtol=1e-5, atol=1e-4)
    assert (policy.outputs_are, str(policy.spec), policy.task) == (meaning, spec, "CartPole-v1")


def test_the_third_party_enduro_dqn_is_read(teachers_folder):
    policy = load(teachers_folder / "state_dicts" / "Enduro-dqn-fc200.pth")
    assert (policy.outputs_are, str(policy.spec), policy.num_actions) == ("q", "cnn:32-64-64:200", 9)


@pytest.mark.parametrize("prefix", ["", "q_net."])
def test_stable_baselines3s_small_dqn_is_read_alone_or_with_its_target(prefix, tmp_path):
    tensors = {f"{prefix}{name}": tensor for name, tensor in chain(4, 16, 2, prefix="q_net").items()}
    target = {name.replace("q_net.", "q_net_target.", 1): tensor + 1 for name, tensor in tensors.items()}
    torch.save(tensors | (target if prefix else {}), tmp_path / "policy.pth")
    policy = load(tmp_path / "policy.pth")
    x = torch.randn(8, 4, generator=torch.Generator().manual_seed(0))
    hidden = F.relu(F.linear(x, tensors[f"{prefix}q_net.0.weight"], tensors[f"{prefix}q_net.0.bias"]))
    expected = F.linear(hidden, tensors[f"{prefix}q_net.2.weight"], tensors[f"{prefix}q_net.2.bias"])
    torch.testing.assert_close(policy.outputs(x.numpy()), expected)
    assert (policy.outputs_are, str(policy.spec)) == ("q", "mlp:16")


@pytest.mark.parametrize(
    "tensors",
    [
        chain(8, 16, 2, prefix="q_net"),
        chain(8, 16, 2, prefix="actor") | chain(8, 16, 1, prefix="critic"),
        {**chain(8, 16, prefix="network", first=5), "actor.weight": torch.zeros(2, 16), "actor.bias": torch.zeros(2)},
    ],
)
@pytest.mark.parametrize("before", ["trunk", "features_extractor.net", "network.0.conv"])
def test_known_layers_behind_unknown_ones_are_not_taken_for_the_whole(tensors, before, tmp_path):
    torch.save(chain(4, 8, prefix=before) | tensors, tmp_path / "own.pth")
    with pytest.raises(PotstillError, match="a state dict of no known layout"):
        load(tmp_path / "own.pth")


def test_a_chain_with_other_tensors_beside_it_is_not_guessed_at(tmp_path):
    torch.save(chain(4, 8, 2, prefix="network") | {"atoms": torch.zeros(51)}, tmp_path / "c51.pt")
    with pytest.raises(PotstillError, match="a state dict of no known layout"):
        load(tmp_path / "c51.pt")
