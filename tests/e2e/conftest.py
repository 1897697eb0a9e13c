"""The command as users run it: as an unprivileged user with its own root, beside base images made on this machine.

Run by root, the tests start the command as the users that `ci/setup` makes: `pybuild-ci` has a range of sub-ids,
`pybuild-ci-nosubid` has none. Run by anyone else they start it as oneself.
"""

from __future__ import annotations

import compileall
import contextlib
import os
import pwd
import secrets
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import builder
from tests.e2e.command import Account, Pybuild

if TYPE_CHECKING:
    from collections.abc import Iterator

CHECKOUT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def packages() -> Iterator[Path]:
    """Return the folder with the packages under test, readable by every user.

    They are what `import builder` finds here: those of the wheel in the environment, or the checkout's when it comes
    first on the path, which are copied since other users may not be able to read them.
    """
    found = Path(builder.__file__).parents[1]
    if found != CHECKOUT:
        yield found
        return
    copy = Path(tempfile.mkdtemp(prefix="pybuild-code-"))
    copy.chmod(0o755)
    for name in ("builder", "runtime", "registry"):
        shutil.copytree(found / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    compileall.compile_dir(copy, quiet=1)
    yield copy
    shutil.rmtree(copy)


@pytest.fixture(scope="session")
def program(packages: Path) -> tuple[str, ...]:
    """Return the arguments that start the code under test: the environment's own command where that has it."""
    command = Path(sys.executable).with_name("pybuild")
    if packages == Path(builder.__file__).parents[1] and command.exists():
        return (str(command),)
    start = f"import sys; sys.path.insert(0, {str(packages)!r}); from builder.cli.main import run; sys.exit(run())"
    return (sys.executable, "-c", start)


@pytest.fixture(scope="session")
def user() -> Account:
    """Return the unprivileged user: with a range of sub-ids where tests run as root, else oneself."""
    if os.geteuid() == 0:
        return _find_account("pybuild-ci")
    return Account.of(pwd.getpwuid(os.geteuid()))


@pytest.fixture
def pybuild(program: tuple[str, ...], user: Account) -> Iterator[Pybuild]:
    """Return the command as the unprivileged user, with an empty root and a folder for contexts."""
    with place(program, user) as command:
        yield command


@pytest.fixture(params=["user", "user-without-sub-ids", "root"])
def pybuild_of_each(request: pytest.FixtureRequest, program: tuple[str, ...], user: Account) -> Iterator[Pybuild]:
    """Return the command as each kind of user in turn."""
    account = user
    if request.param != "user":
        if os.geteuid() != 0:
            pytest.skip("needs root to become other users")
        account = _find_account({"root": "root", "user-without-sub-ids": "pybuild-ci-nosubid"}[request.param])
    with place(program, account) as command:
        yield command


@pytest.fixture(scope="session")
def busybox_archive() -> Path:
    """Return a root file system with Debian's busybox-static as a tar that every user may read."""
    return _make_base("busybox-base", "busybox-static")


@pytest.fixture(scope="session")
def debian_archive() -> Path:
    """Return a root file system of Debian as a tar that every user may read; it takes half a minute to make."""
    return _make_base("debian-base", "Debian's packages")


@pytest.fixture
def with_busybox(pybuild: Pybuild, busybox_archive: Path) -> Pybuild:
    """Return the command of the unprivileged user with the image `busybox` in its root."""
    pybuild("import", str(busybox_archive), "busybox")
    return pybuild


def _make_base(name: str, needed: str) -> Path:
    """Return the archive that ci/setup makes once for a machine."""
    command = [str(CHECKOUT / "ci" / "setup"), name]
    done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    if done.returncode:
        pytest.skip(f"needs {needed}: {' '.join(done.stderr.splitlines()[-1:])}")
    return Path(done.stdout.strip())


def _find_account(name: str) -> Account:
    try:
        return Account.of(pwd.getpwnam(name))
    except KeyError:
        pytest.skip(f"needs the user {name}, which ci/setup makes")


@contextlib.contextmanager
def place(program: tuple[str, ...], account: Account) -> Iterator[Pybuild]:
    """Make a folder that *account* owns, and remove it with what other ids own in it."""
    # podman makes an image name of the path of a layout, so it may not end in an underscore as mkdtemp's do.
    folder = Path("/var/tmp", f"pybuild-e2e-{secrets.token_hex(6)}")
    folder.mkdir(mode=0o700)
    if os.geteuid() == 0:
        os.chown(folder, account.uid, account.gid)
    command = Pybuild(program=program, account=account, folder=folder)
    try:
        yield command
    finally:
        command.remove()
