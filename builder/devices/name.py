"""Names of devices, as the Container Device Interface spells them.

A *kind* is `vendor.com/class`. A *qualified name* is `vendor.com/class=name`, the name of one device. A *device name* as
a Dockerfile or `--allow` writes it is a kind, for its first device; a qualified name; `vendor.com/class=*` for all of a
kind; or `vendor.com/class=word` with the word of a class annotation in place of a name.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

_VENDOR_OR_CLASS: Final = re.compile(r"[A-Za-z](?:[A-Za-z0-9_.-]*[A-Za-z0-9])?")
_NAME: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_.:-]*[A-Za-z0-9])?")


class DeviceName(NamedTuple):
    """A device name in its two parts. *name* is empty for a kind alone."""

    kind: str
    name: str


def parse_device_name(text: str) -> DeviceName | None:
    """Return the parts of a device name, None if its kind is none.

    What follows the kind may be anything: it is only looked up.

    Source: moby/buildkit, solver/llbsolver/cdidevices/manager.go, parseDevice.
    """
    kind, _, name = text.partition("=")
    return DeviceName(kind, name) if is_kind(kind) else None


def is_kind(text: str) -> bool:
    """Return whether *text* is the kind of devices.

    Source: CDI, pkg/parser, ValidateVendorName and ValidateClassName.
    """
    vendor, slash, class_ = text.partition("/")
    return bool(slash and _VENDOR_OR_CLASS.fullmatch(vendor) and _VENDOR_OR_CLASS.fullmatch(class_))


def is_name(text: str) -> bool:
    """Return whether *text* can be the name of one device among those of its kind.

    Source: CDI, pkg/parser, ValidateDeviceName.
    """
    return _NAME.fullmatch(text) is not None
