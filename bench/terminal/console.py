"""The console that the verbs print on, and how times and tables look there."""

import shutil
import sys
from collections.abc import Sequence
from typing import NoReturn

from rich.console import Console
from rich.table import Table


class _Console(Console):
    def on_broken_pipe(self) -> NoReturn:
        raise  # noqa: PLE0704 - bench.cli ends well then, rich with code 1, which says that jobs failed


def console() -> Console:
    """Plain text as it is: no markup is read out of users' names, paths and messages."""
    width = shutil.get_terminal_size((120, 24)).columns if sys.stdout.isatty() else 160
    return _Console(width=width, highlight=False, emoji=False, markup=False)


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
