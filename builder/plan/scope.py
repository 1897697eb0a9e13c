"""The values that the words of an instruction are expanded with."""

from __future__ import annotations

from builder.dockerfile.instructions import InlineFile
from builder.dockerfile.words import Expansion, expand, expand_heredoc
from builder.errors import DockerfileError
from registry.value import field, mutable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from builder.source import Span


@mutable(kw_only=False)
class Scope:
    """Expands the words of one instruction.

    Args:
        environ: what the words see: the state before the instruction.
        escape: the escape character of the file.
        span: the instruction, for errors.
        unset: collects the names that were asked for and are not set.
    """

    environ: Mapping[str, str]
    escape: str
    span: Span
    unset: set[str] = field(default_factory=set)

    def text(self, word: str) -> str:
        """Expand a word."""
        return self._expand(word).text

    def words(self, word: str) -> tuple[str, ...]:
        """Expand a word, and split what comes of it at blanks."""
        return self._expand(word).words

    def optional(self, word: str | None) -> str | None:
        """Expand a word that may be missing."""
        return None if word is None else self.text(word)

    def heredoc(self, file: InlineFile) -> InlineFile:
        """Expand an inline file, unless its delimiter was quoted."""
        if not file.expand:
            return file
        try:
            expansion = expand_heredoc(file.text, self.environ.get)
        except DockerfileError as error:
            raise DockerfileError(error.message, hint=error.hint, span=self.span) from error
        self.unset |= expansion.unmatched
        return InlineFile(name=self.text(file.name), text=expansion.text, expand=False)

    def _expand(self, word: str) -> Expansion:
        try:
            expansion = expand(word, self.environ.get, escape=self.escape)
        except DockerfileError as error:
            raise DockerfileError(error.message, hint=error.hint, span=self.span) from error
        self.unset |= expansion.unmatched
        return expansion
