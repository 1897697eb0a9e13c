"""Chain ids: the law of the specification."""

from __future__ import annotations

import pytest

from registry.oci.chain_id import chain_id, chain_ids, extend_chain
from registry.oci.digest import digest_of

A, B, C = digest_of(b"a"), digest_of(b"b"), digest_of(b"c")


def test_chain_id_of_one_layer_is_its_diff_id() -> None:
    """ChainID(L0) = DiffID(L0)."""
    assert chain_id([A]) == A


def test_chain_id_of_more_layers_hashes_the_chain_below_and_the_diff_id() -> None:
    """ChainID(L0|...|Ln) = Digest(ChainID(L0|...|Ln-1) + " " + DiffID(Ln))."""
    below = digest_of(f"{A} {B}".encode())

    assert chain_id([A, B, C]) == digest_of(f"{below} {C}".encode())


def test_chain_id_grows_layer_by_layer() -> None:
    """Extending gives the same as computing at once."""
    assert extend_chain(extend_chain(extend_chain(None, A), B), C) == chain_id([A, B, C])


def test_chain_ids_name_every_file_system_on_the_way() -> None:
    """The chain_ids of a stack are those of its beginnings."""
    assert chain_ids([A, B, C]) == (chain_id([A]), chain_id([A, B]), chain_id([A, B, C]))
    assert chain_ids([]) == ()


def test_chain_id_of_nothing_is_refused() -> None:
    """An empty stack has no name."""
    with pytest.raises(ValueError, match="at least one"):
        chain_id([])
