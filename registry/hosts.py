"""Where a name leads: hosts, endpoints, and the rules of `registries.conf` that choose them.

A *host* is a registry as people name it, `docker.io` or `localhost:5000`. An *endpoint* is a repository on a host. One
reference has one endpoint to push to and one or more to pull from: the mirrors in their order, then the origin.

Source: containers-registries.conf(5) version 2, containers-registries.conf.d(5).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Literal

from registry.errors import ConfigurationError, ReferenceInvalidError, RegistryBlockedError
from registry.oci.reference import DEFAULT_NAMESPACE, DEFAULT_REGISTRY, Reference, parse_reference
from registry.value import field, frozen, replace

if TYPE_CHECKING:
    from pathlib import Path

DOCKER_HUB_ADDRESS: Final = "registry-1.docker.io"
"""The host that speaks the distribution protocol for `docker.io`."""

PullFromMirror = Literal["all", "digest-only", "tag-only"]
"""For which references a mirror is asked. Source: containers-registries.conf(5), pull-from-mirror."""

_PULL_FROM_MIRROR: Final[dict[str, PullFromMirror]] = {
    "": "all",
    "all": "all",
    "digest-only": "digest-only",
    "tag-only": "tag-only",
}
_LOOPBACK_V4 = re.compile(r"127(?:\.\d{1,3}){3}")


@frozen(kw_only=False)
class Host:
    """A registry. *insecure* allows plain HTTP and TLS certificates that nobody vouches for."""

    name: str
    insecure: bool = False

    @property
    def address(self) -> str:
        """The `host[:port]` to connect to."""
        return DOCKER_HUB_ADDRESS if self.name == DEFAULT_REGISTRY else self.name

    @property
    def allows_plain_http(self) -> bool:
        """Whether plain HTTP may be tried: insecure hosts, and this machine itself, as docker does."""
        return self.insecure or is_loopback(self.name)


@frozen
class Endpoint:
    """A repository on a host; *is_mirror* if another endpoint follows that may be asked instead."""

    host: Host
    repository: str
    is_mirror: bool = False


@frozen
class Mirror:
    """Another place that may have what a rule's prefix covers."""

    location: str
    insecure: bool = False
    pull_from_mirror: PullFromMirror = "all"


@frozen
class RegistryRule:
    """One `[[registry]]` table. *prefix* is `host[/path]` or `*.domain`; an empty *location* rewrites nothing."""

    prefix: str
    location: str = ""
    insecure: bool = False
    blocked: bool = False
    mirrors: tuple[Mirror, ...] = ()


@frozen
class RegistrySettings:
    """Everything that says how registries are reached.

    *rules* in order of the files, later ones replace earlier ones of the same prefix. *search_registries* is None if no
    file names any. *aliases* maps short names to `host/path`. *insecure_hosts* holds `host[:port]` as written in
    references. *certificate_directories* are certs.d directories and *auth_files* credential files, most wanted first.
    """

    rules: tuple[RegistryRule, ...] = ()
    search_registries: tuple[str, ...] | None = None
    aliases: Mapping[str, str] = field(default_factory=dict)
    insecure_hosts: frozenset[str] = frozenset()
    certificate_directories: tuple[Path, ...] = ()
    auth_files: tuple[Path, ...] = ()

    @classmethod
    def load(
        cls,
        paths: Sequence[Path] = (),
        *,
        insecure_hosts: Sequence[str] = (),
        certificate_directories: Sequence[Path] = (),
        auth_files: Sequence[Path] = (),
    ) -> RegistrySettings:
        """Read the configuration files that exist.

        Args:
            paths: of files named here the first that exists is the main file, the others are not read, as
                containers-registries.conf(5) has it; of every directory the `*.conf` files are read on top of it, in
                the order of their names.
            insecure_hosts: hosts that are insecure whatever the files say.
            certificate_directories: certs.d directories; the first with an entry for a host counts.
            auth_files: files with credentials; the first with some for a repository counts.

        Raises:
            ConfigurationError: a file cannot be read, is not TOML, or has a value that cannot be.
        """
        rules: dict[str, RegistryRule] = {}
        search: tuple[str, ...] | None = None
        aliases: dict[str, str] = {}
        for path in _choose_files(paths):
            document = _read_toml(path)
            for rule in _read_rules(document, path):
                rules[rule.prefix] = rule
            if "unqualified-search-registries" in document:
                search = _texts(document, "unqualified-search-registries", path)
            for name, target in _read_aliases(document, path).items():
                if target:
                    aliases[name] = target
                else:
                    aliases.pop(name, None)
        return cls(
            rules=tuple(rules.values()),
            search_registries=search,
            aliases=aliases,
            insecure_hosts=frozenset(insecure_hosts),
            certificate_directories=tuple(certificate_directories),
            auth_files=tuple(auth_files),
        )

    def with_mirrors(self, locations: Sequence[str], *, only: bool) -> RegistrySettings:
        """Return settings that ask mirrors of `docker.io`, in order, before what the rule for all of it says.

        Args:
            locations: `host[/path]`, at least one.
            only: ask nothing else for it; the last location then is the origin.
        """
        prefix = DEFAULT_REGISTRY
        rule = next(
            (rule for rule in self.rules if rule.prefix == prefix), RegistryRule(prefix=prefix, location=prefix)
        )
        mirrors = tuple(Mirror(location=location) for location in locations)
        if only:
            rule = replace(rule, location=locations[-1], mirrors=mirrors[:-1])
        else:
            rule = replace(rule, mirrors=(*mirrors, *rule.mirrors))
        return replace(self, rules=(*(other for other in self.rules if other.prefix != prefix), rule))

    def resolve_name(self, text: str, *, default_tag: str | None = "latest") -> tuple[Reference, ...]:
        """Read a reference and expand a short name as the configuration says; return the candidates in order.

        A short name with an alias is that alias. Another short name is looked for on the search registries, or on
        `docker.io` if no file names any.

        Raises:
            ReferenceInvalidError: the text is no reference.
        """
        reference = parse_reference(text, default_tag=default_tag)
        first, slash, _ = text.partition("/")
        is_short = reference.registry == DEFAULT_REGISTRY and not (slash and _names_registry(first))
        if not is_short:
            return (reference,)
        short = re.split(r"[:@]", text, maxsplit=1)[0]
        names = [self.aliases[short]] if short in self.aliases else []
        names = names or [f"{registry}/{short}" for registry in self.search_registries or ()]
        suffix = text[len(short) :]
        return tuple(parse_reference(name + suffix, default_tag=default_tag) for name in names) or (reference,)

    def pull_endpoints(self, reference: Reference) -> tuple[Endpoint, ...]:
        """Return where to pull *reference* from: at least the origin, which is last.

        Raises:
            RegistryBlockedError: a rule forbids it.
        """
        rule = self._find_rule(reference)
        if rule is None:
            return (Endpoint(host=self._host(reference.registry), repository=reference.repository),)
        wanted: tuple[str, str] = ("all", "tag-only" if reference.digest is None else "digest-only")
        mirrors = tuple(
            self._relocate(reference, rule, mirror.location, insecure=mirror.insecure, is_mirror=True)
            for mirror in rule.mirrors
            if mirror.pull_from_mirror in wanted
        )
        return (*mirrors, self._relocate(reference, rule, rule.location, insecure=rule.insecure))

    def push_endpoint(self, reference: Reference) -> Endpoint:
        """Return where to push *reference*: its own registry; mirrors and locations are for pulling only.

        Raises:
            RegistryBlockedError: a rule forbids it.
        """
        rule = self._find_rule(reference)
        host = self._host(reference.registry, insecure=rule is not None and rule.insecure)
        return Endpoint(host=host, repository=reference.repository)

    def find_host(self, name: str) -> Host:
        """Return a registry by its name alone, `host[:port]`, with what the rules for all of it say."""
        rule = next((rule for rule in self.rules if rule.prefix.lower() == name.lower()), None)
        return self._host(name, insecure=rule is not None and rule.insecure)

    def _host(self, name: str, *, insecure: bool = False) -> Host:
        return Host(name, insecure or name in self.insecure_hosts)

    def _find_rule(self, reference: Reference) -> RegistryRule | None:
        matching = [rule for rule in self.rules if _match_length(rule.prefix, reference)]
        if not matching:
            return None
        rule = max(matching, key=lambda rule: _match_length(rule.prefix, reference))
        if rule.blocked:
            raise RegistryBlockedError(reference.familiar(), prefix=rule.prefix)
        return rule

    def _relocate(
        self, reference: Reference, rule: RegistryRule, location: str, *, insecure: bool, is_mirror: bool = False
    ) -> Endpoint:
        name = f"{reference.registry}/{reference.repository}"
        if location:
            covered = reference.registry if rule.prefix.startswith("*.") else _without_suffix(rule.prefix)
            name = location + name[len(covered) :]
        registry, _, repository = name.partition("/")
        if registry == DEFAULT_REGISTRY and "/" not in repository:
            repository = f"{DEFAULT_NAMESPACE}/{repository}"
        return Endpoint(host=self._host(registry, insecure=insecure), repository=repository, is_mirror=is_mirror)


def is_loopback(host: str) -> bool:
    """Tell whether `host[:port]` is this machine by name or by address."""
    name = host.partition("]")[0].removeprefix("[") if host.startswith("[") else host.partition(":")[0]
    return name.lower() in {"localhost", "::1"} or _LOOPBACK_V4.fullmatch(name) is not None


def _names_registry(first: str) -> bool:
    return first == "localhost" or "." in first or ":" in first or first != first.lower()


def _match_length(prefix: str, reference: Reference) -> int:
    """Return how much of *reference* a prefix covers, 0 if it is not one; whole labels and path parts only."""
    registry = reference.registry.lower()
    if prefix.startswith("*."):
        suffix = prefix[1:].lower()
        return len(suffix) if registry.endswith(suffix) and len(registry) > len(suffix) else 0
    if "/" not in prefix:
        return len(prefix) if prefix.lower() == registry else 0
    name = str(reference)
    rest = name[len(prefix) :]
    return len(prefix) if name.startswith(prefix) and (not rest or rest[0] in "/:@") else 0


def _without_suffix(prefix: str) -> str:
    host, slash, path = prefix.partition("/")
    return host + slash + re.split(r"[:@]", path, maxsplit=1)[0]


def _choose_files(paths: Sequence[Path]) -> list[Path]:
    files = [path for path in paths if not path.is_dir()]
    main = next((path for path in files if path.exists()), None)
    drop_ins: list[Path] = []
    for directory in paths:
        if directory.is_dir():
            drop_ins += sorted(directory.glob("*.conf"))
    return [main, *drop_ins] if main is not None else drop_ins


def _read_toml(path: Path) -> dict[str, Any]:
    import tomllib  # noqa: PLC0415  (only where there is something to read)

    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(str(path), f"it cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise ConfigurationError(str(path), "it is not UTF-8") from error
    except tomllib.TOMLDecodeError as error:
        reason = str(error)
        raise ConfigurationError(str(path), f"it is not TOML ({reason[:1].lower()}{reason[1:]})") from error
    if "registries" in document:
        raise ConfigurationError(
            str(path),
            "it is written in the old version 1 format",
            hint="write [[registry]] tables, see containers-registries.conf(5)",
        )
    return document


def _read_rules(document: Mapping[str, Any], path: Path) -> list[RegistryRule]:
    rules: list[RegistryRule] = []
    for place, table in _tables(document, "registry", path, at=""):
        location = _location(table, path, at=place)
        prefix = _text(table, "prefix", path, at=place) or location
        if not prefix:
            raise ConfigurationError(str(path), f"{place} has neither prefix nor location")
        if "*" in prefix and not re.fullmatch(r"\*\.[^*/:]+", prefix):
            raise ConfigurationError(str(path), f"{place}.prefix may have a wildcard only as *.domain")
        if not location and not prefix.startswith("*."):
            location = _without_suffix(prefix)
        by_digest_only = _flag(table, "mirror-by-digest-only", path, at=place)
        rules.append(
            RegistryRule(
                prefix=prefix.rstrip("/"),
                location=location,
                insecure=_flag(table, "insecure", path, at=place),
                blocked=_flag(table, "blocked", path, at=place),
                mirrors=tuple(_read_mirrors(table, path, at=place, by_digest_only=by_digest_only)),
            )
        )
    return rules


def _read_mirrors(table: Mapping[str, Any], path: Path, *, at: str, by_digest_only: bool) -> list[Mirror]:
    mirrors: list[Mirror] = []
    for place, mirror in _tables(table, "mirror", path, at=at):
        location = _location(mirror, path, at=place)
        if not location:
            raise ConfigurationError(str(path), f"{place} has no location")
        choice = _text(mirror, "pull-from-mirror", path, at=place)
        if choice not in _PULL_FROM_MIRROR:
            raise ConfigurationError(str(path), f"{place}.pull-from-mirror is none of all, digest-only, tag-only")
        if choice and by_digest_only:
            reason = f"{place}.pull-from-mirror and mirror-by-digest-only exclude each other"
            raise ConfigurationError(str(path), reason)
        mirrors.append(
            Mirror(
                location=location,
                insecure=_flag(mirror, "insecure", path, at=place),
                pull_from_mirror="digest-only" if by_digest_only else _PULL_FROM_MIRROR[choice],
            )
        )
    return mirrors


def _read_aliases(document: Mapping[str, Any], path: Path) -> dict[str, str]:
    table = document.get("aliases", {})
    if not isinstance(table, Mapping):
        raise ConfigurationError(str(path), "aliases is not a table")
    aliases: dict[str, str] = {}
    for name in table:
        target = _text(table, name, path, at="aliases")
        if target:
            try:
                parsed = parse_reference(target, default_tag=None)
            except ReferenceInvalidError as error:
                raise ConfigurationError(str(path), f"aliases.{name} is no repository, {error.reason}") from error
            if parsed.tag is not None or parsed.digest is not None:
                raise ConfigurationError(str(path), f"aliases.{name} has a tag or digest")
        aliases[name] = target
    return aliases


def _tables(table: Mapping[str, Any], name: str, path: Path, *, at: str) -> list[tuple[str, Mapping[str, Any]]]:
    place = f"{at}.{name}" if at else name
    values = table.get(name, [])
    if not isinstance(values, list) or not all(isinstance(value, Mapping) for value in values):
        raise ConfigurationError(str(path), f"{place} is not an array of tables")
    return [(f"{place}[{number}]", value) for number, value in enumerate(values)]


def _text(table: Mapping[str, Any], name: str, path: Path, *, at: str) -> str:
    value = table.get(name, "")
    if not isinstance(value, str):
        raise ConfigurationError(str(path), f"{at}.{name} is not a string")
    return value


def _location(table: Mapping[str, Any], path: Path, *, at: str) -> str:
    location = _text(table, "location", path, at=at).rstrip("/")
    if "://" in location:
        raise ConfigurationError(
            str(path), f"{at}.location is an address with a scheme", hint="write host[:port][/path] only"
        )
    return location


def _texts(table: Mapping[str, Any], name: str, path: Path) -> tuple[str, ...]:
    values = table[name]
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise ConfigurationError(str(path), f"{name} is not an array of strings")
    return tuple(value.rstrip("/") for value in values)


def _flag(table: Mapping[str, Any], name: str, path: Path, *, at: str) -> bool:
    value = table.get(name, False)
    if not isinstance(value, bool):
        raise ConfigurationError(str(path), f"{at}.{name} is neither true nor false")
    return value
