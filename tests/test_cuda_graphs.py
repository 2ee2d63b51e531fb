"""What only a GPU can show. Skipped where there is none."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from potstill import Policy, load
from potstill.cuda_graphs import WARM_UP, Graphs
from potstill.distill import run as distilling
from potstill.distill.options import DistillOptions
from potstill.distill.plan import plan
from potstill.learners.options import DQNOptions
from potstill.memory import Replay
from potstill.train import plan as planning
from potstill.train import run as training

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")


def weights(policy: Policy) -> Tensor:
    return torch.cat([tensor.detach().flatten().cpu() for tensor in policy.network.state_dict().values()])


def test_a_graph_learns_what_its_step_learns():
    def learner() -> tuple[torch.nn.Linear, torch.optim.Optimizer]:
        torch.manual_seed(0)
        network = torch.nn.Linear(8, 1, device="cuda")
        return network, torch.optim.Adam(network.parameters(), lr=0.1, fused=True, capturable=True)

    def step(network: torch.nn.Linear, optimizer: torch.optim.Optimizer, inputs: Tensor) -> tuple[Tensor]:
        loss = network(inputs).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return (loss.detach(),)

    batches = torch.randn(3 * WARM_UP, 16, 8, device="cuda")
    one, other, graphs = learner(), learner(), Graphs()
    for batch in batches:
        [as_graph] = graphs.run(lambda inputs: step(*one, inputs), "kind", batch)
        assert torch.equal(as_graph, step(*other, batch)[0])
    assert torch.equal(one[0].weight, other[0].weight)


def test_a_memory_on_the_gpu_gives_what_one_on_the_cpu_gives():
    rng = np.random.default_rng(0)
    memories = [Replay(20, 3, (4, 6, 6), 4, torch.uint8, 2, device) for device in ("cpu", "cuda")]
    age = np.zeros(3, np.int64)
    for _ in range(30):
        row = rng.integers(0, 255, (3, 4, 6, 6), dtype=np.uint8)
        for memory in memories:
            memory.add(row, age, torch.from_numpy(row[:, 0, 0, :2].astype(np.float32)))
        age = np.where(rng.random(3) < 0.2, 0, age + 1)
    sample = memories[0].draw(64, rng)
    for on_cpu, on_gpu in zip(memories[0].take(*sample), memories[1].take(*sample), strict=True):
        assert torch.equal(on_cpu, on_gpu.cpu())


@pytest.mark.usefixtures("short_games")
def test_students_of_the_same_seed_learn_the_same_and_agree_with_the_teacher(tmp_path, teacher_pong):
    students: list[Policy] = []
    for name in ("one", "other"):
        options = DistillOptions(
            ("net3", "net3"), (teacher_pong,), loss=("kl", "nll"), hours=0.04, updates=10_000, envs=9, episodes=2,
            threads=2, device="cuda",
        )  # fmt: skip
        for _ in distilling.run(plan(options), tmp_path / name, False, []):
            pass
        students.append(load(tmp_path / name / "students" / "net3-kl.safetensors"))
    assert torch.equal(*map(weights, students))
    last = json.loads((tmp_path / "one" / "metrics.jsonl").read_text().splitlines()[-1])
    assert last["agreement"]["net3-kl"] > 0.9


def test_continuous_actions_are_learnt_there_too(tmp_path):
    def swing(seen: np.ndarray) -> np.ndarray:
        return -seen[:, 1:2] - seen[:, 2:3] / 8

    teacher = Policy.from_callable(swing, "Pendulum-v1")
    options = DistillOptions(("mlp:16",), hours=0.04, updates=10_000, envs=9, episodes=2, threads=2, device="cuda")
    for _ in distilling.run(plan(options, teacher), tmp_path / "run", False, []):
        pass
    last = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[-1])
    assert last["agreement"]["mlp_16"] > 0.5


@pytest.mark.usefixtures("short_games")
@pytest.mark.parametrize("tasks", [("ALE/Pong-v5",), ("ALE/Pong-v5", "ALE/Breakout-v5")])
def test_dqn_of_the_same_seed_learns_the_same(tmp_path: Path, tasks: tuple[str, ...]):
    found: list[Tensor] = []
    for name in ("one", "other"):
        options = DQNOptions(
            steps=3_000, envs=8, batch=32, memory=2_000, learn_after=500, prioritised=True, threads=2, device="cuda"
        )
        for _ in training.run(planning.plan(options, tasks, 1_500, 1, 1), tmp_path / name, False, []):
            pass
        found.append(torch.cat([*map(weights, training.load_all(tmp_path / name / "last.safetensors"))]))
    assert torch.equal(*found)
