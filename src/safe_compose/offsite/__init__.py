"""Off-site copies of backups: `place` defines their destinations, `transfer` sends them.

`transfer` also compares and fetches them.
"""
