"""Files of targets: which are looked for, what kind one is, and all of them read.

Source: docker/buildx, bake/bake.go, defaultFilenames and ParseFiles.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final, NamedTuple

from builder.bake.definition import Definitions, Place, join_definitions
from builder.errors import BakeError, BakeFileError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from builder.bake.variables import Variables

DEFAULT_NAMES: Final = (
    "compose.yaml",
    "compose.yml",
    "docker-compose.yml",
    "docker-compose.yaml",
    "docker-bake.json",
    "docker-bake.hcl",
    "docker-bake.override.json",
    "docker-bake.override.hcl",
)
"""What is looked for, in this order; all that exist are read."""

LARGEST_FILE: Final = 4 << 20
"""Bytes of the largest file that is read."""


class DefinitionFile(NamedTuple):
    """One file: its *name* as the user calls it, and its bytes."""

    name: str
    data: bytes


def read_files(names: Sequence[str], cwd: Path, stdin: bytes | None) -> list[DefinitionFile]:
    """Read files of targets.

    Args:
        names: of the files, seen from *cwd*; without any, those of `DEFAULT_NAMES` that exist.
        cwd: the working directory.
        stdin: what `-` stands for.

    Raises:
        BakeError: there is none, or one cannot be read.
    """
    files: list[DefinitionFile] = []
    for name in names or DEFAULT_NAMES:
        if name == "-":
            files.append(DefinitionFile("on standard input", stdin or b""))
            continue
        try:
            files.append(DefinitionFile(f"`{name}`", _read(cwd / name)))
        except FileNotFoundError as error:
            if names:
                raise BakeFileError(
                    f"`{name}`", "no such file", hint="paths of --file start at the current folder"
                ) from error
        except OSError as error:
            raise BakeFileError(f"`{name}`", os.strerror(error.errno or 0).lower()) from error
    if not files:
        raise BakeError(
            "no file of targets in the current folder",
            hint=f"name one with --file, or add one of {', '.join(DEFAULT_NAMES[:6])}",
        )
    return files


def _read(path: Path) -> bytes:
    with open(path, "rb") as file:
        data = file.read(LARGEST_FILE + 1)
    if len(data) > LARGEST_FILE:
        raise BakeFileError(f"`{path.name}`", f"larger than {LARGEST_FILE} bytes")
    return data


def read_definitions(files: Sequence[DefinitionFile], variables: Variables) -> Definitions:
    """Read what files define: first compose files, then bake files, each in their order; the later counts more.

    Raises:
        BakeFileError: one cannot be read, or says what cannot be.
    """
    compose: list[Definitions] = []
    bake: list[DefinitionFile] = []
    for file in files:
        if is_compose(file):
            from builder.bake.compose import read_compose  # noqa: PLC0415  (only with a compose file)

            compose.append(read_compose(file.data, Place(file.name), variables.environ))
        else:
            bake.append(file)
    if not bake:
        return join_definitions(compose)
    from builder.bake.bake_file import read_bake_files  # noqa: PLC0415  (only with a bake file)

    return join_definitions((*compose, read_bake_files(bake, variables)))


def is_compose(file: DefinitionFile) -> bool:
    """Tell whether a file is a compose file: by its name, else by whether it can be anything else."""
    name = file.name.strip("`").lower()
    if name.endswith((".yml", ".yaml")):
        return True
    return not name.endswith((".json", ".hcl")) and not is_json(file) and b"services:" in file.data


def is_json(file: DefinitionFile) -> bool:
    """Tell whether a bake file is written in JSON, and not in HCL."""
    name = file.name.strip("`").lower()
    if name.endswith((".json", ".hcl")):
        return name.endswith(".json")
    return file.data.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{")


def find_dotenv(cwd: Path, environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variables of the `.env` file in *cwd*; none without one.

    Raises:
        BakeFileError: it cannot be read.
    """
    from builder.bake.variables import SubstitutionError, parse_dotenv  # noqa: PLC0415  (only for a bake)

    try:
        text = _read(cwd / ".env").decode("utf-8", "surrogateescape")
        return parse_dotenv(text, environ)
    except (FileNotFoundError, IsADirectoryError):
        return {}
    except OSError as error:
        raise BakeFileError("`.env`", os.strerror(error.errno or 0).lower()) from error
    except SubstitutionError as error:
        raise BakeFileError("`.env`", error.reason) from error
