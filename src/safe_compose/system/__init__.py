"""The operating system: durable files, other programs, and trust in files."""
