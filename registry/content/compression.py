"""Naming a compression: kinds and levels of layers.

What the names do is in `registry.content.layer_sink` and `registry.content.layer_stream`; this module is all that a
command line needs of it.
"""

from __future__ import annotations

from registry.errors import CompressionInvalidError
from registry.value import frozen

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    from registry.oci.media_types import CompressionKind

DEFAULT_LEVELS: Final[dict[CompressionKind, int]] = {"gzip": 2, "zstd": 3, "uncompressed": 0}
"""Levels where none is asked for. igzip's 2 is as fast as its 1 and 1 % smaller; 3 is 2 % smaller again and takes twice
as long."""

MAX_LEVELS: Final[dict[CompressionKind, int]] = {"gzip": 9, "zstd": 22, "uncompressed": 0}
"""Highest levels. gzip: 0 stores, 1 to 3 are igzip's, 4 to 9 are zlib's, smaller and ten times slower."""


@frozen(kw_only=False)
class Compression:
    """How the layers of an image are stored. *level* None means `DEFAULT_LEVELS`."""

    kind: CompressionKind = "gzip"
    level: int | None = None

    def __post_init__(self) -> None:
        if self.kind not in MAX_LEVELS:
            raise CompressionInvalidError(self.kind, hint=f"use one of {', '.join(MAX_LEVELS)}")
        highest = MAX_LEVELS[self.kind]
        if self.level is not None and not 0 <= self.level <= highest:
            hint = f"levels of {self.kind} go from 0 to {highest}" if highest else f"{self.kind} layers have no level"
            raise CompressionInvalidError(f"{self.kind} level {self.level}", hint=hint)

    @classmethod
    def parse(cls, kind: str, level: str | None = None) -> Compression:
        """Read the values of `compression=` and `compression-level=`.

        Raises:
            CompressionInvalidError: an unknown kind, or a level that is no number or not one of the kind's.
        """
        if level is not None and not (level.isascii() and level.isdigit() and len(level) < 3):
            raise CompressionInvalidError(f"{kind} level {level}", hint="a level is a number like 6")
        # The constructor refuses kinds that are not among the literals.
        return cls(kind, None if level is None else int(level))  # type: ignore[arg-type]
