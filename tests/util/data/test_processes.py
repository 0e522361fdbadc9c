"""Tasks on several processes: one that fails does not stop the others, our own mistakes do."""

import os
from functools import partial

import pytest

from util.data.processes import run_tasks


def work(number: int) -> int:
    if number == 2:
        raise ValueError("two is bad")
    return number * 10


def process_of(_: int) -> int:
    return os.getpid()


def broken(_: int) -> int:
    raise TypeError("our mistake")


def killed(_: int) -> int:
    os._exit(9)


@pytest.mark.parametrize("workers", [1, 2])
def test_results_and_failures_carry_their_position(workers):
    outcomes = dict(run_tasks([partial(work, number) for number in range(4)], workers))
    assert isinstance(outcomes[2], ValueError)
    assert str(outcomes[2]) == "two is bad"
    assert {position: outcomes[position] for position in (0, 1, 3)} == {0: 0, 1: 10, 3: 30}


def test_two_workers_are_other_processes():
    assert os.getpid() not in dict(run_tasks([partial(process_of, 0)] * 2, 2)).values()
    assert os.getpid() in dict(run_tasks([partial(process_of, 0)] * 2, 1)).values()


@pytest.mark.parametrize("workers", [1, 2])
def test_our_own_mistakes_are_not_swallowed(workers):
    with pytest.raises(TypeError, match="our mistake"):
        list(run_tasks([partial(broken, 0)] * 2, workers))


def test_killed_worker_is_explained():
    with pytest.raises(ValueError, match="use fewer --workers"):
        list(run_tasks([partial(killed, 0)] * 2, 2))


def test_workers_are_checked():
    with pytest.raises(ValueError, match="--workers is 0"):
        list(run_tasks([], 0))
