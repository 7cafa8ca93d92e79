"""Names that become file names, and texts that end up in spreadsheets: what may be in them."""

import re

import pandas as pd

from bench.errors import BenchError

_SLUG = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,78}[A-Za-z0-9_-])?")
_ACTIVE = set("(|!='\"@")  # a signed text without these is a label such as "+ SASS", not a formula that does something


def is_slug(name: str) -> bool:
    """Whether a name is letters, digits, ".", "_" and "-" alone: one file of one folder, and nothing to LaTeX."""
    return _SLUG.fullmatch(name) is not None and ".." not in name


def check_slug(name: str, what: str) -> str:
    """The name itself. Raises BenchError, in one line, for one that is no slug."""
    if not is_slug(name):
        raise BenchError(f"{what} {name!r}: a name takes letters, digits and . _ - alone")
    return name


def csv_text(frame: pd.DataFrame) -> str:
    """A frame as csv in which no text is a formula to a spreadsheet: those get an apostrophe before them."""
    texts = frame.select_dtypes(exclude="number").columns
    return frame.assign(**{c: frame[c].map(_inert) for c in texts if isinstance(c, str)}).to_csv(index=False, lineterminator="\n")


def _inert(value: object) -> object:
    if not isinstance(value, str) or not value:
        return value
    active = value[0] in "=@\t\r" or value[0] in "+-" and bool(_ACTIVE & set(value))
    return f"'{value}" if active else value
