"""SOURCE_DATE_EPOCH: the time that stands for the present, so that a build can be repeated to the byte.

Source: reproducible-builds.org, SOURCE_DATE_EPOCH specification; BuildKit, docs/build-repro.md.
"""

from __future__ import annotations

import time

from builder.errors import UsageError

EPOCH_ARG = "SOURCE_DATE_EPOCH"
"""The build argument that says it; an ARG of this name before the first FROM gives a default."""

CONTEXT = "context"
"""The value that takes the time of the context: of a commit, of a file on a server."""


def parse_epoch(text: str | None, *, context_time: int | None = None) -> int | None:
    """Read the value of the argument.

    Args:
        text: seconds since 1970, or `context`; empty and None leave the clock in charge.
        context_time: seconds since 1970 of the context, None if it has no time of its own, as a folder.

    Raises:
        UsageError: neither, or outside of what a time stamp can say.
    """
    if not text:
        return None
    if text == CONTEXT:
        return context_time
    try:
        seconds = int(text)
        format_epoch(seconds)
    except (ValueError, OverflowError, OSError) as error:
        raise UsageError(
            f"invalid SOURCE_DATE_EPOCH: `{text}`", hint="give seconds since 1970 as a number, or `context`"
        ) from error
    return seconds


def format_epoch(seconds: int) -> str:
    """Write a time as image configs do, RFC 3339."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
