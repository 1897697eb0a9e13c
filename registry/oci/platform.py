"""Platforms: os/architecture/variant, how people spell them and which image fits which machine.

Source: image-spec, image-index.md, property platform; containerd's platforms package for spellings and preference.
"""

from __future__ import annotations

import re
from functools import lru_cache

from registry.errors import PlatformInvalidError
from registry.value import frozen

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Final

KNOWN_SYSTEMS: Final = frozenset(
    {
        "aix",
        "android",
        "darwin",
        "dragonfly",
        "freebsd",
        "hurd",
        "illumos",
        "ios",
        "js",
        "linux",
        "nacl",
        "netbsd",
        "openbsd",
        "plan9",
        "solaris",
        "wasip1",
        "windows",
        "zos",
    }
)
"""Operating systems that are recognised where only one word is given."""

KNOWN_ARCHITECTURES: Final = frozenset(
    {
        "386",
        "amd64",
        "amd64p32",
        "arm",
        "arm64",
        "arm64be",
        "armbe",
        "loong64",
        "mips",
        "mips64",
        "mips64le",
        "mips64p32",
        "mips64p32le",
        "mipsle",
        "ppc",
        "ppc64",
        "ppc64le",
        "riscv",
        "riscv64",
        "s390",
        "s390x",
        "sparc",
        "sparc64",
        "wasm",
    }
)
"""Architectures that are recognised where only one word is given."""

_SYSTEM_NAMES: Final = {"macos": "darwin"}
_ARCHITECTURE_NAMES: Final = {
    "i386": ("386", ""),
    "i686": ("386", ""),
    "x86_64": ("amd64", ""),
    "x86-64": ("amd64", ""),
    "aarch64": ("arm64", ""),
    "armhf": ("arm", "v7"),
    "armv7l": ("arm", "v7"),
    "armel": ("arm", "v6"),
    "armv6l": ("arm", "v6"),
    "loongarch64": ("loong64", ""),
}
_BASELINE_VARIANTS: Final = {"amd64": "v1", "arm64": "v8"}
_SYSTEM: Final = r"([a-z0-9_-]+)(?:\(([A-Za-z0-9_.-]*)\))?"
_PART: Final = r"[a-z0-9_.-]+"


@frozen(kw_only=False)
class Platform:
    """What an image runs on, as it was written down: `parse_platform` normalises, construction does not.

    *variant* is empty where the architecture says it all, *os_version* is only used by Windows images.
    """

    os: str
    architecture: str
    variant: str = ""
    os_version: str = ""

    def __str__(self) -> str:
        """Return `os/architecture[/variant]`."""
        text = f"{self.os}/{self.architecture}"
        return f"{text}/{self.variant}" if self.variant else text

    def normalized(self) -> Platform:
        """Return the platform in Go's names, without a variant that every machine of the architecture has."""
        system = self.os.lower()
        architecture, variant = _normalize_architecture(self.architecture.lower(), self.variant.lower())
        return Platform(_SYSTEM_NAMES.get(system, system), architecture, variant, self.os_version)

    def matches(self, wanted: Platform) -> bool:
        """Tell whether an image of this platform runs where *wanted* is asked for.

        An older variant of the same architecture does, so does arm on arm64 and 386 on amd64.
        """
        return best_match((self,), wanted) is not None


def parse_platform(text: str, *, default: Platform | None = None) -> Platform:
    """Read `os[(version)][/architecture[/variant]]` or an architecture alone, and normalise it.

    Args:
        text: as given by a user, e.g. `linux/arm64`, `arm/v7`, `aarch64`.
        default: what is not said comes from here; the machine's own platform if None.

    Raises:
        PlatformInvalidError: empty or malformed parts, too many of them, or a single word that is neither an operating
            system nor an architecture.
    """
    parts = text.strip().lower().split("/")
    system = re.fullmatch(_SYSTEM, parts[0])
    if len(parts) > 3 or system is None or not all(re.fullmatch(_PART, part) for part in parts[1:]):
        raise PlatformInvalidError(text, "expected os/architecture[/variant]")
    name = _SYSTEM_NAMES.get(system[1], system[1])
    version = system[2] or ""
    if len(parts) == 3:
        return Platform(name, parts[1], parts[2], version).normalized()
    if name in KNOWN_SYSTEMS or (len(parts) == 2 and not _is_architecture(name)):
        if len(parts) == 2:
            return Platform(name, parts[1], "", version).normalized()
        base = default or host_platform()
        return Platform(name, base.architecture, base.variant, version).normalized()
    if _is_architecture(name) and not version:
        base = default or host_platform()
        return Platform(base.os, name, parts[1] if len(parts) == 2 else "").normalized()
    raise PlatformInvalidError(text, "neither an operating system nor an architecture")


@lru_cache(maxsize=1)
def host_platform() -> Platform:
    """Return the platform of the running kernel."""
    import os  # noqa: PLC0415  (the name belongs to the fields in this module)

    return Platform("linux", os.uname().machine).normalized()


def best_match(candidates: Iterable[Platform], wanted: Platform) -> Platform | None:
    """Return the first of the best-fitting *candidates* for *wanted*, or None if none would run there.

    Best is the same variant, then the next older one, then another architecture that the machine also executes.
    An operating system version only counts if *wanted* names one: it is then a prefix of the candidate's.
    """
    ranks = {key: rank for rank, key in reversed(list(enumerate(_acceptable(wanted.normalized()))))}
    best: tuple[int, Platform] | None = None
    for candidate in candidates:
        normal = candidate.normalized()
        rank = ranks.get((normal.os, normal.architecture, normal.variant))
        if rank is None or not normal.os_version.startswith(wanted.os_version):
            continue
        if best is None or rank < best[0]:
            best = (rank, candidate)
    return best[1] if best else None


def _acceptable(wanted: Platform) -> list[tuple[str, str, str]]:
    """Return what runs on *wanted*, best first. Source: containerd, platforms/compare.go, platformVector."""
    variants = [(wanted.architecture, wanted.variant)]
    match wanted.architecture:
        case "amd64":
            variants += [("amd64", f"v{number}" if number > 1 else "") for number in _older(wanted.variant, 1)]
            variants.append(("386", ""))
        case "arm":
            variants += [("arm", f"v{number}") for number in _older(wanted.variant, 5)]
        case "arm64":
            if wanted.variant:
                variants.append(("arm64", ""))
            variants += [("arm", f"v{number}") for number in (8, 7, 6, 5)]
        case _:
            pass
    return [(wanted.os, architecture, variant) for architecture, variant in variants]


def _older(variant: str, oldest: int) -> range:
    digits = variant[1:]
    if variant[:1] != "v" or len(digits) != 1 or digits not in "123456789":
        return range(0)
    return range(int(digits) - 1, oldest - 1, -1)


def _normalize_architecture(architecture: str, variant: str) -> tuple[str, str]:
    architecture, implied = _ARCHITECTURE_NAMES.get(architecture, (architecture, ""))
    if variant.isdigit():
        variant = f"v{variant}"
    variant = implied or variant
    if architecture == "arm" and not variant:
        variant = "v7"
    if variant == _BASELINE_VARIANTS.get(architecture):
        variant = ""
    return architecture, variant


def _is_architecture(name: str) -> bool:
    return name in KNOWN_ARCHITECTURES or name in _ARCHITECTURE_NAMES
