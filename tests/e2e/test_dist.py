"""The one-file form of the command, which ci/dist makes: what is in it, where it unpacks, and that it builds."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from builder import __version__
from tests.e2e.command import PATIENCE
from tests.e2e.test_hello import EXAMPLE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.e2e.command import Account, Pybuild

CHECKOUT = Path(__file__).parents[2]
VERSION = f"pybuild {__version__}\n"
HOSTILE = "raise SystemExit('hostile')\n"


def _make(file: Path, **variables: str) -> bytes:
    command = [sys.executable, "-m", "distribution", str(CHECKOUT), str(file)]
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT / "ci"), "PYTHONDONTWRITEBYTECODE": "1", **variables}
    subprocess.run(command, env=environment, check=True, timeout=PATIENCE)
    return file.read_bytes()


@pytest.fixture(scope="session")
def file() -> Iterator[Path]:
    """Return the file, made of the checkout, where every user may start it."""
    folder = Path(tempfile.mkdtemp(prefix="pybuild-dist-"))
    folder.chmod(0o755)
    _make(folder / "pybuild", PYTHONHASHSEED="1")
    yield folder / "pybuild"
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def program(file: Path) -> tuple[str, ...]:
    """Have the fixtures that give a command give this file."""
    return (str(file),)


@pytest.fixture(scope="module")
def unpacked(program: tuple[str, ...], user: Account) -> Iterator[Pybuild]:
    """Return the command of a user without a home, unpacked into the folder for temporary files beside old versions."""
    from tests.e2e.conftest import place  # noqa: PLC0415  a conftest is not imported at the top of a module

    with place(program, user) as pybuild:
        pybuild.context({"0.0.1-old/a": "", "0.0.2-new/a": "", ".new-left/a": ""}, f"tmp/{_private_name(pybuild)}")
        (pybuild.folder / "tmp").chmod(0o1777)
        temporary = pybuild.folder / "tmp"
        homeless = replace(pybuild, variables={"HOME": "/nonexistent", "TMPDIR": str(temporary)})
        for name in ("0.0.1-old", ".new-left"):
            os.utime(_place(homeless) / name, (0, 0))
        assert homeless("--version").out == VERSION
        yield homeless


def _private_name(pybuild: Pybuild) -> str:
    return f"pybuild-program-{pybuild.account.uid}"


def _place(homeless: Pybuild) -> Path:
    return Path(homeless.variables["TMPDIR"], _private_name(homeless))


def _modules(homeless: Pybuild) -> Path:
    """Return the folder of modules."""
    (folder,) = (path for path in _place(homeless).iterdir() if path.name.startswith(f"{__version__}-"))
    return folder


def test_dist_is_the_same_each_time(file: Path, tmp_path: Path) -> None:
    """Two runs give the same bytes, whatever the order in which Python hashes."""
    assert _make(tmp_path / "pybuild", PYTHONHASHSEED="2") == file.read_bytes()


@pytest.mark.userns
def test_dist_builds_and_runs_hello(pybuild_of_each: Pybuild, busybox_archive: Path) -> None:
    """Steps run, with sub-ids, without, and as root: nothing is loaded once a step is in its own root."""
    pybuild = pybuild_of_each
    pybuild("import", str(busybox_archive), "busybox")

    pybuild("--context", pybuild.context(EXAMPLE), "--tag", "myhelloworld:1.0")

    assert pybuild("run", "myhelloworld:1.0", "Alice").out == "Hello Alice\n"


def test_dist_has_everything_that_is_imported_late(unpacked: Pybuild) -> None:
    """All modules of the project, and what they use of others, can be loaded from the folder, which has no source."""
    folder = _modules(unpacked)
    script = (
        f"import importlib, pkgutil, sys; sys.path.insert(0, {str(folder)!r})\n"
        "import certifi, cryptography.x509, isal.igzip_threaded, prctl, pyroute2, requests, rich.live, yaml, zstandard\n"
        "from rich.console import Console\n"
        "with rich.live.Live('[bold]text', console=Console(force_terminal=True)) as live:\n"
        "    live.refresh()\n"
        "open(certifi.where()).close()\n"
        "for name in ('builder', 'registry', 'runtime'):\n"
        "    for module in pkgutil.walk_packages(importlib.import_module(name).__path__, name + '.'):\n"
        "        importlib.import_module(module.name)\n"
        f"assert all(m.__file__.startswith({str(folder)!r}) for m in (cryptography, prctl, requests, rich, yaml))\n"
    )

    unpacked.run_other(sys.executable, "-IS", "-c", script)

    assert not list(folder.rglob("*.py"))


def test_dist_unpacks_once_for_its_user_alone(unpacked: Pybuild) -> None:
    """The second start uses what the first has made, which others cannot read."""
    before = _modules(unpacked).stat()

    assert unpacked("--version").out == VERSION
    assert _modules(unpacked).stat().st_ino == before.st_ino
    assert before.st_mode & 0o777 == 0o700


def test_dist_removes_what_is_not_used_any_more(unpacked: Pybuild) -> None:
    """A new version removes one that was not used for months, and what a killed process has left; not a recent one."""
    names = {path.name for path in _place(unpacked).iterdir()}

    assert names == {"0.0.2-new", _modules(unpacked).name}


def test_dist_prefers_the_cache_of_its_user(pybuild: Pybuild) -> None:
    """Several processes unpack into the home at once; they do not disturb each other, and leave one private folder."""
    processes = [pybuild.start("--version") for _ in range(3)]
    outputs = [process.communicate(timeout=PATIENCE) for process in processes]

    place = pybuild.folder / ".cache" / "pybuild" / "program"
    assert outputs == [(VERSION.encode(), b"")] * 3
    assert len(list(place.iterdir())) == 1
    assert place.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("weakness", ["writable", "writable above", "of another user", "link to another user's"])
def test_dist_runs_nothing_from_a_folder_of_others(unpacked: Pybuild, weakness: str, tmp_path: Path) -> None:
    """A folder with the right name that someone else could have made is passed by, hostile code and all."""
    cache = unpacked.folder / f"cache-{tmp_path.name}"
    planted = cache / "pybuild" / "program"
    name = f"{cache.name}/pybuild/program/{_modules(unpacked).name}"
    unpacked.context({"builder/__init__.py": "", "builder/cli/__init__.py": "", "builder/cli/main.py": HOSTILE}, name)
    command = replace(unpacked, variables={**unpacked.variables, "XDG_CACHE_HOME": str(cache)})
    assert command("--version", status=1).err == "hostile\n"
    match weakness:
        case "writable":
            (planted / _modules(unpacked).name).chmod(0o777)
        case "writable above":
            cache.chmod(0o777)
        case _ if os.geteuid() != 0:
            pytest.skip("needs root to give files to other users")
        case "of another user":
            _give_away(planted)
        case _:
            planted.rename(cache / "theirs")
            _give_away(cache / "theirs")
            planted.symlink_to(cache / "theirs")

    assert command("--version").out == VERSION


def test_dist_listens_to_nothing_but_its_own_modules(unpacked: Pybuild) -> None:
    """Neither the current folder, which may be a hostile context, nor variables of Python bring in modules."""
    hostile = {"builder/__init__.py": HOSTILE, "argparse.py": HOSTILE, "sitecustomize.py": HOSTILE}
    folder = unpacked.context(hostile, ".")

    assert replace(unpacked, variables={**unpacked.variables, "PYTHONPATH": folder})("--version").out == VERSION


def test_dist_that_cannot_unpack_says_where_it_tried(pybuild: Pybuild) -> None:
    """Where no file can be written the message has each place with its reason; status 4."""
    limited = replace(pybuild, program=("/bin/sh", "-c", 'ulimit -f 0; exec "$0" "$@"', *pybuild.program))

    done = limited("--version", status=4)

    home = pybuild.folder / ".cache" / "pybuild" / "program"
    assert done.out == ""
    assert done.err.startswith(f"pybuild: error: there is no folder to unpack into: {home} (File too large), ")
    assert "\n\nhint: set XDG_CACHE_HOME to " in done.err
    for folder in ("/tmp", "/var/tmp"):
        with contextlib.suppress(OSError):  # it is not empty where someone uses this very form
            Path(folder, _private_name(pybuild)).rmdir()


def test_dist_of_another_interpreter_says_which_it_needs(pybuild: Pybuild) -> None:
    """Compiled modules fit one version of Python; with another one the message names both. Status 4."""
    (file,) = pybuild.program
    script = f"import runpy, sys; sys.implementation.cache_tag = 'cpython-42'; runpy.run_path({file!r})"
    other = replace(pybuild, program=(sys.executable, "-c", script))

    done = other(status=4)

    assert done.err.startswith(f"pybuild: error: this file needs cpython-3{sys.version_info.minor} ")
    assert "is cpython-42 " in done.err


def _give_away(folder: Path) -> None:
    for path in (folder, *folder.rglob("*")):
        os.chown(path, 12345, 12345)
