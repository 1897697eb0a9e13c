"""From what files define to the targets to build: groups, inheritance, replaced values, links.

Source: docker/buildx, docs/reference/buildx_bake.md; bake/bake.go.
"""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Final, NamedTuple

from builder.bake.definition import (
    KEYS,
    Entry,
    Place,
    Target,
    Value,
    merge_targets,
    merge_values,
    read_switch,
    read_value,
)
from builder.dockerfile.suggest import nearest
from builder.errors import BakeError, UsageError
from registry.value import frozen, replace

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from builder.bake.definition import Definitions

DEFAULT: Final = "default"
"""The group that is built when nothing is named."""

_OPTION: Final = "option --set"
_SET_NAMES: Final = {"secrets": "secret", "platform": "platforms"}
"""Keys that `--set` calls otherwise than files do."""

_HERE: Final = "cwd://"
_OUTPUT_SWITCHES: Final = ("push", "load")


class Override(NamedTuple):
    """One `--set`: the targets it is for, the *key*, the *name* below it if that is pairs, and the *value*.

    *value* None takes an argument from the environment. *appends* is `+=`.
    """

    pattern: str
    key: str
    name: str | None
    value: str | None
    appends: bool = False


@frozen
class Selection:
    """What is to be built: *targets* with nothing left to inherit, each after those it links to.

    *linked* are those that nobody named, which are there for others that link to them; they have no output. *groups* are
    those that were named, with their members, `default` being all that was.
    """

    targets: Mapping[str, Target]
    linked: frozenset[str]
    groups: Mapping[str, tuple[str, ...]]

    def waves(self) -> Iterator[tuple[str, ...]]:
        """Yield the targets in waves: those of one link to earlier ones alone."""
        level: dict[str, int] = {}
        for name, target in self.targets.items():
            level[name] = max((level[other] + 1 for other in target.links()), default=0)
        for number in range(max(level.values(), default=-1) + 1):
            yield tuple(name for name in self.targets if level[name] == number)


def parse_override(text: str) -> Override:
    """Read one `--set PATTERN.KEY[.NAME]=VALUE`, or `+=`.

    Raises:
        UsageError: it is not of that form, or there is no such key.
    """
    left, equals, value = text.partition("=")
    appends = left.endswith("+")
    pattern, _, rest = left.removesuffix("+").partition(".")
    key, dot, name = rest.partition(".")
    if not pattern or not key:
        raise UsageError(f"{_OPTION}: not a target and a key: `{text}`", hint="write it like app.tags=me/app:1")
    if key == "inherits":
        raise UsageError(f"{_OPTION}: what a target inherits cannot be replaced: `{text}`")
    key = _SET_NAMES.get(key, key)
    if key not in KEYS and key not in _OUTPUT_SWITCHES:
        near = nearest(key, (*KEYS, *_SET_NAMES, *_OUTPUT_SWITCHES))
        raise UsageError(f"{_OPTION}: unknown key: `{key}`", hint=f"did you mean {near}?" if near else None)
    is_pairs = key in KEYS and KEYS[key].kind == "pairs"
    if is_pairs and not (dot and name):
        raise UsageError(f"{_OPTION}: a name is missing: `{text}`", hint=f"write it like {pattern}.{key}.NAME=VALUE")
    if dot and not is_pairs:
        raise UsageError(f"{_OPTION}: {key} has no names below it: `{text}`")
    if not equals and key != "args":
        raise UsageError(f"{_OPTION}: a value is missing: `{text}`", hint="write it like app.tags=me/app:1")
    return Override(pattern, key, name if is_pairs else None, value if equals else None, appends)


def select_targets(
    definitions: Definitions, names: Sequence[str], overrides: Sequence[Override], environ: Mapping[str, str]
) -> Selection:
    """Choose targets and resolve them.

    Args:
        definitions: of all files.
        names: targets and groups, also as patterns; nothing means `default`, and all targets where there is no
            such group.
        overrides: values to replace.
        environ: has the values of arguments that an override gives none.

    Raises:
        UsageError: there is no such target.
        BakeError: targets inherit from or link to each other in a circle, or to what does not exist.
    """
    return _Resolver(definitions, overrides, environ).select(names)


class _Resolver:
    def __init__(self, definitions: Definitions, overrides: Sequence[Override], environ: Mapping[str, str]) -> None:
        self._definitions = definitions
        self._environ = environ
        self._overrides: dict[str, list[Override]] = {}
        for override in overrides:
            for name in self._match(override.pattern, definitions.targets, f"{_OPTION}: no such target"):
                self._overrides.setdefault(name, []).append(override)
        self._resolved: dict[str, Target] = {}

    def select(self, names: Sequence[str]) -> Selection:
        wanted = self._wanted(names)
        groups: dict[str, tuple[str, ...]] = {}
        chosen: dict[str, None] = {}
        for name in wanted:
            chosen.update(dict.fromkeys(self._expand(name, groups)))
        groups[DEFAULT] = tuple(sorted(dict.fromkeys((*groups.get(DEFAULT, ()), *(n for n in wanted if n != DEFAULT)))))
        targets: dict[str, Target] = {}
        for name in chosen:
            self._add(name, targets, ())
        linked = frozenset(targets.keys() - chosen.keys())
        cache_only: tuple[Entry, ...] = ({"type": "cacheonly"},)
        for name in linked:
            targets[name] = replace(targets[name], values={**targets[name].values, "output": cache_only})
        return Selection(targets=targets, linked=linked, groups=groups)

    def _wanted(self, names: Sequence[str]) -> tuple[str, ...]:
        if not names:
            known = (*self._definitions.groups, *self._definitions.targets)
            names = (DEFAULT,) if DEFAULT in known else tuple(self._definitions.targets)
        if not names:
            raise BakeError("there are no targets to build", hint="a compose file needs a service with a build section")
        known = (*self._definitions.groups, *self._definitions.targets)
        found = (self._match(name.replace(".", "_"), known, "no such target") for name in names)
        return tuple(dict.fromkeys(name for matches in found for name in matches))

    def _match(self, pattern: str, known: Iterable[str], complaint: str) -> tuple[str, ...]:
        """List the names that a pattern is for, each once."""
        known = tuple(dict.fromkeys(known))
        if pattern in known:
            return (pattern,)
        matches = tuple(name for name in known if fnmatchcase(name, pattern))
        if not matches:
            near = nearest(pattern, known)
            hint = f"did you mean {near}?" if near else f"there are: {', '.join(known)}" if known else None
            raise UsageError(f"{complaint}: `{pattern}`", hint=hint)
        return matches

    def _expand(self, name: str, groups: dict[str, tuple[str, ...]], seen: tuple[str, ...] = ()) -> tuple[str, ...]:
        """List the targets that a name stands for, and add the groups on the way to *groups*."""
        members = self._definitions.groups.get(name)
        # As with buildx a group may have the name of a target, which it then hides.
        if members is None or name in seen:
            if name not in self._definitions.targets:
                raise self._missing(name, f"group {seen[-1]}" if seen else "")
            return (name,)
        groups[name] = members
        return tuple(target for member in members for target in self._expand(member, groups, (*seen, name)))

    def _add(self, name: str, targets: dict[str, Target], path: tuple[str, ...]) -> None:
        """Add a target after those it links to."""
        if name in path:
            raise BakeError(f"targets link to each other in a circle: `{' -> '.join((*path, name))}`")
        if name in targets:
            return
        target = self._resolve(name, f"a context of target {path[-1]}" if path else "")
        for link in target.links():
            self._add(link, targets, (*path, name))
            self._check_platforms(target, targets[link])
        needed = (text for link in target.links() for text in targets[link].texts("entitlements"))
        if entitlements := tuple(dict.fromkeys((*target.texts("entitlements"), *needed))):
            target = replace(target, values={**target.values, "entitlements": entitlements})
        targets[name] = target

    def _check_platforms(self, target: Target, link: Target) -> None:
        wanted, there = target.texts("platforms"), link.texts("platforms")
        missing = [platform for platform in wanted if platform not in there]
        if len(wanted) > 1 and len(there) > 1 and missing:
            raise BakeError(
                f"target {target.name} is built for platforms that target {link.name} is not: `{', '.join(missing)}`",
                hint=f"add them to the platforms of {link.name}",
            )

    def _resolve(self, name: str, asker: str) -> Target:
        """Return a target with what it inherits, with values replaced and with defaults."""
        target = self._inherit(name, asker, ())
        values = dict(target.values)
        # cwd:// names this machine in files that come from elsewhere, which ours do not.
        values["context"] = (target.text("context") or ".").removeprefix(_HERE) or "."
        values["dockerfile"] = (target.text("dockerfile") or "Dockerfile").removeprefix(_HERE)
        contexts = {key: value.removeprefix(_HERE) for key, value in target.pairs("contexts").items() if value}
        if contexts:
            values["contexts"] = contexts
        else:
            values.pop("contexts", None)
        if target.text("network") == "host":  # who says so in the file asks for it
            values["entitlements"] = tuple(dict.fromkeys((*target.texts("entitlements"), "network.host")))
        return Target(name=name, values=values)

    def _inherit(self, name: str, asker: str, path: tuple[str, ...]) -> Target:
        if name in path:
            raise BakeError(f"targets inherit from each other in a circle: `{' -> '.join((*path, name))}`")
        if name in self._resolved:
            return self._resolved[name]
        own = self._definitions.targets.get(name)
        if own is None:
            raise self._missing(name, asker)
        target = Target(name=name)
        for parent in own.inherits:
            target = merge_targets(target, self._inherit(parent, f"inherits of target {name}", (*path, name)))
        target = merge_targets(target, own)
        for override in self._overrides.get(name, ()):
            target = replace(target, values={**target.values, **self._apply(override, target)})
        self._resolved[name] = replace(target, inherits=())
        return self._resolved[name]

    def _apply(self, override: Override, target: Target) -> dict[str, Value]:
        """Return the values that a `--set` changes.

        The first that is no `+=` takes the place of what the target has, those after it for the same key add to it.
        """
        key, value = override.key, override.value
        place = Place(_OPTION, override.pattern)
        if key in _OUTPUT_SWITCHES:
            is_wanted = read_switch(value, place.at(key))
            outputs = target.entries("output")
            changed = _set_push(outputs, push=is_wanted) if key == "push" else _set_load(outputs, load=is_wanted)
            return {"output": changed}
        kind = KEYS[key].kind
        if kind == "pairs":
            name = override.name or ""
            text = self._environ.get(name) if value is None else value
            return {} if text is None else {key: {**target.pairs(key), name: text}}
        if kind in {"text", "switch"}:
            return {key: read_value(key, value, place)}
        read = read_value(key, [value], place)
        first = next(o for o in self._overrides[target.name] if o.key == key)
        adds = override.appends or first is not override or key in {"annotations", "attest", "entitlements"}
        return {key: merge_values(key, target.values.get(key), read, appends=adds)}

    def _missing(self, name: str, asker: str) -> BakeError:
        near = nearest(name, (*self._definitions.targets, *self._definitions.groups))
        where = f", which {asker} names" if asker else ""
        return BakeError(f"no such target{where}: `{name}`", hint=f"did you mean {near}?" if near else None)


def _set_push(outputs: tuple[Entry, ...], *, push: bool) -> tuple[Entry, ...]:
    """Return outputs that push, or that do not. Source: docker/buildx, bake/bake.go, setPushOverride."""
    if not push:
        kept = tuple(output for output in outputs if output.get("type") != "registry")
        return tuple({**output, "push": "false"} if output.get("type") == "image" else output for output in kept)
    pushed = tuple({**output, "push": "true"} if output.get("type") == "image" else output for output in outputs)
    if all(output.get("type") == "docker" for output in outputs):
        return (*pushed, {"type": "image", "push": "true"})
    return pushed


def _set_load(outputs: tuple[Entry, ...], *, load: bool) -> tuple[Entry, ...]:
    """Return outputs that leave the image in the store. Source: docker/buildx, bake/bake.go, setLoadOverride."""
    kinds = [output.get("type") for output in outputs]
    has_it = any(output.get("type") == "docker" and not output.get("dest") for output in outputs)
    if not load or has_it or any(kind not in {"docker", "image", "registry", "oci"} for kind in kinds):
        return outputs
    return (*outputs, {"type": "docker"})
