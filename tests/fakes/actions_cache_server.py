"""The cache service of GitHub Actions, version 2, as far as its protocol is known, and the blob storage behind it.

Written from the sources that `registry.actions_cache` names; nobody has compared it with the real one.
"""

from __future__ import annotations

import base64
import json
import re
import threading
from urllib.parse import parse_qs, urlsplit

from tests.fakes.loopback_server import LoopbackServer

SIGNATURE = "signed-by-the-service"
REFS = ("refs/heads/main", "refs/heads/topic")


def make_token(*grants):
    """Make a runtime token that grants (branch, permission) pairs; only its payload means anything."""
    claims = {"ac": json.dumps([{"Scope": ref, "Permission": permission} for ref, permission in grants])}
    payload = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
    return f"header.{payload}.signature"


TOKEN = make_token((REFS[0], 3))
OF_TOPIC = make_token((REFS[0], 1), (REFS[1], 3))


class ActionsCacheServer(LoopbackServer):
    """Serves entries; *entries* maps keys to bytes in the order they came, *reserved* are those still to be sent.

    *refusals* are statuses and Retry-After headers for the next requests; *calls* notes the methods that were called.
    *stalled* makes calls wait until the server ends.
    """

    def __init__(self):
        self.entries = {}
        self.reserved = {}
        self.refusals = []
        self.calls = []
        self.stalled = False
        self._ended = threading.Event()
        self._guard = threading.Lock()
        super().__init__()

    @property
    def url(self):
        """The address of the service."""
        return f"http://{self.address}/"

    def answer(self, handler):
        body = handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
        parts = urlsplit(handler.path)
        if self.stalled:
            self._ended.wait()
            handler.close_connection = True
            return
        with self._guard:
            if self.refusals:
                status, retry_after = self.refusals.pop(0)
                headers = {} if retry_after is None else {"Retry-After": retry_after}
                self._send(handler, status, b'{"code":"resource_exhausted","msg":"slow down"}', headers)
            elif parts.path.startswith("/blob/"):
                signed = parse_qs(parts.query).get("sig") == [SIGNATURE] and "Authorization" not in handler.headers
                self._serve_blob(handler, parts.path.removeprefix("/blob/"), body, signed=signed)
            elif handler.headers.get("Authorization") not in {f"Bearer {TOKEN}", f"Bearer {OF_TOPIC}"}:
                self._send(handler, 401, b'{"code":"unauthenticated","msg":"bad token"}', {})
            else:
                method = parts.path.removeprefix("/twirp/github.actions.results.api.v1.CacheService/")
                self.calls.append(method)
                status, value = getattr(self, f"_{method}")(json.loads(body))
                self._send(handler, status, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _CreateCacheEntry(self, value):  # noqa: N802  (the method of the service)
        key = value["key"]
        if key in self.entries or key in self.reserved:
            return 409, {"code": "already_exists", "msg": "cache entry with the same key, version, and scope exists"}
        assert len(value["version"]) == 64
        self.reserved[key] = None
        return 200, {"ok": True, "signed_upload_url": self._sign(key)}

    def _FinalizeCacheEntryUpload(self, value):  # noqa: N802  (the method of the service)
        data = self.reserved.pop(value["key"])
        if data is None or len(data) != int(value["size_bytes"]):
            return 200, {"ok": False}
        self.entries[value["key"]] = data
        return 200, {"ok": True, "entry_id": "1"}

    def _GetCacheEntryDownloadURL(self, value):  # noqa: N802  (the method of the service)
        keys = [key for key in self.entries if key == value["key"]]
        for prefix in value["restore_keys"]:
            keys += [key for key in reversed(self.entries) if key.startswith(prefix)]
        if not keys:
            return 200, {"ok": False, "signed_download_url": "", "matched_key": ""}
        return 200, {"ok": True, "signed_download_url": self._sign(keys[0]), "matched_key": keys[0]}

    def _sign(self, key):
        return f"{self.url}blob/{base64.urlsafe_b64encode(key.encode()).decode()}?sig={SIGNATURE}"

    def _serve_blob(self, handler, name, body, *, signed):
        key = base64.urlsafe_b64decode(name).decode()
        if not signed:
            self._send(handler, 403, b"<Error><Code>AuthenticationFailed</Code></Error>", {})
        elif handler.command == "PUT":
            assert handler.headers["x-ms-blob-type"] == "BlockBlob"
            self.reserved[key] = body
            self._send(handler, 201, b"", {})
        else:
            data = self.entries[key]
            wanted = re.fullmatch(r"bytes=(\d+)-", handler.headers.get("Range", ""))
            start = int(wanted[1]) if wanted else 0
            headers = {"Content-Range": f"bytes {start}-{len(data) - 1}/{len(data)}"} if wanted else {}
            self._send(handler, 206 if wanted else 200, data[start:], headers)

    def _send(self, handler, status, body, headers):
        handler.send_response(status)
        for name, text in headers.items():
            handler.send_header(name, text)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    def __exit__(self, *_):
        self._ended.set()
        super().__exit__()
