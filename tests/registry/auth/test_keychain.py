"""Credential files and helpers."""

from __future__ import annotations

import base64
import json
import os
import stat

import pytest

from registry.auth.keychain import Keychain, remove_credentials, save_credentials
from registry.errors import ConfigurationError, CredentialHelperError


def entry(username, password="pw"):
    """Return an entry of auths."""
    return {"auth": base64.b64encode(f"{username}:{password}".encode()).decode()}


def keychain(tmp_path, *documents, path=""):
    """Return a keychain of one file per document."""
    files = []
    for number, document in enumerate(documents):
        file = tmp_path / f"auth{number}.json"
        file.write_text(document if isinstance(document, str) else json.dumps(document))
        files.append(file)
    return Keychain(files, environment={"PATH": str(path)})


def user(chain, host, repository=""):
    """Return the user name that the keychain finds."""
    found = chain.find(host, repository)
    return found.username if found else None


def test_key_that_is_no_address_hides_no_other(tmp_path):
    """A key that cannot be read is one that fits nothing."""
    chain = keychain(tmp_path, {"auths": {"https://[x": entry("broken"), "reg.example": entry("me")}})

    assert user(chain, "reg.example") == "me"


PATHS = {
    "auths": {
        "reg.example/foo/bar/image": entry("image"),
        "reg.example/foo": entry("foo"),
        "reg.example": entry("host"),
        "scoped.example/team": entry("team"),
    }
}


@pytest.mark.parametrize(
    ("host", "repository", "expected"),
    [
        ("reg.example", "foo/bar/image", "image"),
        ("reg.example", "foo/bar/image2", "foo"),
        ("reg.example", "foo/x", "foo"),
        ("reg.example", "foo", "foo"),
        ("reg.example", "foobar", "host"),
        ("reg.example", "", "host"),
        ("REG.example", "x", "host"),
        ("scoped.example", "team/app", "team"),
        ("scoped.example", "other/app", None),
        ("scoped.example", "teamwork/app", None),
        ("scoped.example", "", None),
        ("reg.example.evil.tld", "foo", None),
        ("evil-reg.example", "foo", None),
        ("evil.reg.example", "foo", None),
        ("reg.example:5000", "foo", None),
        ("reg", "foo", None),
    ],
)
def test_keychain_matches_whole_hosts_and_path_parts(tmp_path, host, repository, expected):
    """The longest path that covers a repository wins; look-alike hosts and paths get nothing."""
    assert user(keychain(tmp_path, PATHS), host, repository) == expected


@pytest.mark.parametrize(
    "key",
    ["https://index.docker.io/v1/", "index.docker.io/v1", "docker.io", "registry-1.docker.io", "https://docker.io"],
)
def test_keychain_knows_the_spellings_of_docker_hub(tmp_path, key):
    """All spellings of Docker Hub mean docker.io."""
    assert user(keychain(tmp_path, {"auths": {key: entry("me")}}), "docker.io", "library/alpine") == "me"


def test_keychain_reads_legacy_addresses(tmp_path):
    """A key that is a whole address means its host."""
    chain = keychain(tmp_path, {"auths": {"https://reg.example:5000/v2/": entry("me")}})

    assert user(chain, "reg.example:5000", "x") == "me"


def test_keychain_asks_files_in_order(tmp_path):
    """The first file with credentials counts; a file without any for the host does not end the search."""
    chain = keychain(tmp_path, {"auths": {"a.io": entry("one"), "b.io": {}}}, {"auths": {"a.io": entry("two"), "b.io": entry("b")}})  # fmt: skip

    assert user(chain, "a.io") == "one"
    assert user(chain, "b.io") == "b"


def test_keychain_reads_identity_tokens_and_odd_passwords(tmp_path):
    """Identity tokens are read, and passwords may have colons and trailing zeros."""
    document = {
        "auths": {
            "a.io": {"identitytoken": "canary"},
            "b.io": entry("me", "a:b:c\0\0"),
            "c.io": {"username": "me", "password": "pw"},
        }
    }
    chain = keychain(tmp_path, document)

    assert chain.find("a.io").identity_token == "canary"
    assert chain.find("b.io").password == "a:b:c"
    assert chain.find("c.io").password == "pw"


def test_credentials_do_not_show_secrets(tmp_path):
    """The text form of credentials says where they come from and nothing more."""
    text = repr(keychain(tmp_path, {"auths": {"a.io": entry("me", "canary")}}).find("a.io"))

    assert "canary" not in text
    assert "auth0.json" in text


def test_keychain_without_files_has_nothing(tmp_path):
    """Files that are missing or empty are no error."""
    assert Keychain([tmp_path / "none"], environment={}).find("a.io") is None
    assert keychain(tmp_path, "").find("a.io") is None
    assert keychain(tmp_path, {"auths": None}).find("a.io") is None


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        ('{"auths": {"a.io": {"auth": "canary"', "not JSON at line 1"),
        ([], "not a JSON object"),
        ({"auths": []}, "auths is not an object"),
        ({"auths": {"a.io": "canary"}}, r'auths\["a.io"\] is not an object'),
        ({"auths": {"a.io": {"auth": "canary!"}}}, "is not base64"),
        ({"auths": {"a.io": {"auth": base64.b64encode(b"canary").decode()}}}, "is not user:password"),
        ({"auths": {"a.io": {"identitytoken": 1}}}, "is not a string"),
        ({"credsStore": "../../canary"}, "not a word"),
    ],
)
def test_keychain_names_file_and_place_of_a_fault(tmp_path, document, reason):
    """A file that cannot be read is named, with the place and never with the value."""
    with pytest.raises(ConfigurationError, match=rf"{reason}.*auth0\.json`") as caught:
        keychain(tmp_path, document).find("a.io")

    assert "canary" not in str(caught.value)


def helper(tmp_path, name, script):
    """Write a credential helper and return the folder it is in."""
    programs = tmp_path / "bin"
    programs.mkdir(exist_ok=True)
    file = programs / f"docker-credential-{name}"
    file.write_text(f"#!/bin/sh\nPATH=/usr/bin:/bin\n{script}\n")
    file.chmod(0o755)
    return programs


ANSWER = """read -r server || true; echo "$1 $server" >> "$(dirname "$0")/log"
printf '{"ServerURL": "%s", "Username": "helped", "Secret": "canary"}' "$server\""""


def test_keychain_asks_the_helper_of_the_host(tmp_path):
    """A helper named for a host has its credentials, and wins over the file; it is asked once."""
    path = helper(tmp_path, "one", ANSWER)
    chain = keychain(tmp_path, {"credHelpers": {"a.io": "one"}, "auths": {"a.io": entry("file")}}, path=path)

    assert user(chain, "a.io", "x") == user(chain, "a.io", "y") == "helped"
    assert (path / "log").read_text() == "get a.io\n"


def test_keychain_asks_the_store_for_everything_else(tmp_path):
    """The store is asked where the file has nothing, under docker's own name for Docker Hub."""
    path = helper(tmp_path, "all", ANSWER)
    chain = keychain(tmp_path, {"credsStore": "all", "auths": {"a.io": entry("file"), "b.io": {}}}, path=path)

    assert user(chain, "a.io") == "file"
    assert user(chain, "b.io") == "helped"
    assert user(chain, "docker.io", "library/x") == "helped"
    assert (path / "log").read_text() == "get b.io\nget https://index.docker.io/v1/\n"


def test_keychain_does_not_ask_a_helper_for_look_alikes(tmp_path):
    """A helper for a domain is not asked for a domain that only looks like it."""
    path = helper(tmp_path, "one", ANSWER)
    chain = keychain(tmp_path, {"credHelpers": {"x.azurecr.io": "one"}}, path=path)

    assert chain.find("x.azurecr.io.evil.tld") is None
    assert not (path / "log").exists()


def test_keychain_takes_identity_tokens_of_helpers(tmp_path):
    """A helper that gives <token> as user name has given an identity token."""
    path = helper(tmp_path, "one", """printf '{"Username": "<token>", "Secret": "canary"}'""")
    found = keychain(tmp_path, {"credHelpers": {"a.io": "one"}}, path=path).find("a.io")

    assert (found.username, found.identity_token) == ("", "canary")


def test_keychain_takes_no_for_an_answer(tmp_path):
    """A helper that has nothing is no error."""
    path = helper(tmp_path, "one", "echo credentials not found in native keychain; exit 1")

    assert keychain(tmp_path, {"credHelpers": {"a.io": "one"}}, path=path).find("a.io") is None


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("echo cannot open the vault; exit 3", r"failed for a\.io with status 3 \(cannot open the vault\)"),
        ("echo canary", "cannot be read"),
        ("""printf '{"Username": "canary"}'""", "cannot be read"),
    ],
    ids=["fails", "no-json", "no-secret"],
)
def test_keychain_names_a_helper_that_fails(tmp_path, script, reason):
    """A helper that fails or talks nonsense is named, and what it said of secrets is not shown."""
    path = helper(tmp_path, "one", script)

    with pytest.raises(CredentialHelperError, match=rf"{reason}.*`docker-credential-one`") as caught:
        keychain(tmp_path, {"credHelpers": {"a.io": "one"}}, path=path).find("a.io")

    assert "canary" not in str(caught.value)


def test_keychain_names_a_missing_helper(tmp_path):
    """A helper that is not installed is named, with the file that wants it."""
    with pytest.raises(CredentialHelperError, match="not on the PATH") as caught:
        keychain(tmp_path, {"credHelpers": {"a.io": "none"}}).find("a.io")

    assert "auth0.json" in caught.value.hint


def test_save_credentials_makes_a_private_file(tmp_path):
    """A new file is readable by its owner only, and is read back."""
    file = tmp_path / "new" / "auth.json"

    save_credentials(file, "a.io", "me", "p:w")

    found = Keychain([file], environment={}).find("a.io", "x")
    assert (found.username, found.password) == ("me", "p:w")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert os.listdir(file.parent) == ["auth.json"]


def test_save_credentials_keeps_what_it_does_not_know(tmp_path):
    """Other hosts and unknown fields stay; an entry under another spelling is replaced."""
    file = tmp_path / "config.json"
    before = {"auths": {"b.io": entry("b"), "https://index.docker.io/v1/": entry("old")}, "detachKeys": "ctrl-e"}
    file.write_text(json.dumps(before))

    save_credentials(file, "docker.io", "me", "pw")

    after = json.loads(file.read_text())
    assert after == {**before, "auths": {"b.io": entry("b"), "https://index.docker.io/v1/": entry("me")}}


@pytest.mark.parametrize(("name", "key"), [("config.json", "https://index.docker.io/v1/"), ("auth.json", "docker.io")])
def test_save_credentials_spells_docker_hub_as_the_files_owner_does(tmp_path, name, key):
    """In docker's own file, Docker Hub has the name that docker looks for."""
    save_credentials(tmp_path / name, "docker.io", "me", "pw")

    assert list(json.loads((tmp_path / name).read_text())["auths"]) == [key]


def test_save_credentials_follows_a_link(tmp_path):
    """A file that is a link to elsewhere stays one."""
    (tmp_path / "real.json").write_text("{}")
    (tmp_path / "auth.json").symlink_to("real.json")

    save_credentials(tmp_path / "auth.json", "a.io", "me", "pw")

    assert (tmp_path / "auth.json").is_symlink()
    assert "a.io" in (tmp_path / "real.json").read_text()


def test_save_credentials_leaves_hosts_of_helpers_alone(tmp_path):
    """Where a helper has the host, what we would write could never be used."""
    file = tmp_path / "auth.json"
    file.write_text('{"credHelpers": {"a.io": "one"}}')

    with pytest.raises(ConfigurationError, match=r"leaves a\.io to docker-credential-one"):
        save_credentials(file, "a.io", "me", "pw")


def test_remove_credentials_forgets_every_spelling(tmp_path):
    """Removing a host removes it in all spellings, and nothing else."""
    file = tmp_path / "config.json"
    auths = {"https://index.docker.io/v1/": entry("a"), "docker.io": entry("b"), "docker.io/team": entry("c")}
    file.write_text(json.dumps({"auths": auths}))

    assert remove_credentials(file, "docker.io")
    assert list(json.loads(file.read_text())["auths"]) == ["docker.io/team"]
    assert not remove_credentials(file, "docker.io")
