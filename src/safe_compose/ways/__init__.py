"""The ways to docker that lead past us: what is written for each, putting it in place and away again, and trying them.

- `texts`    every script, function and line that is written
- `native`   the programs that a C compiler makes to stand before those scripts
- `install`  shown first, written once, remembered, and taken away byte for byte
- `tries`    calls docker in every way that this machine has, and sees which of them pass by here
"""
