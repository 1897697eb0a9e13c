"""Blobs in S3 and what speaks like it.

    PREFIX BLOBS_PREFIX sha256:HEX      a blob
    PREFIX MANIFESTS_PREFIX NAME        a document

Blobs lie where BuildKit puts them. Requests carry the digest of their body in the signature, so no body is read twice
or held in memory. Objects that are used again are renewed when they are old, since buckets are tidied up by age.

Source: Amazon S3, API Reference, section Authenticating Requests (AWS Signature Version 4); BuildKit,
cache/remotecache/s3/s3.go, for the attributes.
"""

from __future__ import annotations

import hashlib
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Final
from urllib.parse import quote, urlsplit, urlunsplit

from registry.errors import StorageError
from registry.oci.digest import digest_algorithm, digest_hex
from registry.storage import read_position
from registry.value import field, frozen

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from registry.oci.descriptor import Descriptor
    from registry.storage import Exchange
    from registry.transport import Answer, Upload

MAX_OBJECT_SIZE: Final = 5 * 1024**3
"""Most bytes that one request stores. Source: Amazon S3, API Reference, PutObject."""

_UNSIGNED: Final = "UNSIGNED-PAYLOAD"
_EMPTY: Final = hashlib.sha256(b"").hexdigest()
_UNRESERVED: Final = "/-_.~"
_MAX_ERROR_BODY: Final = 64 * 1024


@frozen
class AccessKey:
    """Who asks. *session_token* belongs to keys that expire, empty for others."""

    id: str
    secret: str = field(repr=False)
    session_token: str = field(default="", repr=False)


@frozen
class Bucket:
    """A place in a bucket.

    *endpoint* is the address of what is not Amazon's, empty for that; *path_style* puts the bucket into the path and not
    before the host. A document lies under each of *names*, and is read from the first. *touch_seconds* is the age from
    which an object that is used again is renewed. *access_key* None lets nothing be done.
    """

    name: str
    region: str
    prefix: str = ""
    blobs_prefix: str = "blobs/"
    manifests_prefix: str = "manifests/"
    names: tuple[str, ...] = ("pybuild",)
    endpoint: str = ""
    path_style: bool = False
    touch_seconds: float = 24 * 3600
    parallelism: int = 4
    access_key: AccessKey | None = None

    def __str__(self) -> str:
        """Return what messages call it."""
        return f"s3://{self.name}/{self.prefix}{self.manifests_prefix}{self.names[0]}"

    def url(self, key: str) -> str:
        """Return the address of an object."""
        path_style = self.path_style
        if self.endpoint:
            scheme, netloc, base, _, _ = urlsplit(self.endpoint)
        else:
            suffix = "amazonaws.com.cn" if self.region.startswith("cn-") else "amazonaws.com"
            scheme, netloc, base = "https", f"s3.{self.region}.{suffix}", ""
            path_style = path_style or "." in self.name  # no certificate covers two labels before the host
        path = f"{base.rstrip('/')}/{self.name}/{key}" if path_style else f"{base.rstrip('/')}/{key}"
        address = netloc if path_style else f"{self.name}.{netloc}"
        return urlunsplit((scheme, address, quote(path, safe=_UNRESERVED), "", ""))


class S3Storage:
    """A place in a bucket, as a `registry.storage.BlobStorage`.

    Args:
        bucket: the place.
        exchange: sends requests.
        now: gives seconds since the epoch, to judge the age of objects by.
    """

    def __init__(self, bucket: Bucket, exchange: Exchange, now: Callable[[], float]) -> None:
        self.name = bucket.name
        self.exchange = exchange
        self.parallelism = bucket.parallelism
        self._bucket = bucket
        self._now = now

    def get_document(self, *, limit: int) -> bytes:
        """Read the object of the first name."""
        subject = str(self._bucket)
        with self._request("GET", self._document_key(self._bucket.names[0]), subject, accept={200}) as answer:
            data = answer.read_all(limit=limit)
        if data is None:
            raise StorageError(self._bucket.name, subject, cause=f"it is longer than {limit} bytes")
        return data

    def put_document(self, data: bytes) -> None:
        """Write the objects of all names."""
        digest = hashlib.sha256(data).hexdigest()
        for name in self._bucket.names:
            key = self._document_key(name)
            self._request("PUT", key, str(self._bucket), accept={200}, digest=digest, body=data).close()

    def has_blob(self, blob: Descriptor) -> bool:
        """Look for the object, and renew it if it is old."""
        with self._request("HEAD", self._blob_key(blob), blob.digest, accept={200, 404}) as answer:
            found, modified = answer.status == 200, answer.header("Last-Modified")
        if found and self._is_old(modified):
            self._touch(blob)
        return found

    def get_blob(self, blob: Descriptor, start: int) -> tuple[int, Answer]:
        """Open the object, or the rest of it."""
        headers = {"Range": f"bytes={start}-"} if start else {}
        answer = self._request("GET", self._blob_key(blob), blob.digest, accept={200, 206}, headers=headers)
        return read_position(answer, start, blob.digest), answer

    def put_blob(self, blob: Descriptor, body: Upload) -> None:
        """Write the object; S3 checks that it has the digest that is signed."""
        if blob.size > MAX_OBJECT_SIZE:
            raise StorageError(
                self._bucket.name, blob.digest, cause="it is larger than 5 GiB, the most for one request"
            )
        digest = digest_hex(blob.digest) if digest_algorithm(blob.digest) == "sha256" else _UNSIGNED
        self._request("PUT", self._blob_key(blob), blob.digest, accept={200}, digest=digest, body=body).close()

    def _touch(self, blob: Descriptor) -> None:
        """Copy an object onto itself, which makes it young.

        Source: Amazon S3, API Reference, CopyObject: an error may come with the status 200.
        """
        source = quote(f"{self._bucket.name}/{self._blob_key(blob)}", safe=_UNRESERVED)
        headers = {"x-amz-copy-source": source, "x-amz-metadata-directive": "REPLACE"}
        with self._request("PUT", self._blob_key(blob), blob.digest, accept={200}, headers=headers) as answer:
            if b"<Error>" in (answer.read_all(limit=_MAX_ERROR_BODY) or b""):
                raise StorageError(self._bucket.name, blob.digest, cause="it cannot be renewed")

    def _is_old(self, modified: str | None) -> bool:
        try:
            return self._now() - parsedate_to_datetime(modified or "").timestamp() > self._bucket.touch_seconds
        except (ValueError, OverflowError):
            return False

    def _document_key(self, name: str) -> str:
        return f"{self._bucket.prefix}{self._bucket.manifests_prefix}{name}"

    def _blob_key(self, blob: Descriptor) -> str:
        return f"{self._bucket.prefix}{self._bucket.blobs_prefix}{blob.digest}"

    def _request(
        self,
        method: str,
        key: str,
        subject: str,
        *,
        accept: set[int],
        headers: Mapping[str, str] | None = None,
        digest: str = _EMPTY,
        body: bytes | Upload | None = None,
    ) -> Answer:
        access_key = self._bucket.access_key
        if access_key is None:
            raise StorageError(
                self._bucket.name,
                subject,
                cause="there is no access key",
                hint="set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, for example with "
                '`eval "$(aws configure export-credentials --format env)"`',
            )
        url = self._bucket.url(key)
        return self.exchange.request(
            method,
            url,
            subject=subject,
            accept=accept,
            headers=lambda: self._sign(access_key, method, url, headers or {}, digest),
            body=body,
        )

    def _sign(
        self, access_key: AccessKey, method: str, url: str, headers: Mapping[str, str], digest: str
    ) -> dict[str, str]:
        """Sign for now: a signature holds for minutes, so each attempt has its own."""
        from aws_request_signer import AwsRequestSigner  # noqa: PLC0415  (only for S3)

        signer = AwsRequestSigner(
            self._bucket.region, access_key.id, access_key.secret, "s3", access_key.session_token or None
        )
        return {**headers, **signer.sign_with_headers(method, url, headers, digest)}
