"""Sources that are not in a local directory: files and repositories on the network, contexts that come as a stream.

A *URL source* is one file of an ADD. A *remote context* is a directory that was made for this build from a git
repository, from a tar on standard input or at an address, or that is empty because only a Dockerfile came. What lies
in a folder of the build is read like every other source root, so nothing behind this module knows the difference.

Ignore files do not apply to remote contexts.

Source: spec, sections 1.14 and 1.17.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from email.utils import parsedate_to_datetime
from io import BufferedReader
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final, NamedTuple, Protocol
from urllib.parse import unquote, urlsplit, urlunsplit

from builder.context.address import check_address
from builder.context.archive import find_newest, looks_like_archive, unpack_context
from builder.context.authorization import OF_FILES, token_hint
from builder.context.git import GitSource, is_git_url, parse_git_url
from builder.context.local import DEFAULT_NAMES, MAXIMUM_SIZE, Selections
from builder.context.root import SourceRoot
from builder.context.select import Selected, Selection, select_sources
from builder.context.walk import find
from builder.errors import ContextError, SourceError
from builder.source import SourceFile, Span
from registry.content.replayed_stream import peek
from registry.errors import ContentError, DownloadError, RegistryError
from registry.oci.digest import Digest, digest_algorithm, parse_digest
from runtime.paths import open_in_root

if TYPE_CHECKING:
    from collections.abc import Callable

    from builder.context.authorization import Authorizations
    from builder.context.git import Checkout, Git
    from registry.content.store import BlobStore
    from registry.download import Downloaded

UNNAMED: Final = "__unnamed__"
"""What a file is called whose address ends in no name. Source: BuildKit, dockerfile2llb/convert.go."""

_READ_SIZE: Final = 1 << 20
_DENIED: Final = frozenset({401, 403})


class UrlSource(NamedTuple):
    """A file at an address.

    Attributes:
        url: http or https, credentials included; show `shown` instead.
        checksum: digest the body must have; empty if any will do.
        unpack: whether it is unpacked if it is an archive.
    """

    url: str
    checksum: str = ""
    unpack: bool = False

    @property
    def shown(self) -> str:
        """The address without credentials, query and fragment."""
        parts = urlsplit(self.url)
        return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))

    @property
    def name(self) -> str:
        """What the file is called in a directory: the last part of the path."""
        name = unquote(urlsplit(self.url).path, errors="surrogateescape").rstrip("/").rpartition("/")[2]
        return UNNAMED if name in {"", ".", ".."} or "\0" in name else name


def parse_url_source(url: str, *, checksum: str = "", unpack: bool = False, span: Span | None = None) -> UrlSource:
    """Make a source of an address.

    Raises:
        ContextError: its host or port cannot be read.
    """
    check_address(url, span=span)
    return UrlSource(url=url, checksum=checksum, unpack=unpack)


RemoteSource = UrlSource | GitSource
"""What an ADD takes from the network."""


def parse_context_address(address: str) -> RemoteSource:
    """Make a source of the address of a context, which may leave out the scheme of GitHub's.

    Raises:
        ContextError: it cannot be read.
    """
    if is_git_url(address) or address.startswith("github.com/"):
        return parse_git_url(address)
    return parse_url_source(address)


class UrlRow(NamedTuple):
    """What is remembered of an address.

    Attributes:
        etag: of its last answer.
        modified: Last-Modified of its last answer.
        digest: of the body, as sha256.
        checksum: another digest that the body was found to have, or empty.
    """

    etag: str
    modified: str
    digest: str
    checksum: str = ""


class UrlMemory(Protocol):
    """Where answers are remembered; addresses are named by a digest, since they may hold secrets."""

    def find_url(self, name: str) -> UrlRow | None:
        """Give what is known of an address."""
        ...

    def put_url(self, name: str, row: UrlRow) -> None:
        """Remember an answer; an older one is replaced."""
        ...


class Downloader(Protocol):
    """Fetches bodies. Source: registry.client.RegistryClient."""

    def download(
        self,
        url: str,
        store: BlobStore,
        *,
        etag: str = "",
        modified: str = "",
        authorization: str = "",
        limit: int | None = None,
    ) -> Downloaded | None:
        """Fetch the body of an address into a store; None if it still has these validators."""
        ...


class Body(NamedTuple):
    """What is at an address: the digest of it, and the time of its last change in seconds, 0 if that is not known."""

    digest: Digest
    modified: int


class Network:
    """Fetches sources for one build. Used from one thread at a time; close it when done.

    Args:
        folder: where files and checkouts are put; belongs to this build alone and is removed by the caller.
        blobs: takes bodies.
        memory: remembers answers.
        downloader: makes what fetches, when first needed; it is told what for.
        git: runs git.
        authorizations: opens files that not everybody gets.
    """

    def __init__(
        self,
        folder: Path,
        blobs: BlobStore,
        memory: UrlMemory,
        downloader: Callable[[], Downloader],
        git: Git,
        authorizations: Authorizations,
    ) -> None:
        self.folder = folder
        self.git = git
        self._blobs = blobs
        self._memory = memory
        self._connect = downloader
        self._authorizations = authorizations
        self._downloader: Downloader | None = None
        self._bodies: dict[tuple[str, str], Body] = {}
        self._checkouts: dict[GitSource, Checkout] = {}
        self._opened: dict[tuple[RemoteSource, tuple[str, ...]], Selection] = {}
        self._fds: list[int] = []
        self._count = 0

    def close(self) -> None:
        """Close what was opened. Idempotent."""
        while self._fds:
            os.close(self._fds.pop())

    def ingredients(self, source: RemoteSource, span: Span | None) -> tuple[tuple[str, str], ...]:
        """Name what decides what a source gives, asking the network only if the source itself does not say it.

        Raises:
            SourceError: it cannot be had.
        """
        if isinstance(source, GitSource):
            flags = f"keep-git-dir={source.keep_git_dir} submodules={source.submodules} mtime={source.mtime_commit}"
            return (
                ("git commit", self.git.resolve(source, span=span)),
                ("git directory", source.subdir),
                ("git flags", flags),
            )
        body = self.ask(source, span)
        return (
            ("url body", body.digest),
            ("url name", source.name),
            ("url modified", str(body.modified)),
            ("url unpack", str(source.unpack)),
        )

    def ask(self, source: UrlSource, span: Span | None, *, limit: int | None = None) -> Body:
        """Find out what is at an address now, once; with a checksum that is known already, without a request.

        Raises:
            SourceError: it cannot be had, or does not have the wanted checksum.
        """
        question = (source.url, source.checksum)
        if question not in self._bodies:
            self._bodies[question] = self._ask(source, span, limit)
        return self._bodies[question]

    def open_body(self, source: UrlSource, body: Body, span: Span | None) -> BinaryIO:
        """Open the body of an address, fetching it if it is not in the store; the caller closes it.

        Raises:
            SourceError: it cannot be had, or is another one by now.
        """
        if not self._blobs.has(body.digest):
            row = self._download(source, None, span, None)
            if row is None or row.digest != body.digest:
                raise SourceError(f"file changed during the build: `{source.shown}`", hint="build again", span=span)
        return self._blobs.open_verified(body.digest)

    def select(self, source: RemoteSource, excludes: tuple[str, ...], span: Span | None) -> Selection:
        """Bring a source into a folder of the build and say what of it is copied, once.

        Raises:
            SourceError: it cannot be had.
            ContextError: a repository lacks the directory that is wanted.
        """
        question = (source, excludes)
        if question not in self._opened:
            if isinstance(source, UrlSource):
                self._opened[question] = self._place_file(source, span)
            else:
                root = SourceRoot(fd=self.open_checkout(source, span)[0], shown=f"repository `{source.shown}`")
                sources = select_sources(root, ["/"], excludes=excludes, span=span)
                self._opened[question] = Selection(root=root, sources=sources)
        return self._opened[question]

    def open_checkout(self, source: GitSource, span: Span | None) -> tuple[int, int]:
        """Check a repository out; return the wanted directory, which stays ours, and the time of the commit."""
        checkout = self._check_out(source, span)
        top = self._open(checkout.top)
        if not source.subdir:
            return top, checkout.time
        try:
            fd = open_in_root(top, source.subdir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise ContextError(
                f"repository has no directory {source.subdir}, {os.strerror(error.errno or 0).lower()}: "
                f"`{source.shown}`",
                span=span,
            ) from error
        self._fds.append(fd)
        return fd, checkout.time

    def time(self, source: RemoteSource, span: Span | None) -> int | None:
        """Find out when a source was made, in seconds; None if nothing says so.

        A repository has the time of its commit, a file that of its server, else that of its newest file if it is a tar.

        Raises:
            SourceError: it cannot be had.
        """
        if isinstance(source, GitSource):
            return self._check_out(source, span).time
        body = self.ask(source, span)
        if body.modified:
            return body.modified
        with self.open_body(source, body, span) as stream:
            head, whole = peek(stream)
            return find_newest(BufferedReader(whole)) if looks_like_archive(head) else None

    def commit(self, source: GitSource) -> str:
        """Give the commit that a repository stands for in this build, whole if it was checked out.

        Raises:
            SourceError: it cannot be had.
        """
        checkout = self._checkouts.get(source)
        return checkout.commit if checkout is not None else self.git.resolve(source)

    def make_folder(self) -> int:
        """Make an empty folder and open it; the descriptor stays ours."""
        self._count += 1
        path = self.folder / f"source-{self._count}"
        path.mkdir(mode=0o700)
        return self._open(path)

    def _check_out(self, source: GitSource, span: Span | None) -> Checkout:
        if source not in self._checkouts:
            self._checkouts[source] = self.git.checkout(source, span=span)
        return self._checkouts[source]

    def _open(self, path: Path) -> int:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._fds.append(fd)
        return fd

    def _ask(self, source: UrlSource, span: Span | None, limit: int | None) -> Body:
        row = self._memory.find_url(_name(source.url))
        wanted = source.checksum
        if row is None or not wanted or wanted not in {row.digest, row.checksum}:
            if row is not None and wanted and not self._blobs.has(parse_digest(row.digest)):
                row = None  # the body is needed to be hashed
            row = self._download(source, row, span, limit) or row
        if row is None:
            raise AssertionError("a server was asked without validators and answered with none")
        body = Body(parse_digest(row.digest), _seconds(row.modified))
        if wanted and wanted not in {row.digest, row.checksum}:
            actual = self._hash(body.digest, digest_algorithm(parse_digest(wanted)))
            if actual != wanted:
                raise SourceError(
                    f"digest mismatch {actual}, expected {wanted}: `{source.shown}`",
                    hint="the file is not the one that was meant; check it, then update --checksum",
                    span=span,
                )
            self._memory.put_url(_name(source.url), row._replace(checksum=wanted))
        return body

    def _download(self, source: UrlSource, row: UrlRow | None, span: Span | None, limit: int | None) -> UrlRow | None:
        """Fetch an address and remember it; None if what *row* says still holds."""
        if self._downloader is None:
            self._downloader = self._connect()
        try:
            got = self._downloader.download(
                source.url,
                self._blobs,
                etag=row.etag if row else "",
                modified=row.modified if row else "",
                authorization=self._authorizations.for_file(source.url),
                limit=limit,
            )
        except RegistryError as error:
            if isinstance(error, ContentError):
                raise
            is_denied = isinstance(error, DownloadError) and error.status in _DENIED
            hint = token_hint(source.url, OF_FILES) if is_denied else error.hint
            raise SourceError(error.message, hint=hint, span=span) from error
        if got is None:
            return None
        answer = UrlRow(etag=got.etag, modified=got.modified, digest=got.digest)
        self._memory.put_url(_name(source.url), answer)
        return answer

    def _hash(self, digest: Digest, algorithm: str) -> str:
        state = hashlib.new(algorithm)
        with self._blobs.open_verified(digest) as stream:
            while data := stream.read(_READ_SIZE):
                state.update(data)
        return f"{algorithm}:{state.hexdigest()}"

    def _place_file(self, source: UrlSource, span: Span | None) -> Selection:
        body = self.ask(source, span)
        folder = self.make_folder()
        name = source.name.encode("utf-8", "surrogateescape")
        try:
            fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=folder)
        except OSError as error:
            raise SourceError(
                f"address ends in what cannot be a file name: `{source.shown}`", hint="use RUN", span=span
            ) from error
        with self.open_body(source, body, span) as stream, os.fdopen(fd, "wb") as file:
            shutil.copyfileobj(stream, file, _READ_SIZE)
            file.flush()
            os.fchmod(fd, 0o600)
            os.utime(fd, (body.modified, body.modified))
        root = SourceRoot(fd=folder, shown=f"file `{source.shown}`")
        item = find(root, name)
        if item is None:
            raise AssertionError("a file that was just written is gone")
        return Selection(root=root, sources=(Selected(name=name, item=item),))


class RemoteContext:
    """A build context that was made for this build; its folder belongs to a `Network`.

    Args:
        fd: the directory, which the caller closes.
        shown: what the user knows it by.
        dockerfile: path of `--file` in it, or None for the usual names.
        text: the Dockerfile itself when it does not come from the context.
        time: when the context was made, in seconds, None if that is not known.

    Raises:
        ContextError: it has no Dockerfile.
    """

    def __init__(
        self, fd: int, *, shown: str, dockerfile: str | None, text: SourceFile | None, time: int | None
    ) -> None:
        self.time = time
        self.path = Path(os.readlink(f"/proc/self/fd/{fd}"))  # now: the namespace has another /proc
        self._selections = Selections(SourceRoot(fd=fd, shown=f"build context `{shown}`"))
        self.dockerfile = text or self._read_dockerfile(dockerfile)

    @property
    def root(self) -> SourceRoot:
        """The directory as COPY sees it."""
        return self._selections.root

    def select(
        self, paths: tuple[str, ...], *, excludes: tuple[str, ...], parents: bool, span: Span | None
    ) -> Selection:
        """Find what paths of a COPY name; the same question is answered once."""
        return self._selections.select(paths, excludes=excludes, parents=parents, span=span)

    def close(self) -> None:
        """Do nothing: the folder belongs to the network."""

    def _read_dockerfile(self, chosen: str | None) -> SourceFile:
        failure: OSError | None = None
        for name in (chosen,) if chosen else DEFAULT_NAMES:
            try:
                fd = open_in_root(self.root.fd, name, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
                with os.fdopen(fd, "rb") as file:
                    return SourceFile(name, decode_dockerfile(file.read(MAXIMUM_SIZE + 1)))
            except OSError as error:
                failure = error
        reason = os.strerror(failure.errno or 0).lower() if failure else ""
        raise ContextError(
            f"failed to read dockerfile: open {chosen or DEFAULT_NAMES[0]}: {reason}, in the {self.root.shown}",
            hint="name it with --file, as it lies in the context",
        )


def open_remote_context(
    address: str, network: Network, *, stdin: BinaryIO | None, dockerfile: str | None, text: SourceFile | None
) -> RemoteContext:
    """Open a context that is not a directory.

    Args:
        address: `-` for standard input, the address of a git repository, or of a tar or Dockerfile.
        network: fetches, and owns what is made.
        stdin: standard input.
        dockerfile: path of `--file` in the context, or None for the usual names.
        text: the Dockerfile itself when it does not come from the context.

    Raises:
        SourceError: it cannot be fetched.
        ContextError: it is damaged, empty, or has no Dockerfile.
    """
    if address == "-":
        if stdin is None:
            raise ContextError("standard input is closed", hint="pipe a tar or a Dockerfile into it")
        return _open_stream(stdin, network, "standard input", dockerfile, text, time=None)
    source = parse_context_address(address)
    if isinstance(source, GitSource):
        fd, time = network.open_checkout(source, None)
        return RemoteContext(fd, shown=source.shown, dockerfile=dockerfile, text=text, time=time)
    body = network.ask(source, None)
    with network.open_body(source, body, None) as stream:
        return _open_stream(stream, network, source.shown, dockerfile, text, time=body.modified or None)


def open_remote_directory(address: str, network: Network) -> tuple[SourceRoot, int | None]:
    """Fetch a git repository or a tar that is a named context.

    Returns:
        The directory, and when it was made, in seconds, None if that is not known.

    Raises:
        SourceError: it cannot be fetched.
        ContextError: it is neither.
    """
    source = parse_context_address(address)
    if isinstance(source, GitSource):
        fd, time = network.open_checkout(source, None)
        return SourceRoot(fd=fd, shown=f"repository `{source.shown}`"), time
    body = network.ask(source, None)
    fd = network.make_folder()
    with network.open_body(source, body, None) as stream:
        head, whole = peek(stream)
        if not looks_like_archive(head):
            raise ContextError(f"a named context is a directory, a repository or a tar: `{source.shown}`")
        newest = unpack_context(BufferedReader(whole), fd, subject=f"archive {source.shown}")
    return SourceRoot(fd=fd, shown=f"archive `{source.shown}`"), body.modified or newest


def fetch_dockerfile(url: str, network: Network) -> SourceFile:
    """Fetch a Dockerfile that is named by its address.

    Raises:
        SourceError: it cannot be fetched.
    """
    source = parse_url_source(url)
    body = network.ask(source, None, limit=MAXIMUM_SIZE)
    with network.open_body(source, body, None) as stream:
        return SourceFile(source.name, decode_dockerfile(stream.read()))


def decode_dockerfile(data: bytes) -> str:
    """Turn the bytes of a Dockerfile into text.

    Raises:
        ContextError: they are longer than a Dockerfile can be.
    """
    if len(data) > MAXIMUM_SIZE:
        raise ContextError(f"the Dockerfile is larger than {MAXIMUM_SIZE >> 20} MiB")
    return data.decode("utf-8", "surrogateescape")


def _open_stream(
    stream: BinaryIO,
    network: Network,
    shown: str,
    dockerfile: str | None,
    text: SourceFile | None,
    *,
    time: int | None,
) -> RemoteContext:
    """Make a context of a tar, or of a Dockerfile alone."""
    head, whole = peek(stream)
    if not head:
        raise ContextError(f"the build context is empty: `{shown}`", hint="pipe a tar or a Dockerfile into it")
    fd = network.make_folder()
    if looks_like_archive(head):
        newest = unpack_context(BufferedReader(whole), fd, subject=f"context from {shown}")
        return RemoteContext(fd, shown=shown, dockerfile=dockerfile, text=text, time=time or newest)
    if dockerfile is not None or text is not None:
        raise ContextError(
            f"two Dockerfiles: --file names one, and `{shown}` is one and no archive", hint="drop --file"
        )
    only = SourceFile("Dockerfile", decode_dockerfile(head + stream.read(MAXIMUM_SIZE + 1)))
    return RemoteContext(fd, shown=shown, dockerfile=None, text=only, time=time)


def _name(url: str) -> str:
    return hashlib.sha256(url.encode("utf-8", "surrogateescape")).hexdigest()


def _seconds(modified: str) -> int:
    """Read a Last-Modified; 0 if there is none or it cannot be read."""
    if not modified:
        return 0
    try:
        return int(parsedate_to_datetime(modified).timestamp())
    except (ValueError, TypeError, OverflowError):
        return 0
