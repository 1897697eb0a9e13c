"""Compose files: the `build` section of each service is a target of the service's name.

    services:
      app:
        image: me/app:${TAG:-latest}
        build:
          context: .
          args: {VERSION: "1.2"}
          additional_contexts: {base: "service:base"}
          x-bake: {platforms: [linux/amd64, linux/arm64]}

Only `build`, `image` and `environment` of services and the top-level `secrets` are looked at; profiles play no part. A
service without `build` is no target. All targets make the group `default`.

Source: compose-spec, build.md; docker/buildx, bake/compose.go.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from builder.bake.definition import (
    LINK,
    Definitions,
    Target,
    Value,
    check_name,
    kind_of,
    merge_values,
    parse_entry,
    read_list,
    read_object,
    read_switch,
    read_text,
    read_texts,
    read_value,
    unknown_key,
)
from builder.bake.variables import SubstitutionError, substitute

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from builder.bake.definition import Entry, Place

LARGEST_TREE: Final = 100_000
"""Values that a file may have when what its aliases name is put in their place."""

DEEPEST_TREE: Final = 100
"""How deep they may lie in each other."""

_DIRECT: Final[Mapping[str, str]] = {
    "context": "context",
    "dockerfile": "dockerfile",
    "dockerfile_inline": "dockerfile-inline",
    "target": "target",
    "network": "network",
    "pull": "pull",
    "no_cache": "no-cache",
    "platforms": "platforms",
    "tags": "tags",
    "cache_from": "cache-from",
    "cache_to": "cache-to",
    "entitlements": "entitlements",
    "no_cache_filter": "no-cache-filter",
}
"""Keys of `build` that differ from those of a bake file in nothing but the spelling."""

_READ: Final = (
    "args",
    "labels",
    "additional_contexts",
    "extra_hosts",
    "secrets",
    "ssh",
    "shm_size",
    "ulimits",
    "sbom",
    "provenance",
)
_WITHOUT_EFFECT: Final = ("isolation", "privileged")
"""Keys of `build` that compose has and a build here has no use for."""

_EXTENSION: Final = (
    "tags",
    "cache-from",
    "cache-to",
    "secret",
    "ssh",
    "platforms",
    "output",
    "pull",
    "no-cache",
    "no-cache-filter",
    "contexts",
)
"""Keys of `x-bake`. Source: docker/docs, content/manuals/build/bake/compose-file.md."""


def read_compose(data: bytes, place: Place, environ: Mapping[str, str]) -> Definitions:
    """Read a compose file.

    Args:
        data: of the file, YAML.
        place: the file.
        environ: the variables that its values may name.

    Raises:
        BakeFileError: it is no compose file, or says what cannot be.
    """
    return _Reader(place, environ).read(load_yaml(data, place))


class _Reader:
    def __init__(self, place: Place, environ: Mapping[str, str]) -> None:
        self._place = place
        self._environ = environ
        self._notes: list[str] = []
        self._left = LARGEST_TREE

    def read(self, document: object) -> Definitions:
        root = read_object(document, self._place)
        if root.get("include"):
            raise self._place.at("include").error("not supported yet", hint="name the files with -f")
        at = self._place.at("services")
        services = read_object(root.get("services", {}), at)
        secrets = read_object(
            self._put_in(root.get("secrets", {}), self._place.at("secrets")), self._place.at("secrets")
        )
        targets: dict[str, Target] = {}
        for name in services:
            service = self._service(name, services, at)
            if service.get("build") is not None:
                target = self._target(check_name(name.replace(".", "_"), at.at(name)), service, secrets, at.at(name))
                targets[target.name] = target
        groups = {"default": tuple(targets)} if targets else {}
        return Definitions(targets=targets, groups=groups, notes=tuple(self._notes))

    def _service(
        self, name: str, services: Mapping[str, object], at: Place, seen: tuple[str, ...] = ()
    ) -> dict[str, Any]:
        """Return what counts of a service, with variables put in and what it extends below it."""
        here = at.at(name)
        if name in seen:
            raise here.error(f"services extend each other in a circle, {' -> '.join((*seen, name))}")
        fields = read_object(services[name] if services[name] is not None else {}, here)
        wanted = {key: fields[key] for key in ("build", "image", "environment", "extends") if key in fields}
        service: dict[str, Any] = {key: self._put_in(value, here.at(key)) for key, value in wanted.items()}
        if isinstance(service.get("build"), str):
            service["build"] = {"context": service["build"]}
        if (extended := service.pop("extends", None)) is None:
            return service
        parent = extended if isinstance(extended, str) else read_object(extended, here.at("extends")).get("service")
        if isinstance(extended, dict) and extended.get("file") is not None:
            raise here.at("extends").error(
                "services of other files are not supported yet", hint="name the file with -f"
            )
        if not isinstance(parent, str) or parent not in services:
            raise here.at("extends").error("no such service")
        below = self._service(parent, services, at, (*seen, name))
        if isinstance(below.get("build"), dict) and isinstance(service.get("build"), dict):
            service["build"] = _merge_build(below["build"], service["build"])
        return {**below, **service}

    def _put_in(self, value: object, place: Place, depth: int = 0) -> Any:
        """Return a value with variables put in; aliases become copies, whose number is bounded."""
        self._left -= 1
        if self._left < 0 or depth > DEEPEST_TREE:
            raise self._place.error("too many values, or aliases that name each other")
        match value:
            case str():
                try:
                    return substitute(value, self._environ.get, missing=self._note_missing)
                except SubstitutionError as error:
                    raise place.error(error.reason) from error
            case dict():
                return {name: self._put_in(item, place.at(str(name)), depth + 1) for name, item in value.items()}
            case list():
                return [self._put_in(item, place.at(position), depth + 1) for position, item in enumerate(value)]
            case _:
                return value

    def _note_missing(self, name: str) -> None:
        note = f"{self._place.file}: variable {name} is not set, and counts as empty"
        if note not in self._notes:
            self._notes.append(note)

    def _target(self, name: str, service: Mapping[str, object], secrets: Mapping[str, object], at: Place) -> Target:
        here = at.at("build")
        build = read_object(service["build"], here)
        values: dict[str, Value] = {}
        attests: list[Entry] = []
        for key, item in build.items():
            place = here.at(key)
            match key:
                case _ if key in _DIRECT:
                    values[_DIRECT[key]] = _read_direct(_DIRECT[key], item, place)
                case "args":
                    environment = read_mapping(service.get("environment", {}), at.at("environment"))
                    values["args"] = self._resolve(read_mapping(item, place), environment)
                case "labels":
                    values["labels"] = {name: text or "" for name, text in read_mapping(item, place).items()}
                case "additional_contexts":
                    values["contexts"] = _read_contexts(item, place)
                case "extra_hosts":
                    values["extra-hosts"] = _read_hosts(item, place)
                case "secrets":
                    values["secret"] = tuple(_read_secrets(item, secrets, place, self._place.at("secrets")))
                case "ssh":
                    values["ssh"] = tuple(
                        {"id": id_, **({"paths": path} if path else {})}
                        for id_, path in sorted(read_mapping(item, place).items())
                    )
                case "shm_size":
                    values["shm-size"] = read_text(item, place)
                case "ulimits":
                    values["ulimits"] = tuple(_read_ulimits(item, place))
                case "sbom" | "provenance":
                    attests.append(_read_attest(key, item, place))
                case _ if key in _WITHOUT_EFFECT:
                    self._notes.append(f"{place.file}: {place.path} has no effect here")
                case _ if not key.startswith("x-"):
                    raise unknown_key(key, (*_DIRECT, *_READ), here)
                case _:
                    pass
        if attests:
            values["attest"] = tuple(attests)
        _extend(values, build.get("x-bake"), here.at("x-bake"))
        if not values.get("tags") and service.get("image"):
            values["tags"] = (read_text(service["image"], at.at("image")),)
        return Target(name=name, values=values)

    def _resolve(self, args: Mapping[str, str | None], environment: Mapping[str, str | None]) -> dict[str, str]:
        """Give arguments without a value that of the service's environment, else of ours, else leave them out."""
        found = {
            name: next((v for v in (value, environment.get(name), self._environ.get(name)) if v is not None), None)
            for name, value in args.items()
        }
        return {name: value for name, value in found.items() if value is not None}


def _merge_build(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Join two `build` sections as compose does: objects by name, lists one after the other."""
    joined = dict(below)
    for key, value in above.items():
        old = joined.get(key)
        if isinstance(old, dict) and isinstance(value, dict):
            joined[key] = _merge_build(old, value)
        elif isinstance(old, list) and isinstance(value, list):
            joined[key] = [*old, *value]
        else:
            joined[key] = value
    return joined


def _read_direct(key: str, item: object, place: Place) -> Value:
    if key in {"cache-from", "cache-to"}:
        return tuple(
            parse_entry(key, text, place.at(position)) for position, text in enumerate(read_texts(item, place)) if text
        )
    if key in {"pull", "no-cache"}:
        return read_switch(item, place)
    if key in {"platforms", "tags", "entitlements", "no-cache-filter"}:
        return tuple(dict.fromkeys(read_texts(item, place)))
    return read_text(item, place)


def read_mapping(value: object, place: Place) -> dict[str, str | None]:
    """Read what compose allows as an object and as a list of `NAME=VALUE`; None is a name without a value."""
    if isinstance(value, list):
        pairs: dict[str, str | None] = {}
        for text in read_texts(value, place):
            name, equals, item = text.partition("=")
            pairs[name] = item if equals else None
        return pairs
    if not isinstance(value, dict):
        raise place.error(f"expected an object or a list, found {kind_of(value)}")
    return {str(name): None if item is None else read_text(item, place.at(str(name))) for name, item in value.items()}


def _read_contexts(value: object, place: Place) -> dict[str, str]:
    contexts = {name: text for name, text in read_mapping(value, place).items() if text}
    for name, text in contexts.items():
        kind, colon, service = text.partition(":")
        if colon and kind in {"service", "target"}:
            contexts[name] = f"{LINK}{service.replace('.', '_')}"
    return contexts


def _read_hosts(value: object, place: Place) -> dict[str, str]:
    """Read hosts and addresses: an object, or a list of `HOST=IP` or `HOST:IP`."""
    if isinstance(value, dict):
        hosts = read_object(value, place)
        return {
            name: ",".join(read_texts(item, place.at(name)))
            if isinstance(item, list)
            else read_text(item, place.at(name))
            for name, item in hosts.items()
        }
    pairs: dict[str, str] = {}
    for text in read_texts(value, place):
        name, equals, address = text.partition("=")
        if not equals:
            name, _, address = text.partition(":")
        pairs[name] = address
    return pairs


def _read_secrets(value: object, secrets: Mapping[str, object], place: Place, top: Place) -> list[Entry]:
    entries: list[Entry] = []
    for position, item in enumerate(read_list(value, place)):
        here = place.at(position)
        name = item if isinstance(item, str) else read_object(item, here).get("source")
        if not isinstance(name, str):
            raise here.error("a source is missing")
        if name not in secrets:
            raise here.error(f"no such secret at the top of the file, {name}")
        secret = read_object(secrets[name], top.at(name))
        if secret.get("external"):
            raise top.at(name).error("an external secret cannot be had", hint="name a file or an environment variable")
        entry = {"id": name}
        if secret.get("file") is not None:
            entry["src"] = read_text(secret["file"], top.at(name).at("file"))
        if secret.get("environment") is not None:
            entry["env"] = read_text(secret["environment"], top.at(name).at("environment"))
        entries.append(entry)
    return entries


def _read_ulimits(value: object, place: Place) -> list[str]:
    limits: list[str] = []
    for name, item in read_object(value, place).items():
        if isinstance(item, dict):
            both = read_object(item, place.at(name))
            if not both.keys() >= {"soft", "hard"}:
                raise place.at(name).error("soft and hard are wanted")
            soft, hard = (read_text(both[key], place.at(name).at(key)) for key in ("soft", "hard"))
            limits.append(f"{name}={soft}:{hard}")
        else:
            limits.append(f"{name}={read_text(item, place.at(name))}")
    return limits


def _read_attest(key: str, value: object, place: Place) -> Entry:
    """Read `sbom` or `provenance`: true, false, or the attributes of the option of that name."""
    text = read_text(value, place)
    if text in {"true", "false"}:
        return {"type": key, **({"disabled": "true"} if text == "false" else {})}
    return {"type": key, **parse_entry("attest", text, place)}


def _extend(values: dict[str, Value], extension: object, place: Place) -> None:
    """Add what `x-bake` says."""
    if extension is None:
        return
    for key, item in read_object(extension, place).items():
        if key not in _EXTENSION:
            raise unknown_key(key, _EXTENSION, place)
        if isinstance(item, str) and key not in {"pull", "no-cache"}:
            item = list(item.split())  # noqa: PLW2901  (a list may be written as words)
        value = _read_contexts(item, place.at(key)) if key == "contexts" else read_value(key, item, place)
        if key == "contexts":
            value = {**value, **(old if isinstance(old := values.get(key), dict) else {})}  # type: ignore[dict-item]
        values[key] = merge_values(key, values.get(key), value, appends=True)


def load_yaml(data: bytes, place: Place) -> object:
    """Read one YAML document.

    Plain scalars are what YAML 1.2 takes them for, so `yes` and `22:22` are texts; and a number with a point keeps its
    spelling, so `VERSION: 1.10` is `1.10`. A key may stand once in an object.

    Raises:
        BakeFileError: it is not YAML.
    """
    import yaml  # noqa: PLC0415  (only with a compose file)

    try:
        return yaml.load(data, Loader=_make_loader(yaml))  # noqa: S506  (a safe loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f" in line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise place.error(f"not YAML, {error.problem or error.context}{where}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise place.error(f"not YAML, {first}") from error


def _make_loader(yaml: Any) -> Any:
    import re  # noqa: PLC0415  (only with a compose file)

    base = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the same in C, where the C library was there to build it

    def construct_mapping(loader: Any, node: Any) -> Any:
        seen: set[str] = set()
        for key, _ in node.value:
            if key.value in seen and key.tag != "tag:yaml.org,2002:merge":
                raise yaml.constructor.ConstructorError(None, None, f"key stands twice: {key.value}", key.start_mark)
            if isinstance(key.value, str):
                seen.add(key.value)
        result: dict[object, object] = {}
        yield result
        result.update(loader.construct_mapping(node))

    class Loader(base):  # type: ignore[misc, valid-type]  # yaml has no annotations
        yaml_implicit_resolvers: Final[dict[str, Callable[..., Any]]] = {}

    tag = "tag:yaml.org,2002:"
    Loader.add_implicit_resolver(f"{tag}null", re.compile(r"(?:~|null|Null|NULL|)\Z"), ["~", "n", "N", ""])
    Loader.add_implicit_resolver(f"{tag}bool", re.compile(r"(?:true|True|TRUE|false|False|FALSE)\Z"), list("tTfF"))
    Loader.add_implicit_resolver(f"{tag}int", re.compile(r"(?:0|-?[1-9][0-9]*)\Z"), list("-0123456789"))
    Loader.add_implicit_resolver(f"{tag}merge", re.compile(r"<<\Z"), ["<"])
    Loader.add_constructor(f"{tag}map", construct_mapping)
    return Loader
