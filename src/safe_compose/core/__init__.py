"""Values and decisions about backups and threatened volumes, without effects."""
