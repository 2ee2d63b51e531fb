import threading
import time

import pytest

from potstill.distill.learning import _in_turns
from potstill.machine import workers


def test_students_take_each_update_once_and_in_order_never_two_at_once():
    taken, running, lock = [[], [], []], [0, 0, 0], threading.Lock()

    def work(index, number):
        with lock:
            running[index] += 1
            assert running[index] == 1, "a student's updates must follow each other"
            assert sum(running) <= 2, "two threads, two updates"
        time.sleep((0.004, 0.002, 0.001)[index])
        with lock:
            taken[index].append(number)
            running[index] -= 1

    with workers(3, 2) as pool:
        _in_turns(work, 3, 30, pool, threads=2)
    assert taken == [list(range(30))] * 3


def test_whoever_has_most_left_goes_next():
    order = []
    with workers(3, 1) as pool:
        _in_turns(lambda *turn: order.append(turn), 3, 3, pool, threads=1)
    assert order == [(index, number) for number in range(3) for index in range(3)]


def test_what_goes_wrong_in_a_students_turn_is_raised():
    def work(index, number):
        if (index, number) == (1, 3):
            raise ValueError("wrong")

    with workers(3, 2) as pool, pytest.raises(ValueError, match="wrong"):
        _in_turns(work, 3, 30, pool, threads=2)
