"""Values of options that more than one verb has: platforms, networks, hosts, sizes, limits; and of their keys."""

from __future__ import annotations

import re

from builder.cli.arguments import SWITCH_VALUES
from builder.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Final

    from builder.cli.environment import Environment
    from builder.request import NetworkMode
    from registry.oci.platform import Platform

_DEFAULT_SHM_SIZE = 64 << 20

_ULIMITS: Final = frozenset(
    [
        "core",
        "cpu",
        "data",
        "fsize",
        "locks",
        "memlock",
        "msgqueue",
        "nice",
        "nofile",
        "nproc",
        "rss",
        "rtprio",
        "rttime",
        "sigpending",
        "stack",
    ]
)


def parse_platform_option(text: str | None, environment: Environment) -> Platform | None:
    """Return the one platform of `--platform`, else of `$DOCKER_DEFAULT_PLATFORM`; None if neither says one.

    `local` is the machine's own.

    Raises:
        UsageError: several platforms.
        PlatformInvalidError: not a platform.
    """
    from registry.oci.platform import host_platform, parse_platform  # noqa: PLC0415  (not needed for help)

    text = text or environment.platform()
    if not text:
        return None
    if "," in text:
        raise UsageError(f"one platform is wanted: `{text}`", hint="run once for each of them")
    return host_platform() if text == "local" else parse_platform(text)


def parse_network(text: str) -> NetworkMode:
    """Return the mode of `--network`.

    Raises:
        UsageError: it is none.
    """
    match text:
        case "default" | "none" | "host":
            return text
        case _:
            pass
    raise UsageError(f"option --network: unknown mode: `{text}`", hint="use default, none or host")


def parse_hosts(texts: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """Return name and address of each `--add-host`: `name:ip`, `name=ip`, `name:[::1]`.

    Raises:
        UsageError: no name, or not an address.
    """
    return tuple(_parse_host(text) for text in texts)


def _parse_host(text: str) -> tuple[str, str]:
    from ipaddress import ip_address  # noqa: PLC0415  (only with --add-host)

    name, separator, address = text.partition("=")
    if not separator:
        name, separator, address = text.partition(":")
    if not name or not address or not set(name).isdisjoint(" \t\n#"):
        raise UsageError(f"option --add-host: not a name and an address: `{text}`", hint="write it like HOST:IP")
    if address == "host-gateway":
        raise UsageError("option --add-host: host-gateway is not supported yet", hint="give an address")
    if address.startswith("[") and address.endswith("]"):
        address = address[1:-1]
    try:
        return name, str(ip_address(address))
    except ValueError:
        raise UsageError(f"option --add-host: not an address: `{address}`", hint="write it like HOST:IP") from None


def parse_shm_size(text: str | None) -> int:
    """Return the bytes of `--shm-size`, 64 MiB if it is not given.

    Raises:
        UsageError: not a size.
    """
    if text is None:
        return _DEFAULT_SHM_SIZE
    from builder.cli.units import parse_size  # noqa: PLC0415  (only with the option)

    return parse_size(text, option="--shm-size")


def parse_ulimits(texts: Sequence[str]) -> tuple[tuple[str, int, int], ...]:
    """Return name, soft and hard limit of each `--ulimit NAME=SOFT[:HARD]`; -1 is no limit.

    Raises:
        UsageError: an unknown name, not numbers, or a soft limit above the hard one.
    """
    return tuple(_parse_ulimit(text) for text in texts)


def _parse_ulimit(text: str) -> tuple[str, int, int]:
    name, _, limits = text.partition("=")
    if name not in _ULIMITS:
        from builder.dockerfile.suggest import nearest  # noqa: PLC0415  (only for typing errors)

        near = nearest(name, sorted(_ULIMITS))
        raise UsageError(f"option --ulimit: unknown limit: `{name}`", hint=f"did you mean {near}?" if near else None)
    soft_text, colon, hard_text = limits.partition(":")
    soft = _parse_limit(soft_text, text)
    hard = _parse_limit(hard_text, text) if colon else soft
    if hard != -1 and (soft == -1 or soft > hard):
        raise UsageError(f"option --ulimit: the soft limit is above the hard one: `{text}`")
    return name, soft, hard


def _parse_limit(text: str, whole: str) -> int:
    if text in {"-1", "unlimited"}:
        return -1
    if not (text.isascii() and text.isdigit()):
        raise UsageError(f"option --ulimit: not a number: `{whole}`", hint="write it like nofile=1024:2048")
    return int(text)


def parse_number(text: str, option: str) -> int:
    """Return the number that *option* was given.

    Raises:
        UsageError: it is none.
    """
    try:
        return int(text)
    except ValueError:
        raise UsageError(f"option {option}: not a number: `{text}`") from None


def parse_switch(option: str, key: str, values: Mapping[str, str], *, default: str = "false") -> bool:
    """Return the value of a key of an option that is true or false.

    Raises:
        UsageError: it is neither.
    """
    text = values.get(key, default)
    value = SWITCH_VALUES.get(text.lower())
    if value is None:
        raise UsageError(f"option {option}: {key} is true or false, not `{text}`")
    return value


def parse_duration(option: str, key: str, values: Mapping[str, str], *, default: float) -> float:
    """Return the seconds of a key of an option that is a duration as Go writes them, `1h30m`.

    Raises:
        UsageError: it is none.
    """
    text = values.get(key)
    if text is None:
        return default
    if not re.fullmatch(r"(?:\d+(?:\.\d+)?(?:h|ms|m|s))+", text, re.ASCII):
        raise UsageError(f"option {option}: {key} is no duration: `{text}`", hint="write it like 24h or 90s")
    units = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
    return sum(float(number) * units[unit] for number, unit in re.findall(r"([\d.]+)(ms|h|m|s)", text))
