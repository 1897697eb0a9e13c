"""Layers as tar streams: writing, reading, applying, reading changes from an overlay."""
