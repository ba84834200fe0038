"""Documents laid over one another."""

import copy

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from djepa.errors import RecipeError
from djepa.recipe.layers import layer, leaves, merge, override_layer, plain

KEYS = st.sampled_from(["kind", "a", "b", "c"])
LEAVES = st.none() | st.integers(0, 2) | st.sampled_from(["gaussian", "flow"]) | st.lists(st.integers(0, 2), max_size=2)
DOCUMENTS = st.dictionaries(KEYS, st.recursive(LEAVES, lambda inner: st.dictionaries(KEYS, inner, max_size=3), max_leaves=8),
                            max_size=3)


def tree(document, origin="file"):
    return layer(document, lambda _: origin)


def over(base, top):
    return plain(merge(merge({}, tree(base)), tree(top)))


@pytest.mark.parametrize(("base", "top", "expected"), [
    ({"a": 1, "m": {"x": 1, "y": 2}}, {"m": {"y": 3, "z": 4}}, {"a": 1, "m": {"x": 1, "y": 3, "z": 4}}),
    ({"a": [1, 2, 3]}, {"a": [4]}, {"a": [4]}),
    ({"a": 1}, {"a": {"b": 2}}, {"a": {"b": 2}}),
    ({"a": {"b": 2}}, {"a": 1}, {"a": 1}),
    ({"a": 1, "b": 2}, {"a": None}, {"b": 2}),
    ({"m": {"x": 1, "y": 2}}, {"m": {"x": None}}, {"m": {"y": 2}}),
    ({}, {"m": {"x": None}}, {"m": {}}),
    ({"m": {"x": 1}}, {"m": {}}, {"m": {"x": 1}}),
    ({"m": 1}, {"m": {}}, {"m": {}}),
], ids=str)
def test_maps_merge_lists_replace_null_unsets(base, top, expected):
    assert over(base, top) == expected


@pytest.mark.parametrize(("base", "top", "expected"), [
    ({"kind": "a", "x": 1}, {"kind": "b", "y": 2}, {"kind": "b", "y": 2}),
    ({"kind": "a", "x": 1}, {"kind": "a", "y": 2}, {"kind": "a", "x": 1, "y": 2}),
    ({"kind": "a", "x": 1}, {"y": 2}, {"kind": "a", "x": 1, "y": 2}),
    ({"kind": "a", "x": 1}, "b", {"kind": "b"}),
    ({"kind": "a", "x": 1}, "a", {"kind": "a", "x": 1}),
    ("a", {"x": 1}, {"kind": "a", "x": 1}),
    ("a", {"kind": "b", "x": 1}, {"kind": "b", "x": 1}),
    ("a", "b", "b"),
], ids=str)
def test_another_kind_replaces_the_whole_node(base, top, expected):
    assert over({"head": base}, {"head": top}) == {"head": expected}


@example({"a": {"a": 0}}, {"a": {"kind": {"kind": None}}})  # nobody's kind is a map, but the law knows no exception
@given(DOCUMENTS, DOCUMENTS)
def test_merging_twice_is_merging_once(base, top):
    once = merge(merge({}, tree(base)), tree(top))
    assert plain(merge(once, tree(top))) == plain(once)


@given(DOCUMENTS)
def test_a_document_over_nothing_or_under_nothing_is_itself_without_nulls(document):
    alone = merge({}, tree(document))
    assert merge(alone, {}) == alone == merge({}, alone)


@given(DOCUMENTS, DOCUMENTS)
def test_the_outcome_shares_nothing_with_either(base, top):
    trees = tree(base), tree(top)
    before = copy.deepcopy(trees)
    for value in plain(merge(*trees)).values():
        if isinstance(value, list):
            value.append("changed")
    assert trees == before


@given(DOCUMENTS, DOCUMENTS)
def test_every_leaf_comes_from_one_of_the_two(base, top):
    merged = merge(merge({}, tree(base, "base")), tree(top, "top"))
    given_by = {"base": leaves(tree(base)), "top": leaves(tree(top))}
    for path, origin in leaves(merged).items():
        bare = path[:-1] if path[-1] == "kind" else path  # a bare name became the kind of its node
        assert {path, bare} & set(given_by[origin])


@pytest.mark.parametrize(("text", "document"), [
    ("train.steps=500", {"train": {"steps": 500}}),
    ("train.lr=1e-4", {"train": {"lr": 1e-4}}),
    ("a=b=c", {"a": "b=c"}),
    ("a = 1", {"a": 1}),
    ("a=", {"a": None}),
    ("a=[1, 2]", {"a": [1, 2]}),
    ("a.b={kind: flow, depth: 3}", {"a": {"b": {"kind": "flow", "depth": 3}}}),
])
def test_an_override_is_a_document_of_one_path(text, document):
    assert plain(override_layer(text)) == document


@pytest.mark.parametrize("text", ["train.steps", "=3", "a..b=3", ".a=3", "a.=3", "", "a=[1"])
def test_a_malformed_override_says_which_it_is(text):
    with pytest.raises(RecipeError) as caught:
        override_layer(text)
    assert repr(text) in str(caught.value)
