"""Chain ids: the name of a filesystem that a stack of layers makes.

A diff_id names one change set, a chain_id names the result of applying change sets in order.

Source: image-spec, config.md, section Layer ChainID.
"""

from __future__ import annotations

import functools

from registry.oci.digest import Digest, digest_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable


@functools.lru_cache(maxsize=4096)  # a build names each of its growing chains several times
def extend_chain(parent: Digest | None, diff_id: Digest) -> Digest:
    """Return the chain_id after *diff_id* is applied to *parent*, or to nothing if that is None."""
    return diff_id if parent is None else digest_of(f"{parent} {diff_id}".encode("ascii"))


def chain_ids(diff_ids: Iterable[Digest]) -> tuple[Digest, ...]:
    """Return the chain_id after each layer of a stack, base first."""
    chain: Digest | None = None
    chains = []
    for diff_id in diff_ids:
        chain = extend_chain(chain, diff_id)
        chains.append(chain)
    return tuple(chains)


def chain_id(diff_ids: Iterable[Digest]) -> Digest:
    """Return the chain_id of a stack of layers, base first.

    Raises:
        ValueError: there is no layer; an empty stack has no name.
    """
    chains = chain_ids(diff_ids)
    if not chains:
        raise ValueError("a chain_id needs at least one diff_id")
    return chains[-1]
