"""What the tests of sandboxed steps share: a small image, and a driver process that runs steps in it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

_CHECKOUT = Path(__file__).parents[2]
_BUSYBOX = Path("/bin/busybox")
PRELUDE = """
import json, os, sys, threading
from pathlib import Path
from runtime.errors import HostUnsupportedError, SandboxError
from runtime.namespace import run_in_namespace
base, image = Path(sys.argv[1]), Path(sys.argv[2])
def spec(name, *args, **values):
    from runtime.spec import SandboxSpec
    upper, work = base / name / 'u', base / name / 'w'
    upper.mkdir(parents=True); work.mkdir()
    return SandboxSpec(args=args, environ=(('PATH', '/bin'),), lowers=(image,), upper=upper, work=work, hosts=b'',
                       resolv_conf=b'', **values)
def inside():
    from runtime.zygote import Zygote
    with Zygote() as zygote:
        body(zygote)
    return 0
"""
END = """
try:
    sys.exit(run_in_namespace(inside, ids=sys.argv[3] if len(sys.argv) > 3 else "best"))
except HostUnsupportedError as error:
    sys.exit('unsupported: ' + error.message)
"""
PASSWD = "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1001:App:/home/app:/bin/sh\nlost:x:2000:2000::/:/bin/sh\n"
GROUP = "root:x:0:\napp:x:1001:\nwheel:x:10:root,app\ndocker:x:999:app\n"


_HIDING_PROC = (
    "unshare",
    "--mount",
    "sh",
    "-c",
    'mount -t tmpfs none /proc/acpi 2>/dev/null || mount --bind /dev/null /proc/version; exec "$@"',
    "sh",
)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """Return a root file system of busybox, passwd and group, without any directory to mount on."""
    if not _BUSYBOX.exists():
        pytest.skip("busybox-static is not installed")
    root = tmp_path / "image"
    for directory in ("bin", "etc", "tmp", "home/app"):
        (root / directory).mkdir(parents=True)
    shutil.copy(_BUSYBOX, root / "bin/busybox")
    names = subprocess.run([_BUSYBOX, "--list"], capture_output=True, text=True, check=True).stdout.split()
    for name in names:
        if name != "busybox":
            (root / "bin" / name).symlink_to("busybox")
    (root / "etc/passwd").write_text(PASSWD)
    (root / "etc/group").write_text(GROUP)
    return root


def driver_command() -> list[str]:
    """Return the command that starts the driver."""
    return [sys.executable, "-m", "tests.runtime.step_driver"]


def driver_environment() -> dict[str, str]:
    """Return an environment in which child processes import this checkout."""
    return {**os.environ, "PYTHONPATH": str(_CHECKOUT), "PYTHONDONTWRITEBYTECODE": "1"}


@pytest.fixture
def run_steps(tmp_path: Path, image: Path):
    """Return a function that runs steps one after the other inside one namespace, each on a fresh upper directory.

    Stacked steps see the changes of those before. With the outer /proc partly hidden the kernel refuses a fresh one.
    """

    def run(*steps: dict, single_id: bool = False, stacked: bool = False, hidden_proc: bool = False) -> list[dict]:
        request = {
            "image": str(image),
            "scratch": str(tmp_path),
            "single_id": single_id,
            "steps": steps,
            "stacked": stacked,
        }
        done = subprocess.run(
            [*(_HIDING_PROC if hidden_proc else ()), *driver_command()],
            input=json.dumps(request),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env=driver_environment(),
        )
        if done.returncode == 4:
            pytest.skip(done.stderr.strip())
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run


@pytest.fixture
def run_step(run_steps):
    """Return a function that runs one shell script as a step."""

    def run(script: str, *, single_id: bool = False, **values) -> dict:
        return run_steps({"args": ["/bin/sh", "-c", script], **values}, single_id=single_id)[0]

    return run


@pytest.fixture
def run_body(tmp_path, image):
    """Return a function that runs the source of `body(zygote)` inside and returns what it printed."""

    def run(source: str, *, single_id: bool = False) -> str:
        lines = "\n".join(f"    {line}" for line in source.splitlines())
        program = f"{PRELUDE}\ndef body(zygote):\n{lines}\n{END}"
        command = [sys.executable, "-c", program, str(tmp_path), str(image), "single" if single_id else "best"]
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
            env=driver_environment(),
        )
        if done.stderr.startswith("unsupported"):
            pytest.skip(done.stderr.strip())
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run
