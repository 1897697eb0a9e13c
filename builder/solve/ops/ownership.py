"""Who owns what a COPY makes: `--chown` and the USER of a WORKDIR.

Source: spec, sections 1.9 and 1.13, and its corrections in section 6.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from builder.errors import CopyError
from builder.plan.owner import MAXIMUM_ID, needs_no_file, parse_id
from builder.tree import resolve

if TYPE_CHECKING:
    from builder.source import Span
    from builder.tree import Tree

Owner = tuple[int, int]
"""uid and gid."""


def resolve_owner(text: str, tree: Tree, *, span: Span | None = None) -> Owner:
    """Find the ids that `user[:group]` names in the image *tree*.

    A user alone: by name its primary group, by number the group of the same number. Numbers need no files, nor does
    `root`.

    Args:
        text: of `--chown` or USER, expanded.
        tree: the image; its etc/passwd and etc/group are read for names.
        span: the instruction, for errors.

    Raises:
        CopyError: a name is unknown. BuildKit silently takes root.
    """
    user, colon, group = text.partition(":")
    if not user or (colon and not group):
        raise CopyError(
            f"owner is not of the form user[:group]: `{text}`", hint="write it like 1000:1000 or name:group", span=span
        )
    if needs_no_file(user):
        uid = gid = _parse_id(user, span)
    else:
        fields = _find_line(tree, b"etc/passwd", user, "user", span)
        uid, gid = _parse_field(fields, 2, user, span), _parse_field(fields, 3, user, span)
    if colon:
        if needs_no_file(group):
            gid = _parse_id(group, span)
        else:
            gid = _parse_field(_find_line(tree, b"etc/group", group, "group", span), 2, group, span)
    return uid, gid


def _parse_id(text: str, span: Span | None) -> int:
    number = parse_id(text)
    if number is None:
        raise CopyError(f"id is larger than {MAXIMUM_ID}: `{text}`", hint="write a smaller number", span=span)
    return number


def _find_line(tree: Tree, path: bytes, name: str, what: str, span: Span | None) -> list[bytes]:
    data = tree.read(resolve(tree, path, follow_last=True))
    shown = f"/{path.decode()}"
    hint = f"write the number of the {what}, or make the {what} in an earlier RUN"
    if data is None:
        raise CopyError(f"unable to find {what}, the image has no {shown}: `{name}`", hint=hint, span=span)
    wanted = name.encode("utf-8", "surrogateescape")
    for line in data.split(b"\n"):
        fields = line.split(b":")
        if fields[0] == wanted:
            return fields
    raise CopyError(f"unable to find {what}, no matching entry in {shown}: `{name}`", hint=hint, span=span)


def _parse_field(fields: list[bytes], at: int, name: str, span: Span | None) -> int:
    text = fields[at].strip().decode("ascii", "replace") if len(fields) > at else ""
    if not (text.isascii() and text.isdigit()):
        raise CopyError(
            f"the line of the image's passwd or group file holds no id: `{name}`",
            hint="write a number, or repair the line in an earlier RUN",
            span=span,
        )
    return _parse_id(text, span)
