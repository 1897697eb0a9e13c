"""The step cache: keys, records, the state database."""
