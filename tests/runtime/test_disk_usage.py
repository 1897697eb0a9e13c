"""Sizes on disk, beside du."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from runtime.disk_usage import disk_usage

if TYPE_CHECKING:
    from pathlib import Path


def test_usage_is_that_of_du(tmp_path: Path) -> None:
    """Holes are not counted, hard links once, symbolic links and folders by themselves."""
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "file").write_bytes(b"." * 50_000)
    os.link(tmp_path / "a" / "file", tmp_path / "a" / "b" / "again")
    (tmp_path / "link").symlink_to("a/file")
    with open(tmp_path / "sparse", "wb") as file:
        file.truncate(10_000_000)
    du = subprocess.run(["du", "-s", "--block-size=1", tmp_path], capture_output=True, text=True, check=True)

    assert disk_usage(tmp_path) == int(du.stdout.split()[0])
    assert disk_usage(tmp_path / "a" / "file") == os.stat(tmp_path / "a" / "file").st_blocks * 512


def test_usage_leaves_out_what_is_named(tmp_path: Path) -> None:
    """A folder that is left out does not count with what is in it."""
    (tmp_path / "big").mkdir()
    (tmp_path / "big" / "file").write_bytes(b"." * 50_000)

    assert disk_usage(tmp_path, without={os.fsencode(tmp_path / "big")}) < 50_000 < disk_usage(tmp_path)


def test_usage_of_what_is_missing_is_an_error(tmp_path: Path) -> None:
    """Nothing is not zero."""
    with pytest.raises(FileNotFoundError):
        disk_usage(tmp_path / "missing")
