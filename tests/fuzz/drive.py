"""Read one mutated file and say what became of it."""

import resource
import shutil
import signal
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path

import numpy as np
import scipy.io.wavfile  # noqa: F401  # loaded before the clock runs
import scipy.signal  # noqa: F401

from bench.data.dataset import load
from bench.errors import BenchError
from tests.fuzz import invariants, mutate, seeds

LIMIT_S, LIMIT_MIB = 5, 1024


class Hang(BaseException):
    """A file took longer than the limit."""


def _ring(*_: object) -> None:
    raise Hang


def read_one(reader: str, seed: int, top: Path) -> tuple[str, str, str]:
    """(outcome, detail, what was done): outcome is refused, read, warned, silent, traceback, unclear or hang."""
    raw, content, done = _mutated(reader, seed)
    dataset, features, place = seeds.PLACES[reader]
    folder = Path(tempfile.mkdtemp(dir=top))
    signal.signal(signal.SIGALRM, _ring)
    signal.alarm(LIMIT_S)
    try:
        if features == "audio":
            seeds.put_sound(folder, reader)
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        (folder / place).write_bytes(raw)
        ds = load(dataset, features, folder, folder / "cache")
        found = invariants.silent(ds)
        if content is not None and reader in ("aligned", "unaligned"):
            found += invariants.changed(ds, content)
        beyond_sizes = [w for w in ds.warnings if "official split has" not in w]
        return ("silent", "; ".join(found)[:300], done) if found else ("warned" if beyond_sizes else "read", "", done)
    except BenchError as error:
        text = str(error)
        clear = "\n" not in text and len(text) < 600 and str(folder) in text
        return "refused" if clear else "unclear", text[:300], done
    except Hang:
        return "hang", f"over {LIMIT_S} s", done
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        return "traceback", f"{type(error).__name__}: {str(error)[:120]} ({last.filename}:{last.lineno})", done
    finally:
        signal.alarm(0)
        shutil.rmtree(folder, ignore_errors=True)


def _mutated(reader: str, seed: int) -> tuple:
    """A mutation that could be written: a second change may meet what the first one left, and is then drawn again."""
    stream = [seed, sorted(seeds.PLACES).index(reader)]
    for again in range(20):
        try:
            with np.errstate(all="ignore"):
                return mutate.file_of(reader, np.random.default_rng([*stream, *[again] * (again > 0)]))
        except (ValueError, TypeError, IndexError, OverflowError, Warning):
            continue
    raise RuntimeError(f"no mutation of {reader} from seed {seed} could be written")


def read_many(reader: str, first: int, n: int) -> dict:
    """Counts of outcomes, what was not refused clearly, read or warned of, seconds (making the file included), peak
    memory of the process, and by how much it rose above what the process held before."""
    counts: Counter[str] = Counter()
    bad, slowest, began = [], 0.0, time.monotonic()
    memory = "/dev/shm" if Path("/dev/shm").is_dir() else None  # thousands of small files: not what is tested
    top = Path(tempfile.mkdtemp(prefix="fuzz-", dir=memory))
    before = _forget_peak()
    try:
        for seed in range(first, first + n):
            at = time.monotonic()
            outcome, detail, done = read_one(reader, seed, top)
            slowest = max(slowest, time.monotonic() - at)
            counts[outcome] += 1
            if outcome not in ("refused", "read", "warned"):
                bad.append({"seed": seed, "outcome": outcome, "detail": detail, "done": done})
    finally:
        shutil.rmtree(top, ignore_errors=True)
    peak = _resident("VmHWM") or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    return {"files": n, **counts, "slowest_s": round(slowest, 2), "peak_mib": peak, "grown_mib": peak - before,
            "seconds": round(time.monotonic() - began, 1), "bad": bad}  # fmt: skip


def _forget_peak() -> int:
    """Begin a new peak of the resident memory (Linux); what is resident, or the peak so far elsewhere, in MiB."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    return _resident("VmRSS")


def _resident(what: str) -> int:
    """A size of /proc/self/status in MiB; 0 where there is none."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) // 1024 for line in lines if line.startswith(what)), 0)
