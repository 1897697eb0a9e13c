"""What targets want from this machine beyond the project, and whether the user allowed it.

A file of targets comes with a project, and may be as little trusted as its Dockerfiles: it can name any folder as
context, any file as secret, and write results anywhere. So files outside the working directory, agents with keys, and
what steps are to be allowed have to be granted on the command line. What the command line itself names is granted by that.

Source: docker/buildx, docs/reference/buildx_bake.md, section --allow; bake/entitlements.go.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from builder.bake.definition import LINK
from builder.errors import BakeError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from builder.bake.definition import Target

_FILE_GRANTS: Final = {"fs": ("read", "write"), "fs.read": ("read",), "fs.write": ("write",)}
_EVERYTHING: Final = "*"
_WITHOUT_EFFECT: Final = ("image", "image.push", "image.load")
"""What buildx takes and does not look at either."""


class Wish(NamedTuple):
    """Something a target wants: *kind* is `read` or `write` of a path, or an entitlement whose *value* is its name."""

    kind: str
    value: str


class Grants(NamedTuple):
    """What the command line allows: folders to *read* and to *write*, entitlements, and an agent with keys.

    *entitlements* are the values of `--allow` as `pybuild build` takes them.
    """

    read: tuple[str, ...] = ()
    write: tuple[str, ...] = ()
    ssh: bool = False
    entitlements: tuple[str, ...] = ()


def parse_grants(texts: Iterable[str]) -> Grants:
    """Read all `--allow`.

    Raises:
        UsageError: a grant for files names none.
    """
    folders: dict[str, list[str]] = {"read": [], "write": []}
    entitlements: list[str] = []
    ssh = False
    for text in texts:
        name, equals, value = text.partition("=")
        if name in _FILE_GRANTS:
            if not value:
                raise UsageError(
                    f"option --allow: a path is missing: `{text}`", hint=f"write it like {name}=DIR or {name}=*"
                )
            for kind in _FILE_GRANTS[name]:
                folders[kind].append(value)
        elif text == "ssh":
            ssh = True
        elif not (equals and name in _WITHOUT_EFFECT):
            entitlements.append(text)
    return Grants(tuple(folders["read"]), tuple(folders["write"]), ssh, tuple(entitlements))


def check_access(
    targets: Iterable[Target],
    grants: Grants,
    *,
    cwd: Path,
    named: Iterable[Wish],
    is_address: Callable[[str], bool],
    checks_files: bool = True,
) -> None:
    """Refuse targets that want more than is granted, all of it in one message.

    Args:
        targets: with nothing left to inherit.
        grants: of the command line.
        cwd: the folder of the project, whose files are granted.
        named: what the command line itself named.
        is_address: tells a context that is elsewhere than on this machine.
        checks_files: whether files have to be granted.

    Raises:
        BakeError: something is not granted.
    """
    allowed = {
        "read": _real_paths((".", *grants.read), cwd),
        "write": _real_paths((".", *grants.write), cwd),
    }
    spoken = frozenset(named)
    entitlements = {field.strip() for text in grants.entitlements for field in text.split(",")}
    missing: dict[str, str] = {}
    refused: dict[str, list[Path | None]] = {"read": [], "write": []}
    for target in targets:
        for wish in list_wishes(target, is_address):
            if wish in spoken:
                continue
            if wish.kind in allowed:
                path = _real_path(wish.value, cwd)
                if checks_files and not _lies_in(path, (*allowed[wish.kind], *refused[wish.kind])):
                    refused[wish.kind].append(path)
                    missing.setdefault(f"fs.{wish.kind}={path}", f"{wish.kind} `{path}`")
            elif wish.kind == "ssh":
                if checks_files and not grants.ssh:
                    missing.setdefault("ssh", "use your ssh agent")
            elif wish.value not in entitlements and wish.value.partition("=")[0] not in entitlements:
                missing.setdefault(wish.value, f"allow steps {wish.value}")
    if missing:
        options = " ".join(f"--allow {_quote(option)}" for option in missing)
        raise BakeError(
            f"targets ask for more than is allowed: {', '.join(missing.values())}",
            hint=f"if you trust the project, add {options}",
        )


def list_wishes(target: Target, is_address: Callable[[str], bool]) -> Iterator[Wish]:
    """Yield what a target wants, be it granted or not; paths as the target names them."""
    context = target.text("context") or "."
    if not is_address(context):
        yield Wish("read", context)
        dockerfile = target.text("dockerfile") or "Dockerfile"
        if target.text("dockerfile-inline") is None and not is_address(dockerfile):
            yield Wish("read", os.path.join(context, dockerfile))
    for value in target.pairs("contexts").values():
        if value.startswith("oci-layout://"):
            yield Wish("read", value.removeprefix("oci-layout://").partition("@")[0])
        elif not value.startswith((LINK, "docker-image://")) and not is_address(value):
            yield Wish("read", value)
    for entry in target.entries("secret"):
        file = entry.get("src") or entry.get("source")
        if file:
            yield Wish("read", file)
        elif not entry.get("env") and entry.get("type") != "env":
            yield Wish("read", entry.get("id", ""))
    for entry in target.entries("ssh"):
        paths = [path for path in entry.get("paths", "").split(",") if path]
        yield from (Wish("read", path) for path in paths) if paths else (Wish("ssh", ""),)
    for entry in target.entries("cache-from"):
        if entry.get("type") == "local" and entry.get("src"):
            yield Wish("read", entry["src"])
    for key in ("cache-to", "output"):
        for entry in target.entries(key):
            file = entry.get("dest", "")
            if file and file != "-":
                yield Wish("write", file)
    for name in target.texts("entitlements"):
        yield Wish("entitlement", name)


def _lies_in(path: Path, folders: Iterable[Path | None]) -> bool:
    return any(folder is None or path.is_relative_to(folder) for folder in folders)


def _real_paths(texts: Iterable[str], cwd: Path) -> tuple[Path | None, ...]:
    """Return folders with links followed; None stands for everything."""
    return tuple(None if text == _EVERYTHING else _real_path(text, cwd) for text in texts)


def _real_path(text: str, cwd: Path) -> Path:
    return Path(os.path.realpath(cwd / text))


def _quote(text: str) -> str:
    import shlex  # noqa: PLC0415  (only for a refusal)

    return shlex.quote(text)
