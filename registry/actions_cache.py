"""Blobs in the cache service of GitHub Actions, version 2.

The service has entries: a key, a version that tells users of the service apart, bytes. An entry is reserved, sent to an
address that is signed for it, and finished; after that it never changes. It is found by its whole key, or as the newest
whose key begins with some text.

    pybuild-blob-sha256:HEX            a blob
    pybuild-index-SCOPE-REF#N          a document; the newest counts, N grows

A job may read entries of its own branch and of those it grew from, and writes those of its own. A document is therefore
kept apart by the branch (REF is a digest of its name), and read for each that the job may read. GitHub forgets what was
not used for days, and the oldest beyond a size; what is gone is made anew.

Source: actions/toolkit, packages/cache (CacheService of github.actions.results.api.v1, over Twirp); BuildKit,
cache/remotecache/gha/gha.go; Azure Blob Storage, REST API, Put Blob.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from registry.errors import NotFoundError, StorageError
from registry.storage import read_position
from registry.value import field, frozen

if TYPE_CHECKING:
    from collections.abc import Mapping

    from registry.oci.descriptor import Descriptor
    from registry.storage import Exchange
    from registry.transport import Answer, Upload

MAX_ENTRY_SIZE: Final = 5000 * 1024**2
"""Most bytes that one request stores. Source: Azure Blob Storage, REST API, Put Blob, for the version below."""

_NAME: Final = "of GitHub Actions"
_SERVICE: Final = "twirp/github.actions.results.api.v1.CacheService"
_VERSION: Final = hashlib.sha256(b"pybuild-cache-1").hexdigest()
_AZURE: Final = {
    "x-ms-blob-type": "BlockBlob",
    "x-ms-version": "2020-04-08",
    "Content-Type": "application/octet-stream",
}
_MAX_ANSWER: Final = 64 * 1024
_MAX_TRIES: Final = 20


@frozen
class ActionsCache:
    """A cache of one repository's jobs.

    *url* and *token* are those of the job, empty outside of one. *scope* tells caches of one branch apart. *ref* is the
    branch, empty if the token does not say. *timeout* is how many seconds a piece of work may take.
    """

    url: str
    token: str = field(repr=False)
    scope: str = "pybuild"
    ref: str = ""
    timeout: float = 600.0

    def __str__(self) -> str:
        """Return what messages call it."""
        return f"gha:{self.scope}" + (f" of {self.ref}" if self.ref else "")


class ActionsStorage:
    """A cache of a repository's jobs, as a `registry.storage.BlobStorage`.

    Args:
        place: which.
        exchange: sends requests.
    """

    def __init__(self, place: ActionsCache, exchange: Exchange) -> None:
        self.name = str(place)
        self.exchange = exchange
        self.parallelism = 4
        self._place = place
        ref = hashlib.sha256(place.ref.encode()).hexdigest()[:8]
        self._index = f"pybuild-index-{place.scope}-{ref}#"

    def get_document(self, *, limit: int) -> bytes:
        """Read the newest document."""
        _, url = self._find_newest()
        if url is None:
            raise NotFoundError("the cache service", self.name)
        with self._open(url, self.name, start=0) as answer:
            data = answer.read_all(limit=limit)
        if data is None:
            raise StorageError(_NAME, self.name, cause=f"it is longer than {limit} bytes")
        return data

    def put_document(self, data: bytes) -> None:
        """Add a document that is newer than all others."""
        number, _ = self._find_newest()
        for _ in range(_MAX_TRIES):
            number += 1
            if self._put(f"{self._index}{number}", data, len(data), self.name):
                return
        raise StorageError(_NAME, self.name, cause="others are adding documents all the time")

    def has_blob(self, blob: Descriptor) -> bool:
        """Ask for the entry, which counts as using it."""
        return self._find(_blob_key(blob), blob.digest) is not None

    def get_blob(self, blob: Descriptor, start: int) -> tuple[int, Answer]:
        """Open the entry, or the rest of it; addresses are signed for minutes only, so each is asked for anew."""
        url = self._find(_blob_key(blob), blob.digest)
        if url is None:
            raise NotFoundError("the cache service", blob.digest)
        answer = self._open(url, blob.digest, start=start)
        return read_position(answer, start, blob.digest), answer

    def put_blob(self, blob: Descriptor, body: Upload) -> None:
        """Store an entry; one that another job has reserved is left to that."""
        if blob.size > MAX_ENTRY_SIZE:
            cause = f"it is larger than {MAX_ENTRY_SIZE} bytes, the most for one request"
            raise StorageError(_NAME, blob.digest, cause=cause)
        self._put(_blob_key(blob), body, blob.size, blob.digest)

    def _find_newest(self) -> tuple[int, str | None]:
        """Return the number and the address of the newest document; 0 and None if there is none."""
        found = self._look_up(self._index, self.name)
        if found is None:
            return 0, None
        key, url = found
        number = key.removeprefix(self._index)
        if number == key or not (number.isascii() and number.isdigit()):
            raise StorageError(_NAME, self.name, cause="it answers with another entry")
        return int(number), url

    def _find(self, key: str, subject: str) -> str | None:
        found = self._look_up(key, subject)
        return found[1] if found is not None and found[0] == key else None

    def _look_up(self, key: str, subject: str) -> tuple[str, str] | None:
        """Find an entry of this key, else the newest whose key begins so; return its key and where it is."""
        value = {"key": key, "restore_keys": [key], "version": _VERSION}
        answer = self._call("GetCacheEntryDownloadURL", value, subject)
        if answer is None or answer.get("ok") is not True:
            return None
        return self._take_text(answer, "matched_key", subject), self._take_url(answer, "signed_download_url", subject)

    def _put(self, key: str, body: bytes | Upload, size: int, subject: str) -> bool:
        """Store an entry; False if the key is taken."""
        reserved = self._call("CreateCacheEntry", {"key": key, "version": _VERSION}, subject)
        if reserved is None:
            return False
        if reserved.get("ok") is not True:
            raise StorageError(_NAME, subject, cause="it takes no more entries")
        url = self._take_url(reserved, "signed_upload_url", subject)
        self.exchange.request("PUT", url, subject=subject, accept={201}, headers=lambda: _AZURE, body=body).close()
        value = {"key": key, "size_bytes": str(size), "version": _VERSION}
        finished = self._call("FinalizeCacheEntryUpload", value, subject)
        if finished is None or finished.get("ok") is not True:
            raise StorageError(_NAME, subject, cause="it does not take what was sent")
        return True

    def _call(self, method: str, value: Mapping[str, Any], subject: str) -> dict[str, Any] | None:
        """Call a method of the service; None if it says that the entry is there already.

        Source: Twirp, Wire Protocol.
        """
        if not self._place.url:
            cause = "ACTIONS_RESULTS_URL and ACTIONS_RUNTIME_TOKEN are not set"
            raise StorageError(_NAME, subject, cause=cause)
        headers = {"Authorization": f"Bearer {self._place.token}", "Content-Type": "application/json"}
        with self.exchange.request(
            "POST",
            f"{self._place.url.rstrip('/')}/{_SERVICE}/{method}",
            subject=subject,
            accept={200, 409},
            headers=lambda: headers,
            body=json.dumps(value).encode(),
        ) as answer:
            data = answer.read_all(limit=_MAX_ANSWER)
        if answer.status == 409:
            return None
        try:
            document = json.loads(data or b"")
        except (ValueError, RecursionError):
            document = None
        if not isinstance(document, dict):
            raise StorageError(_NAME, subject, cause="its answer is no JSON object")
        return document

    def _open(self, url: str, subject: str, *, start: int) -> Answer:
        headers = {"Range": f"bytes={start}-"} if start else {}
        return self.exchange.request("GET", url, subject=subject, accept={200, 206}, headers=lambda: headers)

    def _take_text(self, answer: Mapping[str, Any], name: str, subject: str) -> str:
        text = answer.get(name)
        if not isinstance(text, str) or not text:
            raise StorageError(_NAME, subject, cause=f"its answer has no {name}")
        return text

    def _take_url(self, answer: Mapping[str, Any], name: str, subject: str) -> str:
        """Take an address that is a secret by itself; from https nothing leads to http."""
        url = self._take_text(answer, name, subject)
        schemes = {"https", urlsplit(self._place.url).scheme}
        if urlsplit(url).scheme not in schemes or not urlsplit(url).hostname:
            raise StorageError(_NAME, subject, cause=f"its {name} is no https address")
        return url


def _blob_key(blob: Descriptor) -> str:
    return f"pybuild-blob-{blob.digest}"
