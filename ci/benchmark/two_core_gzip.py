"""Compress one file to gzip on two threads, with the library, the level and the blocks of pybuild's layers.

A floor: what the same compressor needs for the same bytes on two cores, with no tar, no digest and no store around it.
Blocks of 1 MiB are compressed independently by igzip at level 2 in its small buffer, each with the 32 KiB before it as its dictionary, and
written in order; the checksum is taken on the way. `gzip -t` reads what comes out.

    python two_core_gzip.py FILE RESULT
"""

from __future__ import annotations

import sys
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor

from isal import isal_zlib

BLOCK = 1 << 20
WINDOW = 32 * 1024
LEVEL = 2
MEMORY = 2
THREADS = 2
AHEAD = 2 * THREADS
"""So many blocks are on their way at once, so that memory stays small."""

HEADER = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"
END = b"\x03\x00"


def compress_file(name: str, result: str) -> None:
    """Write *result*, the file *name* as gzip."""
    size = checksum = 0
    window = b""
    blocks: deque[Future[bytes]] = deque()
    with open(name, "rb") as source, open(result, "wb") as out, ThreadPoolExecutor(THREADS) as pool:
        out.write(HEADER)
        while block := source.read(BLOCK):
            if len(blocks) == AHEAD:
                out.write(blocks.popleft().result())
            blocks.append(pool.submit(_compress, block, window))
            window = block[-WINDOW:]
            checksum = isal_zlib.crc32(block, checksum)
            size += len(block)
        out.writelines(future.result() for future in blocks)
        out.write(END + checksum.to_bytes(4, "little") + (size & 0xFFFFFFFF).to_bytes(4, "little"))


def _compress(block: bytes, window: bytes) -> bytes:
    more = (window,) if window else ()
    compressor = isal_zlib.compressobj(LEVEL, isal_zlib.DEFLATED, -15, MEMORY, isal_zlib.Z_DEFAULT_STRATEGY, *more)
    return bytes(compressor.compress(block) + compressor.flush(isal_zlib.Z_SYNC_FLUSH))


if __name__ == "__main__":
    compress_file(sys.argv[1], sys.argv[2])
