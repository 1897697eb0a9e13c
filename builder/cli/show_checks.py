"""`pybuild build --call METHOD`: what a Dockerfile says about itself, with nothing built.

    check      the build checks that fail; exit code 1 if there are any
    outline    the target with its arguments, secrets, ssh agents and caches
    targets    the stages

Each as text or, with `,format=json`, as JSON, on standard output.

Source: moby/buildkit, frontend/subrequests/{lint,outline,targets}; docker/buildx, commands/build.go.
"""

from __future__ import annotations

import json
import sys
import time
from base64 import b64encode
from functools import partial
from typing import TYPE_CHECKING, Any

from builder.cli.lines import escape_controls, escape_line
from builder.cli.registries import connect
from builder.cli.render import open_renderer
from builder.cli.report import exit_code, report
from builder.dockerfile.rules import RULES, LintError, rule_url
from builder.errors import BuildError, UsageError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable, Sequence

    from builder.cli.environment import Environment
    from builder.dockerfile.rules import Violation
    from builder.plan.outline import Outline, Target
    from builder.request import BuildRequest
    from builder.source import SourceFile, Span

METHODS = ("build", "check", "outline", "targets")
"""The values of `--call`."""

_SYNONYMS = {"lint": "check"}
_RULE = "--------------------"


def call(method: str, request: BuildRequest, arguments: argparse.Namespace, environment: Environment) -> int:
    """Carry out `--call`; the result goes to standard output.

    Raises:
        UsageError: the method or its format is unknown.
        BuildError: the Dockerfile cannot be read.
    """
    name, _, attributes = method.partition(",")
    name = _SYNONYMS.get(name, name)
    if name not in METHODS[1:]:
        raise UsageError(f"unknown method of --call: `{name}`", hint=f"use one of {', '.join(METHODS)}")
    if attributes not in {"", "format=json", "format=text"}:
        raise UsageError(f"unknown attribute of --call: `{attributes}`", hint="write format=json or format=text")
    as_json = attributes == "format=json"
    if name == "check":
        return _check(request, arguments, environment, as_json=as_json)
    from builder.context.local import LocalContext  # noqa: PLC0415  not for checks
    from builder.dockerfile.directives import SYNTAX_ARG  # noqa: PLC0415  as above
    from builder.dockerfile.stages import parse_dockerfile  # noqa: PLC0415  as above
    from builder.plan.outline import list_targets, outline  # noqa: PLC0415  as above

    if isinstance(request.context, str) or request.dockerfile_url is not None:
        raise UsageError(f"--call={name} needs a context that is a folder", hint="use --check, or fetch it before")
    if isinstance(request.context, str):
        raise UsageError(f"--call {name} needs a folder as the context: `{request.context}`", hint="fetch it before")
    context = LocalContext(request.context, dockerfile=request.dockerfile, text=request.dockerfile_text)
    source = parse_dockerfile(context.dockerfile, syntax=request.build_args.get(SYNTAX_ARG))
    context.close()
    if name == "targets":
        targets = list_targets(source)
        _write(_targets_json(targets, source.source) if as_json else _targets_text(targets))
    else:
        found = outline(source, request)
        _write(_outline_json(found, source.source) if as_json else _outline_text(found))
    return 0


def _check(request: BuildRequest, arguments: argparse.Namespace, environment: Environment, *, as_json: bool) -> int:
    from builder.pipeline import Build  # noqa: PLC0415  not for the other methods
    from builder.store import Store  # noqa: PLC0415  as above

    renderer = open_renderer(environment.progress(arguments.progress), environment, sys.stderr, title="Checking")
    found: list[Violation] = []
    failure: BuildError | None = None

    with Store(request.root) as store:
        try:
            Build(
                request,
                store,
                renderer.sink,
                connect=partial(connect, environment, arguments.insecure_registry),
                now=lambda: time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
                survey=found.append,
            ).close()
        except LintError:
            pass  # what it says is in *found*
        except BuildError as error:
            failure = error
        finally:
            renderer.close()
    if failure is not None and not found and not as_json:
        raise failure
    _write(_check_json(found, failure) if as_json else _check_text(found))
    if failure is not None:
        sys.stderr.write(report(failure))
        return exit_code(failure)
    return 1 if found else 0


def _check_text(violations: Sequence[Violation]) -> str:
    if not violations:
        return "Check complete, no warnings found.\n"
    count = len(violations)
    have = "warning has" if count == 1 else "warnings have"
    parts = [f"Check complete, {count} {have} been found!\n"]
    for violation in violations:
        span = violation.span
        parts.append(
            f"\nWARNING: {violation.rule} - {rule_url(violation.rule)}\n{escape_line(violation.message)}\n"
            f"{escape_line(f'{span.source.name}:{span.line}')}\n{_RULE}\n{escape_controls(span.excerpt())}\n{_RULE}\n"
        )
    return "".join(parts)


def _check_json(violations: Sequence[Violation], failure: BuildError | None) -> str:
    sources = list(dict.fromkeys(violation.span.source for violation in violations))
    document: dict[str, Any] = {}
    if violations:
        document["warnings"] = [
            {
                "ruleName": violation.rule,
                "description": RULES[violation.rule],
                "url": rule_url(violation.rule),
                "detail": violation.message,
                "location": _location(violation.span),
            }
            for violation in violations
        ]
        document["sources"] = [
            {"filename": source.name, "language": "Dockerfile", "data": _base64(source)} for source in sources
        ]
    if failure is not None:
        document["buildError"] = {"message": failure.message}
        if failure.span is not None:
            document["buildError"]["location"] = _location(failure.span)
    return _dump(document)


def _targets_text(targets: Iterable[Target]) -> str:
    rows = [("TARGET", "DESCRIPTION")]
    for target in targets:
        mark = "(default)" if target.default else ""
        rows.append((f"{target.name} {mark}".strip(), target.description))
    return _table(rows, gap=1)


def _targets_json(targets: Iterable[Target], source: SourceFile) -> str:
    listed = []
    for target in targets:
        entry = {
            "name": target.name,
            "default": target.default,
            "description": target.description,
            "base": target.base,
            "platform": target.platform,
        }
        listed.append({**_present(entry), "location": _location(target.span)})
    return _dump({"targets": listed, "sources": [_base64(source)]})


def _outline_text(outline: Outline) -> str:
    parts = []
    if outline.name or outline.description:
        rows = [("TARGET:", outline.name or "(default)")]
        rows += [("DESCRIPTION:", outline.description)] if outline.description else []
        parts.append(_table(rows, gap=1))
    if outline.args:
        arguments = [(argument.name, argument.value or "", argument.description) for argument in outline.args]
        parts.append(_table([("BUILD ARG", "VALUE", "DESCRIPTION"), *arguments]))
    for title, needed in (("SECRET", outline.secrets), ("SSH", outline.ssh)):
        if needed:
            rows = [(need.name, "true" if need.required else "") for need in needed]
            parts.append(_table([(title, "REQUIRED"), *rows]))
    if outline.caches:
        parts.append(_table([("CACHE MOUNT",), *((cache.name,) for cache in outline.caches)]))
    return "\n".join(parts)


def _outline_json(outline: Outline, source: SourceFile) -> str:
    document = {
        "name": outline.name,
        "description": outline.description,
        "args": [
            {
                **_present({"name": arg.name, "description": arg.description, "value": arg.value}),
                "location": _location(arg.span),
            }
            for arg in outline.args
        ],
        "secrets": [
            {**_present({"name": need.name, "required": need.required}), "location": _location(need.span)}
            for need in outline.secrets
        ],
        "ssh": [
            {**_present({"name": need.name, "required": need.required}), "location": _location(need.span)}
            for need in outline.ssh
        ],
        "cache": [{"ID": cache.name, "location": _location(cache.span)} for cache in outline.caches],
        "sources": [_base64(source)],
    }
    return _dump(_present(document))


def _table(rows: Sequence[tuple[str, ...]], *, gap: int = 3) -> str:
    """Lay rows out as Go's tabwriter does: cells but the last one padded, no lines."""
    shown = [tuple(escape_line(cell) for cell in row) for row in rows]
    widths = [max(len(row[column]) for row in shown) + gap for column in range(len(shown[0]) - 1)]
    return "".join(
        "".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[-1]]).rstrip() + "\n"
        for row in shown
    )


def _location(span: Span) -> dict[str, Any]:
    return {"ranges": [{"start": {"line": span.line}, "end": {"line": span.end_line}}]}


def _present(fields: dict[str, Any]) -> dict[str, Any]:
    """Leave out what is empty, as Go's `omitempty` does."""
    return {name: value for name, value in fields.items() if value}


def _base64(source: SourceFile) -> str:
    return b64encode(source.text.encode("utf-8", "surrogateescape")).decode()


def _dump(document: dict[str, Any]) -> str:
    return json.dumps(document, indent=2) + "\n"


def _write(text: str) -> None:
    sys.stdout.write(text)
