import pytest
import torch

from potstill import PotstillError
from potstill.networks import NetworkSpec, build, fold_batch_norm, num_parameters, with_batch_norm


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
    torch.testing.assert_close(network(frames), network(frames.float() / 255))


def test_a_fresh_network_tells_frames_apart():
    # PyTorch's default initialisation gives 4e-4 on Pong, and such a student doesn't learn.
    torch.manual_seed(0)
    frames = torch.rand(16, 4, 84, 84) * 0.2
    assert build(NetworkSpec.parse("net3"), (4, 84, 84), 6)(frames).std(0).mean() > 0.01


@pytest.mark.parametrize(("spec", "shape"), [("net3", (4, 84, 84)), ("mlp:16-8", (5,)), ("mlp:16-8:tanh", (5,))])
def test_folded_batch_norm_computes_the_same_in_the_network_that_was_named(spec, shape):
    torch.manual_seed(0)
    plain = build(NetworkSpec.parse(spec), shape, 6)
    learner = with_batch_norm(plain)
    optimizer = torch.optim.Adam(learner.parameters(), 0.01)
    for _ in range(20):
        loss = learner(torch.rand(16, *shape) * 3 - 1).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    folded = fold_batch_norm(learner)
    assert [(n, p.shape) for n, p in folded.named_parameters()] == [(n, p.shape) for n, p in plain.named_parameters()]
    observations = torch.rand(32, *shape) * 3 - 1
    assert not torch.allclose(folded(observations), plain(observations), atol=0.1)
    torch.testing.assert_close(folded(observations), learner.eval()(observations), rtol=1e-4, atol=1e-5)


def test_folding_leaves_the_learner_as_it_is_and_a_plain_network_alike():
    learner = with_batch_norm(build(NetworkSpec.parse("mlp:4"), (3,), 2))
    before = {name: tensor.clone() for name, tensor in learner.state_dict().items()}
    fold_batch_norm(learner)
    assert learner.training
    assert all(torch.equal(before[name], tensor) for name, tensor in learner.state_dict().items())
    plain = build(NetworkSpec.parse("mlp:4"), (3,), 2)
    folded = fold_batch_norm(plain)
    torch.testing.assert_close(folded.state_dict(), plain.state_dict(), rtol=0, atol=0)
    assert next(folded.parameters()) is not next(plain.parameters())


@pytest.mark.parametrize(("spec", "shape"), [("net3", (4,)), ("mlp:8", (4, 84, 84)), ("net1", (4, 20, 20))])
def test_observations_it_cannot_see_are_refused(spec, shape):
    with pytest.raises(PotstillError, match="the observations are"):
        build(NetworkSpec.parse(spec), shape, 2)
