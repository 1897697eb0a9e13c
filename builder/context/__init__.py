"""Build contexts: ignore patterns, walking, content digests."""
