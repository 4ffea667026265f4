"""Forgeries of our own, with exact masks."""
