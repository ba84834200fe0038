"""Processes that agree: here threads, which take the same calls."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from djepa.errors import PeerError, UsageError
from djepa.train.team import ALONE, Channel, Team


class Threads(Channel):
    """Every process a thread."""

    def __init__(self, size):
        self.size, self.barrier, self.things = size, threading.Barrier(size, timeout=10), {}

    def total(self, numbers):
        return [sum(column) for column in zip(*self.all(list(numbers)), strict=True)]

    def all(self, thing):
        self.barrier.wait()
        self.things[threading.current_thread()] = thing
        self.barrier.wait()
        things = [self.things[key] for key in sorted(self.things, key=lambda thread: thread.name)]
        self.barrier.wait()
        self.things.clear()
        return things


def everywhere(size, work):
    """What `work` returns or raises in each process."""
    channel = Threads(size)

    def one(rank):
        threading.current_thread().name = f"rank {rank}"
        try:
            return work(Team(rank, size, channel))
        except Exception as error:
            return error

    with ThreadPoolExecutor(size) as pool:
        return list(pool.map(one, range(size)))


def test_all_of_them_have_what_the_first_one_made():
    made = []
    assert everywhere(3, lambda team: team.shared(lambda: made.append(team.rank) or "it")) == ["it"] * 3
    assert made == [0]


def test_what_the_first_one_could_not_make_is_missed_everywhere():
    def fail():
        raise UsageError("no")

    results = everywhere(3, lambda team: team.shared(fail))
    assert [type(result) for result in results] == [UsageError, PeerError, PeerError]


@pytest.mark.parametrize("failing", [0, 2])
def test_an_error_in_one_is_an_error_in_all(failing):
    def work(team):
        with team.together():
            if team.rank == failing:
                raise UsageError("no")

    results = everywhere(3, work)
    assert [type(result) for result in results] == [UsageError if rank == failing else PeerError for rank in range(3)]


def test_sums_and_lists():
    assert everywhere(3, lambda team: (team.total([team.rank, 1]), team.all(team.rank), team.first)) == [
        ([3, 3], [0, 1, 2], rank == 0) for rank in range(3)]


def test_one_alone_asks_nobody():
    assert (ALONE.total([3, 1.5]), ALONE.all("x"), ALONE.shared(lambda: 7), ALONE.first) == ([3, 1.5], ["x"], 7, True)
    with pytest.raises(UsageError), ALONE.together():
        raise UsageError("no")
