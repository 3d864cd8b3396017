"""Redis and Valkey.

- `rdb`  what an RDB file holds
"""
