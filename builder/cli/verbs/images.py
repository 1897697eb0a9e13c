"""`pybuild images`: what is in the store, newest first."""

from __future__ import annotations

import json
import sys
import time

from builder.cli.find_image import Images, image_size, open_images, short_id
from builder.cli.table import format_table
from builder.cli.units import format_age, format_size, parse_time
from registry.content.image import load_image
from registry.errors import ReferenceInvalidError, RegistryError
from registry.oci.reference import Reference, parse_reference
from registry.value import frozen

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

    from builder.cli.environment import Environment
    from registry.content.layout import LayoutEntry
    from registry.oci.digest import Digest

_NONE = "<none>"


@frozen
class _Row:
    repository: str
    tag: str
    manifest: Digest
    id: Digest
    created: str | None
    size: int | None


def run(arguments: argparse.Namespace, environment: Environment) -> int:
    """List images on standard output."""
    images = open_images(arguments, environment)
    rows = [
        _describe(images, entry)
        for entry in images.layout.entries()
        if _is_wanted(entry.reference, arguments.name, everything=arguments.all)
    ]
    rows.sort(key=lambda row: (-(parse_time(row.created) or 0), row.repository, row.tag))
    if arguments.quiet:
        ids = dict.fromkeys(row.id if arguments.no_trunc else short_id(row.id) for row in rows)
        sys.stdout.write("".join(f"{id_}\n" for id_ in ids))
    elif arguments.format == "json":
        sys.stdout.write("".join(json.dumps(_to_json(row)) + "\n" for row in rows))
    else:
        sys.stdout.write(_format(rows, digests=arguments.digests, whole=arguments.no_trunc))
    return 0


def _describe(images: Images, entry: LayoutEntry) -> _Row:
    reference, digest = entry.reference, entry.descriptor.digest
    try:
        image = load_image(images.blobs, entry.descriptor)
        id_, created, size = image.manifest.config.digest, image.config.created, image_size(image)
    except RegistryError:
        # A listing shows what there is; the verbs that use the image say what is wrong with it.
        id_, created, size = digest, None, None
    return _Row(
        repository=_NONE if reference is None else reference.familiar_name(),
        tag=_NONE if reference is None else reference.tag or _NONE,
        manifest=digest,
        id=id_,
        created=created,
        size=size,
    )


def _is_wanted(reference: Reference | None, wanted: str | None, *, everything: bool) -> bool:
    """Tell whether an image is listed; *wanted* is a name with or without tag, `*` stands for any characters."""
    if wanted is None:
        return everything or reference is not None
    if reference is None:
        return False
    from fnmatch import fnmatchcase  # noqa: PLC0415  (only where a name is given)

    name, tag = wanted, "*"
    try:
        parsed = parse_reference(wanted, default_tag=None)
    except ReferenceInvalidError:
        head, colon, tail = wanted.rpartition(":")
        if colon and "/" not in tail:
            name, tag = head, tail
    else:
        name, tag = parsed.familiar_name(), parsed.tag or "*"
    return fnmatchcase(reference.familiar_name(), name) and fnmatchcase(reference.tag or "", tag)


def _format(rows: list[_Row], *, digests: bool, whole: bool) -> str:
    titles = ["REPOSITORY", "TAG", *(["DIGEST"] if digests else []), "IMAGE ID", "CREATED", "SIZE"]
    return format_table(
        titles,
        [
            [
                row.repository,
                row.tag,
                *([row.manifest] if digests else []),
                row.id if whole else short_id(row.id),
                _age(row.created),
                _size(row.size),
            ]
            for row in rows
        ],
    )


def _to_json(row: _Row) -> dict[str, object]:
    return {
        "Repository": row.repository,
        "Tag": row.tag,
        "ID": row.id,
        "Digest": row.manifest,
        "CreatedAt": row.created or "N/A",
        "CreatedSince": _age(row.created),
        "Size": _size(row.size),
        "SizeBytes": row.size,
    }


def _age(created: str | None) -> str:
    seconds = parse_time(created)
    return "N/A" if seconds is None else format_age(time.time() - seconds)


def _size(size: int | None) -> str:
    return "N/A" if size is None else format_size(size)
