"""Agents for `RUN --mount=type=ssh`: the user's own, or one of ours that holds the keys of `--ssh id=key`.

A step never reaches an agent itself. It gets the socket of a *proxy*, a thread that lets through the two requests a
step needs, listing the keys and signing with one, and refuses all others: a step can neither add, remove nor lock.
The proxy also makes the socket belong to whom the mount says, and the agent see the building user as its peer.

Source: draft-miller-ssh-agent; BuildKit, session/sshforward/sshprovider/agentprovider.go.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import struct
import threading
from typing import TYPE_CHECKING, Final

from builder.errors import UsageError
from runtime.ownership import Owners

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from builder.request import SshSource

SSH_AGENT_FAILURE: Final = 5
SSH_AGENTC_REQUEST_IDENTITIES: Final = 11
SSH_AGENTC_SIGN_REQUEST: Final = 13
_ALLOWED: Final = frozenset({SSH_AGENTC_REQUEST_IDENTITIES, SSH_AGENTC_SIGN_REQUEST})

_LARGEST_MESSAGE: Final = 256 * 1024
_LENGTH: Final = struct.Struct(">I")
_REFUSAL: Final = _LENGTH.pack(1) + bytes([SSH_AGENT_FAILURE])
_PROGRAM_ENVIRONMENT: Final = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LC_ALL": "C"}
_PATIENCE_SECONDS: Final = 10


class SshAgents:
    """The agents of one build; close it when done. Used from many threads.

    Args:
        sources: what the user gave; of two with one id the last counts.
        folder: for sockets; nobody else may enter it.
    """

    def __init__(self, sources: Sequence[SshSource], folder: Path) -> None:
        self._sources = {source.id: source for source in sources}
        self._folder = folder
        self._guard = threading.Lock()
        self._started: dict[str, Path] = {}
        self._processes: list[subprocess.Popen[bytes]] = []

    @contextlib.contextmanager
    def forwarded(self, name: str, *, mode: int, owner: tuple[int, int]) -> Iterator[Path | None]:
        """Give a socket of mode and owner that leads to an agent, for the time of the block; None if there is none.

        Raises:
            UsageError: the agent or a key cannot be used.
            OSError: the user namespace has no place for the owner.
        """
        source = self._sources.get(name)
        if source is None:
            yield None
            return
        agent = source.socket or self._start(source)
        path = self._folder / f"ssh-{secrets.token_hex(8)}"
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
            with _short(path) as short:
                listener.bind(short)
            try:
                Owners.here().give(os.fsencode(path), *owner)
                path.chmod(mode)
                listener.listen()
                threading.Thread(target=_serve, args=(listener, agent), name="ssh-proxy", daemon=True).start()
                yield path
            finally:
                path.unlink()
                with contextlib.suppress(OSError):  # it never listened
                    listener.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """End the agents that were started. Idempotent."""
        while self._processes:
            process = self._processes.pop()
            with process:
                process.kill()

    def _start(self, source: SshSource) -> Path:
        """Start an agent with the keys of *source*, once; return its socket."""
        with self._guard:
            if source.id not in self._started:
                self._started[source.id] = self._start_agent(source)
            return self._started[source.id]

    def _start_agent(self, source: SshSource) -> Path:
        import subprocess  # noqa: PLC0415  only where keys are given

        path = self._folder / f"agent-{secrets.token_hex(8)}"
        try:
            # What it prints first says that its socket is there. Its name is relative because an address is short.
            process = subprocess.Popen(
                ["ssh-agent", "-D", "-a", path.name],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env=_PROGRAM_ENVIRONMENT,
                cwd=self._folder,
            )
            self._processes.append(process)
            said = process.stdout.readline() if process.stdout else b""
        except FileNotFoundError as error:
            raise UsageError(
                "keys for a ssh mount need the program ssh-agent",
                hint="install openssh-client, or give the socket of a running agent: --ssh default",
            ) from error
        if not path.exists():
            raise UsageError(f"ssh-agent cannot be started: {said.decode(errors='replace').strip()}")
        for key in source.keys:
            self._add(path, key)
        return path

    def _add(self, agent: Path, key: Path) -> None:
        import subprocess  # noqa: PLC0415  as above

        done = subprocess.run(
            ["ssh-add", "-q", "--", os.fspath(key)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env={**_PROGRAM_ENVIRONMENT, "SSH_AUTH_SOCK": agent.name, "SSH_ASKPASS_REQUIRE": "never"},
            cwd=self._folder,
            start_new_session=True,  # it would ask for a passphrase on the terminal
            timeout=_PATIENCE_SECONDS,
            check=False,
        )
        if done.returncode:
            reason = done.stderr.decode(errors="replace").strip().splitlines()
            raise UsageError(
                f"ssh key cannot be used, {reason[-1] if reason else 'ssh-add failed'}: `{key}`",
                hint="keys with a passphrase need a running agent: ssh-add KEY, then --ssh default",
            )


def _serve(listener: socket.socket, agent: Path) -> None:
    """Take connections until the listener is shut down."""
    while True:
        try:
            client, _ = listener.accept()
        except OSError:
            return
        threading.Thread(target=_forward, args=(client, agent), name="ssh-client", daemon=True).start()


def _forward(client: socket.socket, agent: Path) -> None:
    """Pass the requests of one connection on, and the answers back."""
    with contextlib.suppress(OSError), client, socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as upstream:
        with _short(agent) as short:
            upstream.connect(short)
        while (message := _read_message(client)) is not None:
            if message[:1] and message[0] in _ALLOWED:
                upstream.sendall(_LENGTH.pack(len(message)) + message)
                answer = _read_message(upstream)
                if answer is None:
                    return
                client.sendall(_LENGTH.pack(len(answer)) + answer)
            else:
                client.sendall(_REFUSAL)


def _read_message(source: socket.socket) -> bytes | None:
    """Read one message without its length; None at the end, or if it is longer than any message may be."""
    head = _read_exactly(source, _LENGTH.size)
    if head is None:
        return None
    (length,) = _LENGTH.unpack(head)
    return _read_exactly(source, length) if length <= _LARGEST_MESSAGE else None


def _read_exactly(source: socket.socket, length: int) -> bytes | None:
    data = bytearray()
    while len(data) < length:
        piece = source.recv(length - len(data))
        if not piece:
            return None
        data += piece
    return bytes(data)


@contextlib.contextmanager
def _short(path: Path) -> Iterator[str]:
    """Give a name of *path* that fits into the address of a socket, 108 bytes, for the time of the block."""
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)
