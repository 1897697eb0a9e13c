"""Make the one-file form of pybuild. Run through ci/dist, which sets everything up."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from distribution.pack import write_file


def main() -> int:
    """Write the file that the second argument names, of the checkout that the first one names."""
    project, output = sys.argv[1:]
    write_file(Path(project), Path(output), epoch=int(os.environ.get("SOURCE_DATE_EPOCH") or 0))
    return 0


if __name__ == "__main__":
    sys.exit(main())
