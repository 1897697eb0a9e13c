"""Which ids a namespace gets."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.errors import HostUnsupportedError
from runtime.idmap import (
    current_id_map,
    identity_map,
    parse_id_map,
    parse_sub_ids,
    read_sub_ids,
    run_map_helpers,
    sub_id_map,
)

RANGES = st.lists(st.tuples(st.integers(0, 2**20), st.integers(1, 2**17)), max_size=8)


def test_sub_ids_are_found_by_name_and_uid():
    """Lines of the user's name and of the uid count, others and broken ones do not."""
    text = "a:100:10\n1001:500:5\nb:1:1\na:x:1\na:7\n\na:9:0\na:900:1\n"

    assert parse_sub_ids(text, {"a", "1001"}) == ((100, 10), (500, 5), (900, 1))


def test_sub_ids_of_a_missing_file_are_none(tmp_path):
    """No file means no ranges."""
    assert read_sub_ids(tmp_path / "none", {"a"}) == ()


def test_sub_id_map_numbers_ranges_one_after_the_other():
    """0 is the own id, the rest follows without holes."""
    id_map = sub_id_map(1000, [(100000, 65536), (300000, 10)])

    assert id_map.to_text() == "0 1000 1\n1 100000 65536\n65537 300000 10\n"
    assert id_map.id_count == 65547
    assert id_map.has_inside(65546)
    assert not id_map.has_inside(65547)


@given(st.integers(0, 2**20), RANGES)
def test_sub_id_map_never_maps_an_id_twice(own, ranges):
    """Neither inside nor outside ids of two extents overlap, whatever the file grants."""
    extents = sub_id_map(own, ranges).extents

    for index, one in enumerate(extents):
        for other in extents[index + 1 :]:
            assert one.inside + one.size <= other.inside
            assert one.outside + one.size <= other.outside or other.outside + other.size <= one.outside


def test_identity_map_keeps_extents():
    """A map over several outer extents has as many."""
    outer = parse_id_map("         0       1001          1\n         1     100000      65536\n")

    assert identity_map(outer).to_text() == "0 0 1\n1 1 65536\n"


@given(st.integers(0, 2**20), RANGES)
def test_id_map_text_parses_back(own, ranges):
    """Text and map are the same thing."""
    id_map = sub_id_map(own, ranges)

    assert parse_id_map(id_map.to_text()) == id_map


def test_current_id_map_holds_the_own_uid():
    """This process's uid is one of its namespace's."""
    assert current_id_map("uid").has_inside(os.getuid())


@pytest.mark.parametrize(
    ("said", "hint"),
    [
        ("write to uid_map failed: Operation not permitted", "setcap cap_setuid"),
        ("uid range not allowed", "/etc/subuid"),
    ],
)
def test_map_helper_failure_has_its_words_and_a_cure(tmp_path, monkeypatch, said, hint):
    """What newuidmap said is in the error, with the cure for it."""
    for name in ("newuidmap", "newgidmap"):
        (tmp_path / name).write_text(f"#!/bin/sh\necho '{name}: {said}' >&2\nexit 1\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")

    with pytest.raises(HostUnsupportedError, match=said) as caught:
        run_map_helpers(os.getpid(), [("uid", sub_id_map(0, [])), ("gid", sub_id_map(0, []))])

    assert hint in (caught.value.hint or "")


def test_missing_map_helper_names_the_package(tmp_path, monkeypatch):
    """Without newuidmap the error says what to install."""
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(HostUnsupportedError, match="`newuidmap` is not installed") as caught:
        run_map_helpers(os.getpid(), [("uid", sub_id_map(0, []))])

    assert "apt-get install uidmap" in (caught.value.hint or "")
