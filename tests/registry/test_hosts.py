"""registries.conf, and where it leads."""

from __future__ import annotations

import pytest

from registry.errors import ConfigurationError, RegistryBlockedError
from registry.hosts import Endpoint, Host, RegistrySettings, is_loopback
from registry.oci.reference import parse_reference

DIGEST = "@sha256:" + "0" * 64


def load(tmp_path, text, **options):
    """Load one file with the text."""
    (tmp_path / "registries.conf").write_text(text)
    return RegistrySettings.load([tmp_path / "registries.conf"], **options)


def places(settings, text):
    """Return the endpoints of a reference as text."""
    return [f"{each.host.name}/{each.repository}" for each in settings.pull_endpoints(parse_reference(text))]


MIRRORED = """
[[registry]]
prefix = "example.com/foo"
location = "internal.example.net/bar"
[[registry.mirror]]
location = "mirror-0.local/mirror-for-foo"
[[registry.mirror]]
location = "mirror-1.local/mirrors/foo"
insecure = true
"""


def test_pull_endpoints_are_mirrors_then_origin(tmp_path):
    """The example of the manual page gives the endpoints that it lists."""
    endpoints = load(tmp_path, MIRRORED).pull_endpoints(parse_reference("example.com/foo/image:latest"))

    assert endpoints == (
        Endpoint(host=Host("mirror-0.local"), repository="mirror-for-foo/image", is_mirror=True),
        Endpoint(host=Host("mirror-1.local", insecure=True), repository="mirrors/foo/image", is_mirror=True),
        Endpoint(host=Host("internal.example.net"), repository="bar/image"),
    )


def test_push_endpoint_is_the_name_itself(tmp_path):
    """Mirrors and other locations are for pulling only."""
    endpoint = load(tmp_path, MIRRORED).push_endpoint(parse_reference("example.com/foo/image"))

    assert endpoint == Endpoint(host=Host("example.com"), repository="foo/image")


@pytest.mark.parametrize(
    ("prefix", "name", "matches"),
    [
        ("example.com", "example.com/a", True),
        ("example.com", "example.com.evil.tld/a", False),
        ("example.com", "notexample.com/a", False),
        ("example.com", "example.com:5000/a", False),
        ("example.com/foo", "example.com/foobar", False),
        ("example.com/foo", "example.com/foo", True),
        ("example.com/foo", "example.com/foo:1", True),
        ("example.com/foo:1", "example.com/foo:1", True),
        ("example.com/foo:1", "example.com/foo:12", False),
        ("*.example.com", "a.b.example.com/x", True),
        ("*.example.com", "example.com/x", False),
        ("*.example.com", "evilexample.com/x", False),
        ("docker.io/library", "alpine", True),
        ("docker.io", "user/app", True),
    ],
)
def test_rule_matches_whole_parts(tmp_path, prefix, name, matches):
    """A prefix covers whole labels and path parts only."""
    settings = load(tmp_path, f'[[registry]]\nprefix = "{prefix}"\nlocation = "elsewhere.example"\n')

    assert places(settings, name)[0].startswith("elsewhere.example") == matches


def test_longest_prefix_wins(tmp_path):
    """Of several rules that match, the one that says most counts."""
    text = "".join(
        f'[[registry]]\nprefix = "{prefix}"\nlocation = "{location}"\n'
        for prefix, location in [("a.io/x", "one.io"), ("a.io/x/y", "two.io"), ("a.io", "three.io")]
    )
    settings = load(tmp_path, text)

    assert places(settings, "a.io/x/y/z") == ["two.io/z"]
    assert places(settings, "a.io/x/z") == ["one.io/z"]
    assert places(settings, "a.io/z") == ["three.io/z"]


def test_wildcard_without_location_rewrites_nothing(tmp_path):
    """A rule for sub-domains can set flags and leave names as they are."""
    settings = load(tmp_path, '[[registry]]\nprefix = "*.example.com"\ninsecure = true\n')

    assert settings.pull_endpoints(parse_reference("a.example.com/x/y")) == (
        Endpoint(host=Host("a.example.com", insecure=True), repository="x/y"),
    )


def test_blocked_registry_is_refused_both_ways(tmp_path):
    """A blocked prefix can be neither pulled from nor pushed to."""
    settings = load(tmp_path, '[[registry]]\nlocation = "bad.example"\nblocked = true\n')

    for find in (settings.pull_endpoints, settings.push_endpoint):
        with pytest.raises(RegistryBlockedError, match=r"blocks `bad\.example`: `bad\.example/x:latest`"):
            find(parse_reference("bad.example/x"))


@pytest.mark.parametrize(
    ("setting", "by_tag", "by_digest"),
    [("all", 2, 2), ("digest-only", 1, 2), ("tag-only", 2, 1), ("", 2, 2)],
    ids=["all", "digest-only", "tag-only", "empty"],
)
def test_mirror_can_be_for_tags_or_digests_only(tmp_path, setting, by_tag, by_digest):
    """pull-from-mirror decides for which references a mirror is asked."""
    text = f'[[registry]]\nlocation = "a.io"\n[[registry.mirror]]\nlocation = "m.io"\npull-from-mirror = "{setting}"\n'
    settings = load(tmp_path, text)

    assert len(places(settings, "a.io/x:1")) == by_tag
    assert len(places(settings, "a.io/x" + DIGEST)) == by_digest


def test_mirror_by_digest_only_covers_all_mirrors(tmp_path):
    """mirror-by-digest-only keeps references by tag from every mirror of the rule."""
    text = '[[registry]]\nlocation = "a.io"\nmirror-by-digest-only = true\n[[registry.mirror]]\nlocation = "m.io"\n'
    settings = load(tmp_path, text)

    assert places(settings, "a.io/x:1") == ["a.io/x"]
    assert places(settings, "a.io/x" + DIGEST) == ["m.io/x", "a.io/x"]


def test_load_reads_the_first_file_and_all_drop_ins(tmp_path):
    """Of the main files the first that exists counts; drop-ins replace rules of the same prefix, in order of names."""
    for name, location in [("user.conf", "user.io"), ("system.conf", "system.io")]:
        (tmp_path / name).write_text(f'[[registry]]\nprefix = "a.io"\nlocation = "{location}"\n')
    drop_ins = tmp_path / "registries.conf.d"
    drop_ins.mkdir()
    (drop_ins / "20.conf").write_text('[[registry]]\nprefix = "b.io"\nlocation = "twenty.io"\n')
    (drop_ins / "10.conf").write_text('[[registry]]\nprefix = "b.io"\nlocation = "ten.io"\n')
    (drop_ins / "README").write_text("not TOML")

    settings = RegistrySettings.load([tmp_path / name for name in ("none", "user.conf", "system.conf")] + [drop_ins])

    assert places(settings, "a.io/x") == ["user.io/x"]
    assert places(settings, "b.io/x") == ["twenty.io/x"]


def test_load_of_nothing_leads_to_the_names_themselves():
    """Without any file, every reference is its own endpoint."""
    assert places(RegistrySettings.load(), "alpine:3") == ["docker.io/library/alpine"]
    assert RegistrySettings.load().pull_endpoints(parse_reference("alpine"))[0].host.address == "registry-1.docker.io"


def test_insecure_hosts_are_exact(tmp_path):
    """A host given as insecure is insecure on that port only."""
    settings = load(tmp_path, "", insecure_hosts=["a.io:5000"])

    assert settings.push_endpoint(parse_reference("a.io:5000/x")).host.insecure
    assert not settings.push_endpoint(parse_reference("a.io/x")).host.insecure


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("alpine", ["docker.io/library/alpine:latest"]),
        ("fedora:40", ["registry.fedoraproject.org/fedora:40"]),
        ("fedora" + DIGEST, ["registry.fedoraproject.org/fedora" + DIGEST]),
        ("docker.io/fedora", ["docker.io/library/fedora:latest"]),
        ("team/fedora", ["docker.io/team/fedora:latest"]),
        ("localhost/fedora", ["localhost/fedora:latest"]),
    ],
)
def test_resolve_name_expands_aliases(tmp_path, text, expected):
    """Short names with an alias become what it stands for; other names stay what they are."""
    settings = load(tmp_path, '[aliases]\nfedora = "registry.fedoraproject.org/fedora"\n')

    assert [str(each) for each in settings.resolve_name(text)] == expected


def test_resolve_name_asks_search_registries_in_order(tmp_path):
    """A short name without alias is looked for on the search registries."""
    settings = load(tmp_path, 'unqualified-search-registries = ["a.io", "docker.io"]\n')

    assert [str(each) for each in settings.resolve_name("app:1")] == ["a.io/app:1", "docker.io/library/app:1"]


def test_empty_alias_of_a_drop_in_erases(tmp_path):
    """A drop-in takes an alias away by leaving it empty."""
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "a.conf").write_text('[aliases]\nfedora = ""\n')
    (tmp_path / "main.conf").write_text('[aliases]\nfedora = "a.io/fedora"\n')

    settings = RegistrySettings.load([tmp_path / "main.conf", tmp_path / "d"])

    assert settings.aliases == {}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("x = ", "not TOML"),
        ("[registries.search]\nregistries = ['a.io']\n", "version 1 format"),
        ("registry = 1\n", "registry is not an array of tables"),
        ("[[registry]]\n", r"registry\[0\] has neither prefix nor location"),
        ("[[registry]]\nprefix = 1\n", r"registry\[0\]\.prefix is not a string"),
        ('[[registry]]\nlocation = "https://a.io"\n', "address with a scheme"),
        ('[[registry]]\nprefix = "a.*.io"\nlocation = "b.io"\n', r"only as \*\.domain"),
        ('[[registry]]\nlocation = "a.io"\ninsecure = "yes"\n', "neither true nor false"),
        ('[[registry]]\nlocation = "a.io"\n[[registry.mirror]]\n', r"registry\[0\]\.mirror\[0\] has no location"),
        (
            '[[registry]]\nlocation = "a.io"\n[[registry.mirror]]\nlocation = "m.io"\npull-from-mirror = "never"\n',
            "none of all",
        ),
        (
            (
                '[[registry]]\nlocation = "a.io"\nmirror-by-digest-only = true\n'
                '[[registry.mirror]]\nlocation = "m.io"\npull-from-mirror = "all"\n'
            ),
            "exclude each other",
        ),
        ('[aliases]\na = "b.io/a:1"\n', "has a tag or digest"),
        ("unqualified-search-registries = [1]\n", "not an array of strings"),
    ],
)
def test_load_names_file_and_place_of_a_fault(tmp_path, text, reason):
    """A wrong value is an error that names the file and where in it."""
    with pytest.raises(ConfigurationError, match=rf"{reason}.*registries\.conf`"):
        load(tmp_path, text)


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("localhost", True),
        ("localhost:5000", True),
        ("127.0.0.1:80", True),
        ("127.8.9.10", True),
        ("[::1]:5000", True),
        ("localhost.example", False),
        ("127.0.0.1.nip.io", False),
        ("[::2]", False),
        ("128.0.0.1", False),
    ],
)
def test_is_loopback_knows_this_machine(host, expected):
    """Only names and addresses that cannot leave this machine are loopback."""
    assert is_loopback(host) == expected


def test_mirrors_of_the_command_line_come_before_those_of_the_files(tmp_path):
    """Mirrors that are added are asked first; alone, they replace what the rule for docker.io names."""
    text = '[[registry]]\nlocation = "docker.io"\n[[registry.mirror]]\nlocation = "m.io"\n[[registry]]\nlocation = "a.io"\n'
    (tmp_path / "registries.conf").write_text(text)
    settings = RegistrySettings.load([tmp_path / "registries.conf"])
    alpine = parse_reference("alpine")

    added = settings.with_mirrors(["n.io", "o.io/p"], only=False)
    alone = settings.with_mirrors(["n.io", "o.io/p"], only=True)

    assert [end.host.name for end in added.pull_endpoints(alpine)] == ["n.io", "o.io", "m.io", "docker.io"]
    assert [end.host.name for end in alone.pull_endpoints(alpine)] == ["n.io", "o.io"]
    assert alone.pull_endpoints(alpine)[-1] == Endpoint(host=Host("o.io"), repository="p/library/alpine")
    assert added.pull_endpoints(parse_reference("a.io/b")) == settings.pull_endpoints(parse_reference("a.io/b"))
