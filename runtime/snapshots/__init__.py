"""Snapshots: file system states on overlayfs."""
