"""STOPSIGNAL: which texts name a signal.

Source: moby/sys, signal/signal_linux.go; moby, dockerfile validation of STOPSIGNAL.
"""

from __future__ import annotations

_NAMES = frozenset(
    [
        "ABRT",
        "ALRM",
        "BUS",
        "CHLD",
        "CLD",
        "CONT",
        "FPE",
        "HUP",
        "ILL",
        "INT",
        "IO",
        "IOT",
        "KILL",
        "PIPE",
        "POLL",
        "PROF",
        "PWR",
        "QUIT",
        "SEGV",
        "STKFLT",
        "STOP",
        "SYS",
        "TERM",
        "TRAP",
        "TSTP",
        "TTIN",
        "TTOU",
        "URG",
        "USR1",
        "USR2",
        "VTALRM",
        "WINCH",
        "XCPU",
        "XFSZ",
    ]
)
_REALTIME_MIN, _REALTIME_MAX = 34, 64


def is_signal(text: str) -> bool:
    """Tell whether *text* is the number of a signal or its name, with or without `SIG`, in any case."""
    if text.isascii() and text.isdecimal():
        digits = text.lstrip("0")
        return len(digits) <= len(str(_REALTIME_MAX)) and 0 < int(digits or "0") <= _REALTIME_MAX
    name = text.upper().removeprefix("SIG")
    return name in _NAMES or name in _realtime_names()


def _realtime_names() -> frozenset[str]:
    count = _REALTIME_MAX - _REALTIME_MIN
    upwards = (f"RTMIN+{offset}" for offset in range(1, count // 2 + 1))
    downwards = (f"RTMAX-{offset}" for offset in range(1, count // 2))
    return frozenset({"RTMIN", "RTMAX", *upwards, *downwards})
