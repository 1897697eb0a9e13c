"""Credentials on their way: basic, tokens, and what is never sent where."""

from __future__ import annotations

import json
import logging

import pytest

from registry.errors import AccessDeniedError, NotFoundError, ProtocolError
from registry.hosts import RegistrySettings
from registry.oci.reference import parse_reference
from tests.fakes.random_image import make_image
from tests.fakes.registry_server import FakeRegistry, Fault


@pytest.fixture
def login(tmp_path):
    """A function that saves credentials and returns settings with them."""

    def login(registry, fields=None, *, path=""):
        file = tmp_path / "auth.json"
        fields = fields or {"username": "alice", "password": "secret-canary"}
        file.write_text(json.dumps({"auths": {registry.address + path: fields}}))
        return RegistrySettings(auth_files=(file,))

    return login


def name(fake, text="team/app:1"):
    """Return a reference on the fake."""
    return parse_reference(f"{fake.address}/{text}")


def ask(client, fake, text="team/app:1"):
    """Send one request that needs a login and ends with 404."""
    with pytest.raises(NotFoundError):
        client.resolve(name(fake, text))


def test_bearer_push_buys_one_token(fake, rig, source, login):
    """A push with a token server meets one challenge and buys one token for everything."""
    fake.auth, fake.users = "bearer", {"alice": "secret-canary"}

    rig.client(login(fake)).push(make_image(source, sizes=(5, 6, 7)), name(fake), source)

    tokens = fake.seen("GET", "/token")
    assert [each.path for each in tokens] == [
        "/token?account=alice&service=fake&scope=repository%3Ateam%2Fapp%3Apull%2Cpush"
    ]
    assert len(fake.manifests["team/app"]) == 2


def test_bearer_mount_asks_for_both_repositories(fake, rig, source, login):
    """A mount has a token that may read the repository the blob is in."""
    fake.auth, fake.users = "bearer", {"alice": "secret-canary"}
    image = make_image(source)
    layer = image.manifest.layers[0]
    fake.add_blob("team/cache", source.read_bytes(layer.digest, limit=layer.size))

    rig.client(login(fake)).push(image, name(fake), source, mount_from={layer.digest: "team/cache"})

    assert any("team%2Fcache%3Apull" in each.path for each in fake.seen("GET", "/token"))
    assert "mount" in [each.action for each in rig.progress]


def test_bearer_works_without_credentials(fake, rig):
    """Public repositories are read with a token that anybody gets."""
    fake.auth = "bearer"

    ask(rig.client(), fake)

    assert "Authorization" not in fake.seen("GET", "/token")[0].headers


def test_bearer_token_serves_another_client(fake, rig):
    """A client made by another asks with its token at once, also after that one was closed."""
    fake.auth = "bearer"
    client = rig.client()
    ask(client, fake)
    client.close()
    fake.requests.clear()

    with client.another() as other:
        ask(other, fake)

    asked = [request for request in fake.requests if "/manifests/" in request.path]
    assert asked
    assert all("Authorization" in request.headers for request in asked)
    assert fake.count("GET", "/token") == 0


def test_bearer_renews_before_expiry(fake, rig):
    """A token is bought again when its time is nearly over, before the registry refuses it."""
    fake.auth, fake.token_lifetime = "bearer", 100
    client = rig.client()
    ask(client, fake)
    ask(client, fake)
    assert fake.count("GET", "/token") == 1

    rig.now = 95.0
    ask(client, fake)

    assert fake.count("GET", "/token") == 2


def test_bearer_buys_again_what_was_revoked(fake, rig):
    """A token that the registry takes no longer is replaced once."""
    fake.auth = "bearer"
    client = rig.client()
    ask(client, fake)
    fake.tokens.clear()

    ask(client, fake)

    assert fake.count("GET", "/token") == 2


def test_bearer_exchanges_identity_tokens_by_post(fake, rig, login):
    """An identity token goes into the body of a POST, never into an address."""
    fake.auth, fake.identity_tokens = "bearer", {"refresh-canary"}

    ask(rig.client(login(fake, {"identitytoken": "refresh-canary"})), fake)

    assert fake.count("POST", "/token") == 1
    assert not any("refresh-canary" in each.path for each in fake.requests)


def test_bearer_refused_credentials_name_their_file(fake, rig, login, tmp_path):
    """Credentials that the token server refuses are named by their file, and not shown."""
    fake.auth, fake.users = "bearer", {"alice": "other"}

    with pytest.raises(AccessDeniedError) as caught:
        rig.client(login(fake)).resolve(name(fake))

    assert f"the credentials for {fake.address} in {tmp_path / 'auth.json'} were refused" in caught.value.hint
    assert "canary" not in f"{caught.value} {caught.value.hint}"


def test_basic_refused_credentials_are_sent_once(fake, rig, login):
    """A wrong password is tried once, so that no account is locked."""
    fake.auth, fake.users = "basic", {"alice": "other"}

    with pytest.raises(AccessDeniedError, match=r"access denied by .* \(401\)"):
        rig.client(login(fake)).resolve(name(fake))

    assert len([each for each in fake.requests if "Authorization" in each.headers]) == 1


def test_basic_is_sent_at_once_after_the_first_challenge(fake, rig, login):
    """A host that wanted basic credentials gets them with every later request."""
    fake.auth, fake.users = "basic", {"alice": "secret-canary"}
    client = rig.client(login(fake))
    ask(client, fake)
    before = len(fake.requests)

    ask(client, fake)

    assert len(fake.requests) == before + 1


def test_credentials_of_a_path_stay_on_it(fake, rig, login):
    """Credentials for a path are not offered outside of it."""
    fake.auth, fake.users = "basic", {"alice": "secret-canary"}
    client = rig.client(login(fake, path="/team"))
    ask(client, fake, "team/app:1")
    before = len(fake.requests)

    with pytest.raises(AccessDeniedError, match="access denied"):
        client.resolve(name(fake, "teamwork/app:1"))

    assert not any("Authorization" in each.headers for each in fake.requests[before:])


def test_token_server_without_tls_is_refused(fake, rig, login):
    """A password is not sent to a token server in the clear, even if the registry says so."""
    fake.auth, fake.users = "bearer", {"alice": "secret-canary"}
    fake.realm = "http://auth.example/token"

    with pytest.raises(ProtocolError, match="not reached by https"):
        rig.client(login(fake)).resolve(name(fake))


def test_token_server_may_be_another_host(fake, rig, login):
    """A token server on another host is asked, and the token it gives is taken back to the registry."""
    fake.auth, fake.users = "bearer", {"alice": "secret-canary"}
    with FakeRegistry() as server:
        fake.realm = f"{server.url}/token"
        server.users, server.tokens = fake.users, fake.tokens

        ask(rig.client(login(fake)), fake)

    assert server.count("GET", "/token") == 1


def test_credentials_do_not_follow_a_token_servers_redirect(fake, rig, login):
    """A token server that redirects to another host does not take the password with it."""
    fake.auth, fake.users = "bearer", {"alice": "secret-canary"}
    with FakeRegistry() as other:
        other.tokens = fake.tokens
        fake.faults.append(
            Fault(path="/token", status=302, headers={"Location": f"{other.url}/token?scope=repository:team/app:pull"})
        )

        ask(rig.client(login(fake)), fake)

    assert "Authorization" not in other.seen("GET", "/token")[0].headers


def test_secrets_stay_out_of_logs(fake, rig, source, login, caplog):
    """Passwords, tokens and signed addresses are not in the log, at any level."""
    fake.auth, fake.users = "bearer", {"alice": "secret-canary"}
    caplog.set_level(logging.DEBUG, logger="pybuild")

    rig.client(login(fake)).push(make_image(source), name(fake), source)

    own = [record.getMessage() for record in caplog.records if record.name.startswith("pybuild")]
    assert own
    assert not any("canary" in message for message in own)


def test_unknown_challenge_is_named(fake, rig):
    """A registry that wants something we cannot give is an error, not a loop."""
    fake.faults.append(Fault(method="HEAD", status=401, headers={"WWW-Authenticate": "Negotiate"}))

    with pytest.raises(ProtocolError, match="in a way that we do not know"):
        rig.client().resolve(name(fake))


@pytest.mark.parametrize("auth", ["basic", "bearer"])
def test_check_credentials_tells_right_from_wrong(fake, rig, auth):
    """Login finds out whether a password is right without naming a repository."""
    fake.auth, fake.users = auth, {"alice": "secret-canary"}

    rig.client().check_credentials(fake.address, "alice", "secret-canary")
    with pytest.raises(AccessDeniedError) as caught:
        rig.client().check_credentials(fake.address, "alice", "wrong")

    assert "check user name and password" in caught.value.hint


@pytest.mark.parametrize("realm", ["http://[", "https://a.io:99999/token", "https://user@a.io/token", "https:///token"])
def test_token_server_must_have_an_address(fake, rig, realm):
    """A realm that is no address is an error of the registry."""
    fake.auth, fake.realm = "bearer", realm

    with pytest.raises(ProtocolError, match="no proper address"):
        rig.client().resolve(name(fake))
