"""`pybuild history`: the instructions an image came from, newest first."""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING

from builder.cli.find_image import open_images, short_id
from builder.cli.lines import escape_line
from builder.cli.option_values import parse_platform_option
from builder.cli.table import format_table
from builder.cli.units import format_age, format_size, parse_time
from registry.oci.image_config import History
from registry.value import frozen

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from builder.cli.environment import Environment
    from registry.content.image import Image

_COMMAND_LENGTH = 45
_MISSING = "<missing>"


@frozen(kw_only=False)
class _Row:
    id: str
    entry: History
    size: int


def run(arguments: argparse.Namespace, environment: Environment) -> int:
    """Print the history of one image on standard output."""
    platform = parse_platform_option(arguments.platform, environment)
    image, _ = open_images(arguments, environment).load(arguments.image, platform)
    rows = list(_rows(image, whole=arguments.no_trunc))
    if arguments.quiet:
        sys.stdout.write("".join(f"{row.id}\n" for row in rows))
    elif arguments.format == "json":
        sys.stdout.write("".join(json.dumps(_to_json(row)) + "\n" for row in rows))
    else:
        sys.stdout.write(_format(rows, whole=arguments.no_trunc))
    return 0


def _rows(image: Image, *, whole: bool) -> Iterator[_Row]:
    """Yield the history with the size of each entry's layer as stored; layers without history come first of all."""
    sizes = [layer.size for layer in image.manifest.layers]
    id_: str = image.manifest.config.digest if whole else short_id(image.manifest.config.digest)
    for entry in reversed(image.config.history):
        size = 0 if entry.empty_layer or not sizes else sizes.pop()
        yield _Row(id_, entry, size)
        id_ = _MISSING
    for size in reversed(sizes):
        yield _Row(id_, History(), size)
        id_ = _MISSING


def _format(rows: list[_Row], *, whole: bool) -> str:
    return format_table(
        ["IMAGE", "CREATED", "CREATED BY", "SIZE", "COMMENT"],
        [
            [
                row.id,
                _age(row.entry.created),
                _command(row.entry, whole=whole),
                format_size(row.size),
                escape_line(row.entry.comment or ""),
            ]
            for row in rows
        ],
    )


def _to_json(row: _Row) -> dict[str, object]:
    return {
        "ID": row.id,
        "CreatedAt": row.entry.created or "N/A",
        "CreatedSince": _age(row.entry.created),
        "CreatedBy": row.entry.created_by or "",
        "Size": format_size(row.size),
        "SizeBytes": row.size,
        "Comment": row.entry.comment or "",
    }


def _age(created: str | None) -> str:
    seconds = parse_time(created)
    return "N/A" if seconds is None else format_age(time.time() - seconds)


def _command(entry: History, *, whole: bool) -> str:
    text = (entry.created_by or "").replace("\t", " ")
    return text if whole or len(text) <= _COMMAND_LENGTH else f"{text[: _COMMAND_LENGTH - 1]}…"
