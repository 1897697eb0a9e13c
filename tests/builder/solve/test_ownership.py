"""Owners of what COPY makes."""

from __future__ import annotations

import pytest

from builder.errors import CopyError
from builder.solve.ops.ownership import resolve_owner
from builder.tree import EmptyTree
from tests.fakes.tree import DictTree, symlink

PASSWD = b"root:x:0:0::/root:/bin/sh\nalice:x:1000:100::/home/alice:/bin/sh\nbroken:x:y:z\n"
GROUP = b"root:x:0:\nusers:x:100:alice\nstaff:x:50:\n"
IMAGE = DictTree(contents={b"etc/passwd": PASSWD, b"etc/group": GROUP})


@pytest.mark.parametrize(
    ("text", "owner"),
    [
        ("alice", (1000, 100)),
        ("alice:staff", (1000, 50)),
        ("alice:7", (1000, 7)),
        ("7:staff", (7, 50)),
        ("1000", (1000, 1000)),
        ("5:6", (5, 6)),
        ("0", (0, 0)),
    ],
)
def test_owner_is_resolved(text, owner):
    """C23: names by the image's files, numbers as they are; a number alone is the group too."""
    assert resolve_owner(text, IMAGE) == owner


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("bob", "unable to find user, no matching entry in /etc/passwd: `bob`"),
        ("alice:nope", "unable to find group, no matching entry in /etc/group: `nope`"),
        ("broken", "holds no id: `broken`"),
        (":staff", "not of the form"),
        ("alice:", "not of the form"),
        ("", "not of the form"),
        ("4294967295", "id is larger than"),
        ("9" * 5000, "id is larger than"),
    ],
)
def test_unknown_owner_is_an_error(text, message):
    """C24: a name that the image does not know never becomes root silently."""
    with pytest.raises(CopyError, match=message):
        resolve_owner(text, IMAGE)


def test_numbers_need_no_files_and_names_do():
    """On scratch only numbers and root can be used."""
    assert resolve_owner("5:6", EmptyTree()) == (5, 6)
    assert resolve_owner("root", EmptyTree()) == (0, 0)
    assert resolve_owner("7:root", EmptyTree()) == (7, 0)
    with pytest.raises(CopyError, match="unable to find user, the image has no /etc/passwd: `alice`"):
        resolve_owner("alice", EmptyTree())


def test_passwd_behind_a_link_is_read_inside_the_image():
    """A link as etc/passwd is followed in the image."""
    tree = DictTree(symlink(b"etc/passwd", b"/usr/etc/passwd"), contents={b"usr/etc/passwd": PASSWD})

    assert resolve_owner("alice", tree) == (1000, 100)
