"""A source root on disk, made from a description."""

from __future__ import annotations

import os
from contextlib import contextmanager

from builder.context.ignore import parse_ignore
from builder.context.root import SourceRoot


def make_tree(folder, description):
    """Make files below *folder*: bytes are content, None a directory, text the target of a symbolic link."""
    for name, content in description.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if content is None:
            path.mkdir(exist_ok=True)
        elif isinstance(content, str):
            path.symlink_to(content)
        else:
            path.write_bytes(content)


@contextmanager
def source_root(folder, *, ignore="", keep_owner=False, live=False):
    """Open *folder* as a source root, with *live* as one that others may write to."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    rules = parse_ignore(ignore, ".dockerignore") if ignore else None
    try:
        yield SourceRoot(fd=fd, shown="build context", ignore=rules, keep_owner=keep_owner, young={} if live else None)
    finally:
        os.close(fd)
