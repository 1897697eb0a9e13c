"""What each kind of vertex does."""
