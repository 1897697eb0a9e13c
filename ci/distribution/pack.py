"""Make one file of the project and everything it depends on.

The file is a zip behind a `#!` line, so the interpreter runs `__main__` in it:

    __main__.py, distribution/      what finds or makes the folder of modules: `start` and `unpack`
    modules.zip                     builder, runtime, registry and all they import

Modules are compiled, and their source is left out; nothing is compared with it or written at a start. Dependencies are
taken as they are installed in the environment that runs this. The same input gives the same bytes.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import io
import marshal
import sys
import time
import tomllib
import zipfile
from pathlib import Path, PurePosixPath
from string import Template
from typing import TYPE_CHECKING

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from distribution.unpack import EXIT_UNSUPPORTED, PAYLOAD

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

PACKAGES = ("builder", "registry", "runtime")
UNUSED_SUFFIXES = frozenset({".c", ".h", ".md", ".pxd", ".pyc", ".pyi", ".pyx", ".typed"})
"""Files of packages that nothing reads when they run."""

UNUSED_PARTS = ("markdown_it/", "mdurl/", "pycparser/", "pygments/", "zstandard/_cffi.", "zstandard/backend_cffi.")
"""Parts of dependencies that are for what pybuild does not do: rich's code and Markdown, zstandard on other Pythons."""

_PYC_UNCHECKED_HASH = (0b01).to_bytes(4, "little")
"""The flags of a module that is never compared with its source. Source: PEP 552."""

_MAIN = Template("""\
import sys

found = "{} {}".format(sys.implementation.cache_tag, getattr(sys.implementation, "_multiarch", sys.platform))
if found != "$interpreter":
    text = "pybuild: error: this file needs $interpreter, and `{}` is {}\\n\\nhint: start it as `$python FILE`\\n"
    sys.stderr.write(text.format(sys.executable, found))
    sys.exit($status)
from distribution.start import start

start("$name")
""")
"""What the interpreter runs: source, because another version of Python reads no compiled module."""

_HERE = Path(__file__).parent
_BOOTSTRAP = ("__init__.py", "start.py", "unpack.py")
_EARLIEST = 315532800  # 1980-01-01, which is as early as a zip can say


def write_file(project: Path, output: Path, *, epoch: int) -> None:
    """Write the file that starts the checkout *project*; it is executable, and in its place only when complete.

    Args:
        project: with pyproject.toml and the packages.
        output: where to; an existing file is replaced.
        epoch: the time of everything in it, in seconds.

    It starts with `-I` and `-S`: no variable and no other package of the machine gets in, and 5 ms are saved.
    """
    with open(project / "pyproject.toml", "rb") as file:
        settings = tomllib.load(file)["project"]
    payload = _zip({**_project_files(project), **_dependency_files(settings["dependencies"])}, epoch, compress=True)
    name = f"{settings['version']}-{hashlib.sha256(payload).hexdigest()[:32]}"
    python = f"python{sys.version_info.major}.{sys.version_info.minor}"
    main = _MAIN.substitute(interpreter=_describe_interpreter(), python=python, status=EXIT_UNSUPPORTED, name=name)
    bootstrap = {
        "__main__.py": main.encode(),
        **dict(_ready(f"distribution/{name}", (_HERE / name).read_bytes()) for name in _BOOTSTRAP),
        PAYLOAD: payload,
    }
    shebang = f"#!/usr/bin/{python} -IS\n".encode()
    partial = output.with_name(f".{output.name}.new")
    partial.write_bytes(shebang + _zip(bootstrap, epoch, compress=False))
    partial.chmod(0o755)
    partial.rename(output)


def _describe_interpreter() -> str:
    """Name what compiled modules depend on: language version, architecture, C library."""
    return f"{sys.implementation.cache_tag} {getattr(sys.implementation, '_multiarch', sys.platform)}"


def _project_files(project: Path) -> dict[str, bytes]:
    return dict(
        _ready(path.relative_to(project).as_posix(), path.read_bytes())
        for package in PACKAGES
        for path in sorted((project / package).rglob("*"))
        if path.is_file() and path.suffix not in UNUSED_SUFFIXES
    ) | {"pybuild.licenses/LICENSE": (project / "LICENSE").read_bytes()}


def _dependency_files(requirements: Iterable[str]) -> dict[str, bytes]:
    files: dict[str, bytes] = {}
    for found in _closure(requirements):
        for path in found.files or ():
            if _is_used(path):
                name, data = _ready(path.as_posix(), Path(str(path.locate())).read_bytes())
                files[name] = data
    return files


def _closure(requirements: Iterable[str]) -> list[importlib.metadata.Distribution]:
    """Find the installed distributions that are required, and those that these require."""
    found: dict[str, importlib.metadata.Distribution] = {}
    left = [Requirement(text) for text in requirements]
    while left:
        requirement = left.pop()
        name = canonicalize_name(requirement.name)
        if name not in found and (requirement.marker is None or requirement.marker.evaluate({"extra": ""})):
            found[name] = importlib.metadata.distribution(name)
            left += [Requirement(text) for text in found[name].requires or ()]
    return [found[name] for name in sorted(found)]


def _is_used(path: PurePosixPath) -> bool:
    """Tell whether a file of a distribution is needed; of what describes it, that are its name and its licences."""
    if ".." in path.parts or "__pycache__" in path.parts:
        return False
    if path.parts[0].endswith((".dist-info", ".egg-info")):
        return path.name == "METADATA" or "licen" in str(path).lower() or "notice" in str(path).lower()
    return path.suffix not in UNUSED_SUFFIXES and not str(path).startswith(UNUSED_PARTS)


def _ready(name: str, data: bytes) -> tuple[str, bytes]:
    if name.endswith(".py"):
        return f"{name}c", _compile(data, name)
    return name, data


def _compile(source: bytes, name: str) -> bytes:
    """Compile a module as a `.pyc` that is used without its source.

    What marshal writes depends on how often the process uses a string; after reading it back that is the same always.
    """
    code = compile(source, name, "exec", dont_inherit=True, optimize=0)
    settled = marshal.dumps(marshal.loads(marshal.dumps(code)))
    magic = importlib.util.MAGIC_NUMBER
    return magic + _PYC_UNCHECKED_HASH + importlib.util.source_hash(source) + settled


def _zip(files: Mapping[str, bytes], epoch: int, *, compress: bool) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        for name in sorted(files):
            entry = zipfile.ZipInfo(name, time.gmtime(max(epoch, _EARLIEST))[:6])
            entry.external_attr = 0o100644 << 16
            entry.compress_type = zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED
            archive.writestr(entry, files[name])
    return target.getvalue()
