"""Addresses on the network, as people and Dockerfiles write them.

Source: RFC 3986, section 3.2 (user, host and port).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from builder.errors import ContextError

if TYPE_CHECKING:
    from builder.source import Span

_USER = re.compile(r"//[^/]*@")


def check_address(text: str, *, span: Span | None = None) -> None:
    """Refuse an address whose host or port cannot be read, before it is asked for them.

    Raises:
        ContextError: so it is; credentials and query are not shown.
    """
    try:
        parts = urlsplit(text)
        _ = parts.port  # reading it is the check
        is_whole = bool(parts.hostname)
    except ValueError:
        is_whole = False
    if not is_whole:
        shown = _USER.sub("//", re.split(r"[?#]", text, maxsplit=1)[0])
        raise ContextError(f"invalid address: `{shown}`", hint="write it like https://HOST[:PORT]/PATH", span=span)
