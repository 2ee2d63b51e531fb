"""Training runs: scored, saved, gone on with to the same bits."""

import gc
import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import potstill
from potstill import PotstillError
from potstill.cli.show import STAGES
from potstill.evaluate import Score
from potstill.learners.options import DQNOptions
from potstill.machine import arithmetic_threads
from potstill.memory import Replay
from potstill.report import write_report
from potstill.teachers import load_all
from potstill.train import checkpoint, scoring
from potstill.train.online import Following
from potstill.train.plan import plan
from potstill.train.run import run
from potstill.train.scoring import best_of

COMMAND = ["potstill", "train"]
KINDS = {"plain": {}, "prioritised": {"prioritised": True, "ez_greedy": True}}
SMALL = {"steps": 6000, "envs": 8, "memory": 2000, "learn_after": 400, "batch": 32, "explore_steps": 2000, "threads": 2}


def make(
    out: Path,
    resume: bool = False,
    stop_at: int | None = None,
    tasks: tuple[str, ...] = ("CartPole-v1",),
    students: tuple[str, ...] = (),
    refilled: list[int] | None = None,
    episodes: int = 6,
    **changes: object,
) -> dict:
    options = DQNOptions(**{**SMALL, **changes})  # pyright: ignore[reportArgumentType]
    for progress in run(
        plan(options, tasks, 1500, 3, episodes, Following(students, 200) if students else None), out, resume, COMMAND
    ):
        assert progress.stage in STAGES or progress.stage == "hour", "it is shown"
        if refilled is not None and progress.stage == "refill":
            refilled.append(progress.done)
        if stop_at is not None and progress.stage == "train" and progress.done >= stop_at:
            return {}
    return json.loads((out / "result.json").read_text())


def cut_off(out: Path, save: int, monkeypatch: pytest.MonkeyPatch, **given: object) -> None:
    """A run that is killed where the learner's checkpoint would be saved for the `save`-th time."""
    saves, real = iter(range(1, 99)), checkpoint.save

    def saving(*arguments: object) -> None:
        if next(saves) == save:
            raise KeyboardInterrupt
        real(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save", saving)
        with pytest.raises(KeyboardInterrupt):
            make(out, **given)


def mean_of(point: dict) -> float:
    return point["scores"]["CartPole-v1"]["mean"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("whole")
    make(out / "plain")
    make(out / "prioritised", **KINDS["prioritised"])
    return out


def same_bits(one: Path, other: Path) -> bool:
    first, second = load_file(one / "last.safetensors"), load_file(other / "last.safetensors")
    return all(torch.equal(tensor, second[name]) for name, tensor in first.items())


def test_a_finished_run_is_not_scored_again(whole, monkeypatch):
    monkeypatch.setattr(scoring, "score", lambda *given: pytest.fail("it is"))
    finished = json.loads((whole / "plain" / "result.json").read_text())
    assert make(whole / "plain", resume=True) == finished
    assert make(whole / "plain", resume=True, threads=1, precision="bf16") == finished, "on another machine"


def test_an_odd_result_is_one_line(whole, tmp_path):
    out = Path(shutil.copytree(whole / "plain", tmp_path / "run"))
    (out / "result.json").write_text("[]")
    with pytest.raises(PotstillError, match=r"result.json is not what a run writes"):
        make(out, resume=True)


def test_the_memory_is_given_back_before_the_last_score(tmp_path, monkeypatch):
    score, memories = scoring.score, []

    def counting(*given):
        gc.collect()
        memories.append(sum(type(each) is Replay for each in gc.get_objects()))
        return score(*given)

    monkeypatch.setattr(scoring, "score", counting)
    make(tmp_path / "out", students=("mlp:4",), steps=1600)
    assert memories[-1] == 0 < memories[0]


def test_a_run_writes_its_curve_its_best_and_fresh_episodes_of_it(whole):
    result = json.loads((whole / "plain" / "result.json").read_text())
    assert [point["steps"] // 1500 for point in result["curve"]] == [1, 2, 3, 4]
    best = max(result["curve"], key=lambda point: (mean_of(point), point["steps"]))
    assert result["best"]["steps"] == best["steps"]
    assert result["best"]["scores"]["CartPole-v1"]["episodes"] == 6
    assert result["best"]["scores"]["CartPole-v1"]["returns"][:3] != best["scores"]["CartPole-v1"]["returns"]
    policy = potstill.load(whole / "plain" / "best.safetensors")
    assert policy.outputs_are == "q"
    assert policy.task == "CartPole-v1"
    assert policy.provenance["steps"] == best["steps"]
    lines = [json.loads(line) for line in (whole / "plain" / "metrics.jsonl").read_text().splitlines()]
    assert [line["steps"] for line in lines] == sorted({line["steps"] for line in lines})
    assert lines[-1]["loss"] > 0


@pytest.mark.parametrize(("kind", "stop_at"), [("plain", 1000), ("prioritised", 3200), ("prioritised", 5500)])
def test_a_run_dropped_anywhere_and_gone_on_with_ends_at_the_same_bits(whole, tmp_path, kind, stop_at):
    make(tmp_path / "run", stop_at=stop_at, **KINDS[kind])
    resumed = make(tmp_path / "run", resume=True, **KINDS[kind])
    assert same_bits(whole / kind, tmp_path / "run")
    result = json.loads((whole / kind / "result.json").read_text())
    assert resumed["curve"] == result["curve"]
    assert resumed["budget"]["updates"] == result["budget"]["updates"]
    metrics = [(folder / "metrics.jsonl").read_text() for folder in (whole / kind, tmp_path / "run")]
    assert metrics[0] == metrics[1]


def test_a_finished_run_can_be_made_longer(whole, tmp_path):
    out = Path(shutil.copytree(whole / "plain", tmp_path / "run"))
    before = json.loads((out / "result.json").read_text())["curve"]
    longer = make(out, resume=True, steps=7500)
    assert longer["budget"]["steps"] == longer["curve"][-1]["steps"] == 7504
    assert longer["curve"][: len(before)] == before


def test_a_finished_run_that_lacks_its_checkpoints_is_not_begun_anew(whole, tmp_path):
    out = Path(shutil.copytree(whole / "plain", tmp_path / "run"))
    shutil.rmtree(out / "checkpoint")
    (out / "portable.safetensors").unlink()
    assert make(out, resume=True)["budget"]["steps"] == 6000, "it is left alone"
    with pytest.raises(PotstillError, match=r"is finished, and lacks portable.safetensors to go on from: bring it"):
        make(out, resume=True, steps=7500)


def test_a_finished_run_is_scored_anew_by_what_it_left(whole, tmp_path):
    out = Path(shutil.copytree(whole / "plain", tmp_path / "run"))
    shutil.rmtree(out / "checkpoint")
    (out / "portable.safetensors").unlink()
    before = json.loads((out / "result.json").read_text())
    after = make(out, resume=True, episodes=8, threads=1)
    assert after["best"]["scores"]["CartPole-v1"]["episodes"] == 8
    assert {**after["best"], "scores": 0} == {**before["best"], "scores": 0}
    for key in ("curve", "parameters", "machine"):
        assert after[key] == before[key]
    assert after["budget"]["updates"] == before["budget"]["updates"]
    assert after["also_on"][0]["threads"] == 1, "on another machine"


def test_a_result_goes_where_its_best_policy_may_be_replaced(whole, tmp_path):
    out = Path(shutil.copytree(whole / "plain", tmp_path / "run"))
    make(out, resume=True, steps=9000, stop_at=7000)
    assert (out / "result.json").exists()
    make(out, resume=True, steps=9000, stop_at=8500)
    assert not (out / "result.json").exists()
    assert make(out, resume=True, steps=9000)["budget"]["steps"] == 9000


@pytest.fixture(scope="module")
def cut(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was dropped after its second score."""
    out = tmp_path_factory.mktemp("cut") / "run"
    make(out, stop_at=3200)
    return out


def test_elsewhere_the_portable_checkpoint_the_config_and_the_best_policy_are_enough(whole, cut, tmp_path):
    out = tmp_path / "elsewhere"
    out.mkdir()
    for name in ("portable.safetensors", "config.json", "best.safetensors"):
        shutil.copy(cut / name, out)
    refilled: list[int] = []
    result = make(out, resume=True, refilled=refilled, threads=1, precision="bf16")  # as that machine has them
    assert max(refilled) == 2000, "the memory is full again before learning goes on"
    assert [point["steps"] // 1500 for point in result["curve"]] == [1, 2, 3, 4]
    assert result["budget"]["steps"] == 6000
    assert [result["machine"]["threads"]] + [of["threads"] for of in result["also_on"]] == [2, 1]
    assert result["budget"]["updates"] == json.loads((whole / "plain" / "result.json").read_text())["budget"]["updates"]


@pytest.mark.usefixtures("short_games")
def test_the_portable_checkpoint_of_the_papers_network_is_small(tmp_path):
    options = DQNOptions(steps=400, envs=8, memory=2000, learn_after=200, batch=8, replay_ratio=1, threads=2)
    for _ in run(plan(options, ("ALE/Pong-v5",), 300, 1, 1), tmp_path / "run", False, COMMAND):
        if (tmp_path / "run" / "portable.safetensors").exists():
            break
    assert (tmp_path / "run" / "portable.safetensors").stat().st_size < 16 * 2**20


def test_a_damaged_checkpoint_is_said_so_and_no_environment_left_open(cut, tmp_path, monkeypatch):
    out = Path(shutil.copytree(cut, tmp_path / "run"))
    path = out / "checkpoint" / "state.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    closed = []
    monkeypatch.setattr("potstill.tasks.envs.Envs.close", lambda self: closed.append(self))
    with pytest.raises(PotstillError, match="damaged"):
        make(out, resume=True)
    assert len(closed) == 1


@pytest.mark.parametrize("portable", [False, True])
def test_the_best_policy_is_one_of_the_curve_wherever_a_run_was_killed(whole, tmp_path, monkeypatch, portable):
    rising = iter(range(99))

    def better(policies, *given):
        yield from ()
        return [Score((float(next(rising)),) * 3) for _ in policies]

    monkeypatch.setattr(scoring, "score", better)
    cut_off(tmp_path / "run", 3, monkeypatch)
    if portable:
        shutil.rmtree(tmp_path / "run" / "checkpoint")
    make(tmp_path / "run", resume=True, stop_at=0)  # no further than where it goes on from
    assert 3000 <= potstill.load(tmp_path / "run" / "best.safetensors").provenance["steps"] < 4500
    (tmp_path / "run" / "best.safetensors").unlink()
    if not portable:  # killed right after a checkpoint: the best is what the checkpoint holds
        make(tmp_path / "run", resume=True, stop_at=0)
        assert 3000 <= potstill.load(tmp_path / "run" / "best.safetensors").provenance["steps"] < 4500


def test_no_score_is_reported_on_the_episodes_that_chose_the_best(tmp_path, monkeypatch):
    seeds, real = [], scoring.scores

    def listening(players, task, seed, threads):
        seeds.append(seed)
        return real(players, task, seed, threads)

    monkeypatch.setattr(scoring, "scores", listening)
    make(tmp_path / "run", steps=1600, seed=7)
    assert seeds == [7 + scoring.CHOOSING, 7]


def test_values_that_grow_without_end_are_noticed(tmp_path):
    with pytest.raises(PotstillError, match="diverged: try a lower --learning-rate"):
        make(tmp_path / "run", learning_rate=1e15)


def test_other_options_are_refused_on_resume(whole, tmp_path):
    out = Path(shutil.copytree(whole / "plain", tmp_path / "run"))
    with pytest.raises(PotstillError, match=r"was begun with batch 32, not 64"):
        make(out, resume=True, batch=64)


def point(*means: float) -> dict:
    return {"scores": {f"game {index}": {"mean": mean} for index, mean in enumerate(means)}}


def test_the_best_of_one_game_is_the_highest_and_the_latest_of_equals():
    assert best_of([point(3), point(5), point(4)]) == 1
    assert best_of([point(5), point(5)]) == 1
    assert best_of([point(-21)]) == 0


def test_the_best_of_several_games_is_measured_by_each_ones_own_range():
    # A thousand points more of one game don't outweigh the whole of the other's range.
    assert best_of([point(0, 0), point(20, 5000), point(-20, 6000)]) == 1
    assert best_of([point(0, 0), point(20, 5000), point(19, 6000)]) == 2


BOTH = ("CartPole-v1", "CartPole-v0")


def test_several_tasks_are_trained_in_one_network_and_gone_on_with_to_the_same_bits(tmp_path):
    of_both = {"tasks": BOTH, "network": "mlp:16/8", "steps": 3000}
    result = make(tmp_path / "whole", **of_both)
    assert result["tasks"] == list(BOTH)
    assert list(result["best"]["scores"]) == list(BOTH)
    assert [policy.task for policy in load_all(tmp_path / "whole" / "best.safetensors")] == list(BOTH)
    make(tmp_path / "cut", stop_at=2200, **of_both)
    resumed = make(tmp_path / "cut", resume=True, **of_both)
    assert resumed["curve"] == result["curve"]
    assert same_bits(tmp_path / "whole", tmp_path / "cut")
    assert "CartPole-v0" in write_report(tmp_path / "cut").read_text()


STUDENTS = ("mlp:8", "mlp:8")


@pytest.fixture(scope="module")
def followed(short_hours_throughout: int, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("followed") / "run"
    with arithmetic_threads(3):
        make(out, students=STUDENTS, steps=3000)
        assert torch.get_num_threads() == 3, "the caller's are as they were"
    return out


def test_students_follow_the_best_policy_so_far(followed):
    result = json.loads((followed / "result.json").read_text())
    assert [list(point["students"]) for point in result["curve"]] == [["mlp_8", "mlp_8-2"]] * 2
    first, second = result["students"]
    assert first["score"] != second["score"], "each has a seed of its own"
    assert first["score"]["episodes"] == 6
    best = result["best"]["scores"]["CartPole-v1"]["mean"]
    assert first["relative"]["mean"] == pytest.approx(first["score"]["mean"] / best)
    assert first["score"]["mean"] > 0.5 * best
    assert set(result["spread"]) == {"the learner", "mlp_8", "mlp_8-2"}
    student = potstill.load(followed / "students" / "mlp_8.safetensors")
    assert (student.outputs_are, student.task) == ("logits", "CartPole-v1")
    page = write_report(followed).read_text()
    assert "best so far" in page
    assert "mlp_8-2" in page


def test_those_that_follow_are_scored_and_saved_as_cooled_copies(
    short_hours_throughout, cartpole_file, tmp_path, monkeypatch
):
    def copies(plan, state):
        yield from ()
        return {student.name: [potstill.load(cartpole_file)] for student in state.students}

    monkeypatch.setattr("potstill.train.online.cooled", copies)
    result = make(tmp_path / "run", students=("mlp:8",), steps=1600)
    assert result["curve"][0]["students"]["mlp_8"]["mean"] == 500
    assert potstill.load(tmp_path / "run" / "students" / "mlp_8.safetensors").num_parameters == 16


@pytest.mark.parametrize("steps", [800, 2100, 3500])
def test_students_learn_as_often_as_their_schedule_was_planned_for(short_hours_throughout, tmp_path, steps):
    options = DQNOptions(**{**SMALL, "learn_after": 700, "batch": 8, "steps": steps})  # pyright: ignore[reportArgumentType]
    planned = plan(options, ("CartPole-v1",), 450, 1, 1, Following(("mlp:4",), 20))
    for _ in run(planned, tmp_path / "run", False, COMMAND):
        pass
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert len(result["curve"]) == planned.checks == steps // 450
    assert result["curve"][-1]["steps"] >= steps
    if planned.checks == 1:
        assert result["spread"] == {"the learner": None, "mlp_4": None}, "a point has none"
    assert "standard deviation of their second halves" in write_report(tmp_path / "run").read_text()


@pytest.mark.parametrize("name", ["state.safetensors", "students/state.safetensors"])
def test_no_other_mend_is_named_than_one_that_works(followed, tmp_path, name):
    make(tmp_path / "run", stop_at=2200, students=STUDENTS, steps=3000)
    path = tmp_path / "run" / "checkpoint" / name
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(PotstillError, match=r"damaged .* begin anew in another folder"):
        make(tmp_path / "run", resume=True, students=STUDENTS, steps=3000)


def test_what_follows_is_gone_on_with_to_the_same_bits(followed, tmp_path):
    make(tmp_path / "run", stop_at=2200, students=STUDENTS, steps=3000)
    resumed = make(tmp_path / "run", resume=True, students=STUDENTS, steps=3000)
    result = json.loads((followed / "result.json").read_text())
    assert (resumed["curve"], resumed["students"]) == (result["curve"], result["students"])


def test_what_follows_is_scored_anew_by_what_it_left_and_not_begun_anew(followed, tmp_path):
    out = Path(shutil.copytree(followed, tmp_path / "run"))
    assert not (out / "portable.safetensors").exists(), "it holds no students"
    shutil.rmtree(out / "checkpoint")
    result = make(out, resume=True, students=STUDENTS, steps=3000, episodes=7)
    assert [student["score"]["episodes"] for student in result["students"]] == [7, 7]
    (out / "result.json").unlink()
    with pytest.raises(PotstillError, match=r"the students' memory is in .*checkpoint, which is missing; start again"):
        make(out, resume=True, students=STUDENTS, steps=3000)


def test_a_kill_between_the_students_checkpoint_and_the_learners_loses_nothing(followed, tmp_path, monkeypatch):
    cut_off(tmp_path / "run", 2, monkeypatch, students=STUDENTS, steps=3000)
    resumed = make(tmp_path / "run", resume=True, students=STUDENTS, steps=3000)
    result = json.loads((followed / "result.json").read_text())
    assert (resumed["curve"], resumed["students"]) == (result["curve"], result["students"])


def test_the_mend_of_too_little_memory_is_one_that_helps(tmp_path, monkeypatch):
    monkeypatch.setattr("potstill.train.plan.memory_bytes", lambda device: 10**8)
    with pytest.raises(PotstillError, match=r"and the students' play take .*: add --memory [0-9]+$") as refused:
        make(tmp_path / "run", students=STUDENTS, memory=10**8)
    memory = int(str(refused.value).rpartition(" ")[2])
    make(tmp_path / "run", students=STUDENTS, memory=memory, stop_at=0)
    monkeypatch.setattr("potstill.train.plan.memory_bytes", lambda device: 10**3)
    with pytest.raises(PotstillError, match="there is too little for any --memory"):
        make(tmp_path / "other", students=STUDENTS)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tasks": BOTH, "students": STUDENTS}, "--distill-online: one task at a time"),
        ({"tasks": ("CartPole-v1", "CartPole-v1")}, "a task is named twice"),
        ({"tasks": ("CartPole-v1", "Acrobot-v1")}, "tasks that share a trunk show the same"),
        ({"tasks": ()}, "name what to play"),
        ({"students": ("net1",)}, "net1 takes frames"),
        (
            {"students": STUDENTS, "replay_ratio": 0.1},
            "--eval-every 1500: .* must be at least 2968",
        ),
        ({"memory": 10**12}, r"--memory .* take .* GB, this machine has .*: add --memory"),
        ({"tasks": ("Pendulum-v1",)}, "continuous actions"),
    ],
)
def test_what_cannot_be_trained_is_one_line(tmp_path, changes, message):
    with pytest.raises(PotstillError, match=message):
        make(tmp_path / "run", **changes)
    assert not (tmp_path / "run").exists()
