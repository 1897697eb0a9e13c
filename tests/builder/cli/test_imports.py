"""The budget of imports: what a start may load, as data in imports.json.

Each *run* has the words of a command line, the modules of the project that it loads, all of them, and those of others
that it must not load besides those that no run may. An import is the larger part of what a quick command costs. When a
test fails for a good reason, its message says what to write into the file.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import builder

FOLDER = Path(builder.__file__).parents[1]
RECORDER = Path(__file__).with_name("record_imports.py")
BUDGET = json.loads(Path(__file__).with_name("imports.json").read_text(encoding="utf-8"))
RUNS = {run["name"]: run for run in BUDGET["runs"]}
STEPS = 30
OURS = ("builder", "registry", "runtime")


def _load(place: Path, *words: str) -> dict[str, str]:
    """Run a command line to its end; return what it loaded, with who imported it."""
    result = place / "loaded.json"
    command = [sys.executable, "-I", str(RECORDER), str(FOLDER), str(result), "--root", str(place / "root"), *words]
    subprocess.run(command, check=True, cwd=place, capture_output=True, timeout=60)
    return json.loads(result.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a store, which has the images of the builds that are to be cached."""
    folder = tmp_path_factory.mktemp("imports")
    (folder / "context").mkdir()
    (folder / "context" / "file").write_text("content")
    for name, step in (("Dockerfile", "COPY file /{}\n"), ("Directories", "WORKDIR /{}\n")):
        steps = "".join(step.format(number) for number in range(STEPS))
        (folder / "context" / name).write_text(f"FROM scratch\n{steps}")
    for run in ("cached build", "cached build that copies nothing"):
        _load(folder, *RUNS[run]["words"])
    return folder


@pytest.mark.parametrize("name", RUNS)
def test_start_loads_no_other_module_of_ours(place: Path, name: str) -> None:
    """What a run needs of the project is listed; a new import is found with who does it, an old one goes."""
    loaded = {module: by for module, by in _load(place, *RUNS[name]["words"]).items() if module.split(".")[0] in OURS}
    listed = set(RUNS[name]["modules"])

    added = {module: f"imported by {by}" for module, by in loaded.items() if module not in listed}
    assert not added, "import it in the function that needs it; if every such run does, list it in imports.json"
    assert not listed - set(loaded), "no longer loaded: take it out of imports.json"


@pytest.mark.parametrize("name", RUNS)
def test_start_loads_nothing_slow(place: Path, name: str) -> None:
    """No HTTP, no live view, no cryptography, no process, nothing else that a run has no use for."""
    forbidden = {*BUDGET["never"], *RUNS[name]["never"]}
    loaded = _load(place, *RUNS[name]["words"])

    found = {module: f"imported by {loaded[module]}" for module in sorted(forbidden & set(loaded))}
    assert not found
