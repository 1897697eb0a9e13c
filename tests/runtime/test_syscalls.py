"""The wrappers of system calls."""

from __future__ import annotations

import errno
import os

import pytest

from runtime import syscalls
from runtime.errors import KernelError


def test_openat2_stays_in_root(tmp_path):
    """RESOLVE_IN_ROOT makes absolute links begin at the directory."""
    (tmp_path / "file").write_text("inside")
    (tmp_path / "link").symlink_to("/file")
    root = os.open(tmp_path, os.O_PATH)

    fd = syscalls.openat2(root, "link", os.O_RDONLY, 0, syscalls.RESOLVE_IN_ROOT)

    assert os.read(fd, 10) == b"inside"
    assert not os.get_inheritable(fd)
    os.close(fd)
    os.close(root)


def test_failure_names_call_and_subject():
    """A failed call is an OSError that says what failed on what."""
    with pytest.raises(KernelError, match=r"openat2 on `/none`: No such file or directory") as caught:
        syscalls.openat2(syscalls.AT_FDCWD, "/none", os.O_RDONLY)

    assert caught.value.errno == errno.ENOENT
    assert isinstance(caught.value, OSError)


def test_clone_without_flags_is_a_fork():
    """The child runs Python with the right thread id, and its status comes back."""
    pid = syscalls.clone(0)
    if pid == 0:
        os._exit(3 if syscalls._tid_address() else 4)

    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 3


def test_capget_reads_what_status_shows():
    """The masks are those of /proc/self/status."""
    with open("/proc/self/status", encoding="ascii") as file:
        shown = {line[:6]: int(line[7:], 16) for line in file if line.startswith("Cap")}

    assert syscalls.capget() == (shown["CapEff"], shown["CapPrm"], shown["CapInh"])
