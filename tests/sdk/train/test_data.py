"""The order of the data is a pure function of seed and step, and nobody can tell how the data was loaded."""

import os
import signal

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from djepa.dataset import Dataset, Example
from djepa.errors import MediaError, TrainingError, UsageError
from djepa.tokens import Sample
from djepa.train.data import DataOrder, batches

SIZES = {"seed": st.integers(0, 2**63 - 1), "size": st.integers(1, 40), "batch_size": st.integers(1, 50)}


class Numbers(Dataset):
    """Example `i` holds i and a random number; those of `bad` cannot be read."""

    def __init__(self, size, bad=()):
        self.size, self.bad = size, bad

    def __len__(self):
        return self.size

    def load(self, index, rng=None):
        if index in self.bad:
            raise MediaError(f"number {index} is damaged")
        return Example({"number": Sample(torch.tensor([index, rng.random()], dtype=torch.float64))})


def loaded(order, steps, num_workers=0, **options):
    return [[example.samples["number"].data.tolist() for example in examples]
            for examples in batches(Numbers(order.size, **options), order, steps, num_workers)]


@given(**SIZES)
def test_every_epoch_is_a_permutation_of_the_examples(seed, size, batch_size):
    order = DataOrder(seed, size, batch_size)
    steps = -(-3 * size // batch_size)
    flat = [place for step in range(steps) for place in order.places(step)][: 3 * size]
    for epoch in range(3):
        assert sorted(flat[epoch * size : (epoch + 1) * size]) == [(epoch, index) for index in range(size)]


@given(**SIZES, first=st.integers(0, 20), other_batch_size=st.integers(1, 50))
def test_the_order_depends_on_neither_history_nor_batch_size(seed, size, batch_size, first, other_batch_size):
    one, other = DataOrder(seed, size, batch_size), DataOrder(seed, size, other_batch_size)
    everything = [place for step in range(first + 1) for place in one.places(step)]
    assert DataOrder(seed, size, batch_size).places(first) == everything[-batch_size:]
    again = [place for step in range(len(everything) // other_batch_size) for place in other.places(step)]
    assert again == everything[: len(again)]


def test_epochs_and_seeds_differ():
    orders = [DataOrder(seed, 50, 50).places(step) for seed in (0, 1) for step in (0, 1)]
    assert len({tuple(index for _, index in order) for order in orders}) == 4


def test_an_empty_dataset_is_refused():
    with pytest.raises(UsageError, match="empty"):
        DataOrder(0, 0, 4)


def test_loading_starts_anywhere_and_draws_by_epoch_and_example():
    order = DataOrder(3, 5, 4)
    everything = loaded(order, range(6))
    assert loaded(order, range(4, 6)) == everything[4:]
    rows = [tuple(row) for batch in everything for row in batch]
    assert len(set(rows)) == len(rows) == 24  # of the same example another number in each epoch


def test_loading_leaves_global_random_states_alone(untouched):
    assert len(loaded(DataOrder(0, 5, 4), range(3))) == 3


def test_an_example_that_cannot_be_read_says_so():
    with pytest.raises(MediaError, match="number 2 is damaged"):
        loaded(DataOrder(0, 5, 5), range(1), bad=(2,))


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_workers_change_nothing(untouched):
    order = DataOrder(3, 5, 4)
    assert loaded(order, range(6), num_workers=2) == loaded(order, range(6))


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_an_error_in_a_worker_arrives_as_it_was_raised():
    with pytest.raises(MediaError) as caught:
        loaded(DataOrder(0, 5, 5), range(1), num_workers=1, bad=(2,))
    assert str(caught.value) == "number 2 is damaged"


def test_generators_of_numpy_are_handed_out_by_epoch_and_example():
    kept = []

    class Keeping(Numbers):
        def load(self, index, rng=None):
            assert isinstance(rng, np.random.Generator)
            kept.append((index, rng.random()))
            return super().load(index, rng)

    for _ in range(2):
        list(batches(Keeping(4), DataOrder(0, 4, 4), range(1), 0))
    assert kept[:4] == kept[4:] and len({number for _, number in kept}) == 4


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_worker_that_is_killed_stops_the_run_with_a_reason():
    here = os.getpid()

    class Deadly(Numbers):
        def load(self, index, rng=None):
            assert os.getpid() != here
            os.kill(os.getpid(), signal.SIGKILL)
            return super().load(index, rng)

    with pytest.raises(TrainingError, match="killed from outside"):
        list(batches(Deadly(4), DataOrder(0, 4, 4), range(2), 1))
