"""Blobs and image layouts on disk, and layer compression."""
