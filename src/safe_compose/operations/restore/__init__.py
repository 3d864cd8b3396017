"""The restore of data: planned, confirmed and executed."""
