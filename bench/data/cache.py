"""The cache: a folder of arrays per feature file, converted once and mapped into memory by every worker.

A cache folder appears complete or not at all, and every process looks once whether its files still hold what was
written: it is written under another name and renamed. Workers that want the
same folder wait for the one that is writing it; where the file system has no locks they all write, the first rename
wins and the others drop their copy.
"""

import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.errors import DataError, TransientDataError

try:
    import fcntl
except ImportError:  # no POSIX locks on this system
    fcntl = None

_CHUNK = 1 << 20  # bytes
META = "meta.json"
_LAYOUT = 2  # of a folder's meta data; part of its name, so that versions that differ leave each other's alone
_REFUSED = ".refused"
_verified: set[tuple[str, int, int]] = set()  # folders, and sources, whose content this process has seen unchanged


def root(cache_dir: str | os.PathLike | None = None) -> Path:
    """The cache folder, made if need be: the argument, else $BENCH_CACHE, else ~/.cache/msa-bench."""
    folder = Path(cache_dir or os.environ.get("BENCH_CACHE") or Path.home() / ".cache" / "msa-bench")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"cannot make the cache folder {folder} ({error.strerror}); set BENCH_CACHE") from None
    return folder


def file_sha256(path: Path, cache: Path) -> str:
    """sha256 of a file's content; see `files_sha256`."""
    return files_sha256([path], cache)


def files_sha256(paths: list[Path], cache: Path, fresh: bool = False) -> str:
    """sha256 of one file's content, or of several files' names (relative to the first one's folder) and contents.

    Remembered in the cache for as long as paths, sizes, inodes and times of change stay the same (of the inode too,
    which cannot be set back). fresh: read the files at least once in this process, whatever a note in the cache says.
    Raises DataError, in one line, if a file cannot be read.
    """
    path = paths[0]
    try:
        key = [[str(p.resolve()), s.st_size, s.st_mtime_ns, s.st_ctime_ns, s.st_ino] for p in paths for s in [p.stat()]]
        key = key[0] if len(paths) == 1 else hashlib.sha256(json.dumps(key).encode()).hexdigest()
        note = cache / ".sha256" / f"{hashlib.sha256(str(paths[0].resolve()).encode()).hexdigest()[:24]}.json"
        seen = (json.dumps(key), 0, 0)
        if (not fresh or seen in _verified) and (known := _read_json(note)) and known.get("key") == key:
            if isinstance(known.get("sha256"), str):
                return known["sha256"]
        if len(paths) == 1:
            digest = _content(path)
        else:
            digest, top = hashlib.sha256(), paths[0].parent
            for path in paths:
                digest.update(f"{path.relative_to(top).as_posix()} {_content(path).hexdigest()}\n".encode())
    except OSError as error:
        raise TransientDataError(f"{path}: cannot be read ({error.strerror or error})") from None
    _verified.add(seen)
    try:
        note.parent.mkdir(exist_ok=True)
        _write_whole(note, json.dumps({"key": key, "sha256": digest.hexdigest()}))
    except OSError:
        pass  # only a memory: it will be computed again
    return digest.hexdigest()


def refused(cache: Path, key: str) -> str | None:
    """Why the content that `key` names could not be used, where it was looked at before."""
    known = _read_json(cache / _REFUSED / f"{key}.json")
    return known["why"] if known and isinstance(known.get("why"), str) else None


def refuse(cache: Path, key: str, why: str) -> None:
    """Remember it."""
    try:
        (cache / _REFUSED).mkdir(exist_ok=True)
        _write_whole(cache / _REFUSED / f"{key}.json", json.dumps({"why": why}))
    except OSError:
        pass  # only a memory: it will be looked at again


def _content(path: Path) -> Any:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(_CHUNK):
            digest.update(block)
    return digest


def folder(
    cache: Path, key: str, write: Callable[[Path], dict[str, Any]], verify: bool = True
) -> tuple[Path, dict[str, Any]]:
    """The complete folder `key` of the cache and its meta data; verify: its content is compared with what was written,
    once per process, not its size alone.

    If it is not there yet, `write(temporary folder)` fills it and returns the meta data (plain JSON values). Raises
    DataError, in one line, if the folder cannot be written (a full disk); nothing half-written is left behind.
    """
    key = f"{key}-c{_LAYOUT}"
    final = cache / key
    if (meta := _complete(final, verify)) is not None:
        return final, meta
    with _lock(cache, key) as alone:
        if (meta := _complete(final)) is not None:  # another worker has written it meanwhile
            return final, meta
        if alone:  # left by a worker that was killed, or damaged since
            for stale in [*cache.glob(f".{key}.*"), final]:
                shutil.rmtree(stale, ignore_errors=True)
        part = cache / f".{key}.{secrets.token_hex(6)}"
        try:
            part.mkdir()
            meta = write(part)
            files = [p for p in sorted(part.rglob("*")) if p.is_file()]
            marks = {p.relative_to(part).as_posix(): [p.stat().st_size, _mark(p)] for p in files}
            (part / META).write_text(json.dumps({"files": marks, **meta}), encoding="utf-8")
            for file in (*files, part / META):
                file.chmod(0o444)  # shared by all workers and never written again
            _publish(part, final)
        except OSError as error:
            reason = error.strerror or str(error)
            raise TransientDataError(
                f"cannot write the cache folder {final} ({reason}); free some space or set BENCH_CACHE"
            ) from None
        finally:
            shutil.rmtree(part, ignore_errors=True)
    meta = _complete(final)
    if meta is None:
        raise DataError(f"the cache folder {final} is damaged; remove it")
    return final, meta


def _complete(final: Path, verify: bool = True) -> dict[str, Any] | None:
    """Meta data of a folder all of whose files are there and hold what was written, else None."""
    meta = _read_json(final / META)
    if meta is None:
        return None
    try:
        if not all((final / name).stat().st_size == size for name, (size, _) in meta["files"].items()):
            return None
        stats = [(final / name).stat() for name in meta["files"]]
        seen = (str(final), sum(s.st_size for s in stats), hash(tuple((s.st_ino, s.st_ctime_ns) for s in stats)))
        if verify and seen not in _verified:
            if not all(_mark(final / name) == mark for name, (_, mark) in meta["files"].items()):
                return None
            _verified.add(seen)
    except (OSError, KeyError, AttributeError, TypeError, ValueError):
        return None
    return meta


def _mark(path: Path) -> str:
    """What a file of the cache holds, in 32 letters."""
    digest = hashlib.blake2b(digest_size=16)
    with open(path, "rb") as file:
        while block := file.read(_CHUNK):
            digest.update(block)
    return digest.hexdigest()


def _publish(part: Path, final: Path) -> None:
    try:
        part.rename(final)
    except OSError:
        if _complete(final) is None:  # not merely that another worker was faster
            raise


def _read_json(path: Path) -> dict[str, Any] | None:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def _write_whole(path: Path, text: str) -> None:
    part = path.with_name(f"{path.name}.{secrets.token_hex(6)}")
    try:
        part.write_text(text, encoding="utf-8")
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def _lock(cache: Path, key: str) -> Iterator[bool]:
    """Waits for the exclusive right to write a folder. Yields False where the file system has no locks."""
    try:
        handle = os.open(cache / f".{key}.lock", os.O_CREAT | os.O_RDWR, 0o666)
    except OSError as error:
        raise DataError(f"cannot write into the cache {cache} ({error.strerror}); set BENCH_CACHE") from None
    try:
        alone = fcntl is not None
        if alone:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX)
            except OSError:
                alone = False
        yield alone
    finally:
        os.close(handle)
