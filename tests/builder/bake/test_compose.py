"""Tests of builder.bake.compose."""

from __future__ import annotations

import pytest

from builder.bake.compose import read_compose
from builder.bake.definition import Place
from builder.errors import BakeFileError


def _read(text, **variables):
    return read_compose(text.encode(), Place("`compose.yaml`"), variables)


def _target(build, *, extra="", **variables):
    """Return the target of a service `app` whose build section has these lines."""
    lines = "".join(f"      {line}\n" for line in build.splitlines())
    return _read(f"services:\n  app:\n    build:\n{lines}{extra}", **variables).targets["app"]


def test_compose_services_with_a_build_are_targets():
    """Services that are built are targets of the group default, the others none; a dot in a name is an underscore."""
    found = _read(
        "services:\n  db: {image: x}\n  a.b: {build: dir, image: me/a}\n  c: {build: {context: .}, profiles: [z]}"
    )

    assert list(found.targets) == ["a_b", "c"]
    assert found.groups == {"default": ("a_b", "c")}
    assert found.targets["a_b"].values == {"context": "dir", "tags": ("me/a",)}


@pytest.mark.parametrize(
    ("build", "key", "value"),
    [
        ("dockerfile: sub/D", "dockerfile", "sub/D"),
        ("dockerfile_inline: FROM x", "dockerfile-inline", "FROM x"),
        ("args: {A: 1.10, B: yes, C: true, D: 22:22, E: 7}", "args", {"A": "1.10", "B": "yes", "C": "true", "D": "22:22", "E": "7"}),
        ("args: [A=1, HERE, NOT_THERE]", "args", {"A": "1", "HERE": "h"}),
        ("labels: [x=y, z]", "labels", {"x": "y", "z": ""}),
        ("tags: ['a:${HERE}', b]", "tags", ("a:h", "b")),
        ("additional_contexts: {b: 'service:x.y', c: ./c}", "contexts", {"b": "target:x_y", "c": "./c"}),
        ("extra_hosts: ['a:1.2.3.4', 'b=::1']", "extra-hosts", {"a": "1.2.3.4", "b": "::1"}),
        ("ssh: [default, k=~/.ssh/id]", "ssh", ({"id": "default"}, {"id": "k", "paths": "~/.ssh/id"})),
        ("ulimits: {nproc: 5, nofile: {soft: 1, hard: 2}}", "ulimits", ("nproc=5", "nofile=1:2")),
        ("shm_size: 128mb", "shm-size", "128mb"),
        ("cache_from: [me/x, 'type=local,src=c']", "cache-from", ({"type": "registry", "ref": "me/x"}, {"type": "local", "src": "c"})),
        ("platforms: [linux/amd64]", "platforms", ("linux/amd64",)),
        ("no_cache: true", "no-cache", True),
        ("provenance: mode=max\nsbom: false", "attest", ({"type": "provenance", "mode": "max"}, {"type": "sbom", "disabled": "true"})),
        ("tags: [a]\nx-bake: {tags: [b], platforms: linux/amd64 linux/arm64}", "tags", ("a", "b")),
        ("x-bake: {platforms: linux/amd64 linux/arm64}", "platforms", ("linux/amd64", "linux/arm64")),
        ("x-bake: {output: ['type=local,dest=o'], no-cache: true}", "output", ({"type": "local", "dest": "o"},)),
        ("target: t\nx-other: {any: thing}", "target", "t"),
    ],
)  # fmt: skip
def test_compose_build_section_is_read(build, key, value):
    """Each key of a build section, in each of its forms, is one of a target."""
    assert _target(build, HERE="h").values[key] == value


def test_compose_arguments_come_from_the_service_first():
    """An argument without a value has that of the service's environment, else of ours."""
    target = _target("args: [A, B]", extra="    environment: {A: service}\n", A="ours", B="ours")

    assert target.values["args"] == {"A": "service", "B": "ours"}


def test_compose_secrets_are_those_of_the_top():
    """A secret is the file or variable that the top of the file says."""
    target = _target(
        "secrets: [f, {source: v, target: t}]",
        extra="secrets:\n  f: {file: ./f.txt}\n  v: {environment: V}\n",
    )

    assert target.values["secret"] == ({"id": "f", "src": "./f.txt"}, {"id": "v", "env": "V"})


def test_compose_service_extends_another():
    """What is extended lies below; objects are joined, lists follow each other."""
    found = _read(
        "services:\n  b: {image: me/b, build: {context: b, args: {A: '1', B: '1'}, tags: [x]}}\n"
        "  a: {extends: {service: b}, build: {args: {B: '2'}, tags: [y]}}"
    )

    assert found.targets["a"].values == {"context": "b", "args": {"A": "1", "B": "2"}, "tags": ("x", "y")}


def test_compose_anchors_and_merge_keys_are_understood():
    """YAML's own ways to say things once work."""
    found = _read("x-b: &b {target: t, args: {A: '1'}}\nservices:\n  a: {build: {<<: *b, context: c}}")

    assert found.targets["a"].values == {"target": "t", "args": {"A": "1"}, "context": "c"}


def test_compose_notes_tell_of_what_is_missing():
    """A variable that is not set, and a key without effect, is told of once."""
    found = _read("services:\n  a: {build: {target: $X, args: {Y: $X}, privileged: true}}")

    assert found.notes == (
        "`compose.yaml`: variable X is not set, and counts as empty",
        "`compose.yaml`: services.a.build.privileged has no effect here",
    )


def _bomb():
    levels = ["x0: &x0 [a,a,a,a,a,a,a,a,a,a]"]
    levels += [f"x{n}: &x{n} [{','.join([f'*x{n - 1}'] * 10)}]" for n in range(1, 8)]
    return "\n".join(levels) + "\nservices:\n  a: {build: {tags: *x7}}"


@pytest.mark.parametrize(
    ("text", "reason", "path"),
    [
        ("services: [", "not YAML, ", ""),
        ("- a", "expected an object, found a list", ""),
        ("services:\n  a: {build: {contxt: .}}", "unknown key", "services.a.build.contxt"),
        ("services:\n  a: {build: {tags: x}}", "expected a list, found a string", "services.a.build.tags"),
        ("services:\n  a: {build: {context: [x]}}", "expected a string, found a list", "services.a.build.context"),
        ("services:\n  a: {build: {target: '${X'}}", "a ${ without its }", "services.a.build.target"),
        ("services:\n  a: {build: {x-bake: {tgs: [x]}}}", "unknown key", "services.a.build.x-bake.tgs"),
        ("services:\n  a: {build: .}\n  a: {build: x}", "key stands twice: a in line 3, column 3", ""),
        ("services:\n  a b: {build: .}", "a name is made of letters", "services.a b"),
        ("services:\n  a: {extends: b, build: .}\n  b: {extends: a}", "extend each other in a circle", "services.a"),
        ("services:\n  a: {build: {secrets: [s]}}", "no such secret at the top", "services.a.build.secrets[0]"),
        ("services:\n  a: {build: {secrets: [s]}}\nsecrets: {s: {external: true}}", "an external secret", "secrets.s"),
        ("services:\n  a: &a {build: {args: *a}}", "aliases that name each other", ""),
        (_bomb(), "aliases that name each other", ""),
        ("include: [x.yaml]", "not supported yet", "include"),
        ("services: !!python/object:os.system {}", "not YAML, could not determine a constructor", ""),
    ],
)
def test_compose_refuses_what_cannot_be(text, reason, path):
    """The message says what is wrong, and where in the file."""
    with pytest.raises(BakeFileError) as caught:
        _read(text)

    assert reason in caught.value.reason
    assert caught.value.path == path


def test_compose_unknown_key_is_answered_with_a_near_one():
    """A slip of the finger is answered with what was meant."""
    with pytest.raises(BakeFileError) as caught:
        _target("dockerfle: x")

    assert caught.value.hint == "did you mean dockerfile?"
