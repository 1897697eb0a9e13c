"""Ids and their changes, case by case as the kernel has them."""

from __future__ import annotations

import pytest

from runtime.supervisor.credentials import (
    UNCHANGED,
    Credentials,
    Ids,
    all_of,
    check_change_of_owner,
    executed,
    narrow,
    set_filesystem,
    set_one,
    set_three,
    set_two,
    wide,
)

OLD = Ids(1, 2, 3, 2)
REFUSED = "refused"

CHANGES = [
    ("set-as-root", lambda: set_one(OLD, 9, privileged=True), Ids(9, 9, 9, 9)),
    ("set-to-real", lambda: set_one(OLD, 1, privileged=False), Ids(1, 1, 3, 1)),
    ("set-to-saved", lambda: set_one(OLD, 3, privileged=False), Ids(1, 3, 3, 3)),
    ("set-to-other", lambda: set_one(OLD, 9, privileged=False), REFUSED),
    ("set-to-effective-only", lambda: set_one(OLD, 2, privileged=False), REFUSED),
    ("set-to-nothing", lambda: set_one(OLD, UNCHANGED, privileged=True), REFUSED),
    ("two-as-root", lambda: set_two(OLD, 8, 9, privileged=True), Ids(8, 9, 9, 9)),
    ("two-nothing", lambda: set_two(OLD, UNCHANGED, UNCHANGED, privileged=False), Ids(1, 2, 3, 2)),
    ("two-swap", lambda: set_two(OLD, 2, 1, privileged=False), Ids(2, 1, 1, 1)),
    ("two-effective-to-real-keeps-saved", lambda: set_two(OLD, UNCHANGED, 1, privileged=False), Ids(1, 1, 3, 1)),
    ("two-effective-to-saved", lambda: set_two(OLD, UNCHANGED, 3, privileged=False), Ids(1, 3, 3, 3)),
    ("two-real-to-saved", lambda: set_two(OLD, 3, UNCHANGED, privileged=False), REFUSED),
    ("two-effective-to-other", lambda: set_two(OLD, UNCHANGED, 9, privileged=False), REFUSED),
    ("three-as-root", lambda: set_three(OLD, (7, 8, 9), privileged=True), Ids(7, 8, 9, 8)),
    ("three-among-own", lambda: set_three(OLD, (3, 1, UNCHANGED), privileged=False), Ids(3, 1, 3, 1)),
    ("three-other", lambda: set_three(OLD, (1, 9, 1), privileged=False), REFUSED),
    ("filesystem-own", lambda: set_filesystem(OLD, 3, privileged=False), Ids(1, 2, 3, 3)),
    ("filesystem-other-says-nothing", lambda: set_filesystem(OLD, 9, privileged=False), OLD),
    ("filesystem-as-root", lambda: set_filesystem(OLD, 9, privileged=True), Ids(1, 2, 3, 9)),
]


@pytest.mark.parametrize(("change", "expected"), [row[1:] for row in CHANGES], ids=[row[0] for row in CHANGES])
def test_ids_change_as_in_the_kernel(change, expected):
    """A change gives the four ids that the kernel gives, or is refused."""
    try:
        result = change()
    except OSError:
        result = REFUSED

    assert result == expected


OWNER_CHANGES = [
    ("root", Credentials(), (5, 6), 7, 8, True),
    ("keeps-rights", Credentials(uid=all_of(1), keeps_rights=True), (5, 6), 7, 8, True),
    ("own-file-to-itself", Credentials(uid=all_of(5)), (5, 6), 5, UNCHANGED, True),
    ("own-file-to-other", Credentials(uid=all_of(5)), (5, 6), 7, UNCHANGED, False),
    ("own-file-to-own-group", Credentials(all_of(5), all_of(9)), (5, 6), UNCHANGED, 9, True),
    ("own-file-to-supplementary-group", Credentials(all_of(5), all_of(9), (3,)), (5, 6), UNCHANGED, 3, True),
    ("own-file-to-other-group", Credentials(all_of(5), all_of(9)), (5, 6), UNCHANGED, 4, False),
    ("file-of-another", Credentials(uid=all_of(5), gid=all_of(9)), (4, 9), UNCHANGED, 9, False),
    ("nothing", Credentials(uid=all_of(5)), (4, 6), UNCHANGED, UNCHANGED, True),
]


@pytest.mark.parametrize(
    ("acting", "owner", "uid", "gid", "allowed"),
    [row[1:] for row in OWNER_CHANGES],
    ids=[row[0] for row in OWNER_CHANGES],
)
def test_who_may_give_files_away(acting, owner, uid, gid, allowed):
    """Root gives anything to anybody; others keep their files, or give them to a group of theirs."""
    try:
        check_change_of_owner(acting, owner, uid, gid)
    except PermissionError:
        assert not allowed
    else:
        assert allowed


def test_execution_saves_the_effective_ids():
    """After execve there is no way back to a saved id, and no right is kept."""
    assert executed(Credentials(uid=Ids(1, 2, 3, 4), gid=Ids(5, 6, 7, 8), keeps_rights=True)) == Credentials(
        uid=Ids(1, 2, 2, 2), gid=Ids(5, 6, 6, 6)
    )


def test_ids_of_16_bits():
    """Sixteen ones mean no change, and ids that do not fit are nobody."""
    assert [wide(0xFFFF), wide(0xFFFE), wide(0x10005)] == [UNCHANGED, 0xFFFE, 5]
    assert [narrow(0xFFFF), narrow(0x10000)] == [0xFFFF, 65534]
