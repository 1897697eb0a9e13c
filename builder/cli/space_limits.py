"""Amounts of disk space, and limits of the cache, from words of the command line."""

from __future__ import annotations

import re

from builder.cli.units import parse_size
from builder.collect.limits import DEFAULT_LIMITS, Limits, Space
from builder.errors import UsageError
from registry.value import replace

_SHARE = re.compile(r"(\d{1,3}(?:\.\d+)?)%", re.ASCII)
_OFF = frozenset({"off", "false", "0", "no"})
_ON = frozenset({"", "on", "true", "1", "yes"})
_FIELDS = {"max-used-space": "max_used", "min-free-space": "min_free", "reserved-space": "reserved"}


def parse_space(text: str, *, option: str) -> Space:
    """Read an amount: a size as of `parse_size`, or a percentage of the disk, `20%`.

    Raises:
        UsageError: it is neither; names *option*.
    """
    share = _SHARE.fullmatch(text.strip())
    if share is None:
        return Space(size=parse_size(text, option=option))
    if float(share[1]) > 100:
        raise UsageError(f"invalid size for {option}: `{text}`", hint="more than 100% of a disk cannot be had")
    return Space(share=float(share[1]) / 100)


def parse_limits(text: str, *, option: str) -> Limits | None:
    """Read what builds hold the cache to: `off`, `on`, or `KEY=SIZE,…`; what is not named is as by default.

    Args:
        text: the words.
        option: where they come from.

    Returns:
        None for no limits.

    Raises:
        UsageError: an unknown key, or no size.
    """
    if text.lower() in _OFF:
        return None
    limits = DEFAULT_LIMITS
    if text.lower() in _ON:
        return limits
    for part in text.split(","):
        key, equals, value = part.partition("=")
        if not equals or key not in _FIELDS:
            raise UsageError(f"invalid {option}: `{part}`", hint=f"write off, or {'=SIZE,'.join(_FIELDS)}=SIZE")
        limits = replace(limits, **{_FIELDS[key]: parse_space(value, option=f"{option} {key}")})
    return limits
