"""The routes to docker that pass through safe-compose: installed, removed and probed.

- `scripts`: every script, function and line that is written
- `native`: the programs that a C compiler makes to run before those scripts
- `places`: their paths; `plan`: the changes to make there
- `apply`: shows changes first, writes them once, records them (`record`), and removes them byte for
  byte
- `probe`: calls docker in every way that this machine has, and sees which calls pass through here
"""
