"""The content of volumes: archives, single files, renames and encryption."""
