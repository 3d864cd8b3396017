"""Commands that delete volumes, found in a project's files and in coding agents' shell lines."""
