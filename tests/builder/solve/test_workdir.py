"""WORKDIR makes its directory at once."""

from __future__ import annotations

import pytest

from builder.errors import CopyError
from builder.solve.ops.workdir import place_workdir
from tests.fakes.tree import DictTree, directory, file, symlink

NOW = 1_700_000_000


def _placed(path, *entries, user="", contents=None):
    placed = place_workdir(path, DictTree(*entries, contents=contents), user=user, now=NOW)
    return [
        (one.entry.path.decode(), oct(one.entry.mode), one.entry.uid, one.entry.gid, one.entry.mtime) for one in placed
    ]


def test_missing_directories_belong_to_the_current_user():
    """K3, I3: every directory that is made is 0755 of the user; a number alone is the group too."""
    assert _placed("/home/app", directory(b"home", mtime=3), user="1234") == [
        ("home", "0o755", 0, 0, NOW),
        ("home/app", "0o755", 1234, 1234, NOW),
    ]
    assert [row[2:4] for row in _placed("/a/b", user="x", contents={b"etc/passwd": b"x:x:5:6::/:/"})] == [
        (5, 6),
        (5, 6),
    ]


@pytest.mark.parametrize("path", ["/", "/app", "/app/", "/link", "/app/./../app"])
def test_existing_directory_is_left_alone(path):
    """The layer is empty."""
    assert _placed(path, directory(b"app", 0o700, 9, 9), symlink(b"link", b"app"), user="5") == []


def test_links_are_followed_inside_the_image():
    """A link that climbs out ends at the root."""
    assert [row[0] for row in _placed("/l/x", symlink(b"l", b"../../srv"))] == ["srv", "srv/x"]


def test_file_in_the_way_is_an_error():
    """A path through a file cannot be made."""
    with pytest.raises(CopyError, match="cannot copy to non-directory: /app"):
        _placed("/app/x", file(b"app"))


def test_unknown_user_is_an_error():
    """A name that the image does not know is not taken for root."""
    with pytest.raises(CopyError, match="unable to find user"):
        _placed("/app", user="nobody-here")
