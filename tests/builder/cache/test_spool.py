"""Pieces that are given again in their order."""

import errno
import os

import pytest

from builder.cache import spool as spool_module
from builder.cache.spool import Spool


@pytest.mark.parametrize("limit", [1, 7, 1 << 20], ids=["file", "file and memory", "memory"])
def test_spool_gives_pieces_as_they_came(tmp_path, monkeypatch, limit):
    """As often as they are asked for, wherever they lie, and leaves no file behind."""
    monkeypatch.setattr(spool_module, "_IN_MEMORY", limit)
    pieces = [b"one", b"", b"two" * 1000, b"three", b"x"]
    spool = Spool(tmp_path)
    for piece in pieces:
        spool.add(piece)

    assert list(spool) == list(spool) == pieces
    assert spool.size == sum(map(len, pieces))
    assert list(tmp_path.iterdir()) == []


def test_spool_says_when_it_cannot_write(tmp_path, monkeypatch):
    """Who fills it knows what a full disk means there."""
    monkeypatch.setattr(spool_module, "_IN_MEMORY", 1)

    def write(_fd, _data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(spool_module.os, "write", write)
    with pytest.raises(OSError, match="No space left"):
        Spool(tmp_path).add(b"piece")
