"""The data that is kept on disk: backups, the journal, approvals and schedules."""
