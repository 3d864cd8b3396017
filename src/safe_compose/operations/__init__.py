"""The operations of safe-compose, each from its beginning to its end."""
