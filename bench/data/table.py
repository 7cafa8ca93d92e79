"""Tables of text (csv): whatever a spreadsheet made of them, as long as nothing has to be guessed."""

import csv
from pathlib import Path

from bench.data.unpickle import regular
from bench.errors import DataError, TransientDataError

Row = dict[str, str]

_LARGEST = 1 << 28  # bytes
_DELIMITERS = (",", ";", "\t")


def read_rows(path: Path, needed: tuple[str, ...]) -> list[Row]:
    """The rows of a table in UTF-8 or UTF-16 whose head has the columns `needed`, separated by commas, semicolons or
    tabs. Raises DataError, in one line that names the encoding or the line, if it is no such table."""
    text = _text(path)
    lines = text.splitlines(keepends=True)
    heads = {d: next(csv.reader(lines[:1], delimiter=d), []) for d in _DELIMITERS}
    delimiter = next((d for d, head in heads.items() if set(needed) <= {c.strip() for c in head}), ",")
    table = csv.reader(lines, delimiter=delimiter, strict=True)
    rows = []
    try:
        head = [c.strip() for c in next(table, [])]
        if missing := [c for c in needed if c not in head]:
            found = ", ".join(c[:24] for c in head[:12]) or "nothing"
            raise DataError(f"{path}: no column '{missing[0]}'; expected {', '.join(needed)}; found {found}")
        if len(set(head)) < len(head):
            raise DataError(f"{path}: the column '{next(c for c in head if head.count(c) > 1)}' stands there twice")
        start = table.line_num + 1
        for cells in table:
            if cells and len(cells) != len(head):
                raise DataError(f"{path}: line {start} has not as many cells as the head has columns")
            if cells:
                rows.append(dict(zip(head, cells)))
            start = table.line_num + 1
    except csv.Error as error:
        raise DataError(f"{path}: line {start} or after is no line of a table ({error}): a quote that is not closed?") from None
    return rows


def _text(path: Path) -> str:
    try:
        if regular(path) > _LARGEST:
            raise DataError(f"{path}: too large for a table of labels")
        content = path.read_bytes()
    except OSError as error:
        raise TransientDataError(f"{path}: cannot be read ({error.strerror})") from None
    encoding = "utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        other = "" if encoding == "utf-16" else _other(content)
        raise DataError(f"{path}: not a table in UTF-8: line {line} is not{other}; save it as UTF-8") from None


def _other(content: bytes) -> str:
    """The encoding that a table is probably in; "" where nothing fits."""
    try:
        text = content.decode("gb18030")
    except UnicodeDecodeError:
        return ""
    chinese = sum("\u4e00" <= c <= "\u9fff" for c in text)
    return " (it looks like GBK)" if chinese > 2 else ""
