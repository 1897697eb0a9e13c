"""Whole builds whose files come from the network, from standard input and from named contexts."""

import base64
import hashlib
import io
import itertools
import tarfile
import time
from pathlib import Path

import pytest

from builder.errors import ContextError, DockerfileError, SourceError, UsageError
from builder.events import VertexCompleted, VertexStarted
from builder.pipeline import Build
from builder.request import BuildRequest, SecretSource
from builder.store import Store
from registry.client import RegistryClient
from registry.content.compression import Compression
from registry.content.image import validate_image
from registry.content.layer_stream import open_layer
from registry.hosts import RegistrySettings
from registry.oci.platform import Platform
from registry.retries import Pacing
from runtime.layers.entry import EntryKind
from runtime.layers.read import read_archive
from tests.fakes.git_repository import Repository
from tests.fakes.web_server import WebServer

LINUX = Platform("linux", "amd64")


class Workshop:
    """A store, a context folder and a network that is this machine."""

    def __init__(self, folder):
        self.store = Store(folder / "store")
        self.context = folder / "context"
        self.context.mkdir()
        self.events = []
        self.online = True
        self.path = "/usr/bin:/bin"
        self._clock = (f"2026-01-01T00:00:{second:02}Z" for second in itertools.count())

    def build(self, text=None, context=None, **wishes):
        """Build and return the image."""
        self.events.clear()
        request = BuildRequest(
            context=context or self.context,
            root=self.store.root,
            platform=LINUX,
            build_platform=LINUX,
            dockerfile_text=text,
            compression=Compression(),
            git_environ={"PATH": self.path},
            **wishes,
        )
        build = Build(request, self.store, self.events.append, connect=self._connect, now=lambda: next(self._clock))
        try:
            assert build.prepare() is False
            image = build.finish(None).image
        finally:
            build.close()
        validate_image(self.store.blobs, image, content=True)
        return image

    def entries(self, image):
        """Give the entries of the last layer, with the content of files."""
        layer = image.manifest.layers[-1]
        with open_layer(self.store.blobs.open_verified(layer.digest), media_type=layer.media_type) as tar:
            return {m.entry.path.decode(): (m.entry, m.read()) for m in read_archive(tar)}

    def cached(self):
        """Give the names of the steps the last build found in the cache."""
        names = {event.vertex: event.name for event in self.events if isinstance(event, VertexStarted)}
        return [names[e.vertex] for e in self.events if isinstance(e, VertexCompleted) and e.cached]

    def _connect(self, progress):
        assert self.online, "the network was asked"
        return RegistryClient(
            RegistrySettings(), environment={}, progress=progress, pacing=Pacing(pause=lambda _, __: None)
        )


@pytest.fixture
def workshop(tmp_path):
    """Give an empty workshop."""
    made = Workshop(tmp_path)
    yield made
    made.store.close()


@pytest.fixture
def web(tmp_path):
    """Give a server of nothing yet."""
    (tmp_path / "git").mkdir()
    with WebServer(tmp_path / "git") as server:
        yield server


@pytest.fixture
def repository(tmp_path):
    """Give a repository with one commit."""
    made = Repository(tmp_path / "repository")
    made.commit({"a": "one", "sub/b": "two", "sub/deep/c": "three"})
    return made


def make_tar(files, mode="w"):
    """Make a tar of files, text to bytes."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode) as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size, info.mtime = len(content), 1_600_000_000
            tar.addfile(info, io.BytesIO(content))
    return out.getvalue()


# ADD of URLs


def test_add_of_a_url_makes_one_private_file_with_the_time_of_the_server(workshop, web):
    """Mode 0600, owner 0:0, the time of Last-Modified, the last name of the path without the query."""
    web.files["/dir/file.txt"] = b"hello"
    web.modified["/dir/file.txt"] = 1_500_000_000
    entry, content = workshop.entries(workshop.build(f"FROM scratch\nADD {web.url}/dir/file.txt?x=1 /d/"))["d/file.txt"]

    assert (content, entry.mode, entry.uid, entry.gid, entry.mtime) == (b"hello", 0o600, 0, 0, 1_500_000_000)


@pytest.mark.parametrize("path", ["", "/", "/..", "/%2e%2e"])
def test_url_without_a_name_is_called_unnamed(workshop, web, path):
    """A trivial path gives `__unnamed__`."""
    web.files.update(dict.fromkeys(["/", "/..", "/%2e%2e"], b"x"))

    assert "d/__unnamed__" in workshop.entries(workshop.build(f"FROM scratch\nADD {web.url}{path} /d/"))


def test_unchanged_url_is_cached_and_a_changed_one_is_not(workshop, web):
    """The server is asked each time, and a body that it has not changed is not sent again."""
    text = f"FROM scratch\nADD {web.url}/f /f"
    web.files["/f"] = b"one"
    first = workshop.build(text)
    second = workshop.build(text)
    cached = workshop.cached()
    web.files["/f"] = b"two"
    third = workshop.build(text)

    assert second.descriptor == first.descriptor != third.descriptor
    assert cached
    assert not workshop.cached()
    assert [status for _, status, _ in web.requests] == [200, 304, 200]


def test_url_with_checksum_needs_no_network_once_it_is_known(workshop, web):
    """The checksum says what comes, so a cached step asks nobody; sha512 serves as well."""
    web.files["/f"] = b"body"
    checksum = "sha512:" + hashlib.sha512(b"body").hexdigest()
    text = f"FROM scratch\nADD --checksum={checksum} {web.url}/f /f"
    first = workshop.build(text)
    workshop.online = False

    assert workshop.build(text).descriptor == first.descriptor


def test_wrong_checksum_is_refused(workshop, web):
    """The body is not what was meant."""
    web.files["/f"] = b"body"
    with pytest.raises(SourceError, match="digest mismatch sha256:"):
        workshop.build(f"FROM scratch\nADD --checksum=sha256:{'0' * 64} {web.url}/f /f")


def test_url_is_unpacked_when_asked_for(workshop, web):
    """An archive of a URL stays a file unless --unpack=true."""
    web.files["/a.tar.gz"] = make_tar({"x/y": b"data"}, "w:gz")
    plain = workshop.entries(workshop.build(f"FROM scratch\nADD {web.url}/a.tar.gz /d/"))
    unpacked = workshop.entries(workshop.build(f"FROM scratch\nADD --unpack=true {web.url}/a.tar.gz /d/"))

    assert "d/a.tar.gz" in plain
    assert unpacked["d/x/y"][1] == b"data"


def test_redirect_is_followed_and_leaves_the_credentials_behind(workshop, web):
    """User and password of an address go to its own origin only, and into no text that is kept."""
    web.redirects["/f"] = f"http://localhost:{web.address.rpartition(':')[2]}/g"
    web.files["/g"] = b"body"
    image = workshop.build(f"FROM scratch\nADD http://me:hunter2@{web.address}/f /f")

    assert [each[2] is not None for each in web.requests] == [True, False]
    assert "hunter2" not in repr(image.config)
    assert "hunter2" not in repr(workshop.events)
    assert "hunter2" not in repr(workshop.store.state.records())
    assert b"hunter2" not in b"".join(path.read_bytes() for path in workshop.store.root.glob("state.db*"))


@pytest.mark.parametrize("location", ["http://[bad/x", "//h:port/x"])
def test_redirect_to_no_address_is_refused(workshop, web, location):
    """What a server sends is no fault of ours."""
    web.redirects["/f"] = location
    with pytest.raises(SourceError, match="it redirects to something that is no address"):
        workshop.build(f"FROM scratch\nADD {web.url}/f /f")


@pytest.mark.parametrize("wish", ["context", "dockerfile_url", "build_contexts"])
def test_context_that_is_no_address_is_refused(workshop, wish):
    """Wherever an address may stand."""
    address = "https://[bad/x"
    with pytest.raises(ContextError, match="invalid address"):
        workshop.build(
            "FROM c" if wish == "build_contexts" else None,
            **{wish: {"c": address} if wish == "build_contexts" else address},
        )


def test_missing_url_fails_with_its_status(workshop, web):
    """The status and the address are shown, the query is not."""
    with pytest.raises(SourceError, match=r"invalid response status 404: `http://[0-9.:]+/nothing`") as raised:
        workshop.build(f"FROM scratch\nADD {web.url}/nothing?token=secret /f")

    assert raised.value.span is not None


def test_local_and_remote_sources_go_into_one_layer(workshop, web, repository):
    """Paths, inline files, URLs and repositories in one ADD."""
    repository.serve_to(web.git / "r.git")
    web.files["/u"] = b"url"
    (workshop.context / "l").write_bytes(b"local")
    image = workshop.build(f"FROM scratch\nADD l {web.url}/u {web.url}/git/r.git <<i /d/\ninline\ni\n")
    entries = workshop.entries(image)

    assert {name: entries[f"d/{name}"][1] for name in ("l", "u", "i", "a", "sub/b")} == {
        "l": b"local",
        "u": b"url",
        "i": b"inline\n",
        "a": b"one",
        "sub/b": b"two",
    }


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("COPY http://h/x /", "source can't be a URL for COPY"),
        ("COPY https://h/x.git /", "source can't be a git ref for COPY"),
        ("ADD --checksum=sha256:1 a /", "checksum requires"),
        ("ADD --checksum=sha256:1 http://h/x http://h/y /d/", "checksum can't be specified for multiple sources"),
        ("ADD --checksum=md5:1 http://h/x /", "invalid --checksum"),
        ("ADD --keep-git-dir http://h/x /", "--keep-git-dir requires Git sources"),
        ("ADD https://h/x.git?what=1 /", 'unexpected query "what"'),
        ("ADD https://me:secret@[bad/x?secret /", "invalid address: `https://.bad/x`"),
        ("ADD https://h:port/x /", "invalid address: `https://h:port/x`"),
        ("ADD https:///x /", "invalid address: `https:///x`"),
        ("ADD https://[bad/x.git /", "invalid address: `https://.bad/x.git`"),
        ("ADD ssh://h:port/x.git /", "invalid address: `ssh://h:port/x.git`"),
    ],
)
def test_flag_that_does_not_fit_the_source_is_refused(workshop, line, message):
    """Before anything is fetched."""
    (workshop.context / "a").touch()
    workshop.online = False
    with pytest.raises((DockerfileError, ContextError), match=message):
        workshop.build(f"FROM scratch\n{line}")


# ADD of repositories


@pytest.mark.parametrize("form", ["#main:sub", "?ref=main&subdir=sub", "?branch=main&subdir=sub", "?tag=v1&subdir=sub"])
def test_add_of_a_repository_takes_a_subdirectory_of_a_reference(workshop, web, repository, form):
    """Fragment and query say the same; `.git` is left out, and modes are those of git under a umask of 022."""
    repository.git("tag", "-a", "-m", "tag", "v1")
    repository.serve_to(web.git / "r.git")
    entries = workshop.entries(workshop.build(f"FROM scratch\nADD {web.url}/git/r.git{form} /d/"))

    assert sorted(name for name, (entry, _) in entries.items() if entry.kind is EntryKind.FILE) == ["d/b", "d/deep/c"]
    assert entries["d/b"][0].mode == 0o644
    assert entries["d/deep"][0].mode == 0o755


def test_repository_with_a_commit_needs_no_network_when_cached(workshop, web, repository):
    """The commit is the key; a wrong one is refused."""
    repository.serve_to(web.git / "r.git")
    commit = repository.git("rev-parse", "HEAD")
    text = f"FROM scratch\nADD --checksum={commit} {web.url}/git/r.git#main /d/"
    first = workshop.build(text)
    count = len(web.requests)

    assert workshop.build(text).descriptor == first.descriptor
    assert len(web.requests) == count
    with pytest.raises(SourceError, match="expected checksum to match"):
        workshop.build(f"FROM scratch\nADD {web.url}/git/r.git?ref=main&commit={'0' * 40} /d/")


def test_kept_git_directory_holds_no_credentials(workshop, web, repository):
    """`--keep-git-dir` keeps a repository that git can use, without what was needed to fetch it."""
    repository.serve_to(web.git / "r.git")
    image = workshop.build(f"FROM scratch\nADD --keep-git-dir=true http://me:hunter2@{web.address}/git/r.git /d/")
    entries = workshop.entries(image)

    assert "d/.git/HEAD" in entries
    assert not [name for name, (_, content) in entries.items() if b"hunter2" in content]
    assert any(header for _, _, header in web.requests)


# Credentials of the build


def secret(name, value):
    """Make a `--secret` with a value."""
    return SecretSource(id=name, value=value)


@pytest.mark.parametrize(
    ("name", "value", "header"),
    [
        ("HTTP_AUTH_TOKEN_{host}", b"hunter2\n", "Bearer hunter2"),
        ("HTTP_AUTH_TOKEN_127.0.0.1", b"hunter2", "Bearer hunter2"),
        ("HTTP_AUTH_HEADER_{host}", b"Secret hunter2", "Secret hunter2"),
    ],
)
def test_file_is_opened_by_a_secret(workshop, web, name, value, header):
    """ADD says who the build is, to the host that the secret is for, and keeps nothing of it."""
    web.files["/f"] = b"body"
    web.locked["/f"] = header
    secrets = (secret(name.format(host=web.address), value),)
    image = workshop.build(f"FROM scratch\nADD {web.url}/f /f", secrets=secrets)

    assert workshop.entries(image)["f"][1] == b"body"
    assert "hunter2" not in repr((image.config, workshop.events, workshop.store.state.records()))
    assert b"hunter2" not in b"".join(path.read_bytes() for path in workshop.store.root.glob("state.db*"))


def test_locked_file_says_which_secret_opens_it(workshop, web):
    """The hint can be pasted, and a secret for another host is not sent."""
    web.locked["/f"] = "Bearer x"
    with pytest.raises(SourceError, match="invalid response status 401") as raised:
        workshop.build(f"FROM scratch\nADD {web.url}/f /f", secrets=(secret("HTTP_AUTH_TOKEN_localhost", b"x"),))

    assert f"--secret id=HTTP_AUTH_TOKEN_{web.address}," in raised.value.hint
    assert [each[2] for each in web.requests] == [None]


def test_secret_does_not_follow_a_redirect(workshop, web):
    """Another origin does not get it."""
    web.redirects["/f"] = f"http://localhost:{web.address.rpartition(':')[2]}/g"
    web.files["/g"] = b"body"
    workshop.build(f"FROM scratch\nADD {web.url}/f /f", secrets=(secret(f"HTTP_AUTH_TOKEN_{web.address}", b"hunter2"),))

    assert [each[2] for each in web.requests] == ["Bearer hunter2", None]


@pytest.mark.parametrize("suffix", ["", ".127.0.0.1", ".{host}"])
@pytest.mark.parametrize(
    ("kind", "value", "header"),
    [
        ("TOKEN", b"hunter2", f"Basic {base64.b64encode(b'x-access-token:hunter2').decode()}"),
        ("HEADER", b"Secret hunter2", "Secret hunter2"),
    ],
)
def test_repository_is_opened_by_a_secret(workshop, web, repository, suffix, kind, value, header):
    """A context and an ADD of a repository use it, and nothing of it is kept."""
    repository.commit({"Dockerfile": f"FROM scratch\nADD --keep-git-dir {web.url}/git/r.git /d/\n"})
    repository.serve_to(web.git / "r.git")
    web.locked["/git/"] = header
    secrets = (secret(f"GIT_AUTH_{kind}{suffix.format(host=web.address)}", value),)
    image = workshop.build(context=f"{web.url}/git/r.git", secrets=secrets)

    entries = workshop.entries(image)
    assert entries["d/a"][1] == b"one"
    assert not [name for name, (_, content) in entries.items() if b"hunter2" in content]


def test_secret_of_a_repository_is_in_no_argument(workshop, web, repository, tmp_path):
    """What speaks as hosts do is fetched with it, and no command line of git has it."""
    log = tmp_path / "log"
    wrapper = tmp_path / "bin" / "git"
    wrapper.parent.mkdir()
    wrapper.write_text(f'#!/bin/sh\necho "$@" >> {log}\nexec /usr/bin/git "$@"\n')
    wrapper.chmod(0o755)
    workshop.path = f"{wrapper.parent}:{workshop.path}"
    repository.serve_to(web.git / "r.git")
    header = f"Basic {base64.b64encode(b'x-access-token:hunter2').decode()}"
    web.locked["/smart/"] = header
    text = f"FROM scratch\nADD {web.url}/smart/r.git /d/"
    image = workshop.build(text, secrets=(secret("GIT_AUTH_TOKEN", b"hunter2"),))

    assert workshop.entries(image)["d/a"][1] == b"one"
    assert "fetch" in log.read_text()
    assert "hunter2" not in log.read_text()
    assert header.removeprefix("Basic ") not in log.read_text()


@pytest.mark.parametrize("userinfo", ["", "me:hunter2@"])
@pytest.mark.parametrize("kind", ["git", "smart"])
def test_credentials_of_a_repository_do_not_follow_a_redirect(workshop, web, repository, userinfo, kind):
    """Git would send them to whom a server names; without credentials it goes there."""
    repository.serve_to(web.git / "r.git")
    other = f"http://localhost:{web.address.rpartition(':')[2]}"
    web.redirects["/old.git/info/refs"] = f"{other}/{kind}/r.git/info/refs?service=git-upload-pack"
    secrets = () if userinfo else (secret("GIT_AUTH_TOKEN", b"hunter2"),)
    with pytest.raises(SourceError, match="returned error: 302") as raised:
        workshop.build(f"FROM scratch\nADD http://{userinfo}{web.address}/old.git /d/", secrets=secrets)

    assert raised.value.hint.endswith("write the new address")
    assert {path for path, _, header in web.requests if header} == {"/old.git/info/refs"}
    assert workshop.entries(workshop.build(f"FROM scratch\nADD {web.url}/old.git /d/"))["d/a"][1] == b"one"


def test_credentials_of_a_repository_do_not_reach_submodules_elsewhere(workshop, web, repository):
    """A submodule of the same origin gets them, one of another does not."""
    repository.serve_to(web.git / "m.git")
    other = f"http://localhost:{web.address.rpartition(':')[2]}"
    repository.add_submodules({"own": f"{web.url}/smart/m.git", "foreign": f"{other}/git/m.git"})
    repository.serve_to(web.git / "top.git")
    web.locked["/smart/"] = "Secret hunter2"
    text = f"FROM scratch\nADD {web.url}/smart/top.git /d/"
    entries = workshop.entries(workshop.build(text, secrets=(secret("GIT_AUTH_HEADER", b"Secret hunter2"),)))

    assert (entries["d/own/a"][1], entries["d/foreign/a"][1]) == (b"one", b"one")
    assert {header for path, _, header in web.requests if path.startswith("/git/")} == {None}


def test_locked_repository_says_which_secret_opens_it(workshop, web, repository):
    """Where git would ask for a password, the message names the secret."""
    repository.serve_to(web.git / "r.git")
    web.locked["/git/"] = "Basic x"
    with pytest.raises(SourceError, match=r"could not read Username|Authentication failed") as raised:
        workshop.build(f"FROM scratch\nADD {web.url}/git/r.git /d/")

    assert raised.value.hint == f"give a token: --secret id=GIT_AUTH_TOKEN.{web.address},env=TOKEN"


# Times


STAGE = """FROM scratch AS src
ADD {address} /
FROM scratch
LABEL a=b
"""


def test_epoch_is_that_of_a_stage_that_is_one_address(workshop, web):
    """SOURCE_DATE_EPOCH names a stage of one ADD: Last-Modified counts."""
    web.files["/f"], web.modified["/f"] = b"body", 1_500_000_000
    text = STAGE.format(address=f"{web.url}/f")
    image = workshop.build(text, build_args={"SOURCE_DATE_EPOCH": "src"})

    assert image.config.created == "2017-07-14T02:40:00Z"
    with pytest.raises(UsageError, match="names a stage without a time: `src`"):
        workshop.build(f"FROM scratch AS src\nLABEL a=b\nADD {web.url}/f /\n", build_args={"SOURCE_DATE_EPOCH": "src"})


def test_epoch_is_that_of_a_stage_that_is_one_repository(workshop, web, repository):
    """SOURCE_DATE_EPOCH names a stage of one ADD: the commit's time counts."""
    repository.serve_to(web.git / "r.git")
    text = STAGE.format(address=f"{web.url}/git/r.git")
    image = workshop.build(text, build_args={"SOURCE_DATE_EPOCH": "src"})

    assert image.config.created == time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(repository.time))


def test_stage_of_the_epoch_is_named_in_any_case_and_may_have_args(workshop, web):
    """Its words are expanded with the arguments of the file and its own, and steps see the time as a number."""
    web.files["/f"], web.modified["/f"] = b"body", 1_500_000_000
    text = (
        f"ARG BASE=scratch\nARG SOURCE_DATE_EPOCH=SRC\nFROM $BASE AS src\nARG FILE=none\nADD {web.url}/$FILE /\n"
        "FROM scratch\nARG SOURCE_DATE_EPOCH\n"
    )
    image = workshop.build(text, build_args={"FILE": "f"})
    given = workshop.build(text, build_args={"FILE": "f", "SOURCE_DATE_EPOCH": "src"})

    assert image.config.created == given.config.created == "2017-07-14T02:40:00Z"
    for each in (image, given):
        assert each.config.history[-1].created_by == "ARG SOURCE_DATE_EPOCH=1500000000"


def test_epoch_of_an_archive_is_that_of_its_newest_file(workshop, web):
    """Where the server says no time, the files of a tar do; what is no tar has none."""
    web.files["/t.tar.gz"], web.files["/f"] = make_tar({"a": b"x"}, "w:gz"), b"\x1f\x8b no gzip"
    of_tar = workshop.build(STAGE.format(address=f"{web.url}/t.tar.gz"), build_args={"SOURCE_DATE_EPOCH": "src"})
    of_file = workshop.build(STAGE.format(address=f"{web.url}/f"), build_args={"SOURCE_DATE_EPOCH": "src"})

    assert of_tar.config.created == "2020-09-13T12:26:40Z"
    assert of_file.config.created is None


@pytest.mark.parametrize(
    "stage",
    [
        "FROM scratch AS src",
        "FROM src0 AS src\nADD {url}/f /",
        "FROM scratch AS src\nADD {url}/f /\nADD {url}/f /g",
        "FROM scratch AS src\nADD {url}/f {url}/f /d/",
        "FROM scratch AS src\nCOPY a /",
        "FROM scratch AS src\nADD a /",
    ],
)
def test_stage_with_other_things_has_no_time(workshop, web, stage):
    """The message shows the stage, and what it would have to be."""
    web.files["/f"] = b"body"
    text = f"FROM scratch AS src0\n{stage.format(url=web.url)}\nFROM scratch\nLABEL a=b\n"
    with pytest.raises(UsageError, match="names a stage without a time: `src`") as raised:
        workshop.build(text, build_args={"SOURCE_DATE_EPOCH": "src"})

    assert raised.value.span.line == 2


def test_epoch_is_that_of_a_named_context(workshop, web):
    """It comes before a stage of its name; a folder has no time."""
    web.files["/c.tar"] = make_tar({"a": b"x"})
    contexts = {"src": f"{web.url}/c.tar", "folder": workshop.context}
    text = "FROM scratch AS Src\nRUN false\nFROM scratch\nLABEL a=b\n"
    of_tar = workshop.build(text, build_contexts=contexts, build_args={"SOURCE_DATE_EPOCH": "src"})
    of_folder = workshop.build(text, build_contexts=contexts, build_args={"SOURCE_DATE_EPOCH": "folder"})

    assert of_tar.config.created == "2020-09-13T12:26:40Z"
    assert of_folder.config.created is None
    with pytest.raises(UsageError, match="invalid SOURCE_DATE_EPOCH: `nothing`") as raised:
        workshop.build(text, build_contexts=contexts, build_args={"SOURCE_DATE_EPOCH": "nothing"})
    assert "context, src, folder" in raised.value.hint


# Contexts


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_tar_on_standard_input_is_a_context(workshop, mode):
    """Its ignore file does not apply."""
    tar = make_tar({"Dockerfile": b"FROM scratch\nCOPY a /\n", "./a": b"x", ".dockerignore": b"a\n"}, mode)
    entries = workshop.entries(workshop.build(context="-", stdin=io.BytesIO(tar)))

    assert entries["a"][1] == b"x"


def test_text_on_standard_input_is_a_dockerfile_with_an_empty_context(workshop):
    """Nothing can be copied."""
    image = workshop.build(context="-", stdin=io.BytesIO(b"FROM scratch\nLABEL a=b\n"))

    assert image.config.labels == {"a": "b"}
    with pytest.raises(ContextError, match="not found in the build context"):
        workshop.build(context="-", stdin=io.BytesIO(b"FROM scratch\nCOPY a /\n"))
    with pytest.raises(ContextError, match="build context is empty"):
        workshop.build(context="-", stdin=io.BytesIO(b""))


def test_repository_is_a_context_whose_time_is_that_of_the_commit(workshop, web, repository):
    """Reference and sub-directory count, and SOURCE_DATE_EPOCH=context is the time of the commit."""
    repository.commit({"sub/Dockerfile": "FROM scratch\nCOPY . /\n"})
    repository.serve_to(web.git / "r.git")
    url = f"{web.url}/git/r.git#main:sub"
    image = workshop.build(context=url, build_args={"SOURCE_DATE_EPOCH": "context"})

    assert set(workshop.entries(image)) >= {"b", "deep/c", "Dockerfile"}
    assert image.config.created == "2023-11-14T22:16:40Z"


def test_subdirectory_that_is_a_link_out_of_the_repository_leads_nowhere(workshop, web, repository):
    """Links are followed inside the checkout only."""
    (repository.folder / "out").symlink_to("/etc")
    repository.commit({})
    repository.serve_to(web.git / "r.git")
    for place in ("out", "../../etc"):
        with pytest.raises(ContextError, match="repository has no directory"):
            workshop.build(context=f"{web.url}/git/r.git#main:{place}")


def test_address_of_a_tar_is_a_context_and_of_a_text_a_dockerfile(workshop, web):
    """An archive is unpacked; anything else is the Dockerfile itself."""
    web.files["/c.tar.gz"] = make_tar({"Dockerfile": b"FROM scratch\nCOPY a /\n", "a": b"x"}, "w:gz")
    web.files["/df"] = b"FROM scratch\nLABEL from=web\n"

    assert "a" in workshop.entries(workshop.build(context=f"{web.url}/c.tar.gz"))
    assert workshop.build(context=f"{web.url}/df").config.labels == {"from": "web"}
    assert workshop.build(dockerfile_url=f"{web.url}/df").config.labels == {"from": "web"}


def test_dockerfile_of_a_remote_context_is_chosen_by_its_path_in_it(workshop):
    """`--file` is relative to the context, and leads nowhere else."""
    tar = make_tar({"other/df": b"FROM scratch\nLABEL a=b\n"})

    image = workshop.build(context="-", stdin=io.BytesIO(tar), dockerfile=Path("other/df"))
    assert image.config.labels == {"a": "b"}
    with pytest.raises(ContextError, match="failed to read dockerfile"):
        workshop.build(context="-", stdin=io.BytesIO(tar), dockerfile=Path("../../../../../etc/passwd"))


# Named contexts


def test_named_folder_replaces_an_image_and_hides_what_its_own_ignore_file_says(workshop, tmp_path):
    """FROM and COPY --from take from the folder."""
    folder = tmp_path / "named"
    folder.mkdir()
    (folder / "x").write_text("x")
    (folder / "hidden").write_text("h")
    (folder / ".dockerignore").write_text("hidden\n")
    wishes = {"build_contexts": {"alpine": folder}}
    copied = workshop.entries(
        workshop.build("FROM scratch\nCOPY --from=docker.io/library/alpine:latest / /d/", **wishes)
    )
    based = workshop.build("FROM alpine\nLABEL a=b", **wishes)

    assert {"d/x", "d/.dockerignore"} <= set(copied)
    assert "d/hidden" not in copied
    assert "x" in workshop.entries(based)
    assert based.config.labels == {"a": "b"}


def test_named_context_replaces_a_whole_stage(workshop, tmp_path):
    """The instructions of the stage are dropped, and what it needs is not looked for."""
    folder = tmp_path / "named"
    folder.mkdir()
    (folder / "out").write_text("given")
    text = "FROM nowhere.invalid/x AS build\nRUN false\nFROM scratch\nCOPY --from=build /out /\n"

    assert workshop.entries(workshop.build(text, build_contexts={"build": folder}))["out"][1] == b"given"


def test_named_context_of_a_platform_holds_for_it_alone(workshop, tmp_path):
    """`name::platform` comes before `name`."""
    for name in ("mine", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "f").write_text(name)
    contexts = {"n::linux/amd64": tmp_path / "mine", "n": tmp_path / "other"}

    image = workshop.build("FROM scratch\nCOPY --from=n /f /", build_contexts=contexts)
    assert workshop.entries(image)["f"][1] == b"mine"


def test_named_layout_is_an_image(workshop, tmp_path):
    """By tag, by digest, or the only one there is."""
    other = Workshop(tmp_path / "second") if (tmp_path / "second").mkdir() is None else None
    (other.context / "f").write_text("base")
    made = other.build("FROM scratch\nCOPY f /f\nENV A=b\n")
    other.store.layout.put(made.descriptor, None)
    layout = other.store.root / "images"
    try:
        for value in (f"{layout}", f"{layout}@{made.descriptor.digest}"):
            image = workshop.build("FROM base\nLABEL x=y", build_contexts={"base": f"oci-layout://{value}"})
            assert image.config.diff_ids == made.config.diff_ids
            assert "A=b" in image.config.env
        with pytest.raises(ContextError, match="no image wrong in the OCI layout"):
            workshop.build("FROM base", build_contexts={"base": f"oci-layout://{layout}:wrong"})
    finally:
        other.store.close()


def test_named_repository_and_tar_are_folders(workshop, web, repository):
    """What they hold can be copied."""
    repository.serve_to(web.git / "r.git")
    web.files["/t.tar"] = make_tar({"t": b"t"})
    contexts = {"g": f"{web.url}/git/r.git#main", "t": f"{web.url}/t.tar"}
    text = "FROM scratch\nCOPY --from=g /a /\nCOPY --from=t /t /\n"

    assert workshop.entries(workshop.build(text, build_contexts=contexts))["t"][1] == b"t"
