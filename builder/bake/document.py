"""What a bake file says before anything in it is worked out: blocks of attributes, each an expression."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

from registry.value import field, frozen

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from builder.bake.definition import Place

LARGEST_TEXT: Final = 4 << 20
"""Characters of the longest text that an expression may give."""

MOST_STEPS: Final = 300_000
"""Expressions that may be worked out for all files: a few lines can ask for more than any machine does."""


class EvaluationError(Exception):
    """An expression has no value: *reason* says why."""

    def __init__(self, reason: str, *, hint: str | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.hint = hint


def scalar_text(value: object) -> str | None:
    """Return a text, a switch or a number as text, as HCL has it; None for what is none of them."""
    match value:
        case str():
            return value
        case bool():
            return "true" if value else "false"
        case int():
            return str(value)
        case float():
            return str(int(value)) if value.is_integer() else str(value)
        case _:
            return None


class Scope:
    """The names an expression may use.

    Args:
        find: gives the value of a variable.
        call: gives the value of a function for arguments.
        local: names that hide those, such as parameters.
        steps: how many expressions were worked out, in a list of one, shared by all scopes.
    """

    __slots__ = ("_call", "_find", "_local", "_steps")

    def __init__(
        self,
        find: Callable[[str], Any],
        call: Callable[[str, list[Any]], Any],
        local: Mapping[str, Any] | None = None,
        steps: list[int] | None = None,
    ) -> None:
        self._find = find
        self._call = call
        self._local = local or {}
        self._steps = [0] if steps is None else steps

    def find(self, name: str) -> Any:
        """Return the value of a variable."""
        return self._local[name] if name in self._local else self._find(name)

    def call(self, name: str, arguments: list[Any]) -> Any:
        """Return the value of a function."""
        return self._call(name, arguments)

    def within(self, local: Mapping[str, Any]) -> Scope:
        """Return this scope with more names."""
        return Scope(self._find, self._call, {**self._local, **local}, self._steps)

    def count(self) -> None:
        """Count one more expression.

        Raises:
            EvaluationError: these are too many.
        """
        self._steps[0] += 1
        if self._steps[0] > MOST_STEPS:
            raise EvaluationError("the expressions of the file are too much work")


class Expression(Protocol):
    """Something with a value: None, a bool, an int, a float, a str, or a list or dict of those."""

    def evaluate(self, scope: Scope) -> Any:
        """Return the value.

        Raises:
            EvaluationError: there is none.
        """
        ...


class Attribute(NamedTuple):
    """The value of a name, and where it stands."""

    expression: Expression
    place: Place


@frozen
class Block:
    """One block of a file: its *attributes*, and blocks within it that are called `validation`."""

    place: Place
    attributes: Mapping[str, Attribute] = field(default_factory=dict)
    validations: tuple[Block, ...] = ()


@frozen
class Document:
    """The blocks of one file by their names, in its order; a name may stand several times. *attributes* are variables."""

    variables: tuple[tuple[str, Block], ...] = ()
    functions: tuple[tuple[str, Block], ...] = ()
    groups: tuple[tuple[str, Block], ...] = ()
    targets: tuple[tuple[str, Block], ...] = ()
    attributes: Mapping[str, Attribute] = field(default_factory=dict)
