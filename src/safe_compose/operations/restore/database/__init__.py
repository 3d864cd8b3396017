"""The restore of one database into a running server."""
