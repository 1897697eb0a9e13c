"""Run the body of a test as root of a user and mount namespace, in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_CHECKOUT = Path(__file__).parents[2]
_SCRIPT = """
import importlib, pathlib, sys
from runtime.namespace import run_in_namespace
body = getattr(importlib.import_module(sys.argv[2]), sys.argv[3])
def run():
    body(*map(pathlib.Path, sys.argv[4:]))
    return 0
sys.exit(run_in_namespace(run, ids="single" if sys.argv[1] == "single" else "best"))
"""


def run_inside(body: Callable[..., None], *arguments: Path, single_id: bool = False) -> None:
    """Call *body*, a function of a test module, with paths; fail with its traceback if it raises."""
    ids = "single" if single_id else "all"
    command = [sys.executable, "-c", _SCRIPT, ids, body.__module__, body.__name__, *map(str, arguments)]
    done = subprocess.run(command, cwd=_CHECKOUT, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
