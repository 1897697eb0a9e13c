"""What a provenance must not say: credentials.

It is read by everybody who can pull the image. So an address loses its user and password wherever it stands, also in
the text of the Dockerfile, and a build argument or variable whose name says that it is secret loses its value. What a
build argument of another name holds is told, as its value is part of how the image was made.

Source: CVE-2023-26054 (credentials in the provenance of BuildKit before 0.11.4).
"""

from __future__ import annotations

import re
from typing import Any, Final

from builder.dockerfile.rules import is_secret_name
from builder.plan.build_args import PROXY_VARIABLES

MASK: Final = "xxxxx"
"""What stands for a value that is not told, as in Go's `URL.Redacted`."""

_USERINFO: Final = re.compile(r"""([a-z][a-z0-9+.-]*://)[^/?#\s"'<>]*@""", re.IGNORECASE)


def redact_text(text: str) -> str:
    """Take user and password out of the addresses in a text."""
    return _USERINFO.sub(rf"\1{MASK}@", text)


def redact_value(name: str, value: str) -> str:
    """Return what may be told of the value of an argument or variable."""
    if value and is_secret_name(name):
        return MASK
    if name.upper() in PROXY_VARIABLES and "://" not in value:
        value = value.rpartition("@")[2]  # an address too, for those who read these variables
    return redact_text(value)


def redact_json(value: Any) -> Any:
    """Take user and password out of the addresses in all texts of a JSON value; the names of fields stay."""
    if isinstance(value, str):
        return redact_text(value)
    if isinstance(value, dict):
        return {name: redact_json(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [redact_json(item) for item in value]
    return value
