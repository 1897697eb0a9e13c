"""The command line: argument parsing, progress rendering, error reports, one module a verb."""

import gc

GC_THRESHOLD = 100_000
"""Objects made before the collector looks for cycles: starts and contexts make many objects at once and hardly a cycle."""

# Here, because the imports that follow are most of a quick command: 2 ms of each start.
gc.set_threshold(GC_THRESHOLD)
