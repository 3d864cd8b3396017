"""The files that compose reads for a command, and the first query to it.

Of all that is asked before the confirmation screen, compose answers last. So this package imports
next to nothing, and is imported before `engine`.
"""
