"""Amounts and limits from words."""

from __future__ import annotations

import pytest

from builder.cli.space_limits import parse_limits, parse_space
from builder.collect.limits import DEFAULT_LIMITS, Limits, Space
from builder.errors import UsageError


@pytest.mark.parametrize(
    ("text", "space"),
    [
        ("64m", Space(size=64 << 20)),
        ("10GB", Space(size=10 << 30)),
        ("0", Space(size=0)),
        ("20%", Space(share=0.2)),
        ("12.5%", Space(share=0.125)),
    ],
)
def test_space_is_a_size_or_a_share(text: str, space: Space) -> None:
    """Sizes are those of every option, shares those of BuildKit's configuration."""
    assert parse_space(text, option="--min-free-space") == space


@pytest.mark.parametrize("text", ["", "much", "-1", "101%", "%", "1000%"])
def test_space_that_is_neither_names_the_option(text: str) -> None:
    """The option is named with what was given."""
    with pytest.raises(UsageError, match=f"invalid size for --keep-storage: `{text}`"):
        parse_space(text, option="--keep-storage")


@pytest.mark.parametrize("text", ["off", "OFF", "false", "0", "no"])
def test_limits_can_be_switched_off(text: str) -> None:
    """Several words say that nothing is collected."""
    assert parse_limits(text, option="PYBUILD_GC") is None


def test_limits_that_are_not_named_are_the_defaults() -> None:
    """One key changes one limit."""
    assert parse_limits("on", option="--gc") == DEFAULT_LIMITS
    assert parse_limits("max-used-space=5g,min-free-space=10%", option="--gc") == Limits(
        max_used=Space(size=5 << 30), min_free=Space(share=0.1), reserved=DEFAULT_LIMITS.reserved
    )


@pytest.mark.parametrize("text", ["maybe", "keep=5g", "max-used-space", "max-used-space=5g,"])
def test_limits_that_cannot_be_read_name_what_can(text: str) -> None:
    """A key that does not exist is refused with those that do."""
    with pytest.raises(UsageError, match="invalid PYBUILD_GC") as caught:
        parse_limits(text, option="PYBUILD_GC")

    assert "max-used-space=SIZE" in str(caught.value.hint)


def test_limits_with_no_size_name_the_key() -> None:
    """Of several sizes the wrong one is named."""
    with pytest.raises(UsageError, match="invalid size for --gc reserved-space: `much`"):
        parse_limits("reserved-space=much", option="--gc")
