"""Which sources of an ADD come from the network, and what is wanted of them.

Source: spec, section 1.14; BuildKit, `dockerfile2llb/convert.go`, dispatchCopy.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from builder.context.git import GitSource, is_git_url, parse_git_url, with_checksum
from builder.context.remote import parse_url_source
from builder.errors import DockerfileError
from registry.errors import RegistryError
from registry.oci.digest import parse_digest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from builder.context.remote import RemoteSource
    from builder.dockerfile import instructions as dockerfile

_HTTP = re.compile(r"https?://", re.IGNORECASE)
_SECRET = re.compile(r"(https?://)[^/?#\s]*@", re.IGNORECASE)


def is_remote(path: str) -> bool:
    """Tell whether a source of ADD is an address rather than a path."""
    return _HTTP.match(path) is not None or is_git_url(path)


def split_sources(
    instruction: dockerfile.Add, paths: Sequence[str], checksum: str | None
) -> tuple[tuple[str, ...], tuple[RemoteSource, ...]]:
    """Split the sources of an ADD into paths and what comes from the network.

    Args:
        instruction: with its flags.
        paths: its sources, expanded.
        checksum: the value of `--checksum`, expanded.

    Raises:
        DockerfileError: a flag does not fit the sources.
        ContextError: an address cannot be read.
    """
    span = instruction.span
    local = tuple(path for path in paths if not is_remote(path))
    if checksum and len(paths) + len(instruction.files) > 1:
        raise DockerfileError(
            "checksum can't be specified for multiple sources", hint="write one ADD for each source", span=span
        )
    remotes: list[RemoteSource] = []
    for path in paths:
        if is_git_url(path):
            source = parse_git_url(path, span=span)
            if checksum:
                source = with_checksum(source, checksum.removeprefix("sha1:").removeprefix("sha256:"), span=span)
            keep = source.keep_git_dir if instruction.keep_git_dir is None else instruction.keep_git_dir
            remotes.append(source._replace(keep_git_dir=keep))
        elif is_remote(path):
            remotes.append(
                parse_url_source(
                    path, checksum=_digest(checksum, instruction), unpack=instruction.unpack is True, span=span
                )
            )
    if checksum and not remotes:
        raise DockerfileError("checksum requires HTTP(S) or Git sources", hint="remove --checksum", span=span)
    if instruction.keep_git_dir and not any(isinstance(remote, GitSource) for remote in remotes):
        raise DockerfileError("--keep-git-dir requires Git sources", hint="remove --keep-git-dir", span=span)
    return local, tuple(remotes)


def redact(text: str) -> str:
    """Take user and password out of the addresses in a text for people, the cache or the history."""
    return _SECRET.sub(r"\1xxxxx@", text)


def _digest(text: str | None, instruction: dockerfile.Add) -> str:
    if not text:
        return ""
    try:
        return parse_digest(text)
    except RegistryError as error:
        raise DockerfileError(
            f"invalid --checksum, {error.message}", hint="write it like sha256:HEX", span=instruction.span
        ) from error
