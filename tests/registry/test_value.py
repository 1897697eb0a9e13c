"""Values against dataclasses, whose words they have."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import pytest

from registry.value import field, frozen, mutable, replace


def plain(make: Any, give: Any, **options: Any) -> type[Any]:
    """Make a class of fields of every kind in one of the two ways."""

    class Plain:
        kind: ClassVar[str] = "plain"
        name: str
        size: int = 3
        names: list[str] = give(default_factory=list)
        secret: str = give(default="", repr=False, compare=False)

        def shout(self) -> str:
            return self.name.upper()

    Plain.__qualname__ = "Plain"
    return make(**options)(Plain)


OURS = plain(frozen, field)
THEIRS = plain(dataclasses.dataclass, dataclasses.field, frozen=True, kw_only=True)


@pytest.mark.parametrize("given", [{"name": "a"}, {"name": "a", "size": 4, "names": ["x"], "secret": "s"}])
def test_value_has_the_fields_and_the_look_of_a_dataclass(given: dict[str, Any]) -> None:
    """Defaults, fields in their order, what is hidden and methods are the same."""
    ours, theirs = OURS(**given), THEIRS(**given)

    assert vars(ours) == vars(theirs)
    assert (repr(ours), ours.shout(), ours.kind) == (repr(theirs), theirs.shout(), theirs.kind)
    assert not any(hasattr(made, "names") for made in (OURS, THEIRS))


@pytest.mark.parametrize("given", [{}, {"name": "a", "other": 1}, {"name": "a", "size": 1, "names": [], "extra": 1}])
def test_value_with_other_fields_is_refused(given: dict[str, Any]) -> None:
    """What is missing or unknown is a TypeError for both."""
    with pytest.raises(TypeError, match=r"(is not given: name|has no field: (other|extra))"):
        OURS(**given)
    with pytest.raises(TypeError):
        THEIRS(**given)


def test_value_takes_no_positions_unless_it_says_so() -> None:
    """By name only is the rule; else positions may be followed by names, each once."""

    @frozen(kw_only=False)
    class Pair:
        left: int
        right: int = 2

    assert (Pair(1), Pair(1, 3), Pair(1, right=3)) == (Pair(left=1), Pair(right=3, left=1), Pair(1, 3))
    for args, given in (((1, 2, 3), {}), ((1,), {"left": 1})):
        with pytest.raises(TypeError, match="Pair is given too much"):
            Pair(*args, **given)
    with pytest.raises(TypeError):
        OURS("a")


def test_value_is_equal_by_what_counts() -> None:
    """Class and compared fields decide; equal values have one hash, of values that can have one."""
    names = ["x"]

    assert OURS(name="a", secret="1") == OURS(name="a", secret="2")
    assert OURS(name="a") != OURS(name="b")
    assert OURS(name="a") != THEIRS(name="a")

    @frozen
    class Point:
        x: int
        y: int = 0

    assert len({Point(x=1), Point(x=1, y=0), Point(x=2)}) == 2
    with pytest.raises(TypeError, match="unhashable"):
        hash(OURS(name="a", names=names))


def test_values_without_fields_are_equal() -> None:
    """All of one class are the same value."""

    @frozen
    class Nothing:
        pass

    assert {Nothing(), Nothing()} == {Nothing()}


def test_value_may_be_equal_to_itself_alone() -> None:
    """Without `eq` it is an object like others."""

    @frozen(eq=False)
    class Node:
        name: str

    node = Node(name="a")

    assert node != Node(name="a")
    assert len({node, Node(name="a")}) == 2


def test_frozen_value_is_not_changed_and_a_mutable_one_is() -> None:
    """Setting and deleting a field is an AttributeError, as a new name is for both."""
    value = OURS(name="a")
    with pytest.raises(AttributeError, match="Plain is not changed: name"):
        value.name = "b"
    with pytest.raises(AttributeError, match="Plain is not changed: name"):
        del value.name
    with pytest.raises(AttributeError, match="Plain is not changed: other"):
        value.other = 1

    @mutable
    class State:
        count: int = 0

    state = State()
    state.count += 1

    assert state == State(count=1)
    with pytest.raises(AttributeError, match="State has no field: other"):
        state.other = 1  # type: ignore[attr-defined]  # that is the point
    with pytest.raises(TypeError, match="unhashable"):
        hash(state)


def test_fields_of_bases_come_first() -> None:
    """A class adds to its base, and may give a field of it a default."""

    @frozen
    class Base:
        a: int
        b: int

    @frozen
    class Derived(Base):
        c: int
        b: int = 5

    assert repr(Derived(a=1, c=2)).endswith("Derived(a=1, b=5, c=2)")
    assert isinstance(Derived(a=1, c=2), Base)
    assert Derived(a=1, c=2) != Base(a=1, b=5)


def test_fields_that_are_not_given_are_made_in_the_end() -> None:
    """`__post_init__` sees all fields and may set those that nobody gives."""

    @frozen
    class Text:
        text: str
        lines: tuple[str, ...] = field(init=False, repr=False, compare=False)

        def __post_init__(self) -> None:
            object.__setattr__(self, "lines", tuple(self.text.split("\n")))

    assert Text(text="a\nb").lines == ("a", "b")
    assert replace(Text(text="a\nb"), text="c").lines == ("c",)
    with pytest.raises(TypeError, match="has no field: lines"):
        Text(text="a", lines=())  # type: ignore[call-arg]  # that is the point


def test_replace_gives_another_value() -> None:
    """The first stays, and fields that were not named are the same."""
    first = OURS(name="a", size=4)

    assert replace(first, name="b") == OURS(name="b", size=4)
    assert first.name == "a"
    with pytest.raises(TypeError, match="has no field: other"):
        replace(first, other=1)
