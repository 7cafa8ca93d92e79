"""Errors that a user can cause and mend. The command line prints them as one line and exits with 2."""


class BenchError(Exception):
    """Says in one line what is wrong, where, and what to do. Never wraps a traceback."""

    def __str__(self) -> str:
        """The line, whatever was quoted in it: line ends and other control characters are spelt out."""
        return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in super().__str__())


class MissingPackage(BenchError):
    """An optional package that this needs is not installed."""


class DataError(BenchError):
    """A feature file is missing, truncated, unsafe, or of the wrong shape."""


class TransientDataError(DataError):
    """A file could not be read this time (missing, no permission, no memory): says nothing of its content."""
