"""The command on a terminal of its own, for what only happens there."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import select
import subprocess
import termios
import time
from typing import TYPE_CHECKING, Self

from tests.e2e.command import PATIENCE

if TYPE_CHECKING:
    from tests.e2e.command import Pybuild

READ_SIZE = 1 << 16
INTERRUPT = "\x03"
"""What Ctrl-C sends."""

END = "\x04"
"""What Ctrl-D sends."""

SLEEP = "sh -c \"echo beg''un; exec sleep 4242\"\n"
"""A command that says when it can be interrupted, not when it is typed."""

_SEQUENCE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\r")


class Terminal:
    """A running command whose session has a terminal; all three streams are that. End the block and it is killed.

    Args:
        pybuild: the command.
        arguments: of it.
        stdout: where standard output goes instead.
        variables: further ones of its environment.
    """

    def __init__(self, pybuild: Pybuild, *arguments: str, stdout: int | None = None, **variables: str) -> None:
        self.master, slave = os.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, b"\x18\x00\x78\x00\x00\x00\x00\x00")  # 24 lines of 120 columns
        self.process = subprocess.Popen(
            [*pybuild.program, *arguments],
            stdin=slave,
            stdout=slave if stdout is None else stdout,
            stderr=slave,
            cwd=pybuild.folder,
            env={**pybuild.environment(), "TERM": "xterm", **variables},
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509 - nothing else makes it theirs
            **pybuild.identity(),
        )
        self.slave = slave
        self.text = ""
        self._seen = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.slave)
        os.close(self.master)

    def expect(self, text: str) -> str:
        """Read until *text* has come after all that was expected before; return what stood between."""
        deadline = time.monotonic() + PATIENCE
        while (found := self.text.find(text, self._seen)) < 0:
            self._read(deadline, text)
        before, self._seen = self.text[self._seen : found], found + len(text)
        return before

    def send(self, text: str) -> None:
        """Type *text*."""
        os.write(self.master, text.encode())

    def ask(self, command: str) -> str:
        """Type a command for a shell, and return what it writes."""
        # Put together by the shell, so that what the terminal echoes is not taken for the output.
        self.send(f"echo '<'\"<\"; {command}; echo '>'\">\"\n")
        self.expect("<<\n")
        return self.expect(">>\n")

    def end(self) -> int:
        """Wait for the command to end, read all that is left, and return the exit status."""
        deadline = time.monotonic() + PATIENCE
        while self.process.poll() is None:
            self._read(deadline, "the end")
        with contextlib.suppress(BlockingIOError):
            os.set_blocking(self.master, False)
            while True:
                self._take(os.read(self.master, READ_SIZE))
        return self.process.returncode

    @property
    def rest(self) -> str:
        """What came after all that was expected."""
        return self.text[self._seen :]

    def _read(self, deadline: float, wanted: str) -> None:
        ready, _, _ = select.select([self.master], [], [], 0.1)
        if ready:
            try:
                self._take(os.read(self.master, READ_SIZE))
            except OSError as error:
                if error.errno != errno.EIO:
                    raise
        elif time.monotonic() > deadline:
            raise AssertionError(f"no `{wanted}` came: {self.text}")

    def _take(self, data: bytes) -> None:
        self.text = _SEQUENCE.sub("", self.text + data.decode(errors="replace"))
