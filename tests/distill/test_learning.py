import threading
import time

import pytest

from potstill.distill.learning import _in_turns
from potstill.machine import workers


def test_students_in_turns_take_each_update_once_and_in_order():
    taken, running = [[], [], []], [0, 0, 0]
    ends, lock = [0.0, 0.0, 0.0], threading.Lock()

    def work(index, number):
        with lock:
            running[index] += 1
            assert running[index] == 1, "a student's updates must follow each other"
            assert sum(running) <= 2, "two threads, two updates"
        time.sleep((0.004, 0.002, 0.002)[index])
        with lock:
            taken[index].append(number)
            running[index] -= 1
            ends[index] = time.perf_counter()

    with workers(3, 2) as pool:
        start = time.perf_counter()
        _in_turns(work, 3, 40, pool, threads=2)
    assert taken == [list(range(40))] * 3
    # The slowest is never kept waiting: all end together.
    assert max(ends) - min(ends) < (max(ends) - start) / 4


def test_what_goes_wrong_in_a_students_turn_is_raised():
    def work(index, number):
        if (index, number) == (1, 3):
            raise ValueError("wrong")

    with workers(3, 2) as pool, pytest.raises(ValueError, match="wrong"):
        _in_turns(work, 3, 40, pool, threads=2)
