"""Mixtures: exact proportions in every window, classes by name, and nothing that a single dataset would not give."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import djepa.testing
from djepa import Recipe, Trainer
from djepa.dataset import Dataset, Example
from djepa.errors import MediaError, RecipeError, UsageError
from djepa.interleaving import interleave, occurrences
from djepa.mixture import Mixture
from djepa.plugins import host
from djepa.tokens import Sample
from djepa.train.data import DataOrder

SIZES = {"cats": 12, "dogs": 4, "birds": 7}


# ---- the law

COUNTS = st.lists(st.integers(1, 60), min_size=1, max_size=6)


@given(counts=COUNTS, data=st.data())
def test_every_window_has_the_proportions_of_the_whole(counts, data):
    parts = interleave(counts)
    num, total = len(counts), sum(counts)
    assert np.bincount(parts).tolist() == counts
    endless = np.tile(parts, 3)
    start = data.draw(st.integers(0, 2 * total))
    length = data.draw(st.integers(0, total))
    window = np.bincount(endless[start : start + length], minlength=num)
    prefix = np.bincount(endless[:length], minlength=num)
    for part, count in enumerate(counts):
        share = count / total
        bound = 0.5 + share * (num - 2) / 2 + 1e-9
        assert abs(prefix[part] - share * length) <= bound
        assert abs(window[part] - share * length) <= 2 * bound


@given(counts=st.tuples(st.integers(1, 500), st.integers(1, 500)), start=st.integers(0, 999), length=st.integers(0, 999))
def test_with_two_parts_no_window_is_off_by_more_than_one(counts, start, length):
    window = np.resize(interleave(counts), 2000)[start : start + length]
    assert abs((window == 0).sum() - counts[0] / sum(counts) * length) <= 1 + 1e-9


@given(counts=COUNTS)
def test_occurrences_count_what_came_before(counts):
    parts = interleave(counts)
    assert occurrences(parts).tolist() == [int((parts[:place] == part).sum()) for place, part in enumerate(parts)]


# ---- the dataset

@pytest.fixture
def pictures(tmp_path):
    """Folders of pictures of one grey level each; two have classes, "cat" in both."""
    def draw(path, level):
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (level,) * 3).save(path)

    for number in range(SIZES["cats"]):
        draw(tmp_path / "cats" / ("cat" if number % 2 else "lion") / f"{number}.png", number)
    for number in range(SIZES["dogs"]):
        draw(tmp_path / "dogs" / ("dog" if number % 2 else "cat") / f"{number}.png", 100 + number)
    for number in range(SIZES["birds"]):
        draw(tmp_path / "birds" / f"{number}.png", 200 + number)
    return tmp_path


def node(pictures, name, **options):
    return {"kind": "image-folder", "root": str(pictures / name), "size": 8, "flip": False, **options}


def document(pictures, *names, **options):
    return {"kind": "mixture", "datasets": {name: node(pictures, name) for name in names}, **options}


@pytest.fixture
def build(pictures):
    from pydantic import TypeAdapter

    from djepa.recipe.component import DatasetNode

    def made(*names, **options) -> Mixture:
        return TypeAdapter(DatasetNode).validate_python(document(pictures, *names, **options)).build()

    return made


def level(example):
    return round((float(example.samples["image"].data[0, 0, 0]) + 1) * 127.5)


def test_without_weights_every_example_is_shown_once(build):
    mixture = build("cats", "dogs", "birds")
    assert len(mixture) == sum(SIZES.values())
    levels = sorted(level(mixture.load(index)) for index in range(len(mixture)))
    assert levels == [*range(12), *range(100, 104), *range(200, 207)]


def test_with_weights_an_epoch_goes_through_all_and_repeats_the_short(build):
    mixture = build("cats", "dogs", weights={"cats": 1, "dogs": 1})
    levels = [level(mixture.load(index)) for index in range(len(mixture))]
    assert len(levels) == 24 and [sum(one < 100 for one in levels[start : start + 2]) for start in range(0, 24, 2)] == [1] * 12
    assert {one: levels.count(one) for one in levels} == {**dict.fromkeys(range(12), 1), **dict.fromkeys(range(100, 104), 3)}
    rare = build("cats", "dogs", weights={"cats": 3, "dogs": 7})  # 12 / 0.3 = 40 places
    counts = [[level(rare.load(index)) for index in range(40)].count(100 + number) for number in range(4)]
    assert len(rare) == 40 and counts == [7, 7, 7, 7]


def test_every_batch_of_a_run_has_the_proportions(build):
    mixture = build("cats", "dogs", weights={"cats": 3, "dogs": 1})
    order = DataOrder(5, len(mixture), 8, mixture.order)
    batches = [[level(mixture.load(index)) for _, index in order.places(step)] for step in range(12)]
    assert [sum(one < 100 for one in batch) for batch in batches] == [6] * 12
    assert sorted(one for batch in batches[:2] for one in batch if one < 100) == list(range(12))
    assert len({tuple(one for one in batch if one < 100) for batch in batches}) == 12  # shuffled anew


@given(seed=st.integers(0, 999), sizes=st.lists(st.integers(1, 9), min_size=1, max_size=4), data=st.data())
def test_an_order_is_a_permutation_in_which_a_dataset_is_gone_through_before_it_is_repeated(seed, sizes, data):
    weights = data.draw(st.none() | st.lists(st.floats(0.05, 1), min_size=len(sizes), max_size=len(sizes)))
    mixture = made_of(sizes, weights)
    order = mixture.order(np.random.default_rng(seed))
    assert sorted(order) == list(range(len(mixture)))
    for part, size in enumerate(sizes):
        shown = [place for which, place in map(mixture.place, order) if which == part]
        assert len(shown) >= size
        turns = [shown[start : start + size] for start in range(0, len(shown), size)]
        assert all(len(set(turn)) == len(turn) for turn in turns)


class Marks(Dataset):
    def __init__(self, size):
        self.size = size

    def __len__(self):
        return self.size

    def load(self, index, rng=None):
        return Example({"mark": Sample(torch.tensor([float(index)]))})


class Node:
    def __init__(self, size):
        self.size = size

    def build(self):
        return Marks(self.size)


def made_of(sizes, weights):
    names = [f"part{number}" for number in range(len(sizes))]
    given_weights = dict(zip(names, weights, strict=True)) if weights else None
    return Mixture(datasets={name: Node(size) for name, size in zip(names, sizes, strict=True)}, weights=given_weights)


def test_classes_of_the_same_name_are_one_class(build):
    mixture = build("cats", "dogs", "birds")
    assert mixture.classes() == {"label": ["cat", "lion", "dog"]}
    for index in range(len(mixture)):
        example = mixture.load(index)
        number = level(example)
        kinds = (None, None) if number >= 200 else ("cat", "dog") if number >= 100 else ("lion", "cat")
        assert example.conditions == {"label": kinds[number % 2]}


def test_classes_can_be_kept_apart(build):
    mixture = build("cats", "dogs", classes="separate")
    assert mixture.classes() == {"label": ["cats/cat", "cats/lion", "dogs/cat", "dogs/dog"]}
    assert {mixture.load(index).conditions["label"] for index in range(len(mixture))} == {*mixture.classes()["label"]}


def test_it_changes_when_its_datasets_or_weights_do(build, pictures):
    plain = build("cats", "dogs").fingerprint()
    assert plain == build("cats", "dogs").fingerprint() != build("dogs", "cats").fingerprint()
    assert plain != build("cats", "dogs", weights={"cats": 1, "dogs": 1}).fingerprint()
    (pictures / "dogs" / "dog" / "1.png").unlink()
    assert plain != build("cats", "dogs").fingerprint()


def test_views_are_told_where_all_datasets_have_as_many(pictures, build):
    assert build("cats", "dogs").num_views() == 1
    mixture = Mixture(datasets={name: make_node(node(pictures, name, flip=name == "cats")) for name in ("cats", "dogs")})
    assert mixture.num_views() is None


def make_node(values):
    from pydantic import TypeAdapter

    from djepa.recipe.component import DatasetNode

    return TypeAdapter(DatasetNode).validate_python(values)


@pytest.mark.parametrize(("names", "options", "words"), [
    ((), {}, "no datasets"),
    (("cats", "dogs"), {"weights": {"cats": 1, "dog": 1}}, "weights has 'dog', .* Did you mean 'dogs'"),
    (("cats", "dogs"), {"weights": {"cats": 1}}, "nothing for 'dogs'"),
    (("cats", "dogs"), {"weights": {"cats": 1, "dogs": 0}}, "weight of 'dogs' must be above 0; got 0"),
    (("cats", "dogs"), {"weights": {"cats": 1e-9, "dogs": 1}}, r"an epoch has 1.2e\+10 examples"),
    (("cats",), {"passes": 0}, "passes=0"),
])
def test_what_cannot_be_mixed_is_refused(build, names, options, words):
    with pytest.raises(UsageError, match=words):
        build(*names, **options)


def test_other_streams_and_other_kinds_of_conditions_are_refused(pictures, build):
    sound = host().get("modality", "audio")()
    sound.save(sound.example(0), pictures / "sounds" / "a.wav")
    with pytest.raises(UsageError, match=r"'sounds' gives the streams {'audio': 'audio'}, and 'cats' gives {'image': 'image'}"):
        Mixture(datasets={"cats": make_node(node(pictures, "cats")),
                          "sounds": make_node({"kind": "audio-folder", "root": str(pictures / "sounds")})})


def test_mistakes_in_a_nested_node_are_named_by_their_path(pictures, make_recipe):
    with pytest.raises(RecipeError, match=r"data\.datasets\.dogs\.szie : unknown key - did you mean 'size'"):
        Recipe.from_dict({"extends": "image/digits", "data": {
            "kind": "mixture", "datasets": {"dogs": {"kind": "image-folder", "root": "x", "szie": 3}}}})


def test_a_damaged_first_example_is_no_reason_to_give_up(build, pictures):
    (pictures / "birds" / "0.png").write_bytes(b"no picture")
    assert build("cats", "birds").load(0)
    for path in (pictures / "birds").iterdir():
        path.write_bytes(b"no picture")
    with pytest.raises(MediaError, match="None of the first 7 examples"):
        build("cats", "birds")


def test_a_run_goes_through_a_mixture_and_its_recipe_can_be_written_and_read(make_recipe, pictures, tmp_path):
    data = document(pictures, "cats", "dogs", weights={"cats": 1, "dogs": 2})
    recipe = Recipe.from_dict({**make_recipe().dump(), "data": data}, [
        "train.steps=2", "model.streams.image.tokenizer.patch={y: 4, x: 4}"])
    run = tmp_path / "run"
    Trainer(recipe, device="cpu").fit(run)
    again = Recipe.load(run / "recipe.yaml")
    assert again.data.resolved_options()["weights"] == {"cats": 1.0, "dogs": 2.0} and again.digest() == recipe.digest()
    assert Recipe.load(run / "recipe.yaml", ["data.datasets.dogs.flip=true"]).data.build().num_views() is None


DIGITS = {"datasets": {"digits": {"kind": "digits"}}}


@pytest.mark.parametrize("name", [check.id for check in djepa.testing.checks("dataset", "mixture", options=DIGITS)])
def test_a_mixture_keeps_the_contract_of_datasets(name, pictures):
    options = document(pictures, "cats", "dogs", weights={"cats": 1, "dogs": 1})
    del options["kind"]
    {check.id: check for check in djepa.testing.checks("dataset", "mixture", options=options)}[name].run()
