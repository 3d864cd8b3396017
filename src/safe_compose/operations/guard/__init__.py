"""The guard: a destructive command of docker is inspected, confirmed, backed up and run."""
