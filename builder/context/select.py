"""What the source arguments of COPY and ADD name.

An *argument* is a path or wildcard below a source root. A *selection* is what the arguments name together, in their
order: files, directories with everything below them, and inline files of here-documents. It is enough to compute a
cache key and to make a layer, and holds no open descriptors.

Source: spec, sections 1.12 and 1.13; moby/buildkit, solver/llbsolver/file/backend.go; Go, path/filepath.Match.
"""

from __future__ import annotations

import re
import stat
from typing import TYPE_CHECKING, Protocol

from builder.context.contents import Contents
from builder.context.ignore import compile_patterns, translate_pattern
from builder.context.walk import Filter, Found, SourceTree, encode_path, find, shown
from builder.errors import ContextError, CopyError
from builder.tree import resolve
from registry.value import frozen

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from builder.context.ignore import IgnoreRule, IgnoreRules
    from builder.context.root import SourceRoot
    from builder.source import Span


class Chunks(Protocol):
    """What is copied of a directory (`builder.context.contents.Contents`)."""

    def __iter__(self) -> Iterator[Found]: ...

    def chunks(self) -> Iterator[list[Found]]:
        """Give everything in lists of bounded length."""
        ...

    def sight(self) -> bytes:
        """Digest all that lstat says of it."""
        ...


Items = Chunks | tuple[()]
"""What is copied of a directory; () of a file."""


@frozen
class Selected:
    """One file or directory that an argument names.

    Attributes:
        name: last name of the argument, or of what its wildcard matched; what the file is called in a directory that
            it is copied to. Empty for the root.
        item: the file or directory, symbolic links in the argument followed.
        below: what is copied of a directory, each directory before its contents, names in byte order.
        skip: how many bytes to drop from a path of `below` to get the path relative to the directory.
    """

    name: bytes
    item: Found
    below: Items = ()
    skip: int = 0

    @property
    def is_directory(self) -> bool:
        """Whether its contents are copied rather than itself."""
        return stat.S_ISDIR(self.item.stat.st_mode)

    def chunks(self) -> Iterator[list[Found]]:
        """Give everything that is copied, in lists of bounded length: the file itself, or what is in the directory."""
        return iter([[self.item]]) if isinstance(self.below, tuple) else self.below.chunks()


@frozen
class InlineFile:
    """A file written in the Dockerfile: a here-document of COPY or ADD. Mode 0644, owner 0:0."""

    name: bytes
    content: bytes


@frozen
class Selection:
    """What one COPY or ADD copies, in the order of its arguments; all but the inline files from one root."""

    root: SourceRoot | None
    sources: tuple[Selected | InlineFile, ...]


def has_file(selection: Selection) -> bool:
    """Tell whether an argument names a file itself, not only directories."""
    return any(isinstance(source, Selected) and not source.is_directory for source in selection.sources)


def select_sources(
    root: SourceRoot,
    arguments: Sequence[str],
    *,
    excludes: Sequence[str] = (),
    parents: bool = False,
    span: Span | None = None,
) -> tuple[Selected, ...]:
    """Find what *arguments* name below *root*.

    Args:
        root: the context, or the view of a stage or image.
        arguments: of COPY or ADD, expanded.
        excludes: patterns of `--exclude`, relative to each directory that is copied.
        parents: `--parents`: keep the directories of each argument, from the pivot `/./` on.
        span: the instruction, for errors.

    Returns:
        One item a file or directory, in the order of the arguments, matches of a wildcard in byte order. A wildcard
        that matches nothing gives nothing.

    Raises:
        ContextError: an argument does not exist or is ignored, cannot be read, or is a wrong pattern.
    """
    excluded = compile_patterns(excludes, span=span) if excludes else None
    for argument in arguments:
        if encode_path(argument) is None:
            raise ContextError(f"source cannot be a path: `{argument!a}`", span=span)
    try:
        if parents:
            groups = [_select_with_parents(root, argument, excluded, span) for argument in arguments]
        else:
            groups = [_select(root, argument, excluded, span) for argument in arguments]
    except (ContextError, CopyError) as error:
        error.span = error.span or span
        raise
    return tuple(selected for group in groups for selected in group)


def has_wildcards(path: str) -> bool:
    """Tell whether *path* has a `*`, `?` or `[` that no backslash precedes."""
    return re.search(r"(?:^|[^\\])(?:\\\\)*[*?\[]", path) is not None


def _select(root: SourceRoot, argument: str, excluded: IgnoreRules | None, span: Span | None) -> list[Selected]:
    parts = _parts(argument)
    literal = next((at for at, part in enumerate(parts) if has_wildcards(part)), len(parts))
    tree = SourceTree(root)
    if literal == len(parts):
        path = _find_literal(root, tree, parts, span)
        name = parts[-1].encode("utf-8", "surrogateescape") if parts else b""
        return [_read_selected(root, tree, path, name, excluded, span)]
    above = resolve(tree, _join(parts[:literal]), follow_last=True)
    matched = _match_wildcards(tree, above, parts[literal:], argument, span)
    return [_read_selected(root, tree, path, path.rpartition(b"/")[2], excluded, span) for path in matched]


def _read_selected(
    root: SourceRoot, tree: SourceTree, path: bytes, name: bytes, excluded: IgnoreRules | None, span: Span | None
) -> Selected:
    """Follow the links of *path* and list what it leads to."""
    followed = resolve(tree, path, follow_last=True)
    item = tree.stat(followed)
    if item is None:
        raise _not_found(root, tree, followed, span, argument=path)
    if not stat.S_ISDIR(item.stat.st_mode):
        return Selected(name=name, item=item)
    skip = len(followed) + 1 if followed else 0
    filters = (Filter(excluded, skip),) if excluded is not None else ()
    return Selected(name=name, item=item, below=Contents(root, followed, filters=filters), skip=skip)


def _select_with_parents(
    root: SourceRoot, argument: str, excluded: IgnoreRules | None, span: Span | None
) -> list[Selected]:
    before, pivot, after = argument.partition("/./")
    if not pivot:
        before, after = "", argument
    tree = SourceTree(root)
    base_parts, parts = _parts(before), _parts(after)
    pattern = "/".join(parts)
    if not has_wildcards(before) and not has_wildcards(pattern):
        _find_literal(root, tree, base_parts + parts, span)
    if has_wildcards(before):
        literal = next(at for at, part in enumerate(base_parts) if has_wildcards(part))
        above = resolve(tree, _join(base_parts[:literal]), follow_last=True)
        bases = _match_wildcards(tree, above, base_parts[literal:], before, span)
    else:
        bases = [_join(base_parts)]
    groups = []
    for base in bases:
        followed = resolve(tree, base, follow_last=True)
        item = tree.stat(followed)
        if item is None or not stat.S_ISDIR(item.stat.st_mode):
            continue
        skip = len(followed) + 1 if followed else 0
        filters = [Filter(compile_patterns(["**", f"!{pattern}"], span=span), skip)] if parts else []
        if excluded is not None:
            filters.append(Filter(excluded, skip))
        below = Contents(root, followed, filters=filters)
        name = _join(parts).rpartition(b"/")[2]
        if not has_wildcards(argument) or not below.is_empty():
            groups.append(Selected(name=name, item=item, below=below, skip=skip))
    return groups


def _parts(argument: str) -> list[str]:
    """Split an argument, clamped to the root: `.` and empty parts dropped, `..` never above the root."""
    parts: list[str] = []
    for part in argument.split("/"):
        if part == "..":
            del parts[-1:]
        elif part not in {"", "."}:
            parts.append(part)
    return parts


def _join(parts: Sequence[str]) -> bytes:
    return "/".join(parts).encode("utf-8", "surrogateescape")


def _find_literal(root: SourceRoot, tree: SourceTree, parts: list[str], span: Span | None) -> bytes:
    """Find the path that *parts* name; a backslash is tried as part of the name first, then as an escape."""
    path = _join(parts)
    spellings = [path]
    if b"\\" in path:
        spellings.append(re.sub(rb"\\(.)", rb"\1", path))
    for spelling in spellings:
        followed = resolve(tree, spelling, follow_last=True)
        if tree.stat(followed) is not None:
            return spelling
    raise _not_found(root, tree, resolve(tree, path, follow_last=True), span, argument=path)


def _match_wildcards(tree: SourceTree, above: bytes, parts: list[str], argument: str, span: Span | None) -> list[bytes]:
    """Find what *parts* match below *above*; no symbolic link on the way is followed.

    Source: moby/buildkit matches a pattern against each path of a walk, which sees links as links.
    """
    paths = [above]
    for depth, part in enumerate(parts):
        if depth:
            paths = [path for path in paths if (found := tree.stat(path)) and stat.S_ISDIR(found.stat.st_mode)]
        if has_wildcards(part):
            match = _compile_name(part, argument, span).match
            paths = [
                found.path
                for path in paths
                for found in tree.list(path)
                if match(found.path.rpartition(b"/")[2].decode("utf-8", "surrogateescape"))
            ]
        else:
            name = re.sub(r"\\(.)", r"\1", part).encode("utf-8", "surrogateescape")
            joined = [path + b"/" + name if path else name for path in paths]
            paths = [path for path in joined if tree.stat(path) is not None]
        if not paths:
            return []
    return paths


def _compile_name(part: str, argument: str, span: Span | None) -> re.Pattern[str]:
    try:
        # Two stars in one name are one: only --parents knows `**`.
        return re.compile(translate_pattern(re.sub(r"\*+", "*", part)) + r"\Z", re.DOTALL)
    except (ValueError, re.error) as error:
        raise ContextError(
            f"syntax error in pattern, {error}: `{argument}`",
            hint="close the class with `]`, or write `[[]` for a `[` that is meant literally",
            span=span,
        ) from error


def _not_found(root: SourceRoot, tree: SourceTree, path: bytes, span: Span | None, *, argument: bytes) -> ContextError:
    from builder.dockerfile.suggest import nearest  # noqa: PLC0415 - only needed when a build fails

    wanted = shown(argument)
    through = f" (a link to `{shown(path)}`)" if path != argument and b"\\" not in argument else ""
    message = f'"{wanted}": not found in the {root.shown}{through}'
    rule = _hiding_rule(root, path)
    if rule is not None:
        where = f"{rule.span.location}: " if rule.span else ""
        return ContextError(
            f"{message}, an ignore rule hides it: {where}`{rule}`",
            hint=f"add the line `!{shown(path)[1:]}` after it",
            span=span,
        )
    folder, _, name = path.rpartition(b"/")
    while folder and find(root, folder) is None:
        folder, _, name = folder.rpartition(b"/")
    siblings = [found.path.decode("utf-8", "surrogateescape") for found in tree.list(folder)]
    names = {sibling.rpartition("/")[2]: sibling for sibling in siblings}
    near = nearest(name.decode("utf-8", "surrogateescape"), names)
    if near is None and not has_wildcards(wanted):
        near = next((one for one in names if one.casefold() == name.decode("utf-8", "replace").casefold()), None)
    hint = f"did you mean `{names[near]}`?" if near is not None else f"sources are looked up below the {root.shown}"
    return ContextError(message, hint=hint, span=span)


def _hiding_rule(root: SourceRoot, path: bytes) -> IgnoreRule | None:
    """Find the rule that hides *path*; None if it does not exist or is not ignored."""
    ignore = root.ignore
    if ignore is None or not ignore.matches(path) or find(root, path) is None:
        return None
    return ignore.explain(path)
