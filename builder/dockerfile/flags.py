"""Which flags every instruction takes, and reading them.

A *flag* is a word `--name` or `--name=value` between the keyword and the rest of an instruction.
"""

from __future__ import annotations

from enum import Enum, auto

from builder.dockerfile.parser import Word, shorten
from builder.errors import DockerfileError
from registry.value import field, frozen

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from builder.dockerfile.parser import Node


class FlagKind(Enum):
    """How a flag is written: `--name[=true|false]`, `--name=text`, or `--name=text` any number of times."""

    BOOLEAN = auto()
    TEXT = auto()
    LIST = auto()


_FILE_FLAGS = {
    "chown": FlagKind.TEXT,
    "chmod": FlagKind.TEXT,
    "link": FlagKind.BOOLEAN,
    "exclude": FlagKind.LIST,
}

FLAGS: Mapping[str, Mapping[str, FlagKind]] = {
    "add": {
        **_FILE_FLAGS,
        "checksum": FlagKind.TEXT,
        "keep-git-dir": FlagKind.BOOLEAN,
        "unpack": FlagKind.BOOLEAN,
    },
    "copy": {**_FILE_FLAGS, "from": FlagKind.TEXT, "parents": FlagKind.BOOLEAN},
    "from": {"platform": FlagKind.TEXT},
    "healthcheck": {
        "interval": FlagKind.TEXT,
        "timeout": FlagKind.TEXT,
        "start-period": FlagKind.TEXT,
        "start-interval": FlagKind.TEXT,
        "retries": FlagKind.TEXT,
    },
    "run": {
        "mount": FlagKind.LIST,
        "network": FlagKind.TEXT,
        "security": FlagKind.TEXT,
        "device": FlagKind.LIST,
    },
}
"""Flags by keyword and name. An instruction that is not listed takes none."""


@frozen(kw_only=False)
class Flags:
    """The flags of one instruction: the values by name, each a word that spans the whole flag."""

    values: Mapping[str, tuple[Word, ...]] = field(default_factory=dict)

    def find(self, name: str) -> Word | None:
        """Return the value of a flag given at most once, or None when it is absent or empty."""
        words = self.values.get(name, ())
        return words[0] if words and words[0].text else None

    def text(self, name: str) -> str | None:
        """Return the text of a flag given at most once, or None when it is absent or empty."""
        word = self.find(name)
        return word.text if word else None

    def boolean(self, name: str) -> bool | None:
        """Return the value of a boolean flag, or None when it is absent."""
        word = self.find(name)
        return word.text == "true" if word else None

    def all(self, name: str) -> tuple[Word, ...]:
        """Return the values of a flag that may be repeated, in order."""
        return self.values.get(name, ())


_NO_FLAGS = Flags()


def parse_flags(node: Node) -> Flags:
    """Read the flags of *node*.

    Raises:
        DockerfileError: a flag is unknown, given twice, or lacks a value or has one that is no boolean.

    Source: moby/buildkit, instructions/bflag.go.
    """
    if not node.flags:
        return _NO_FLAGS
    known = FLAGS.get(node.keyword, {})
    values: dict[str, list[Word]] = {}
    for word in node.flags:
        name, equals, value = word.text[2:].partition("=")
        span = node.line.span_of(word)
        kind = known.get(name)
        if kind is None:
            from builder.dockerfile.suggest import did_you_mean  # noqa: PLC0415  (only for typing errors)

            taken = ", ".join([f"--{flag}" for flag in known])
            raise DockerfileError(
                f"unknown flag: --{shorten(name)}{did_you_mean(name, known)}",
                hint=f"{node.keyword.upper()} takes {taken or 'no flags'}",
                span=span,
            )
        if name in values and kind is not FlagKind.LIST:
            raise DockerfileError(f"duplicate flag specified: --{name}", hint="give it once", span=span)
        if kind is FlagKind.BOOLEAN:
            value = "true" if not equals else value.lower()
        elif not equals:
            raise DockerfileError(
                f"missing a value on flag: --{name}", hint=f"write --{name}=value, without a blank", span=span
            )
        if kind is FlagKind.BOOLEAN and not value:
            raise DockerfileError(
                f"missing a value on flag: --{name}", hint=f"write --{name} or --{name}=true", span=span
            )
        if kind is FlagKind.BOOLEAN and value not in {"true", "false"}:
            raise DockerfileError(
                f"expecting boolean value for flag --{name}, not: {shorten(value)}",
                hint="write true or false",
                span=span,
            )
        values.setdefault(name, []).append(Word(value, word.start, word.end))
    return Flags({name: tuple(words) for name, words in values.items()})
