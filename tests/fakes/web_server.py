"""HTTP servers on loopback: of files in memory with validators, redirects and a list of requests, and of a folder."""

from __future__ import annotations

import os
import subprocess
import threading
from contextlib import contextmanager
from email.utils import formatdate
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

from tests.fakes.loopback_server import LoopbackServer


class WebServer(LoopbackServer):
    """Serves *files* (path to bytes) and the folder *git*: below `/git/` as plain files, below `/smart/` as hosts do.

    *modified* gives the Last-Modified of a path in seconds, *redirects* the Location of one. *requests* notes method,
    path, status and the Authorization header of each request. Paths that begin as a key of *locked* want its header.
    """

    def __init__(self, git=None):
        self.files = {}
        self.modified = {}
        self.redirects = {}
        self.locked = {}
        self.etags = True
        self.git = git
        self.requests = []
        super().__init__()

    @property
    def url(self):
        return f"http://{self.address}"

    def answer(self, handler):
        path = handler.path.partition("?")[0]
        sent = handler.rfile.read(int(handler.headers.get("Content-Length", 0)))
        status, headers, body = self._find(path, handler.headers)
        if status == 200 and path.startswith("/smart/"):
            status, headers, body = self._ask_git(handler, sent)
        self.requests.append((path, status, handler.headers.get("Authorization")))
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    def _find(self, path, headers):
        wanted = next((header for start, header in self.locked.items() if path.startswith(start)), None)
        if wanted is not None and headers.get("Authorization") != wanted:
            return 401, {"WWW-Authenticate": "Basic"}, b"who are you?"
        if path in self.redirects:
            return 302, {"Location": self.redirects[path]}, b""
        if path.startswith("/smart/"):
            return 200, {}, b""
        if self.git is not None and path.startswith("/git/"):
            file = self.git / path.removeprefix("/git/")
            return (200, {}, file.read_bytes()) if file.is_file() else (404, {}, b"")
        if path not in self.files:
            return 404, {}, b"not here"
        body = self.files[path]
        given = {"ETag": f'"{hash(body)}"'} if self.etags else {}
        if path in self.modified:
            given["Last-Modified"] = formatdate(self.modified[path], usegmt=True)
        if given.get("ETag", "") == headers.get("If-None-Match"):
            return 304, given, b""
        if "Last-Modified" in given and given["Last-Modified"] == headers.get("If-Modified-Since"):
            return 304, given, b""
        return 200, given, body

    def _ask_git(self, handler, sent):
        """Have git-http-backend(1) answer a request."""
        path, _, query = handler.path.partition("?")
        environ = {
            "PATH": os.environ["PATH"],
            "GIT_PROJECT_ROOT": str(self.git),
            "GIT_HTTP_EXPORT_ALL": "1",
            "PATH_INFO": path.removeprefix("/smart"),
            "QUERY_STRING": query,
            "REQUEST_METHOD": handler.command,
            "CONTENT_TYPE": handler.headers.get("Content-Type", ""),
            "CONTENT_LENGTH": str(len(sent)),
            "HTTP_CONTENT_ENCODING": handler.headers.get("Content-Encoding", ""),
            "GIT_PROTOCOL": handler.headers.get("Git-Protocol", ""),
        }
        done = subprocess.run(["git", "http-backend"], input=sent, env=environ, capture_output=True, check=True)
        head, _, body = done.stdout.partition(b"\r\n\r\n")
        headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n"))
        return int(headers.pop("Status", "200").split()[0]), headers, body


@contextmanager
def serve_folder(folder):
    """Serve the files of *folder* with their times, as any plain server does; git can clone from it. Gives the URL."""

    class Handler(SimpleHTTPRequestHandler):
        def __init__(self, *arguments):
            super().__init__(*arguments, directory=str(folder))

        def log_message(self, *arguments):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()
