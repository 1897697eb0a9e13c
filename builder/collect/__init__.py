"""Keeping the store in bounds: what it holds, what may go, and removing it beside running builds."""
