"""Where a report is written: a folder of its own for every results folder and suite."""

import hashlib
from pathlib import Path

from bench.errors import BenchError
from bench.store import Store, write_atomic

STAMP = ".results"  # in a report's folder: which results it shows
DEFAULT = Path("results")


def claimed(store: Store, suite: str, out: str | Path | None, root: Path = Path("reports")) -> Path:
    """The folder for a report on some results: `out` where it is given, reports/<suite> for the folder `results`, and
    reports/<folder>-<suite> for any other, so that looking at another's results never takes the place of one's own.
    Raises BenchError where it cannot be written."""
    own = str(store.root.resolve())
    if out is not None:
        return _stamped(Path(out), own)
    if store.root.resolve() == DEFAULT.resolve():
        return _stamped(root / suite, own)
    folder = root / f"{store.root.resolve().name}-{suite}"
    if _stamp(folder) not in (None, own):
        folder = folder.with_name(f"{folder.name}-{hashlib.sha256(own.encode()).hexdigest()[:6]}")
    return _stamped(folder, own)


def _stamp(folder: Path) -> str | None:
    try:
        return (folder / STAMP).read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return None


def _stamped(folder: Path, own: str) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise BenchError(f"cannot write {folder}: {str(e.strerror).lower()}; choose another folder with --out") from None
    write_atomic(folder / STAMP, (own + "\n").encode())
    return folder
