"""The lines that trainings in progress leave beside the results, for whoever looks (`bench status`, `bench report --watch`)."""

import contextlib
import time
from pathlib import Path

LIVE = "live.txt"  # of an attempt: the lines of its training so far
_SILENT = 3600.0  # seconds without a line after which nobody trains it any more


def tell(attempt: Path, line: str) -> None:
    """Add a line to an attempt's; a disk that takes none costs nothing else."""
    with contextlib.suppress(OSError), (attempt / LIVE).open("a", encoding="utf-8") as file:
        file.write(line + "\n")


def told(root: Path) -> dict[str, list[str]]:
    """Job id -> the lines that its training has left so far, of the jobs that are being trained and have a line."""
    found: dict[str, tuple[float, list[str]]] = {}
    for path in root.glob(f"*/*/.*.new/{LIVE}"):
        with contextlib.suppress(OSError):
            when, job = path.stat().st_mtime, path.parent.name[1:].split(".")[0]
            if time.time() - when < _SILENT and when > found.get(job, (0.0, []))[0]:
                found[job] = when, path.read_text(encoding="utf-8", errors="replace").splitlines()
    return {job: lines for job, (_, lines) in found.items() if lines}
