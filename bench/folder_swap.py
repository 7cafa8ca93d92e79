"""A finished folder takes another one's place: at once where the system can exchange two names, else by two renames after
which a crash can be put right."""

import ctypes
import os
import shutil
import sys
from pathlib import Path

_EXCHANGE, _HERE = 2, -100  # RENAME_EXCHANGE, AT_FDCWD


def put_in_place(new: Path, folder: Path) -> None:
    """Make `new` the folder at `folder`: at once where the system can exchange two names, else by two renames, the old
    one being `.<name>.old` in between (recover)."""
    if not folder.exists():
        os.rename(new, folder)
        return
    old = folder.with_name(f".{folder.name}.old")
    if _exchange(new, folder):
        old = new
    else:
        shutil.rmtree(old, ignore_errors=True)
        os.rename(folder, old)
        os.rename(new, folder)
    shutil.rmtree(old, ignore_errors=True)


def recover(folder: Path) -> None:
    """Bring back the result of a job whose owner died between the two renames of `put_in_place`."""
    old = folder.with_name(f".{folder.name}.old")
    if old.is_dir():
        if folder.exists():
            shutil.rmtree(old, ignore_errors=True)
        else:
            os.rename(old, folder)


def _exchange(a: Path, b: Path) -> bool:
    """renameat2(RENAME_EXCHANGE); False where the system or the file system has none."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        call = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError):
        return False
    return call(_HERE, os.fsencode(a), _HERE, os.fsencode(b), _EXCHANGE) == 0
