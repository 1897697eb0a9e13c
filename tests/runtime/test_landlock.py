from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from runtime import landlock
from tests.runtime.conftest import driver_environment

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(not landlock.version(), reason="needs Landlock")

_SCRIPT = """
import os, signal, stat, sys
import prctl
from runtime import landlock
inside, outside = sys.argv[1:3]
prctl.set_no_new_privs(1)
root = os.open(inside, os.O_PATH)
landlock.confine(root)
def attempt(name, call, *arguments):
    try:
        call(*arguments)
        print(name, "ok")
    except OSError as error:
        print(name, error.errno)
attempt("write inside", os.open, inside + "/new", os.O_WRONLY | os.O_CREAT)
attempt("rename inside", os.rename, inside + "/new", inside + "/d/new")
attempt("read outside", os.open, outside + "/file", os.O_RDONLY)
attempt("write outside", os.open, outside + "/new", os.O_WRONLY | os.O_CREAT)
attempt("remove outside", os.unlink, outside + "/file")
attempt("list outside", os.listdir, outside)
attempt("execute outside", os.execv, "/bin/true", ["true"])
attempt("signal own", os.kill, os.getpid(), 0)
attempt("signal parent", os.kill, os.getppid(), 0)
"""


def test_confined_process_has_its_tree_alone(tmp_path: Path):
    """Inside the tree everything works; outside nothing is opened, made, removed or run, and nobody is signalled."""
    for folder in ("inside/d", "outside"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "outside/file").write_text("")
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT, tmp_path / "inside", tmp_path / "outside"],
        capture_output=True,
        text=True,
        check=True,
        env=driver_environment(),
    )
    found = dict(line.rsplit(" ", 1) for line in done.stdout.splitlines())

    signals = {"signal parent": "1"} if landlock.version() >= landlock.VERSION_OF_SIGNALS else {}
    assert found | signals == found
    assert found == {
        "write inside": "ok",
        "rename inside": "ok",
        "read outside": "13",
        "write outside": "13",
        "remove outside": "13",
        "list outside": "13",
        "execute outside": "13",
        "signal own": "ok",
        "signal parent": found["signal parent"],
    }
