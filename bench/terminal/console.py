"""The console that the verbs print on, and how times and tables look there."""

import contextlib
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table


def console() -> Console:
    """Plain text as it is: no markup is read out of users' names, paths and messages."""
    width = shutil.get_terminal_size((120, 24)).columns if sys.stdout.isatty() else 160
    return Console(width=width, highlight=False, emoji=False, markup=False)


def table(*columns: str, right: Sequence[str] = ()) -> Table:
    """A table without lines; `right`: columns of numbers."""
    made = Table(box=None, pad_edge=False, header_style="bold")
    for c in columns:
        made.add_column(c, justify="right" if c in right else "left", no_wrap=c in right or c == "artefact")
    return made


def clock(seconds: float) -> str:
    """95 -> '1m35s', 7300 -> '2h02m'."""
    seconds = int(round(seconds))
    if seconds < 60:
        return f"{seconds}s"
    if seconds < 3600:
        return f"{seconds // 60}m{seconds % 60:02d}s"
    return f"{seconds // 3600}h{seconds % 3600 // 60:02d}m"


class _Steady:
    """A stream that outlives its reader: what nobody reads any more is dropped."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except BrokenPipeError:
            self._drop()
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except BrokenPipeError:
            self._drop()

    def _drop(self) -> None:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, self._stream.fileno())
        os.close(null)
        with contextlib.suppress(OSError):
            print("bench: nobody reads the output any more; the jobs go on", file=sys.stderr, flush=True)


@contextlib.contextmanager
def steady_output() -> Iterator[None]:
    """Inside, a closed pipe behind stdout (`| head -1`) stops nothing."""
    before, sys.stdout = sys.stdout, _Steady(sys.stdout)
    try:
        yield
        sys.stdout.flush()
    finally:
        sys.stdout = before
