"""Steps with one user id that run Python: the host's, shown to them, for calls that no shell makes."""

from __future__ import annotations

from pathlib import Path

import pytest

PYTHON = "/usr/bin/python3"

PRELUDE = """
import ctypes, errno, os, stat, sys
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
AT_FDCWD, EMPTY, NOFOLLOW = -100, 0x1000, 0x100
def call(number, *arguments):
    wide = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    result = libc.syscall(ctypes.c_long(number), *wide)
    return errno.errorcode[ctypes.get_errno()] if result == -1 else result
def owner(path, **how):
    status = os.stat(path, **how)
    return f"{status.st_uid}:{status.st_gid}"
"""


@pytest.fixture
def run_python(run_steps, image: Path):
    """Return a function that runs Python source as a step with one id; the host's /usr is read-only below /usr."""
    if not Path(PYTHON).exists():
        pytest.skip(f"needs {PYTHON}")
    (image / "usr").mkdir(exist_ok=True)
    for name in ("lib", "lib64"):
        if not (image / name).exists():
            (image / name).symlink_to(f"usr/{name}")

    def run(source: str, **values) -> dict:
        step = {"args": [PYTHON, "-IBc", PRELUDE + source], "binds": [["/usr", "/usr", True]], **values}
        return run_steps(step, single_id=True)[0]

    return run
