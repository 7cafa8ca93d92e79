"""Which data folder a results folder was last run with, and where the last report lies: remembered in this machine's cache,
never in the results, which travel. With it a report can print commands that work as they stand."""

import hashlib
from pathlib import Path

from bench.data import cache
from bench.errors import BenchError


def _note(results: Path) -> Path:
    return cache.root() / ".data-folders" / hashlib.sha256(str(results.resolve()).encode()).hexdigest()[:24]


def remember(results: Path, data: Path | None) -> None:
    """Keep in mind that `results` are made from the feature files in `data`."""
    if data is None:
        return
    try:
        note = _note(results)
        note.parent.mkdir(exist_ok=True)
        note.write_text(str(data.resolve()), encoding="utf-8")
    except (OSError, BenchError):
        pass  # a convenience: nothing fails without it


def recall(results: Path) -> Path | None:
    """The folder, where it is known and still there."""
    try:
        found = Path(_note(results).read_text(encoding="utf-8"))
    except (OSError, BenchError):
        return None
    return found if found.is_dir() else None


def _last_report() -> Path:
    return cache.root() / ".data-folders" / "last-report"


def remember_report(page: Path) -> None:
    """Keep in mind which report was made last on this machine, for `bench open`."""
    try:
        note = _last_report()
        note.parent.mkdir(exist_ok=True)
        note.write_text(str(page.resolve()), encoding="utf-8")
    except (OSError, BenchError):
        pass  # a convenience: nothing fails without it


def recall_report() -> Path | None:
    """Its page, where that is still there."""
    try:
        found = Path(_last_report().read_text(encoding="utf-8"))
    except (OSError, BenchError):
        return None
    return found if found.is_file() else None
