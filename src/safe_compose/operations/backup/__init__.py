"""Backups: made before a deletion or by hand, and verified."""
