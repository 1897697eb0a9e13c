"""Parser directives: the `# key=value` lines at the very top of a Dockerfile.

A *directive* is a comment of the form `# key=value` with a known key: `syntax`, `escape`, `check`. The first line that
is none ends them; the same text further down is a plain comment.
"""

from __future__ import annotations

import re

from builder.errors import DockerfileError
from builder.source import Span
from registry.value import frozen

TYPE_CHECKING = False
if TYPE_CHECKING:
    from builder.source import SourceFile

BYTE_ORDER_MARK = "\ufeff"

SYNTAX_ARG = "BUILDKIT_SYNTAX"
"""The build argument that stands for the directive."""

_BUILT_IN = r"(?i:(?:[^/@]+/)*docker/dockerfile(?:-upstream)?(?:[:@].*)?)"

_KEYS = frozenset({"syntax", "escape", "check"})
_KEY = r"\s*+([a-zA-Z][a-zA-Z0-9]*+)\s*+=\s*+"


@frozen
class Directives:
    """What the directives of a file say.

    *syntax* is the whole value: an image reference, perhaps followed by arguments. *escape* is a backslash or a
    backtick. *check* is unparsed. *line_count* lines at the top of the file are directives (or a `#!` line).
    """

    syntax: str | None = None
    escape: str = "\\"
    check: str | None = None
    line_count: int = 0


def parse_directives(source: SourceFile) -> Directives:
    """Read the directives of *source*.

    `syntax` is also recognised in the comments of other languages (`// syntax=`) and as the member of a JSON object,
    so that files for other frontends can be told from Dockerfiles. A first line that starts with `#!` is skipped.

    Raises:
        DockerfileError: a directive is given twice, or `escape` is not one of the two characters.

    Source: Dockerfile reference, Parser directives; moby/buildkit, frontend/dockerfile/parser/directives.go.
    """
    values: dict[str, str] = {}
    line_count = _read(source, "#", values)
    if not values and (syntax := _find_foreign_syntax(source)):
        return Directives(syntax=syntax)
    return Directives(
        syntax=values.get("syntax"), escape=values.get("escape", "\\"), check=values.get("check"), line_count=line_count
    )


def check_syntax(source: SourceFile, syntax: str | None) -> None:
    """Refuse a file that another frontend should read: only the Dockerfile frontend is built in.

    Args:
        source: the file.
        syntax: the directive, or what stands for it: an image, perhaps followed by arguments. Any tag, digest or
            registry of `docker/dockerfile` and `docker/dockerfile-upstream` will do.

    Raises:
        DockerfileError: the image is another one.
    """
    if not syntax or re.fullmatch(_BUILT_IN, syntax.split()[0]):
        return
    line = next((number for number, text in enumerate(source.lines, 1) if syntax in text), 1)
    raise DockerfileError(
        f"frontend is not built in: `{_shorten(syntax.split()[0], 200)}`",
        hint=f"if it is a Dockerfile all the same: --build-arg {SYNTAX_ARG}=docker/dockerfile:1",
        span=Span(source=source, line=line, end_line=line),
    )


def _read(source: SourceFile, comment: str, values: dict[str, str]) -> int:
    number = 0
    for number, line in enumerate(source.lines, 1):
        if number == 1 and line.startswith("#!"):
            continue
        stripped = line.lstrip()
        match = re.compile(_KEY).match(stripped, len(comment)) if stripped.startswith(comment) else None
        value = stripped[match.end() :].rstrip() if match else ""
        key = match[1].lower() if match else ""
        if key not in _KEYS or not value:
            return number - 1
        end = len(line.rstrip())
        span = Span(source=source, line=number, end_line=number, column=end - len(value) + 1, end_column=end)
        if key in values:
            raise DockerfileError(
                f"only one {key} parser directive can be used", hint="remove one of the two lines", span=span
            )
        if key == "escape" and value not in {"\\", "`"}:
            raise DockerfileError(
                f"invalid escape token '{_shorten(value)}' does not match ` or \\",
                hint="write `# escape=\\` or `# escape=``",
                span=span,
            )
        values[key] = value
    return number


def _find_foreign_syntax(source: SourceFile) -> str | None:
    values: dict[str, str] = {}
    text = source.text.removeprefix(BYTE_ORDER_MARK).lstrip()
    if text.startswith("//"):
        try:
            _read(source, "//", values)
        except DockerfileError:
            return values.get("syntax")
    elif text.startswith("{"):
        import json  # noqa: PLC0415  only files that are no Dockerfiles come here

        try:
            document = json.loads(text)
        except (ValueError, RecursionError):
            return None
        syntax = document.get("syntax")
        return syntax if isinstance(syntax, str) else None
    return values.get("syntax")


def _shorten(text: str, length: int = 20) -> str:
    return text if len(text) <= length else f"{text[:length]}..."
