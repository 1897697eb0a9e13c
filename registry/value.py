"""Values: classes that are their fields.

`@frozen` makes of a class with annotations what `@dataclass(frozen=True, kw_only=True)` makes of it, and type checkers
take it for that. It is there for the start of the command. For each class dataclasses writes and compiles six
functions, and it takes long to be imported: 75 of the 190 ms that a build took in which every step is cached, on a slow
processor. Here all classes share the same functions, which look the fields up when they are called: a class is made in a
twentieth of the time, a value in half as much again.

What is made by the ten thousand is a NamedTuple instead, though not in what such a build loads: the first one that is
made has the compiler make its own types, 1.5 ms, since annotations are text.
"""

from __future__ import annotations

from operator import attrgetter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Final, NoReturn, TypeVar, dataclass_transform, overload

    _T = TypeVar("_T")
else:

    def dataclass_transform(**_: object) -> Callable[[_T], _T]:
        """Do nothing; what it says is for type checkers."""
        return lambda decorator: decorator


_NOTHING: Final[Any] = object()
_FIELDS: Final = "__value_fields__"
_set: Final = object.__setattr__


class _Field:
    """What is known of a field."""

    __slots__ = ("compare", "default", "factory", "init", "repr")

    def __init__(
        self,
        default: Any = _NOTHING,
        factory: Callable[[], Any] | None = None,
        *,
        init: bool = True,
        repr: bool = True,  # noqa: A002  as below
        compare: bool = True,
    ) -> None:
        self.default = default
        self.factory = factory
        self.init = init
        self.repr = repr
        self.compare = compare


_PLAIN: Final = _Field()
"""What is known of a field of which no more than its name is said."""


def field(
    *,
    default: Any = _NOTHING,
    default_factory: Callable[[], Any] | None = None,
    init: bool = True,
    repr: bool = True,  # noqa: A002  the words of dataclasses
    compare: bool = True,
) -> Any:
    """Say more of a field than its default, as `dataclasses.field` does."""
    return _Field(default, default_factory, init=init, repr=repr, compare=compare)


if TYPE_CHECKING:

    @overload
    def frozen(cls: type[_T], /) -> type[_T]: ...

    @overload
    def frozen(*, kw_only: bool = True, eq: bool = True) -> Callable[[type[_T]], type[_T]]: ...


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(field,))
def frozen(
    cls: type[_T] | None = None, /, *, kw_only: bool = True, eq: bool = True
) -> type[_T] | Callable[[type[_T]], type[_T]]:
    """Make a class of its annotated fields, which are set once.

    Fields of base classes that are made so come first. A `__post_init__` is called when all fields are set. Two values
    are equal if they are of one class and their fields are, but for those with `compare=False`.

    Args:
        cls: the class.
        kw_only: whether fields are only given by name.
        eq: whether values are compared by their fields; if not, each is equal to itself alone.
    """
    if cls is None:
        return lambda cls: _make(cls, is_frozen=True, kw_only=kw_only, eq=eq)
    return _make(cls, is_frozen=True, kw_only=kw_only, eq=eq)


if TYPE_CHECKING:

    @overload
    def mutable(cls: type[_T], /) -> type[_T]: ...

    @overload
    def mutable(*, kw_only: bool = True) -> Callable[[type[_T]], type[_T]]: ...


@dataclass_transform(kw_only_default=True, field_specifiers=(field,))
def mutable(cls: type[_T] | None = None, /, *, kw_only: bool = True) -> type[_T] | Callable[[type[_T]], type[_T]]:
    """Make a class as `frozen` does, whose fields may be set again; so it has no hash."""
    if cls is None:
        return lambda cls: _make(cls, is_frozen=False, kw_only=kw_only)
    return _make(cls, is_frozen=False, kw_only=kw_only)


def replace(one: _T, /, **changes: Any) -> _T:
    """Return a value like *one* in which some fields are others."""
    given = {name: getattr(one, name) for name, each in _fields_of(type(one)).items() if each.init}
    return type(one)(**(given | changes))


def _make(cls: type[_T], *, is_frozen: bool, kw_only: bool, eq: bool = True) -> type[_T]:
    """Give the class what all share. It stays the one it is: to have slots it would have to be made anew.

    Its fields are looked up when its first value is made, as a run makes values of half the classes that it loads.
    """
    given = vars(cls)

    def init(self: Any, /, *args: Any, **fields: Any) -> None:
        made = _make_init(cls, _fields_of(cls), kw_only=kw_only)
        cls.__init__ = made  # type: ignore[method-assign]
        made(self, *args, **fields)

    setattr(cls, _FIELDS, None)
    cls.__init__ = init  # type: ignore[assignment,method-assign]
    for name, member in _SHARED[is_frozen, eq]:
        if name not in given:
            setattr(cls, name, member)
    return cls


def _fields_of(cls: Any) -> dict[str, _Field]:
    found: dict[str, _Field] | None = getattr(cls, _FIELDS)
    if found is not None:
        return found
    given = vars(cls)
    fields: dict[str, _Field] = {}
    for base in reversed(cls.__mro__[1:]):
        if _FIELDS in vars(base):
            fields |= _fields_of(base)
    own = [name for name, kind in given.get("__annotations__", {}).items() if not str(kind).startswith("ClassVar")]
    defaults = [name for name in own if name in given]
    fields |= dict.fromkeys(own, _PLAIN)
    for name in defaults:
        default = given.get(name)
        fields[name] = default if isinstance(default, _Field) else _Field(default)
    if getattr(cls, _FIELDS) is not None:  # another thread was quicker, and may have taken defaults away already
        return _fields_of(cls)
    compared = [name for name, each in fields.items() if each.compare]
    cls._value_key = attrgetter(*compared) if compared else staticmethod(lambda _: ())
    setattr(cls, _FIELDS, fields)
    for name in defaults:
        delattr(cls, name)
    return fields


def _make_init(cls: type[Any], fields: dict[str, _Field], *, kw_only: bool) -> Callable[..., None]:
    names = tuple([name for name, each in fields.items() if each.init])
    expected = set(names)
    special = [(name, each) for name, each in fields.items() if each is not _PLAIN]
    rest = [(name, each) for name, each in special if not each.init and (each.default is not _NOTHING or each.factory)]
    defaults = {name: each.default for name, each in special if each.init and each.default is not _NOTHING}
    factories = {name: each.factory for name, each in special if each.init and each.factory is not None}
    has_more = bool(rest) or hasattr(cls, "__post_init__")
    count = len(names)

    def finish(self: Any) -> None:
        for name, each in rest:
            _set(self, name, each.factory() if each.factory else each.default)
        if hasattr(self, "__post_init__"):
            self.__post_init__()

    def init_by_name(self: Any, /, **given: Any) -> None:
        if len(given) != count:
            given = defaults | given
            for name, factory in factories.items():
                if name not in given:
                    given[name] = factory()
        if given.keys() != expected:
            raise _wrong_fields(self, expected, given)
        vars(self).update(given)
        if has_more:
            finish(self)

    def init(self: Any, /, *args: Any, **given: Any) -> None:
        if given or len(args) != count:
            if len(args) > count or not given.keys().isdisjoint(names[: len(args)]):
                raise TypeError(f"{type(self).__name__} is given too much")
            init_by_name(self, **dict(zip(names, args, strict=False)), **given)
            return
        for name, one in zip(names, args, strict=True):  # what is made so is small and many: a dict would be larger
            _set(self, name, one)
        if has_more:
            finish(self)

    return init_by_name if kw_only else init


def _wrong_fields(self: Any, expected: set[str], given: dict[str, Any]) -> TypeError:
    missing, unknown = sorted(expected - given.keys()), sorted(given.keys() - expected)
    reason = f"has no field: {', '.join(unknown)}" if unknown else f"is not given: {', '.join(missing)}"
    return TypeError(f"{type(self).__name__} {reason}")


def _repr(self: Any) -> str:
    fields = _fields_of(type(self)).items()
    shown = ", ".join(f"{name}={getattr(self, name)!r}" for name, each in fields if each.repr)
    return f"{type(self).__qualname__}({shown})"


def _eq(self: Any, other: Any) -> Any:
    if other.__class__ is not self.__class__:
        return NotImplemented
    return self._value_key(self) == self._value_key(other)


def _hash(self: Any) -> int:
    return hash(self._value_key(self))


def _set_field(self: Any, name: str, value: Any) -> None:
    if name not in vars(self) and name not in _fields_of(type(self)):
        raise AttributeError(f"{type(self).__name__} has no field: {name}")
    _set(self, name, value)


def _refuse_to_set(self: Any, name: str, _: Any) -> NoReturn:
    raise AttributeError(f"{type(self).__name__} is not changed: {name}")


def _refuse_to_delete(self: Any, name: str) -> NoReturn:
    raise AttributeError(f"{type(self).__name__} is not changed: {name}")


_FROZEN: Final = (("__repr__", _repr), ("__setattr__", _refuse_to_set), ("__delattr__", _refuse_to_delete))
_MUTABLE: Final = (("__repr__", _repr), ("__setattr__", _set_field))
_SHARED: Final[dict[tuple[bool, bool], tuple[tuple[str, Any], ...]]] = {
    (True, True): (*_FROZEN, ("__eq__", _eq), ("__hash__", _hash)),
    (True, False): _FROZEN,
    (False, True): (*_MUTABLE, ("__eq__", _eq), ("__hash__", None)),
}
"""What values have whose fields are set once, or not, and which are equal by them, or not."""
