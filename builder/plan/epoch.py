"""SOURCE_DATE_EPOCH: the time that stands for the present, so that a build can be repeated to the byte.

Source: reproducible-builds.org, SOURCE_DATE_EPOCH specification; BuildKit, docs/build-repro.md.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from types import MappingProxyType

from builder.errors import UsageError

EPOCH_ARG = "SOURCE_DATE_EPOCH"
"""The build argument that says it; an ARG of this name before the first FROM gives a default."""

CONTEXT = "context"
"""The value that takes the time of the context: of a commit, of a file on a server."""

Times = Mapping[str, Callable[[], int | None]]
"""What has a time, by the names the argument may have as value; None if a thing has no time, as a folder."""


def parse_epoch(text: str | None, times: Times = MappingProxyType({})) -> int | None:
    """Read the value of the argument.

    Args:
        text: seconds since 1970, or a name of *times*; empty and None leave the clock in charge.
        times: the build context as `context`, named contexts, and stages that are one file or repository of the
            network. Only the one that is named is asked.

    Raises:
        UsageError: neither, or outside of what a time stamp can say.
    """
    if not text:
        return None
    if text in times:
        return times[text]()
    try:
        seconds = int(text)
        format_epoch(seconds)
    except (ValueError, OverflowError, OSError) as error:
        raise UsageError(
            f"invalid SOURCE_DATE_EPOCH: `{text}`",
            hint=f"give seconds since 1970 as a number, or what has a time: {', '.join(times) or CONTEXT}",
        ) from error
    return seconds


def format_epoch(seconds: int) -> str:
    """Write a time as image configs do, RFC 3339."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
