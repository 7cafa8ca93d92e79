"""Thousands of mutated files for every reader, and the raw counts of what became of them.

    python -m benchmarks.fuzz --n 2000 --out benchmarks/fuzz.json

A file must be refused in one line that names it, read, or read with a warning (tests/fuzz); none may end in a
traceback, take longer than 5 s or more than 1 GiB, or be accepted in silence where an invariant does not hold. Every
reader runs in processes of its own, whose peak memory is that of the worst file.
"""

import argparse
import json
import multiprocessing
import platform
import sys
import warnings
from pathlib import Path

import numpy as np

from tests.fuzz import seeds
from tests.fuzz.drive import LIMIT_MIB, LIMIT_S, read_many

_CHUNK = 500  # files of one process


def _work(task: tuple[str, int, int]) -> tuple[str, dict]:
    warnings.simplefilter("error")  # a reader's warning from numpy is a fault
    return task[0], read_many(*task)


def main() -> int:
    """Exit code 1 where any file was not handled."""
    parser = argparse.ArgumentParser(prog="benchmarks.fuzz", description=__doc__.splitlines()[0])
    parser.add_argument("--n", type=int, default=2000, help="files per reader")
    parser.add_argument("--first", type=int, default=0, help="first seed")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/fuzz.json"))
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_args()
    tasks = [
        (reader, first, min(_CHUNK, args.first + args.n - first))
        for reader in seeds.PLACES for first in range(args.first, args.first + args.n, _CHUNK)
    ]  # fmt: skip
    total: dict[str, dict] = {reader: {"bad": []} for reader in seeds.PLACES}
    with multiprocessing.get_context("spawn").Pool(args.workers, maxtasksperchild=1) as pool:
        for reader, found in pool.imap_unordered(_work, tasks):
            own = total[reader]
            own["bad"] += found.pop("bad")
            for key, value in found.items():
                best = max if key in ("slowest_s", "peak_mib", "grown_mib") else lambda a, b: round(a + b, 1)
                own[key] = best(own.get(key, 0), value)
            print(reader, {k: v for k, v in own.items() if k != "bad"}, f"{len(own['bad'])} bad", flush=True)
    made = {"seeds": [args.first, args.first + args.n], "limits": {"seconds": LIMIT_S, "mib": LIMIT_MIB},
            "python": platform.python_version(), "numpy": np.__version__, "readers": total}  # fmt: skip
    args.out.write_text(json.dumps(made, indent=1) + "\n")
    fine = all(not own["bad"] and own["peak_mib"] < LIMIT_MIB for own in total.values())
    print(f"{args.out}: {'all files handled' if fine else 'NOT all files handled'}")
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
