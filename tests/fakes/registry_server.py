"""A registry in this process, as well-behaved or as broken as a test wants it.

    with FakeRegistry() as registry:
        registry.faults.append(Fault(method="GET", path="/blobs/", status=503, times=2))
        ...
        assert registry.count("GET", "/blobs/") == 3

It speaks the distribution protocol over HTTP/1.1 on a free loopback port, keeps everything in memory, and records
every request with its headers.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Self
from urllib.parse import parse_qs, urlsplit

if TYPE_CHECKING:
    import ssl
    from collections.abc import Mapping

_ROUTE = re.compile(r"/v2/(?P<name>.+?)/(?P<kind>manifests|blobs/uploads|blobs)/(?P<rest>.*)")


@dataclass
class Fault:
    """What goes wrong with the next *times* requests whose method and path match.

    A *status* is answered instead of the regular one. With *cut_after*, that many bytes of the body are sent and the
    connection ends. *replace* is sent instead of the body. *lose_answer* does what was asked and ends the connection
    without an answer. *wait_for* holds the rest of the body back until the event is set.
    """

    method: str = "GET"
    path: str = ""
    times: int = 1
    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    cut_after: int | None = None
    replace: bytes | None = None
    lose_answer: bool = False
    wait_for: threading.Event | None = None


@dataclass(frozen=True)
class SeenRequest:
    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes = field(repr=False, default=b"")


class FakeRegistry:
    """The server. Attributes may be changed at any time.

    *auth* is "none", "basic" or "bearer". *blob_redirect* is the base address of another server that blobs are fetched
    from. Tokens are kept in *tokens* with the scopes they are for.
    """

    def __init__(self, *, tls: ssl.SSLContext | None = None) -> None:
        self.blobs: dict[str, dict[str, bytes]] = {}
        self.manifests: dict[str, dict[str, tuple[str, bytes]]] = {}
        self.requests: list[SeenRequest] = []
        self.faults: list[Fault] = []
        self.auth = "none"
        self.users: dict[str, str] = {}
        self.identity_tokens: set[str] = set()
        self.realm: str | None = None
        self.token_lifetime = 300
        self.tokens: dict[str, set[str]] = {}
        self.blob_redirect: str | None = None
        self.cdn: dict[str, bytes] = {}
        self.can_mount = True
        self.can_range = True
        self.answers_head = True
        self.absolute_locations = False
        self.uploads = 0
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"registry": self}))
        self._server.daemon_threads = True
        self._server.handle_error = lambda *_: None  # type: ignore[method-assign]  # broken connections are the point
        self.scheme = "http"
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
            self.scheme = "https"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self._server.server_address[1]}"

    @property
    def url(self) -> str:
        return f"{self.scheme}://{self.address}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def add_blob(self, repository: str, data: bytes) -> str:
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        self.blobs.setdefault(repository, {})[digest] = data
        return digest

    def add_manifest(self, repository: str, tag: str | None, media_type: str, data: bytes) -> str:
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        for name in filter(None, (tag, digest)):
            self.manifests.setdefault(repository, {})[name] = (media_type, data)
        return digest

    def count(self, method: str, path: str = "") -> int:
        return len(self.seen(method, path))

    def seen(self, method: str, path: str = "") -> list[SeenRequest]:
        return [each for each in self.requests if each.method == method and re.search(path, each.path)]

    def take_fault(self, method: str, path: str) -> Fault | None:
        with self._lock:
            for fault in self.faults:
                if fault.times > 0 and fault.method == method and re.search(fault.path, path):
                    fault.times -= 1
                    return fault
        return None

    def next_upload(self) -> int:
        with self._lock:
            self.uploads += 1
            return self.uploads

    def issue_token(self, scopes: set[str]) -> str:
        with self._lock:
            token = f"token-{len(self.tokens)}-canary"
            self.tokens[token] = scopes
            return token


class _Handler(BaseHTTPRequestHandler):
    registry: FakeRegistry
    protocol_version = "HTTP/1.1"
    # Headers and body in one packet: without it, Nagle's algorithm makes every answer wait for an acknowledgement.
    wbufsize = -1

    def log_message(self, *_) -> None:
        pass

    def do_GET(self) -> None:
        self._serve()

    do_HEAD = do_POST = do_PUT = do_PATCH = do_GET  # noqa: N815  (names of http.server)

    def _serve(self) -> None:
        registry = self.registry
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        registry.requests.append(SeenRequest(self.command, self.path, dict(self.headers.items()), body))
        self._fault = registry.take_fault(self.command, self.path)
        if self._fault is not None and self._fault.status is not None:
            self._send(self._fault.status, self._fault.body, self._fault.headers)
            return
        path = urlsplit(self.path).path
        if path == "/token":
            self._token(body)
        elif path.startswith("/cdn/"):
            self._content(registry.cdn.get(path.removeprefix("/cdn/")))
        elif path == "/v2/":
            if self._is_allowed("", "pull"):
                self._send(200, b"{}")
        elif (route := _ROUTE.fullmatch(path)) is not None:
            self._route(route["name"], route["kind"], route["rest"], body)
        else:
            self._refuse(404, "NAME_UNKNOWN")

    def _route(self, name: str, kind: str, rest: str, body: bytes) -> None:
        registry = self.registry
        action = "pull" if self.command in {"GET", "HEAD"} else "push"
        if not self._is_allowed(name, action):
            return
        query = {key: values[0] for key, values in parse_qs(urlsplit(self.path).query).items()}
        match self.command, kind:
            case (("GET" | "HEAD"), "manifests"):
                if self.command == "HEAD" and not registry.answers_head:
                    self._send(405, b"")
                    return
                found = registry.manifests.get(name, {}).get(rest)
                if found is None:
                    self._refuse(404, "MANIFEST_UNKNOWN")
                    return
                digest = f"sha256:{hashlib.sha256(found[1]).hexdigest()}"
                self._send(200, found[1], {"Content-Type": found[0], "Docker-Content-Digest": digest})
            case "PUT", "manifests":
                media_type = self.headers.get("Content-Type") or ""
                digest = registry.add_manifest(name, rest, media_type, body)
                self._send(201, b"", {"Docker-Content-Digest": digest, "Location": f"/v2/{name}/manifests/{digest}"})
            case (("GET" | "HEAD"), "blobs"):
                data = registry.blobs.get(name, {}).get(rest)
                if data is not None and registry.blob_redirect is not None and self.command == "GET":
                    self._send(307, b"", {"Location": f"{registry.blob_redirect}/cdn/{rest}?X-Signature=canary"})
                    return
                self._content(data)
            case "POST", "blobs/uploads":
                source = registry.blobs.get(query.get("from", ""), {}).get(query.get("mount", ""))
                if registry.can_mount and source is not None:
                    registry.add_blob(name, source)
                    self._send(201, b"", {"Location": f"/v2/{name}/blobs/{query['mount']}"})
                    return
                base = registry.url if registry.absolute_locations else ""
                number = registry.next_upload()
                self._send(202, b"", {"Location": f"{base}/v2/{name}/blobs/uploads/{number}?_state=a%2Bb%3D"})
            case "PUT", "blobs/uploads":
                if query.get("_state") != "a+b=" or registry.add_blob(name, body) != query.get("digest"):
                    self._refuse(400, "DIGEST_INVALID")
                    return
                self._send(201, b"", {"Location": f"/v2/{name}/blobs/{query['digest']}"})
            case _:
                self._refuse(405, "UNSUPPORTED")

    def _content(self, data: bytes | None) -> None:
        if data is None:
            self._refuse(404, "BLOB_UNKNOWN")
            return
        wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "")
        if wanted and self.registry.can_range:
            start = int(wanted[1])
            headers = {"Content-Range": f"bytes {start}-{len(data) - 1}/{len(data)}"}
            self._send(206, data[start:], headers)
        else:
            self._send(200, data)

    def _is_allowed(self, name: str, action: str) -> bool:
        registry = self.registry
        header = self.headers.get("Authorization") or ""
        scheme, _, value = header.partition(" ")
        match registry.auth:
            case "none":
                return True
            case "basic":
                if scheme == "Basic" and self._is_known(value):
                    return True
                challenge = 'Basic realm="fake"'
            case _:
                scopes = registry.tokens.get(value, set()) if scheme == "Bearer" else None
                if scopes is not None and value in registry.tokens and (not name or f"{name}:{action}" in scopes):
                    return True
                realm = registry.realm or f"{registry.url}/token"
                scope = f',scope="repository:{name}:pull,push"' if name else ""
                problem = ',error="insufficient_scope"' if scopes else ""
                challenge = f'Bearer realm="{realm}",service="fake"{scope}{problem}'
        self._refuse(401, "UNAUTHORIZED", {"WWW-Authenticate": challenge})
        return False

    def _is_known(self, value: str) -> bool:
        username, _, password = base64.b64decode(value).decode().partition(":")
        return self.registry.users.get(username) == password and bool(password)

    def _token(self, body: bytes) -> None:
        registry = self.registry
        if self.command == "POST":
            form = parse_qs(body.decode())
            known = form.get("refresh_token", [""])[0] in registry.identity_tokens
            scopes = form.get("scope", [""])[0].split()
        else:
            header = self.headers.get("Authorization") or ""
            known = not registry.users if not header else self._is_known(header.removeprefix("Basic "))
            scopes = parse_qs(urlsplit(self.path).query).get("scope", [])
        if not known:
            self._refuse(401, "UNAUTHORIZED")
            return
        granted = set()
        for scope in scopes:
            _, name, actions = scope.split(":")
            granted |= {f"{name}:{action}" for action in actions.split(",")}
        answer = {"token": registry.issue_token(granted), "expires_in": registry.token_lifetime}
        self._send(200, json.dumps(answer).encode(), {"Content-Type": "application/json"})

    def _refuse(self, status: int, code: str, headers: Mapping[str, str] | None = None) -> None:
        body = json.dumps({"errors": [{"code": code, "message": code.replace("_", " ").lower()}]}).encode()
        self._send(status, body, headers)

    def _send(self, status: int, body: bytes, headers: Mapping[str, str] | None = None) -> None:
        fault = self._fault
        if fault is not None and fault.lose_answer:
            self.close_connection = True
            return
        if fault is not None and fault.replace is not None:
            body = fault.replace
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        if fault is not None and fault.cut_after is not None:
            self.wfile.write(body[: fault.cut_after])
            self.wfile.flush()
            if fault.wait_for is not None:
                fault.wait_for.wait(30)
            self.close_connection = True
            return
        self.wfile.write(body)
