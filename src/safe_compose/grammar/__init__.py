"""docker's command line: the command that the words mean, and whether it may delete a volume.

This module is pure.
"""
