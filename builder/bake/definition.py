"""Targets and groups as files define them, before anything is inherited, replaced or looked up.

target: one build, by name. group: a name for several targets. key: what a target says, spelled as in a bake file, which
`KEYS` lists. entry: one line of an option such as `output`, which a file writes as text (`type=local,dest=out`) or
as an object; here it is always the object. link: a named context of the form `target:NAME`.

Source: docker/buildx, docs/bake-reference.md; bake/bake.go for how targets are merged.
"""

from __future__ import annotations

import csv
import io
import re
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, TypeAlias

from builder.bake.document import scalar_text
from builder.dockerfile.suggest import nearest
from builder.errors import BakeFileError
from registry.value import field, frozen

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

Kind = Literal["text", "switch", "texts", "pairs", "entries"]
"""The shapes of values: a text, true or false, several texts, texts by name, several entries."""

Entry: TypeAlias = "Mapping[str, str]"
Value: TypeAlias = "str | bool | tuple[str, ...] | Mapping[str, str] | tuple[Entry, ...]"
"""A value in the shape of its key."""


class Key(NamedTuple):
    """What a key of a target takes; *appends* says that a later value is added to an earlier one, not put in its place.

    Pairs are always joined, by name.
    """

    kind: Kind
    appends: bool = False


KEYS: Final[Mapping[str, Key]] = {
    "description": Key("text"),
    "annotations": Key("texts", appends=True),
    "attest": Key("entries", appends=True),
    "context": Key("text"),
    "contexts": Key("pairs"),
    "dockerfile": Key("text"),
    "dockerfile-inline": Key("text"),
    "args": Key("pairs"),
    "labels": Key("pairs"),
    "tags": Key("texts"),
    "cache-from": Key("entries", appends=True),
    "cache-to": Key("entries"),
    "target": Key("text"),
    "secret": Key("entries", appends=True),
    "ssh": Key("entries", appends=True),
    "platforms": Key("texts"),
    "output": Key("entries"),
    "pull": Key("switch"),
    "no-cache": Key("switch"),
    "network": Key("text"),
    "no-cache-filter": Key("texts", appends=True),
    "shm-size": Key("text"),
    "ulimits": Key("texts", appends=True),
    "call": Key("text"),
    "entitlements": Key("texts", appends=True),
    "extra-hosts": Key("pairs"),
}
"""The keys of a target but `inherits`, in the order in which `--print` writes them."""

LATER: Final = frozenset({"policy", "resources"})
"""Keys that buildx has and pybuild has not yet: refused, never ignored."""

LINK: Final = "target:"

_NAME = re.compile(r"[a-zA-Z0-9_-]+")
_SWITCHES: Final = {"true": True, "false": False, "1": True, "0": False, "t": True, "f": False}


@frozen
class Target:
    """One target: its *values* by key, and the names of those it *inherits* from, the last of which counts most."""

    name: str
    values: Mapping[str, Value] = field(default_factory=dict)
    inherits: tuple[str, ...] = ()

    def text(self, key: str) -> str | None:
        """Return the value of a key that is a text, None if it says nothing."""
        value = self.values.get(key)
        return value if isinstance(value, str) else None

    def is_set(self, key: str) -> bool:
        """Tell whether a key that is true or false is true."""
        return self.values.get(key) is True

    def texts(self, key: str) -> tuple[str, ...]:
        """Return the value of a key that is several texts."""
        value = self.values.get(key)
        return tuple(item for item in value if isinstance(item, str)) if isinstance(value, tuple) else ()

    def pairs(self, key: str) -> Mapping[str, str]:
        """Return the value of a key that is texts by name."""
        value = self.values.get(key)
        return {} if value is None or isinstance(value, str | bool | tuple) else value

    def entries(self, key: str) -> tuple[Entry, ...]:
        """Return the value of a key that is several entries."""
        value = self.values.get(key)
        return tuple(item for item in value if not isinstance(item, str)) if isinstance(value, tuple) else ()

    def links(self) -> tuple[str, ...]:
        """List the targets that its named contexts are."""
        values = self.pairs("contexts").values()
        return tuple(dict.fromkeys(value.removeprefix(LINK) for value in values if value.startswith(LINK)))


@frozen
class Definitions:
    """What one file, or all of them, define: targets and the members of groups, both by name in their order.

    *variables* are those that a bake file declares, with the value each has, None for none. *notes* tell of what was
    left out or may be a mistake, in words.
    """

    targets: Mapping[str, Target] = field(default_factory=dict)
    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    descriptions: Mapping[str, str] = field(default_factory=dict)
    variables: Mapping[str, Variable] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


class Variable(NamedTuple):
    """A variable of a bake file: its *value* as text, None for none."""

    value: str | None
    description: str = ""


def join_definitions(several: Iterable[Definitions]) -> Definitions:
    """Join what files define: a later target is merged into an earlier one of its name, members of groups add up."""
    targets: dict[str, Target] = {}
    groups: dict[str, tuple[str, ...]] = {}
    descriptions: dict[str, str] = {}
    variables: dict[str, Variable] = {}
    notes: list[str] = []
    for each in several:
        for name, target in each.targets.items():
            targets[name] = merge_targets(targets[name], target) if name in targets else target
        for name, members in each.groups.items():
            groups[name] = tuple(dict.fromkeys((*groups.get(name, ()), *members)))
        descriptions.update(each.descriptions)
        variables.update(each.variables)
        notes += each.notes
    return Definitions(
        targets=targets,
        groups=groups,
        descriptions=descriptions,
        variables=variables,
        notes=tuple(dict.fromkeys(notes)),
    )


def merge_targets(below: Target, above: Target) -> Target:
    """Return *below* with what *above* says of it; the name is that of *above*."""
    values = dict(below.values)
    for key, value in above.values.items():
        values[key] = merge_values(key, values.get(key), value)
    return Target(name=above.name, values=values, inherits=(*below.inherits, *above.inherits))


def merge_values(key: str, below: Value | None, above: Value, *, appends: bool | None = None) -> Value:
    """Return what a key has when *above* is said after *below*.

    Args:
        key: of `KEYS`.
        below: what was said before, if anything.
        above: what is said now.
        appends: whether it is added; None leaves that to the key.
    """
    if KEYS[key].kind == "pairs" and isinstance(below, dict) and isinstance(above, dict):
        return {**below, **above}
    if not (KEYS[key].appends if appends is None else appends):
        return above
    if not isinstance(below, tuple) or not isinstance(above, tuple):
        return above
    joined: list[object] = []
    for item in (*below, *above):
        if key == "attest":  # one of a type
            joined = [old for old in joined if _type_of(old) != _type_of(item)]
        if item not in joined:
            joined.append(item)
    return tuple(joined)  # type: ignore[return-value]  # both were values of this key


def _type_of(entry: object) -> object:
    return entry.get("type") if isinstance(entry, dict) else entry


class Place(NamedTuple):
    """Where in a file something stands: the *file* as people call it, and the *path*, `target.app.tags`."""

    file: str
    path: str = ""

    def at(self, name: str | int) -> Place:
        """Return the place of a field or item of what stands here."""
        if isinstance(name, int):
            return Place(self.file, f"{self.path}[{name}]")
        return Place(self.file, f"{self.path}.{name}" if self.path else name)

    def error(self, reason: str, *, hint: str | None = None) -> BakeFileError:
        """Return the error that says *reason* about what stands here."""
        return BakeFileError(self.file, reason, path=self.path, hint=hint)


def check_name(name: str, place: Place) -> str:
    """Return the name of a target or group.

    Raises:
        BakeFileError: it has characters that names have not.
    """
    if not _NAME.fullmatch(name):
        raise place.error("a name is made of letters, digits, _ and -", hint="give it another name")
    return name


def read_target(name: str, value: object, place: Place) -> Target:
    """Read the fields of a target; null counts as absent.

    Raises:
        BakeFileError: a key is unknown, or a value of the wrong shape.
    """
    fields = read_object(value, place)
    values: dict[str, Value] = {}
    inherits: tuple[str, ...] = ()
    for key, item in fields.items():
        if key == "inherits":
            inherits = read_texts(item, place.at(key))
        else:
            values[key] = read_value(key, item, place)
    return Target(name=name, values=values, inherits=inherits)


def read_value(key: str, value: object, place: Place) -> Value:
    """Read the value of a key of the target at *place*.

    Raises:
        BakeFileError: as `read_target`.
    """
    if key in LATER:
        raise place.at(key).error("not supported yet")
    if key not in KEYS:
        raise unknown_key(key, (*KEYS, "inherits"), place)
    here = place.at(key)
    match KEYS[key].kind:
        case "text":
            return read_text(value, here)
        case "switch":
            return read_switch(value, here)
        case "texts":
            return tuple(dict.fromkeys(text for text in read_texts(value, here) if text))
        case "pairs":
            return read_pairs(value, here)
        case "entries":
            return read_entries(key, value, here)


def unknown_key(key: str, known: Iterable[str], place: Place) -> BakeFileError:
    """Return the error that says that what stands at *place* has no such key."""
    near = nearest(key, known)
    return place.at(key).error("unknown key", hint=f"did you mean {near}?" if near else None)


def read_object(value: object, place: Place) -> dict[str, object]:
    """Read an object; its fields that are null are left out."""
    if not isinstance(value, dict):
        raise place.error(f"expected an object, found {kind_of(value)}")
    for name in value:
        if not isinstance(name, str):
            raise place.error(f"expected names of fields to be strings, found {kind_of(name)}")
    return {name: item for name, item in value.items() if item is not None}


def read_text(value: object, place: Place) -> str:
    """Read a text; a number or a switch is one, as in HCL."""
    text = scalar_text(value)
    if text is None:
        raise place.error(f"expected a string, found {kind_of(value)}")
    return text


def read_switch(value: object, place: Place) -> bool:
    """Read true or false, which may be written as text."""
    if isinstance(value, bool):
        return value
    known = _SWITCHES.get(value.lower()) if isinstance(value, str) else None
    if known is None:
        raise place.error(f"expected true or false, found {kind_of(value)}")
    return known


def read_list(value: object, place: Place) -> list[object]:
    """Read a list of anything."""
    if not isinstance(value, list):
        raise place.error(f"expected a list, found {kind_of(value)}", hint='write it like ["one", "two"]')
    return value


def read_texts(value: object, place: Place) -> tuple[str, ...]:
    """Read a list of texts; null in it is left out."""
    items = enumerate(read_list(value, place))
    return tuple(read_text(item, place.at(position)) for position, item in items if item is not None)


def read_pairs(value: object, place: Place) -> dict[str, str]:
    """Read an object of texts; those that are null are left out."""
    return {name: read_text(item, place.at(name)) for name, item in read_object(value, place).items()}


def read_entries(key: str, value: object, place: Place) -> tuple[Entry, ...]:
    """Read a list of entries, each a text or an object; empty texts are left out."""
    entries: list[Entry] = []
    for position, item in enumerate(read_list(value, place)):
        here = place.at(position)
        if isinstance(item, dict):
            entries.append(_read_entry(item, here))
        elif item is not None and (text := read_text(item, here)):
            entries.append(parse_entry(key, text, here))
    return tuple(entries)


def _read_entry(value: object, place: Place) -> Entry:
    entry: dict[str, str] = {}
    for name, item in read_object(value, place).items():
        texts = read_texts(item, place.at(name)) if isinstance(item, list) else (read_text(item, place.at(name)),)
        entry[name] = ",".join(texts)
    return entry


def parse_entry(key: str, text: str, place: Place) -> Entry:
    """Return the entry of a key that was written as the value of its option.

    Raises:
        BakeFileError: it is not of the form that the option takes.

    Source: docker/buildx, util/buildflags/{export,cache,secrets,ssh,attests}.go.
    """
    if key == "ssh":
        name, equals, paths = text.partition("=")
        return {"id": name, **({"paths": paths} if equals else {})}
    if key == "output" and text == "-":
        return {"type": "tar", "dest": "-"}
    fields = split_fields(text, place)
    if len(fields) == 1 and "=" not in fields[0]:
        if key == "output":
            return {"type": "local", "dest": fields[0]}
        if key in {"cache-from", "cache-to"}:
            return {"type": "registry", "ref": fields[0]}
    entry: dict[str, str] = {}
    for part in fields:
        name, equals, value = part.partition("=")
        if not equals:
            raise place.error(f"expected key=value, found {part}")
        entry[name.strip()] = value
    return entry


def format_entry(key: str, entry: Entry) -> str:
    """Return an entry as the value of its option; the inverse of `parse_entry`."""
    if key == "ssh":
        return f"{entry.get('id', '')}={entry['paths']}" if entry.get("paths") else entry.get("id", "")
    return join_fields([f"{name}={value}" for name, value in entry.items()])


def split_fields(text: str, place: Place) -> list[str]:
    """Return the comma-separated fields of the value of an option, in which quotes keep commas."""
    try:
        rows = list(csv.reader([text], strict=True))
    except csv.Error as error:
        raise place.error("unbalanced quotes") from error
    return rows[0] if rows else []


def join_fields(fields: Sequence[str]) -> str:
    """Return fields as one value of an option, in quotes where they need them."""
    text = io.StringIO()
    csv.writer(text, lineterminator="").writerow(fields)
    return text.getvalue()


def kind_of(value: object) -> str:
    """Say what kind of value was found, for messages."""
    match value:
        case None:
            return "null"
        case bool():
            return "true or false"
        case int() | float():
            return "a number"
        case str():
            return "a string"
        case list():
            return "a list"
        case dict():
            return "an object"
        case _:
            return f"a {type(value).__name__}"
