"""Run the command line and tell which modules it loaded, and who asked for each first.

    python -I record_imports.py FOLDER RESULT WORD…

FOLDER holds the packages; RESULT becomes a JSON object of module to `MODULE:LINE` of the import.
"""

from __future__ import annotations

import json
import sys

BEFORE = frozenset(sys.modules)


class Recorder:
    """The first finder of all: finds nothing, and notes what is looked for."""

    def __init__(self) -> None:
        self.importers: dict[str, str] = {}

    def find_spec(self, name: str, *_: object) -> None:
        frame = sys._getframe(1)
        while frame.f_back is not None and "importlib" in frame.f_code.co_filename:
            frame = frame.f_back
        self.importers.setdefault(name, f"{frame.f_globals.get('__name__')}:{frame.f_lineno}")


def main() -> int:
    """Run and tell."""
    folder, result, *words = sys.argv[1:]
    recorder = Recorder()
    sys.meta_path.insert(0, recorder)
    sys.path.insert(0, folder)
    sys.argv = ["pybuild", *words]
    try:
        from builder.cli.main import run  # noqa: PLC0415  what is measured

        run()
    finally:
        loaded = {name: recorder.importers.get(name, "?") for name in sys.modules if name not in BEFORE}
        with open(result, "w", encoding="utf-8") as file:
            json.dump(loaded, file)


if __name__ == "__main__":
    sys.exit(main())
