"""The distribution protocol: one method for each of its end points that pulling and pushing need.

Source: distribution-spec 1.1, Endpoints.
"""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import urlencode, urlsplit, urlunsplit

from registry.errors import BlobTooLargeError, DigestInvalidError, DigestMismatchError, ProtocolError
from registry.oci.descriptor import Descriptor
from registry.oci.digest import Digest, digest_algorithm, digest_of, parse_digest
from registry.oci.manifest import MAX_DOCUMENT_SIZE, Index, Manifest, parse_manifest
from registry.oci.media_types import ACCEPTED_MANIFESTS

if TYPE_CHECKING:
    from registry.connection import Connection
    from registry.transport import Answer, Upload

_ACCEPT: Final = {"Accept": ", ".join(ACCEPTED_MANIFESTS)}
_CONTENT_RANGE = re.compile(r"bytes (\d+)-\d+/(?:\d+|\*)")


class FetchedManifest(NamedTuple):
    """A manifest or index as the registry sent it: its bytes, what names them, and what they say."""

    data: bytes
    descriptor: Descriptor
    document: Manifest | Index


class Repository:
    """The repository of one endpoint. Every method raises the errors of `Connection.request`."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self._path = f"/v2/{connection.endpoint.repository}"

    @property
    def host(self) -> str:
        """The name of the registry."""
        return self.connection.endpoint.host.name

    @property
    def name(self) -> str:
        """Registry and repository, for errors."""
        return f"{self.host}/{self.connection.endpoint.repository}"

    def ping(self) -> None:
        """Ask whether the host speaks the protocol and lets us in."""
        self.connection.request("GET", "/v2/", actions="", subject=self.host, accept={200}).close()

    def head_manifest(self, name: str) -> Descriptor | None:
        """Ask for the descriptor of a tag or digest without its bytes.

        Returns:
            None if the registry does not support the question well enough.

        Raises:
            NotFoundError: there is none.
        """
        subject = self.subject(name)
        with self.connection.request(
            "HEAD",
            f"{self._path}/manifests/{name}",
            actions="pull",
            subject=subject,
            accept={200, 400, 405, 501},
            headers=_ACCEPT,
        ) as answer:
            media_type = _content_type(answer)
            length = answer.header("Content-Length") or ""
            digest = self._announced_digest(answer, subject)
            if answer.status != 200 or digest is None or not media_type or not length.isdecimal():
                return None
            if ":" in name and digest != name:
                raise DigestMismatchError(expected=name, actual=digest, subject=subject)
            return Descriptor(media_type=media_type, digest=digest, size=int(length))

    def get_manifest(self, name: str) -> FetchedManifest:
        """Fetch a manifest or index by tag or digest, verified against whichever digest is known.

        Raises:
            NotFoundError: there is none.
            DigestMismatchError: the bytes are not what was asked for, or not what the registry says they are.
            BlobTooLargeError: it is longer than the specification obliges anyone to take.
            ManifestInvalidError: it breaks the specification.
        """
        subject = self.subject(name)
        with self.connection.request(
            "GET",
            f"{self._path}/manifests/{name}",
            actions="pull",
            subject=subject,
            accept={200},
            headers=_ACCEPT,
        ) as answer:
            announced = self._announced_digest(answer, subject)
            media_type = _content_type(answer)
            length = answer.header("Content-Length") or ""
            data = answer.read_all(limit=MAX_DOCUMENT_SIZE)
        if data is None:
            size = int(length) if length.isdecimal() else MAX_DOCUMENT_SIZE + 1
            raise BlobTooLargeError(subject, size=size, limit=MAX_DOCUMENT_SIZE)
        expected = parse_digest(name) if ":" in name else announced
        digest = _hash(data, expected)
        if expected is not None and digest != expected:
            raise DigestMismatchError(expected=expected, actual=digest, subject=subject)
        document = parse_manifest(data, media_type, subject=f"manifest of {subject}")
        descriptor = Descriptor(media_type=document.media_type, digest=digest, size=len(data))
        return FetchedManifest(data, descriptor, document)

    def put_manifest(self, name: str, data: bytes, *, media_type: str, digest: Digest) -> None:
        """Store a manifest or index under a tag or digest. Everything it names must be there. Idempotent.

        Raises:
            DigestMismatchError: the registry has stored something else.
        """
        subject = self.subject(name)
        with self.connection.request(
            "PUT",
            f"{self._path}/manifests/{name}",
            actions="pull,push",
            subject=subject,
            accept={200, 201, 202, 204},
            headers={"Content-Type": media_type},
            body=data,
        ) as answer:
            stored = self._announced_digest(answer, subject)
        if stored is not None and stored != digest and digest_algorithm(stored) == digest_algorithm(digest):
            raise DigestMismatchError(expected=digest, actual=stored, subject=subject)

    def has_blob(self, digest: Digest) -> bool:
        """Ask whether the repository has a blob."""
        with self.connection.request(
            "HEAD",
            f"{self._path}/blobs/{digest}",
            actions="pull,push",
            subject=self.subject(digest),
            accept={200, 404, 405},
        ) as answer:
            return answer.status == 200

    def get_blob(self, digest: Digest, *, start: int = 0, url: str | None = None) -> tuple[int, Answer]:
        """Fetch a blob, or the rest of one.

        Args:
            digest: of the whole blob.
            start: the first byte that is wanted.
            url: where else to fetch it from, without credentials.

        Returns:
            The position of the first byte that comes, 0 if the server does not send parts, and the open answer.
        """
        headers = {"Range": f"bytes={start}-"} if start else {}
        answer = self.connection.request(
            "GET",
            url or f"{self._path}/blobs/{digest}",
            actions="pull",
            subject=self.subject(digest),
            accept={200, 206},
            headers=headers,
        )
        if answer.status == 200:
            return 0, answer
        match = _CONTENT_RANGE.match(answer.header("Content-Range") or "")
        if match is None or int(match[1]) != start:
            answer.close()
            detail = "it sends another part than asked for"
            raise ProtocolError(self.host, self.subject(digest), status=206, detail=detail)
        return start, answer

    def mount_blob(self, digest: Digest, *, source: str) -> str | None:
        """Have the registry link a blob from the repository *source* on the same host.

        Returns:
            None if it did, else the location of the upload it has started instead.
        """
        query = urlencode({"mount": digest, "from": source})
        with self.connection.request(
            "POST",
            f"{self._path}/blobs/uploads/?{query}",
            actions="pull,push",
            subject=self.subject(digest),
            accept={201, 202},
            also=(f"repository:{source}:pull",),
        ) as answer:
            return None if answer.status == 201 else self.connection.resolve_location(answer, self.subject(digest))

    def start_upload(self, digest: Digest) -> str:
        """Start the upload of a blob and return its location."""
        with self.connection.request(
            "POST",
            f"{self._path}/blobs/uploads/",
            actions="pull,push",
            subject=self.subject(digest),
            accept={202},
        ) as answer:
            return self.connection.resolve_location(answer, self.subject(digest))

    def finish_upload(self, location: str, digest: Digest, body: bytes | Upload) -> None:
        """Send all bytes of a blob to an upload's location, once: afterwards the location is spent, whatever happened.

        The location's own query stays as it is, because registries keep their state in it.
        """
        parts = urlsplit(location)
        query = "&".join(filter(None, (parts.query, urlencode({"digest": digest}))))
        self.connection.request(
            "PUT",
            urlunsplit((parts.scheme, parts.netloc, parts.path, query, "")),
            actions="pull,push",
            subject=self.subject(digest),
            accept={200, 201, 204},
            headers={"Content-Type": "application/octet-stream"},
            body=body,
            retry=False,
        ).close()

    def subject(self, name: str) -> str:
        """Return how errors name a tag, manifest or blob."""
        return f"{self.name}{'@' if ':' in name else ':'}{name}"

    def _announced_digest(self, answer: Answer, subject: str) -> Digest | None:
        text = answer.header("Docker-Content-Digest")
        if not text:
            return None
        try:
            return parse_digest(text)
        except DigestInvalidError as error:
            detail = "its Docker-Content-Digest is no digest"
            raise ProtocolError(self.host, subject, status=answer.status, detail=detail) from error


def _content_type(answer: Answer) -> str:
    return (answer.header("Content-Type") or "").partition(";")[0].strip()


def _hash(data: bytes, like: Digest | None) -> Digest:
    if like is None:
        return digest_of(data)
    algorithm = digest_algorithm(like)
    return Digest(f"{algorithm}:{hashlib.new(algorithm, data).hexdigest()}")
