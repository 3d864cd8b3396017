"""The code that a harmless command runs on its way to docker.

It imports `os` and `sys` at most.
"""
