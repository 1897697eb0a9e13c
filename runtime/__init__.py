"""The kernel side: namespaces, mounts, processes, snapshots, layer tars."""

__version__ = "0.1.0"
