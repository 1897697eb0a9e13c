"""The command line: argument parsing, progress rendering, error reports, one module a verb."""
