"""Credentials: challenges, key chain, tokens."""
