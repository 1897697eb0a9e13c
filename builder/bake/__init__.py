"""Builds from a file of targets: what compose files and bake files ask for. Knows nothing of the command line."""
