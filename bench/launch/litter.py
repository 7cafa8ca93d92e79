"""What killed runs leave behind: attempts beside job folders, temporary files in them, locks of the dead.

Only the owner of a job may clean up after it; `sweep_results` becomes the owner of each job that has litter, in turn.
"""

import os
import shutil
import time
from pathlib import Path

from bench.errors import BenchError
from bench.folder_swap import recover
from bench.launch import owner

_FORGOTTEN = 3600.0  # seconds after which a temporary file that no lock guards is nobody's any more


def sweep_job(folder: Path) -> None:
    """Clean up after dead attempts at the job of a folder. The caller owns the job."""
    recover(folder)
    for left in folder.parent.glob(f".{folder.name}.*.new"):
        shutil.rmtree(left, ignore_errors=True)
    for left in folder.glob(".*.tmp"):
        left.unlink(missing_ok=True)


def sweep_results(root: Path) -> None:
    """Clean up after all dead attempts under a results root. What somebody owns is left alone."""
    for folder in _littered(root):
        lock = folder.with_name(f".{folder.name}.lock")
        try:
            owned = owner.take(lock)
        except BenchError:
            continue  # a full or read-only disk: the run itself will say so
        if owned is not None:
            with owned:
                sweep_job(folder)
                for claim in folder.parent.glob(f"{lock.name}.*"):
                    claim.unlink(missing_ok=True)
    now = time.time()
    for left in root.glob("plans/.*.tmp"):
        try:
            if not _running(left) or now - left.stat().st_mtime > _FORGOTTEN:
                left.unlink(missing_ok=True)
        except OSError:
            continue


def _littered(root: Path) -> list[Path]:
    """Job folders with something left beside or in them."""
    found = {}
    for cell in root.glob("*/*"):
        if not cell.is_dir() or cell.parent.name == "plans":
            continue
        with os.scandir(cell) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    found[cell / entry.name[1:].partition(".")[0]] = None
                elif entry.is_dir() and any(n.startswith(".") and n.endswith(".tmp") for n in os.listdir(entry.path)):
                    found[cell / entry.name] = None
    return list(found)


def _running(temporary: Path) -> bool:
    """Whether the process that a temporary file is named after (files.py) is there."""
    pid = temporary.suffixes[-2][1:] if len(temporary.suffixes) > 1 else ""
    if not pid.isdigit():
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        pass
    return True
