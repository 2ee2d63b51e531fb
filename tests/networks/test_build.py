import copy

import pytest
import torch
from torch import nn

from potstill import PotstillError
from potstill.networks import (
    FramesConv,
    MultiHead,
    NetworkSpec,
    as_floats,
    build,
    fold_batch_norm,
    num_parameters,
    set_batch_norm_momentum,
    with_batch_norm,
)


@pytest.mark.parametrize(
    ("name", "parameters"),
    # Rusu et al. 2016, table 3: with 18 actions.
    [("dqn", 1_693_362), ("net1", 427_874), ("net2", 113_346), ("net3", 61_954)],
)
def test_the_papers_parameter_counts(name, parameters):
    assert num_parameters(build(NetworkSpec.parse(name), (4, 84, 84), 18)) == parameters


def test_an_mlp_has_the_layers_its_spec_says():
    network = build(NetworkSpec.parse("mlp:5-3:tanh"), (4,), 2)
    assert num_parameters(network) == (4 * 5 + 5) + (5 * 3 + 3) + (3 * 2 + 2)
    assert network(torch.zeros(7, 4)).shape == (7, 2)


def test_frames_are_scaled_to_one():
    network = build(NetworkSpec.parse("net3"), (4, 84, 84), 6)
    frames = torch.randint(0, 256, (3, 4, 84, 84), dtype=torch.uint8)
    plain = copy.deepcopy(network)
    plain.trunk[0] = nn.Conv2d(4, 16, 8, 4)
    plain.trunk[0].load_state_dict(network.trunk[0].state_dict())
    torch.testing.assert_close(network(frames), plain(frames.float() / 255))
    plain.trunk[0] = network.trunk[0].divided()
    torch.testing.assert_close(network(frames), plain(frames.float()))


@pytest.mark.parametrize(("dtype", "learning", "last"), [
    (torch.float32, False, False), (torch.float32, True, True), (torch.bfloat16, False, True)
])  # fmt: skip
def test_frames_lie_as_convolutions_are_fastest(dtype, learning, last):
    frames = torch.randint(0, 256, (3, 4, 84, 84), dtype=torch.uint8)
    floats = as_floats(frames, dtype, learning)
    assert (floats.dtype, floats.is_contiguous(memory_format=torch.channels_last)) == (dtype, last)
    assert (floats == frames).all()  # bfloat16 holds every byte


def test_the_first_convolution_lays_frames_out_for_what_it_is_asked(monkeypatch):
    network = build(NetworkSpec.parse("net3"), (4, 84, 84), 6)
    frames = torch.randint(0, 256, (3, 4, 84, 84), dtype=torch.uint8)
    given, convolve = [], FramesConv._conv_forward
    monkeypatch.setattr(FramesConv, "_conv_forward", lambda *args: given.append(args[1]) or convolve(*args))
    with torch.no_grad():
        network(frames)
    network(frames)
    with torch.autocast("cpu", torch.bfloat16):
        network(frames)
    layouts = [(floats.dtype, floats.is_contiguous(memory_format=torch.channels_last)) for floats in given]
    assert layouts == [(torch.float32, False), (torch.float32, True), (torch.bfloat16, True)]


def test_a_network_of_two_frames_looks_at_the_newest_alone():
    network = build(NetworkSpec.parse("cnn:4-4-4:8:2f"), (4, 84, 84), 3)
    frames = torch.randint(0, 256, (5, 4, 84, 84), dtype=torch.uint8)
    older, newer = frames.clone(), frames.clone()
    older[:, :2] = 0
    newer[:, 2:] = 0
    assert (network(frames) == network(older)).all()
    assert (network(frames) != network(newer)).any()
    assert network.trunk[1].in_channels == 2
    with pytest.raises(PotstillError, match="looks at 5 frames, 4 are shown"):
        build(NetworkSpec.parse("cnn:4-4-4:8:5f"), (4, 84, 84), 3)


def test_a_fresh_network_tells_frames_apart():
    # PyTorch's default initialisation gives 4e-4 on Pong, and such a student doesn't learn.
    torch.manual_seed(0)
    frames = torch.rand(16, 4, 84, 84) * 0.2 * 255
    assert build(NetworkSpec.parse("net3"), (4, 84, 84), 6)(frames).std(0).mean() > 0.01


@pytest.mark.parametrize(
    ("spec", "shape", "own"),
    [("net3", (4, 84, 84), 0), ("cnn:8-8-8:16/16", (4, 84, 84), 2), ("mlp:16-8", (5,), 0), ("mlp:16/8:tanh", (5,), 2)],
)
def test_folded_batch_norm_computes_the_same_in_the_network_that_was_named(spec, shape, own):
    torch.manual_seed(0)
    plain = build(NetworkSpec.parse(spec), shape, 6)
    learner = with_batch_norm(MultiHead.join([plain], own=own))
    optimizer = torch.optim.Adam(learner.parameters(), 0.01)
    for _ in range(20):
        [outputs] = learner(torch.rand(16, *shape) * 3 - 1, {0: 16})
        loss = outputs.square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    folded = fold_batch_norm(learner).of(0)
    assert [(n, p.shape) for n, p in folded.named_parameters()] == [(n, p.shape) for n, p in plain.named_parameters()]
    observations = torch.rand(32, *shape) * 3 - 1
    assert not torch.allclose(folded(observations), plain(observations), atol=0.1)
    torch.testing.assert_close(folded(observations), learner.eval()(observations, {0: 32})[0], rtol=1e-4, atol=1e-5)


def test_the_first_batches_are_averaged_so_that_few_updates_are_enough():
    torch.manual_seed(0)
    learner = with_batch_norm(MultiHead.join([build(NetworkSpec.parse("mlp:4"), (3,), 2)], own=0))
    batches = torch.rand(5, 64, 3) * 0.01  # as little as frames vary
    for number, batch in enumerate(batches):
        set_batch_norm_momentum(learner, number)
        learner(batch, {0: 64})
    before = learner.trunk[0](batches)
    torch.testing.assert_close(learner.trunk[1].running_mean, before.mean((0, 1)))
    torch.testing.assert_close(learner.trunk[1].running_var, before.var(1).mean(0))
    set_batch_norm_momentum(learner, 1000)
    assert learner.trunk[1].momentum == 0.02


def test_folding_leaves_the_learner_as_it_is_and_a_plain_network_alike():
    learner = with_batch_norm(MultiHead.join([build(NetworkSpec.parse("mlp:4"), (3,), 2)], own=0))
    before = {name: tensor.clone() for name, tensor in learner.state_dict().items()}
    fold_batch_norm(learner)
    assert learner.training
    assert all(torch.equal(before[name], tensor) for name, tensor in learner.state_dict().items())
    plain = MultiHead.join([build(NetworkSpec.parse("mlp:4"), (3,), 2)], own=0)
    folded = fold_batch_norm(plain)
    torch.testing.assert_close(folded.state_dict(), plain.state_dict(), rtol=0, atol=0)
    assert next(folded.parameters()) is not next(plain.parameters())


@pytest.mark.parametrize(("spec", "shape"), [("net3", (4,)), ("mlp:8", (4, 84, 84)), ("net1", (4, 20, 20))])
def test_observations_it_cannot_see_are_refused(spec, shape):
    with pytest.raises(PotstillError, match="the observations are"):
        build(NetworkSpec.parse(spec), shape, 2)


@pytest.mark.parametrize(
    ("name", "actions", "parameters"),
    # Rusu et al. 2016, table 3; the published numbers come out with a Pong of 3 actions.
    [
        ("multitask-3", (3, 3, 6), 1_882_668),
        ("multitask-3", (3, 6, 6), 1_883_055),
        ("multitask-10", (9, 4, 9, 3, 9, 3, 6, 18, 18, 6), 6_756_721),
        ("multitask-10", (9, 4, 9, 3, 9, 6, 6, 18, 18, 6), 6_757_108),
    ],
)
def test_the_papers_multi_task_networks_have_its_parameter_counts(name, actions, parameters):
    spec = NetworkSpec.parse(name)
    networks = [build(spec, (4, 84, 84), outputs) for outputs in actions]
    assert num_parameters(MultiHead.join(networks, own=2)) == parameters


def test_every_head_answers_its_part_of_the_batch_as_its_network_does_alone():
    torch.manual_seed(0)
    joined = MultiHead.join([build(NetworkSpec.parse("mlp:8/4"), (3,), outputs) for outputs in (2, 5)], own=2)
    observations = torch.rand(7, 3)
    second, first = joined(observations, {1: 3, 0: 4})
    torch.testing.assert_close(second, joined.of(1)(observations[:3]))
    torch.testing.assert_close(first, joined.of(0)(observations[3:]))
    assert joined.of(0).trunk[0] is joined.of(1).trunk[0], "the trunk is one"
    assert joined.of(0).trunk[2] is not joined.of(1).trunk[2]
