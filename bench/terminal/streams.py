"""Standard output and error as they are found: closed, full, read by nobody, or of an encoding that lacks a sign."""

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Any


def prepare() -> None:
    """Make both usable: a closed one leads nowhere, and a sign that an encoding lacks is written as its number."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))
        elif hasattr(stream, "reconfigure") and (stream.errors == "strict" or stream.encoding.lower() != "utf-8"):
            stream.reconfigure(errors="backslashreplace")


def drop(stream: Any) -> None:
    """What is written from now on goes nowhere, what is still to be written too."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)


class _Steady:
    """A stream that outlives its reader and its disk: what cannot be written any more is dropped."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except OSError as e:
            self._drop(e)
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError as e:
            self._drop(e)

    def _drop(self, error: OSError) -> None:
        drop(self._stream)
        what = "nobody reads the output any more" if isinstance(error, BrokenPipeError) else f"the output cannot be written any more ({error.strerror})"
        with contextlib.suppress(OSError):
            print(f"bench: {what}; the jobs go on", file=sys.stderr, flush=True)


@contextlib.contextmanager
def steady_output() -> Iterator[None]:
    """Inside, a closed pipe behind stdout (`| head -1`) or a full disk stops nothing."""
    before, sys.stdout = sys.stdout, _Steady(sys.stdout)
    try:
        yield
        sys.stdout.flush()
    finally:
        sys.stdout = before
