"""The parts of benchmarks/gpu.py by name. Each is a function of a Run and returns what goes into the JSON."""

from collections.abc import Callable, Sequence
from typing import Any

from benchmarks.gpu_correct import cells, company, parity
from benchmarks.gpu_encoder import encoder
from benchmarks.gpu_kernels import kernels
from benchmarks.gpu_launch import launch
from benchmarks.gpu_processes import processes
from benchmarks.gpu_run import Run
from benchmarks.gpu_speed import machine, peer, rates
from benchmarks.gpu_suite import projection, real, slice_

PARTS: dict[str, Callable[[Run], dict[str, Any]]] = {
    "machine": machine, "company": company, "rates": rates, "peer": peer, "encoder": encoder, "kernels": kernels, "launch": launch, "slice": slice_,
    "real": real, "cells": cells, "parity": parity, "processes": processes, "projection": projection,
}
SHARES = {  # of the whole time that a part may take where all run; the others take what they need, seconds
    "rates": 0.35, "encoder": 0.1, "launch": 0.1, "slice": 0.15, "real": 0.25, "cells": 0.35, "parity": 0.2, "processes": 0.15,
}


def shares(names: Sequence[str]) -> dict[str, float]:
    """Of the whole time, what each of some parts may take: SHARES, and more than that where these alone would leave some of
    it unused."""
    own = {n: SHARES[n] for n in names if n in SHARES}
    larger = max(1.0, 1 / sum(own.values())) if own else 1.0
    return {n: own[n] * larger if n in own else 1.0 for n in names}


def table(name: str, found: dict[str, Any]) -> str:
    """A part in a few lines."""
    if name == "kernels" and "steps" in found:
        return "\n".join(f"  {c}: {e['kernels']} kernels, {e['device_us']} us" for c, e in found["steps"].items())
    if "cells" in found:
        skipped = sum(isinstance(e, str) and e.startswith("skipped") for e in found["cells"].values())
        well = len(found["cells"]) - skipped - len({f.split()[0].rstrip(":") for f in found["failed"]})
        rest = "".join(f"\n  {c}: {why}" for c, why in found.get("not_captured", {}).items())
        return f"  {well} of {len(found['cells'])} cells well, {skipped} not tried" + "".join(f"\n  {f}" for f in found["failed"][:40]) + rest
    return "\n".join(f"  {k}: {v}" for k, v in found.items() if k != "seconds")
