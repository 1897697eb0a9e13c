"""The terminal that a command is given: whom its keys reach, and that it comes back as it was.

What Ctrl-C and Ctrl-Z send goes to all processes of one group, the *foreground* of the terminal. A command that
shares the group of the builder would share these with it; so a command that is given the terminal is given its
foreground, too.

Source: termios(3), tcsetpgrp(3), credentials(7).
"""

from __future__ import annotations

import contextlib
import os
import signal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextlib.contextmanager
def kept(fd: int) -> Iterator[bool]:
    """Give the terminal *fd* its modes and its foreground back when the block ends, if it is this process's to give.

    Only in the PID namespace of who started this process, since groups of others have no number there.

    Yields:
        Whether it is: a terminal, which this process's session has and this process's group is the foreground of.
    """
    import termios  # noqa: PLC0415 - most commands are given no terminal

    modes = None
    with contextlib.suppress(OSError, termios.error):
        if os.tcgetpgrp(fd) == os.getpgrp():
            modes = termios.tcgetattr(fd)
    if modes is None:
        yield False
        return
    try:
        yield True
    finally:
        with contextlib.suppress(OSError, termios.error):  # it has been hung up
            _put_in_foreground(fd)
            termios.tcsetattr(fd, termios.TCSANOW, modes)


def take(fd: int) -> None:
    """Make this process a group of its own, and that group the foreground of the terminal *fd* of its session.

    Raises:
        OSError: it is no such terminal.
    """
    os.setpgid(0, 0)
    _put_in_foreground(fd)


def _put_in_foreground(fd: int) -> None:
    """Make the group of this process the foreground, for which a process outside of that is stopped if it listens."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTTOU})
    try:
        os.tcsetpgrp(fd, os.getpgrp())
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
