"""The examinations of `safe-compose doctor`."""
