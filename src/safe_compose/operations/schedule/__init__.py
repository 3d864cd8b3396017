"""Scheduled backups: backed up, copied and cleaned up every day without a person."""
