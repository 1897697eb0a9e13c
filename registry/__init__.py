"""The content side: OCI values, blobs, registries over HTTP."""

__version__ = "0.1.0"
