"""Answering the calls of a step about owners and ids, where only one user id exists."""
