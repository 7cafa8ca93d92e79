"""The parts of benchmarks/gpu.py by name. Each is a function of a Run and returns what goes into the JSON."""

from collections.abc import Callable
from typing import Any

from benchmarks.gpu_correct import cells, company, parity
from benchmarks.gpu_launch import launch
from benchmarks.gpu_run import Run
from benchmarks.gpu_speed import encoder, kernels, machine, peer, processes, rates
from benchmarks.gpu_suite import projection, real, slice_

PARTS: dict[str, Callable[[Run], dict[str, Any]]] = {
    "machine": machine, "company": company, "rates": rates, "peer": peer, "encoder": encoder, "kernels": kernels, "launch": launch, "slice": slice_,
    "real": real, "cells": cells, "parity": parity, "processes": processes, "projection": projection,
}
SHARES = {  # of the whole time that a part may take; the others take what they need, seconds
    "rates": 0.35, "encoder": 0.1, "launch": 0.1, "slice": 0.15, "real": 0.25, "cells": 0.35, "parity": 0.2, "processes": 0.15,
}


def table(name: str, found: dict[str, Any]) -> str:
    """A part in a few lines."""
    if name == "rates" and "backbones" in found:
        lines = []
        for b, entry in found["backbones"].items():
            each = [f"{k} {e['steps_per_s']:g}/s" for k, e in entry.items() if isinstance(e, dict) and "steps_per_s" in e]
            each += [f"none {k} {e['steps_per_s']:g}/s" for k, e in entry.get("none", {}).items()]
            lines.append(f"  {b:10s} " + ", ".join(each) + (f" {entry['error']}" if "error" in entry else ""))
        return "\n".join(lines)
    if name == "kernels" and "steps" in found:
        return "\n".join(f"  {c}: {e['kernels']} kernels, {e['device_us']} us" for c, e in found["steps"].items())
    if "cells" in found:
        skipped = sum(isinstance(e, str) and e.startswith("skipped") for e in found["cells"].values())
        well = len(found["cells"]) - skipped - len({f.split()[0].rstrip(":") for f in found["failed"]})
        rest = "".join(f"\n  {c}: {why}" for c, why in found.get("not_captured", {}).items())
        return f"  {well} of {len(found['cells'])} cells well, {skipped} not tried" + "".join(f"\n  {f}" for f in found["failed"][:40]) + rest
    return "\n".join(f"  {k}: {v}" for k, v in found.items() if k != "seconds")
