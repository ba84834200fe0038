"""The class condition: names, numbers, the null condition."""

import pytest
import torch

from djepa.conditioner import ClassConditioner
from djepa.errors import ConditionError, UsageError
from djepa.random import seeded

NAMES = ("cat", "dog", "7", "cow")


def make(names=NAMES, num_tokens=3):
    with seeded(0, "conditioner"):
        return ClassConditioner(8, names=names, num_tokens=num_tokens)


def test_names_numbers_and_nothing_become_ids():
    prepared = make().prepare(["cow", "cat", 1, "2", None])
    assert prepared.tolist() == [3, 0, 1, 2, 4] and prepared.dtype == torch.int64


def test_a_name_that_is_a_number_wins_over_that_number():
    assert make(names=("3", "2", "1", "0")).prepare([0, "3", 1]).tolist() == [3, 0, 2]


@pytest.mark.parametrize("raw", ["bird", 4, -1, 1.0, True, "", ["cat"], "1.5"])
def test_an_unknown_condition_is_refused(raw):
    with pytest.raises(ConditionError, match=r"Unknown condition .* Known: 7, cat, cow, dog"):
        make().prepare(["cat", raw])


def test_case_and_underscores_are_overlooked_where_no_name_is_exact():
    conditioner = make(names=("Golden retriever", "dog", "Dog", "tea_pot", "true"))
    assert conditioner.prepare(["golden_retriever", " GOLDEN  Retriever", "Dog", "dog", "tea pot"]).tolist() == [0, 0, 2, 1, 3]
    with pytest.raises(ConditionError, match="'DOG' could be 'dog' or 'Dog'; say which"):
        conditioner.prepare(["DOG"])
    with pytest.raises(ConditionError, match="Unknown condition True"):
        conditioner.prepare([True])


def test_a_qualifier_is_needed_only_where_it_tells_names_apart():
    conditioner = make(names=("crane (bird)", "jay (bird)", "crane (machine)", "kite", "kite (bird)"))
    assert conditioner.prepare(["Crane (Bird)", "jay", "kite"]).tolist() == [0, 1, 3]
    with pytest.raises(ConditionError, match=r"'Crane' could be 'crane \(bird\)' or 'crane \(machine\)'; say which"):
        conditioner.prepare(["Crane"])
    with pytest.raises(ConditionError, match="Unknown condition 'bird'"):
        conditioner.prepare(["bird"])


def test_the_nearest_name_is_suggested():
    with pytest.raises(ConditionError, match=r"Unknown condition 'dgo'. Did you mean 'dog'\?"):
        make().prepare(["dgo"])


@pytest.mark.parametrize("names", [(), ("a", "b", "a"), ("1", 1)])
def test_names_are_different_and_there_are_some(names):
    with pytest.raises(UsageError, match="needs a list of different names"):
        make(names=names)


@pytest.mark.parametrize("num_tokens", [0, -2])
def test_a_condition_has_at_least_one_token(num_tokens):
    with pytest.raises(UsageError, match=rf"num_tokens={num_tokens}: .*at least 1"):
        make(num_tokens=num_tokens)


def test_tokens_are_learned_vectors_each_plus_the_embedding_of_its_condition():
    conditioner = make()
    with torch.no_grad():
        conditioner.tokens.copy_(torch.randn(3, 8, generator=torch.Generator().manual_seed(0)))
    tokens = conditioner(conditioner.prepare(["dog", None]))
    torch.testing.assert_close(tokens.values[0], conditioner.tokens + conditioner.embedding[1])
    torch.testing.assert_close(tokens.values[1], conditioner.tokens + conditioner.null_condition[0])
    assert tokens.valid.all() and tokens.valid.shape == (2, 3) and tokens.valid.device.type == "cpu"


def test_learned_vectors_start_at_zero_and_embeddings_small():
    with seeded(0, "conditioner"):
        conditioner = ClassConditioner(64, names=[str(number) for number in range(100)])
    assert conditioner.tokens.shape == (64, 64) and bool((conditioner.tokens == 0).all())
    assert float(conditioner.embedding.detach().std()) == pytest.approx(0.02, rel=0.05)
    assert float(conditioner.null_condition.detach().std()) == pytest.approx(0.02, rel=0.3)


def test_dropped_conditions_are_the_null_condition():
    conditioner = make()
    prepared = conditioner.prepare(["cat", "dog", "cow"])
    dropped = conditioner.null(prepared, torch.tensor([False, True, True]))
    assert torch.equal(dropped, conditioner.prepare(["cat", None, None]))
    assert prepared.tolist() == [0, 1, 3]  # the original is left alone


def test_it_describes_itself_and_learns_its_names_from_the_dataset():
    assert make().describe() == list(NAMES)
    assert ClassConditioner.fitted({"num_tokens": 5}, ["a", "b"]) == {"num_tokens": 5, "names": ["a", "b"]}
    assert ClassConditioner.fitted({"names": ["x", "y"]}, ["a", "b"]) == {"names": ["x", "y"]}
    assert ClassConditioner.fitted({"names": []}, ["a", "b"]) == {"names": ["a", "b"]}  # a default, written out
    assert ClassConditioner.fitted({"names": ["x"]}, None) == {"names": ["x"]}
