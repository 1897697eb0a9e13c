"""What differs between two keys."""

import pytest

from builder.cache.compare import compare_ingredients, count_equal, shape
from builder.events import CacheChange

RUN = (("op", "run"), ("argument", "/bin/sh"), ("argument", "-c"), ("argument", "make"), ("environment A", "1"))


@pytest.mark.parametrize(
    ("old", "new", "change"),
    [
        (("argument", "make"), ("argument", "cmake"), CacheChange("command", "", "make", "cmake")),
        (
            ("argument", "/bin/sh"),
            ("argument", "/bin/bash"),
            CacheChange("command", "", "/bin/sh -c make", "/bin/bash -c make"),
        ),
        (("environment A", "1"), ("environment A", "2"), CacheChange("variable", "A", "1", "2")),
        (("op", "run"), ("op", "run"), None),
    ],
)
def test_change_has_the_kind_and_name_of_its_ingredient(old, new, change):
    """One ingredient that differs is one change; the shell is left out unless it is what changed."""
    now = [new if ingredient == old else ingredient for ingredient in RUN]

    assert list(compare_ingredients(RUN, now)) == ([change] if change else [])


def test_variable_of_an_arg_is_called_a_build_argument():
    """The caller knows which variables are."""
    changes = compare_ingredients(RUN, [*RUN[:-1], ("environment A", "2")], build_args={"A"})

    assert [change.kind for change in changes] == ["build argument"]


@pytest.mark.parametrize(
    ("name", "kind", "own"),
    [
        ("limit nofile", "limit", "nofile"),
        ("file EOF", "here-document", "EOF"),
        ("secret key", "secret", "key"),
        ("cache mount /c", "cache mount", "/c"),
        ("device vendor.com/x=all", "device", "vendor.com/x=all"),
        ("platform", "platform", ""),
    ],
)
def test_what_is_there_on_one_side_only_has_no_value_on_the_other(name, kind, own):
    """Something that came, and the same gone again."""
    more = [*RUN, (name, "v")]

    assert list(compare_ingredients(RUN, more)) == [CacheChange(kind, own, None, "v")]
    assert list(compare_ingredients(more, RUN)) == [CacheChange(kind, own, "v", None)]


def test_ingredients_of_one_name_are_compared_together():
    """Sources of a COPY, say: their order counts."""
    before, now = [("source", "a"), ("source", "b")], [("source", "b"), ("source", "a")]

    assert list(compare_ingredients(before, now)) == [CacheChange("source", "", "a b", "b a")]


def test_order_of_variables_is_a_change():
    """A key is an ordered list, so ENV lines that were swapped are another key."""
    before = [*RUN, ("environment B", "2")]

    assert list(compare_ingredients(before, [*RUN[:-1], before[-1], before[-2]])) == [CacheChange("order of variables")]


def test_files_and_what_lies_below_are_left_out():
    """They are compared by who knows more of them."""
    assert list(compare_ingredients([("below", "1"), ("files", "1")], [("below", "2"), ("files", "2")])) == []


def test_keys_of_a_copy_from_a_stage_have_two_shapes():
    """By the file system of the stage, and by what is taken of it."""
    assert shape([("path", "/a"), ("source file system", "1")]) != shape([("files", "a=1")])
    assert shape(RUN) == frozenset()


def test_shared_ingredients_are_counted_as_often_as_both_have_them():
    """What makes one record more similar than another."""
    assert count_equal([*RUN, RUN[0]], RUN) == len(RUN)
    assert count_equal(RUN, [("op", "copy")]) == 0
