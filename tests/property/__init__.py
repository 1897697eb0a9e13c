"""Laws that hold for any input, checked with random ones."""
