"""Episodes on several cores: a process a core, each with its own emulators and its share of the list.

Emulators and small networks leave cores idle in turn when one process owns them all: on two cores,
two processes play net3 at 4.2 k decisions/s, one process with two threads at 3.1–3.6 k; the DQN at
3.1 k against 2.0–2.3 k. Threads in one process are slower still (1.2 k: they wait for each other).

A worker runs `work` in a fresh interpreter: it reads one pickled `_Share` from its parent and writes
pickled `Tally`s back. Nothing is unpickled that didn't come from our own process.
"""

import os
import pickle
import selectors
import subprocess
import sys
from collections.abc import Generator, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import torch

from potstill.errors import PotstillError
from potstill.evaluate.play import Player, play_episodes
from potstill.evaluate.statistics import Score
from potstill.policy import Policy
from potstill.progress import Progress
from potstill.tasks import Task
from potstill.tasks.starts import Start

AGREEMENT_EVERY = 8
"""Agreement is counted on each eighth of the first player's steps: neighbours are nearly the same."""
TELL_EVERY = 50
"""Steps between two tallies while no episode ends."""


@dataclass(frozen=True)
class Tally:
    """What has happened since the last one."""

    finished: list[tuple[int, int, float]]
    """(player, episode, return) of the episodes that ended."""
    states: np.ndarray
    """(actions,) states of the first player that the watched policies were asked about, by its best action there;
    (1,) where actions are continuous."""
    agreed: np.ndarray
    """(watched, actions) on how many of them each watched policy's best action was the first player's."""


@dataclass(frozen=True)
class _Share:
    players: list[Player]
    task: Task
    jobs: list[tuple[int, int]]
    seed: int
    watched: list[Policy]
    threads: int
    starts: Sequence[Start] | None
    process: int
    """Its number."""


def evaluate(
    players: list[Player],
    task: Task,
    seed: int,
    threads: int,
    watched: list[Policy] | None = None,
    starts: Sequence[Start] | None = None,
) -> Iterator[Tally]:
    """Play each player's episodes; count how often `watched` policies agree with the first.

    Args:
        players: who plays.
        task: what is played.
        seed: of starts and chance. The same seed and threads give the same returns.
        threads: cores to use; Atari on the CPU takes a process for each, where the networks are ours.
        watched: policies asked about each eighth of the first player's states.
        starts: where episodes begin; None: as the task's protocol says.
    """
    can_be_sent = all(player.policy.is_ours and player.policy.device == "cpu" for player in players)
    jobs = [(index, episode) for index, player in enumerate(players) for episode in range(player.episodes)]
    processes = min(threads, len(jobs)) if task.is_atari and can_be_sent else 1
    shares = [
        _Share(players, task, jobs[worker::processes], seed, watched or [], threads // processes, starts, worker)
        for worker in range(processes)
    ]
    yield from _play(shares[0]) if processes == 1 else _play_in_processes(shares)


def scores(
    players: list[Player], task: Task, seed: int, threads: int, starts: Sequence[Start] | None = None
) -> Generator[Progress, None, list[Score]]:
    """Play each player's episodes, as `evaluate` does; returns their scores."""
    returns = [[0.0] * player.episodes for player in players]
    done, total = 0, sum(map(len, returns))
    for tally in evaluate(players, task, seed, threads, starts=starts):
        for player, episode, earned in tally.finished:
            returns[player][episode] = earned
        done += len(tally.finished)
        yield Progress("evaluate", done, total)
    return [Score(tuple(of)) for of in returns]


def _play(share: _Share) -> Iterator[Tally]:
    finished: list[tuple[int, int, float]] = []
    kinds = share.task.num_kinds
    states, agreed = np.zeros(kinds, np.int64), np.zeros((len(share.watched), kinds), np.int64)
    moments = play_episodes(
        share.players, share.task, share.jobs, share.seed, share.threads, share.starts, share.process
    )
    for tick, moment in enumerate(moments):
        finished += moment.finished
        firsts = moment.player == 0
        if share.watched and tick % AGREEMENT_EVERY == 0 and firsts.any():
            seen, said = moment.observations[firsts], moment.outputs[torch.from_numpy(firsts)]
            best = said.argmax(-1) if share.task.bounds is None else torch.zeros(len(said), dtype=torch.int64)
            states += np.bincount(best, minlength=kinds)
            for index, policy in enumerate(share.watched):
                agreed[index] += np.bincount(best[policy.agree(policy.outputs(seen), said)], minlength=kinds)
        if finished or tick % TELL_EVERY == 0:
            yield Tally(finished, states, agreed)
            finished, states, agreed = [], np.zeros_like(states), np.zeros_like(agreed)
    yield Tally(finished, states, agreed)


def _play_in_processes(shares: list[_Share]) -> Iterator[Tally]:
    workers: list[subprocess.Popen[bytes]] = []
    try:
        with selectors.DefaultSelector() as selector:
            for _ in shares:
                worker = subprocess.Popen(
                    # -P: nothing is imported from the current folder, which may be a stranger's.
                    [sys.executable, "-P", "-c", f"from {__name__} import work; work()"],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    start_new_session=True,  # Ctrl-C is the parent's to handle
                )
                workers.append(worker)
            for share, worker in zip(shares, workers, strict=True):  # all import their libraries at once
                assert worker.stdin is not None
                assert worker.stdout is not None
                with suppress(BrokenPipeError), worker.stdin:  # it has ended: said below
                    pickle.dump(share, worker.stdin)
                selector.register(worker.stdout, selectors.EVENT_READ, worker)
            while selector.get_map():
                for key, _ in selector.select():
                    try:
                        told: Tally | PotstillError = pickle.load(key.fileobj)  # pyright: ignore[reportArgumentType]
                    except (EOFError, pickle.UnpicklingError):
                        selector.unregister(key.fileobj)
                        if status := key.data.wait():
                            mend = "if memory ran out: fewer --threads"
                            raise PotstillError(f"an evaluation process ended with status {status}; {mend}") from None
                        continue
                    if isinstance(told, PotstillError):
                        raise told
                    yield told
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()
            if worker.stdout is not None:
                worker.stdout.close()


def work() -> None:
    """A worker's whole life."""
    share: _Share = pickle.load(sys.stdin.buffer)
    torch.set_num_threads(share.threads)
    try:
        try:
            for tally in _play(share):
                _tell(tally)
        except PotstillError as error:
            _tell(error)
    except BrokenPipeError:  # the parent has been killed
        os._exit(1)


def _tell(what: Tally | PotstillError) -> None:
    sys.stdout.buffer.write(pickle.dumps(what))
    sys.stdout.buffer.flush()
