"""Tests of the verbs that talk to registries, against Debian's registry."""

from __future__ import annotations

import json

import pytest

from builder.cli.verbs.login import parse_host
from builder.errors import UsageError
from builder.image.index import write_index
from builder.store import Store
from registry.oci.platform import parse_platform
from registry.oci.reference import parse_reference
from registry.value import replace
from tests.builder.cli.verbs.conftest import add_image
from tests.fakes.docker_registry import run_docker_registry

pytestmark = pytest.mark.registry


@pytest.fixture(scope="module")
def open_registry(tmp_path_factory):
    """A registry that asks for nothing."""
    with run_docker_registry(tmp_path_factory.mktemp("registry")) as address:
        yield address


@pytest.fixture(scope="module")
def closed_registry(tmp_path_factory):
    """A registry that wants a password."""
    with run_docker_registry(tmp_path_factory.mktemp("registry"), users={"me": "secret"}) as address:
        yield address


def test_push_and_pull_is_a_round_trip(shell, app, open_registry):
    """What was pushed is pulled again with the same digest, and both say what they did."""
    name = f"{open_registry}/team/app:1"
    shell.ok("tag", "app:1", name)
    code, out, error = shell("push", "--progress", "plain", name)
    assert (code, out) == (0, f"{name}@{app.descriptor.digest}\n")
    assert f"#1 push {name}\n" in error
    assert "#1 DONE" in error

    shell.ok("rmi", name)
    code, out, error = shell("pull", "-q", name)
    assert (code, out, error) == (0, f"{name}\n", "")
    assert json.loads(shell.ok("inspect", name))[0]["Id"] == app.manifest.config.digest


def test_pull_keeps_the_other_platforms_of_a_name(shell, open_registry):
    """A name that was pulled for one platform and then for another stands for both."""
    name = f"{open_registry}/team/both:1"
    with Store(shell.root / "store") as store:
        images = [
            add_image(store, layers=(text.encode(),), platform=parse_platform(text))
            for text in ("linux/amd64", "linux/arm64")
        ]
        placed = [
            replace(image, descriptor=replace(image.descriptor, platform=image.config.platform)) for image in images
        ]
        store.layout.put(write_index(placed, store.blobs).descriptor, parse_reference(name))
    shell.ok("push", "-q", name)
    shell.ok("rmi", name)

    for image in images:
        shell.ok("pull", "-q", "--platform", str(image.config.platform), name)

    for image in images:
        found = shell.ok("inspect", "--platform", str(image.config.platform), name)
        assert json.loads(found)[0]["Id"] == image.manifest.config.digest


def test_push_mounts_what_another_repository_has(shell, app, open_registry):
    """A layer that came from a repository of the same registry is linked there, not sent."""
    shell.ok("tag", "app:1", f"{open_registry}/first/app:1")
    shell.ok("push", "-q", f"{open_registry}/first/app:1")
    shell.ok("tag", "app:1", f"{open_registry}/second/app:1")
    _, _, error = shell("push", "--progress", "rawjson", f"{open_registry}/second/app:1")

    for layer in app.manifest.layers:
        assert f"{layer.digest} mount" in error


def test_pull_of_nothing_is_a_registry_error(shell, open_registry):
    """An unknown name is exit code 3 and says where it was looked for."""
    code, _, error = shell("pull", "--progress", "plain", f"{open_registry}/no/such:1")

    assert code == 3
    assert f"#1 ERROR: not found on {open_registry}" in error
    assert f"\nERROR: not found on {open_registry}" in error


def test_login_is_checked_before_it_is_stored(shell, app, closed_registry, stdin):
    """A wrong password is refused; a right one is stored, used, and forgotten again."""
    name = f"{closed_registry}/app:1"
    shell.ok("tag", "app:1", name)
    assert shell("push", "-q", name)[0] == 3
    assert shell("login", "-u", "me", "-p", "wrong", closed_registry)[0] == 3
    assert not (shell.root / "auth.json").exists()

    stdin(b"secret\n")
    assert shell.ok("login", "-u", "me", "--password-stdin", f"http://{closed_registry}/v2/") == "Login Succeeded\n"
    assert (shell.root / "auth.json").stat().st_mode & 0o777 == 0o600
    shell.ok("push", "-q", name)
    assert shell.ok("logout", closed_registry).startswith(f"Removed login credentials for {closed_registry} from ")
    assert shell("push", "-q", name)[0] == 3
    assert shell.ok("logout", closed_registry) == f"Not logged in to {closed_registry}\n"


def test_login_without_terminal_needs_options(shell):
    """A script is told which options to use."""
    code, _, error = shell("login", "localhost:1")

    assert code == 2
    assert "hint: use --username NAME --password-stdin" in error


@pytest.mark.parametrize(
    ("text", "host"),
    [("ghcr.io", "ghcr.io"), ("https://ghcr.io/v2/", "ghcr.io"), ("localhost:5000", "localhost:5000")],
)
def test_host_is_read_from_what_people_paste(text, host):
    """A URL or a path is no hindrance."""
    assert parse_host(text) == host


@pytest.mark.parametrize("text", ["", "/", "a b", "me@host", "x\x1b"])
def test_host_that_is_none_is_refused(text):
    """What is no host is refused."""
    with pytest.raises(UsageError, match="not the host of a registry"):
        parse_host(text)
