"""Errors that a user can cause and mend. The command line prints them as one line and exits with 2."""


class BenchError(Exception):
    """Says in one line what is wrong, where, and what to do. Never wraps a traceback."""


class DataError(BenchError):
    """A feature file is missing, truncated, unsafe, or of the wrong shape."""
