"""References: the names people give images, `registry/repository:tag@digest`.

Reading follows the grammar of the distribution project and its rules for short names: a first part with a dot, a
colon or an upper-case letter, or `localhost`, is a registry; anything else is on `docker.io`, and a single word there
is in `library/`.

Source: github.com/distribution/reference, reference.go (grammar), normalize.go (short names).
"""

from __future__ import annotations

import re

from registry.errors import DigestInvalidError, ReferenceInvalidError
from registry.oci.digest import HEX_DIGITS, Digest, parse_digest
from registry.value import frozen, replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

DEFAULT_REGISTRY: Final = "docker.io"
"""The registry of short names. Its host for requests is another one, which is the client's affair."""

DEFAULT_NAMESPACE: Final = "library"
"""The namespace of single words on the default registry."""

MAX_REPOSITORY_LENGTH: Final = 255

_REGISTRY_ALIASES: Final = {"index.docker.io": DEFAULT_REGISTRY}
_DOMAIN_PART: Final = r"[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?"
_REGISTRY: Final = rf"(?:{_DOMAIN_PART}(?:\.{_DOMAIN_PART})*|\[[a-fA-F0-9:]+\])(?::[0-9]+)?"
_REPOSITORY_PART: Final = r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
_TAG: Final = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}"


@frozen(kw_only=False)
class Reference:
    """The name of an image in full: short names are already expanded.

    *registry* is a host with an optional port. *repository* has at least one part, parts are split by `/`. With both
    *tag* and *digest*, the digest says which image, the tag is for people.
    """

    registry: str
    repository: str
    tag: str | None = None
    digest: Digest | None = None

    def __str__(self) -> str:
        """Return the canonical text, `docker.io/library/alpine:3.20`."""
        return f"{self.registry}/{self.repository}{self._suffix()}"

    def familiar(self) -> str:
        """Return the shortest text that `parse_reference` reads back as this reference, `alpine:3.20`."""
        return self.familiar_name() + self._suffix()

    def familiar_name(self) -> str:
        """Return the shortest text of registry and repository, without tag and digest."""
        if self.registry != DEFAULT_REGISTRY:
            return f"{self.registry}/{self.repository}"
        first, slash, rest = self.repository.partition("/")
        if first == DEFAULT_NAMESPACE and rest and "/" not in rest and not _is_identifier(rest):
            return rest
        if not slash or _is_registry(first):
            return f"{self.registry}/{self.repository}"
        return self.repository

    def with_tag(self, tag: str) -> Reference:
        """Return the reference to *tag* of the same repository, without a digest.

        Raises:
            ReferenceInvalidError: *tag* is not a tag.
        """
        return replace(self, tag=_check_tag(tag, text=f"{self.familiar_name()}:{tag}"), digest=None)

    def with_digest(self, digest: Digest) -> Reference:
        """Return the reference with *digest*, its tag kept."""
        return replace(self, digest=digest)

    def _suffix(self) -> str:
        tag = "" if self.tag is None else f":{self.tag}"
        return tag if self.digest is None else f"{tag}@{self.digest}"


def parse_reference(text: str, *, default_tag: str | None = "latest") -> Reference:
    """Read a reference as people write it.

    Args:
        text: e.g. `alpine`, `localhost:5000/a/b:1`, `ghcr.io/o/p@sha256:…`.
        default_tag: the tag of a reference with neither tag nor digest; None leaves it without.

    Raises:
        ReferenceInvalidError: any part breaks the grammar; the hint shows a spelling that would do, if one is near.
    """
    if not text:
        raise ReferenceInvalidError(text, "it is empty", hint="write it like name:tag")
    if _is_identifier(text):
        raise ReferenceInvalidError(text, "64 hex digits are an image id", hint=f"write it like name@sha256:{text}")
    if "://" in text:
        raise ReferenceInvalidError(text, "it is a URL", hint=f"did you mean `{text.partition('://')[2]}`?")
    rest, at, digest_text = text.partition("@")
    digest = _check_digest(digest_text, text=text) if at else None
    name, tag_text = _split_tag(rest)
    tag = None if tag_text is None else _check_tag(tag_text, text=text)
    registry, repository = _split_registry(name)
    _check_registry(registry, text=text)
    _check_repository(repository, text=text, shown=name)
    if tag is None and digest is None:
        tag = default_tag
    return Reference(registry, repository, tag, digest)


def _split_tag(text: str) -> tuple[str, str | None]:
    # A colon before the last slash belongs to a port.
    colon = text.rfind(":")
    if colon <= text.rfind("/"):
        return text, None
    return text[:colon], text[colon + 1 :]


def _split_registry(name: str) -> tuple[str, str]:
    first, slash, rest = name.partition("/")
    if not slash:
        return DEFAULT_REGISTRY, f"{DEFAULT_NAMESPACE}/{name}" if name else ""
    if not _is_registry(first):
        return DEFAULT_REGISTRY, name
    registry = _REGISTRY_ALIASES.get(first, first)
    if registry == DEFAULT_REGISTRY and rest and "/" not in rest:
        rest = f"{DEFAULT_NAMESPACE}/{rest}"
    return registry, rest


def _is_registry(first: str) -> bool:
    return first == "localhost" or "." in first or ":" in first or first != first.lower()


def _check_digest(digest: str, *, text: str) -> Digest:
    try:
        return parse_digest(digest)
    except DigestInvalidError as error:
        hint = None
        if digest != digest.lower():
            hint = f"did you mean `{text.partition('@')[0]}@{digest.lower()}`?"
        raise ReferenceInvalidError(text, f"bad digest, {error.reason}", hint=hint) from error


def _check_tag(tag: str, *, text: str) -> str:
    if not tag:
        raise ReferenceInvalidError(text, "the tag after the colon is empty")
    if len(tag) > 128:
        raise ReferenceInvalidError(text, f"a tag has at most 128 characters, not {len(tag)}")
    if not _is_plain(tag) and not re.fullmatch(_TAG, tag):
        suggestion = re.sub(r"[^A-Za-z0-9_.-]+", "-", tag).lstrip(".-")
        hint = f"did you mean the tag `{suggestion}`?" if suggestion else None
        raise ReferenceInvalidError(
            text, "a tag has letters, digits, `_`, `.` and `-`, the latter two not first", hint=hint
        )
    return tag


def _check_registry(registry: str, *, text: str) -> None:
    if registry != DEFAULT_REGISTRY and not _is_plain(registry) and not re.fullmatch(_REGISTRY, registry):
        raise ReferenceInvalidError(text, f"bad registry name {registry!r}")


def _check_repository(repository: str, *, text: str, shown: str) -> None:
    if not repository:
        raise ReferenceInvalidError(text, "the repository is empty", hint="write it like name:tag")
    if len(repository) > MAX_REPOSITORY_LENGTH:
        raise ReferenceInvalidError(text, f"a repository has at most {MAX_REPOSITORY_LENGTH} characters")
    if repository != repository.lower():
        hint = f"did you mean `{text.replace(shown, shown.lower(), 1)}`?"
        raise ReferenceInvalidError(text, "the repository must be lower case", hint=hint)
    if not all(_is_plain(part) or re.fullmatch(_REPOSITORY_PART, part) for part in repository.split("/")):
        raise ReferenceInvalidError(
            text, "a part of a repository has lower-case letters and digits, with `.`, `_`, `__` or `-` between them"
        )


def _is_identifier(text: str) -> bool:
    return len(text) == 64 and not text.strip(HEX_DIGITS)


def _is_plain(part: str) -> bool:
    """Tell whether a part is of letters and digits alone, which none of the patterns has to be compiled for."""
    return part.isascii() and part.isalnum()
