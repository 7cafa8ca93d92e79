"""Thousands of mutated job folders, and the raw counts of what became of them.

    python -m benchmarks.fuzz_stored --n 4000 --out benchmarks/fuzz_stored.json

Each has one file changed: its bytes, or a value of its JSON (tests/fuzz_stored.py). A sealed result must be as it was or
damaged; an unsealed one, as earlier versions wrote it, may hold other values, but none out of its range. No reader may
raise, or take longer than 5 s.
"""

import argparse
import json
import os
import platform
import resource
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.fuzz_stored import outcome

LIMIT_S = 5.0


def main() -> int:
    """Exit code 1 where any folder was not handled."""
    parser = argparse.ArgumentParser(prog="benchmarks.fuzz_stored", description=__doc__.splitlines()[0])
    parser.add_argument("--n", type=int, default=4000)
    parser.add_argument("--first", type=int, default=0, help="first seed")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/fuzz_stored.json"))
    args = parser.parse_args()
    os.fsync = lambda _: None
    counts: dict[str, Counter] = {}
    bad, slowest = [], 0.0
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(args.first, args.first + args.n):
            began = time.perf_counter()
            try:
                what, became = outcome(Path(folder) / "results", seed)
            except Exception as e:  # noqa: BLE001 - that is what is looked for
                what, became = "raised", f"{type(e).__name__}: {e}"[:200]
            took = time.perf_counter() - began
            slowest = max(slowest, took)
            counts.setdefault(what, Counter())[became] += 1
            if what == "raised" or became.startswith("ACCEPTED") or took > LIMIT_S:
                bad.append({"seed": seed, "what": what, "became": became, "seconds": round(took, 2)})
    made = {
        "seeds": [args.first, args.first + args.n], "python": platform.python_version(),
        "counts": {k: dict(v.most_common()) for k, v in sorted(counts.items())}, "bad": bad,
        "slowest_s": round(slowest, 2), "peak_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }
    args.out.write_text(json.dumps(made, indent=1) + "\n")
    print(json.dumps(made, indent=1))
    return 1 if bad else 0


if __name__ == "__main__":
    raise SystemExit(main())
