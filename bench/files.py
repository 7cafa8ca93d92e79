"""Whole files or none: atomic writes, deterministic JSON."""

import contextlib
import errno
import json
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from bench.errors import BenchError

_FULL = (errno.ENOSPC, errno.EDQUOT)
_CLOSED = (errno.EACCES, errno.EROFS, errno.EPERM, errno.ENOENT)


@contextlib.contextmanager
def one_line(path: Path, flag: str = "--results"):
    """Say in one line what a full or closed disk did to a write of `path`, and which flag names another. Raises BenchError."""
    try:
        yield
    except (FileExistsError, NotADirectoryError, IsADirectoryError):
        raise BenchError(f"cannot write {path}: a file and a folder of one name; choose another with {flag}") from None
    except OSError as e:
        if e.errno in _FULL:
            raise BenchError(f"disk full while writing {path}; free some space and run again: finished jobs are kept") from None
        if e.errno in _CLOSED:
            raise BenchError(f"cannot write {path}: {e.strerror.lower()}; choose another with {flag}") from None
        if e.errno == errno.ENAMETOOLONG:
            raise BenchError(f"cannot write {path}: the name is too long") from None
        raise


def write_atomic(path: Path, data: bytes, flag: str = "--results") -> None:
    """Write a whole file or nothing; `flag`: what a user names another place with. Raises BenchError on a full or read-only disk, leaving the old file as it was."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with one_line(path, flag):
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(temporary, "wb") as f:
                f.write(data)
                f.flush()
                os.fsync(f.fileno())
            os.replace(temporary, path)
    except BaseException:  # Ctrl-C too leaves no half file
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def json_bytes(value: Any) -> bytes:
    """Deterministic JSON. NaN becomes null: a file that a strict reader can load."""
    return (json.dumps(_plain(value), indent=1, sort_keys=True, allow_nan=False) + "\n").encode()


def write_json(path: Path, value: Any) -> None:
    """Write `json_bytes` of a value, whole or not at all."""
    write_atomic(path, json_bytes(value))


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value


class Irregular(OSError):
    """A pipe, a socket or a device where a file is expected: it could be waited for for ever."""


def regular(path: Path) -> Path:
    """The path, of a file or a folder. Raises Irregular for anything else, FileNotFoundError where nothing is."""
    mode = os.stat(path).st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise Irregular(errno.EINVAL, "no regular file")
    return path


def read_json(path: Path) -> Any | None:
    """The file's content, or None where there is no such file. Raises BenchError naming a damaged file."""
    try:
        return json.loads(regular(path).read_bytes())
    except Irregular:
        raise BenchError(f"{path} is damaged: no regular file; remove it and run again") from None
    except (FileNotFoundError, NotADirectoryError):
        return None
    except IsADirectoryError:
        raise BenchError(f"{path} is damaged: a folder; remove it and run again") from None
    except (ValueError, RecursionError):
        raise BenchError(f"{path} is damaged; remove it and run again: finished jobs are kept") from None
