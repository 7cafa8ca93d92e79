"""Is what a GPU computes right: the device against the CPU, graphs against eager, company against a job alone, and the
reference implementations' fixtures."""

import math
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import torch
from torch import Tensor

from bench import selftest
from bench.errors import MissingPackage
from bench.job import settle
from bench.matrix import Job
from bench.store import Store
from bench.train.capturable import as_on_gpu
from bench.train.optim import Steps
from bench.train.step import Piece, Stepper
from benchmarks.gpu_run import Run, members_of, parts_of
from benchmarks.gpu_run import cells as chosen
from benchmarks.gpu_shares import shared
from benchmarks.gpu_silence import silenced

TOLERANCE = {"float64": 1e-8, "float32": 2e-3}  # largest difference of a weight after STEPS steps, relative to its tensor
STEPS = 5
EPS = 1e-2
SHAKES = 4  # how often the weights are shaken, at most, to learn what rounding alone does
ROUNDING = 2**-18  # float32's of a sum of 768 products: 2^-23 times its root


def short_training(job: Job, device: str, dtype: torch.dtype, shake: int = 0) -> dict[str, Tensor]:
    """Weights after STEPS steps, all draws made on the CPU wherever the step runs. Adam's epsilon is EPS: where a gradient
    is zero but for rounding (a key's bias), a small one would make full steps out of that. Rates are float32's, as a GPU
    keeps them: by that alone a bias, which is nothing but updates, would differ by 1e-9 to 1e-6.

    `shake`: begin with every weight larger or smaller by ROUNDING, by this seed."""
    parts = parts_of(Job(job.config.with_(train={"eps": EPS}), job.seed), device)
    model, mixer = parts.model.to(dtype), parts.mixer.to(dtype)
    parts.data.tensors = {
        s: {k: t.to(dtype) if t.is_floating_point() else t for k, t in tensors.items()} for s, tensors in parts.data.tensors.items()
    }
    sound = parts.data.rows  # raw sound is padded, and cast, as it is gathered
    parts.data.rows = lambda *args: {k: t.to(dtype) if t.is_floating_point() else t for k, t in sound(*args).items()}
    as_on_gpu(model)
    if shake:
        g = torch.Generator().manual_seed(shake)
        with torch.no_grad():
            for w in (*model.parameters(), *mixer.parameters()):
                w.mul_(1 + ROUNDING * (torch.randint(0, 2, w.shape, generator=g) * 2 - 1).to(w))
    if hasattr(mixer, "draw"):
        draw, generator = mixer.draw, torch.Generator().manual_seed(5)
        mixer.draw = lambda size, _, d: {k: v.to(device) for k, v in draw(size, generator, d).items()}
    steps = Steps(model, mixer.own_parameters(), parts.protocol, {u.optimiser: 1 for p in model.passes(2) for u in p.updates})
    for group in (g for o in steps.optimisers.values() for g in o.param_groups):
        if not isinstance(group["lr"], Tensor):
            group["lr"] = float(np.float32(group["lr"]))
    stepper = Stepper(model, mixer, parts.data, parts.protocol, steps, torch.Generator(device), nullcontext)
    model.train(), mixer.train(), model.on_epoch_start(2), parts.data.begin_epoch(2)
    stepper.begin_pass(np.random.default_rng(0).permutation(parts.data.size("train")))
    updates = [u for p in model.passes(2) for u in p.updates]
    with silenced(model):
        for _ in range(STEPS):
            for u in updates:
                stepper.run(Piece(8, mixer.probability > 0 and u.losses is None, (), u, True, u is updates[-1]))
    return {k: v.detach().double().cpu() for k, v in model.named_parameters()}


def apart(one: dict[str, Tensor], other: dict[str, Tensor]) -> tuple[float, str]:
    """The largest relative difference of a tensor, and which."""
    far = {k: ((one[k] - w).abs().max() / w.abs().max().clamp(min=1e-3)).item() for k, w in other.items() if w.numel()}
    return max((math.inf if math.isnan(v) else v, k) for k, v in far.items())


def begin(device: str) -> None:
    """A process that checks cells."""
    torch.set_num_threads(1)
    settle(device)


def agree_cell(device: str, cell: tuple[str, str]) -> dict[str, Any]:
    """Largest relative difference of a weight between device and CPU, by precision; an error's text where there is one.
    float32_rounding: of the CPU from itself, its first weights shaken by rounding; asked where float32 is far off."""
    from tests import golden

    began, entry = time.monotonic(), {}
    for dtype in (torch.float64, torch.float32):
        name = str(dtype)[6:]
        try:
            job = Job(golden.cell_config(*cell), 1111)
            here, there = (short_training(job, d, dtype) for d in (device, "cpu"))
            entry[name], entry[f"{name}_at"] = apart(here, there)
            if dtype == torch.float32 and entry[name] > TOLERANCE[name]:
                entry["float32_rounding"] = 0.0
                for shake in range(1, SHAKES + 1):
                    shaken = apart(short_training(job, "cpu", dtype, shake), there)[0]
                    entry["float32_rounding"] = max(entry["float32_rounding"], shaken)
                    if entry[name] <= tolerance(entry, name):
                        break
        except MissingPackage:
            raise
        except Exception as e:  # noqa: BLE001
            entry[name] = f"{type(e).__name__}: {e}"[:300]
    return {**entry, "seconds": round(time.monotonic() - began, 2)}


def tolerance(agree: dict[str, Any], dtype: str) -> float:
    """TOLERANCE; of a training that hard choices (ReLU, top k, a threshold) let rounding steer, ten times what that does."""
    return max(TOLERANCE[dtype], 10 * agree.get(f"{dtype}_rounding", 0.0))


def graphs_cell(device: str, tiny: bool, cell: tuple[str, str]) -> dict[str, Any]:
    """{"same": whether graphs gave eager's weights and history, bit for bit}, with what was not captured and why, by how much
    and where they differ, or the error of either."""
    from tests import golden

    began, which = time.monotonic(), "eager: "
    try:
        job = Job(golden.cell_config(*cell).with_(
            train={"max_epochs": 1 if tiny else 3, "batch_size": 8, "accumulate": 2 if cell[0] == "mult" else 1},
            fraction=0.2 if tiny else 0.25,
        ), 1111)
        a, which = selftest.train(job, device, "eager"), ""
        b = selftest.train(job, device, "auto")
    except MissingPackage:
        raise
    except Exception as e:  # noqa: BLE001
        return {"same": False, "error": f"{which}{type(e).__name__}: {e}"[:300]}
    found: dict[str, Any] = {"same": selftest.same(a, b), "seconds": round(time.monotonic() - began, 2)}
    found |= {"eager_steps_per_s": round(a.steps_per_s, 1), "graph_steps_per_s": round(b.steps_per_s, 1)}
    if b.engine.reason:
        found["not_captured"] = b.engine.reason
    if not found["same"]:
        apart = {k: (a.weights[k].double() - v.double()).abs().max().item() for k, v in b.weights.items() if v.numel()}
        epochs = [i for i, (x, y) in enumerate(zip(a.history, b.history)) if repr(x) != repr(y)]
        found["differs"] = {"by": max(apart.values()), "at": max(apart, key=apart.__getitem__), "epochs": epochs}
        again = selftest.train(job, device, "eager")
        found["eager_repeats"] = selftest.same(a, again)  # else it is the device that does not
    return found


def check(device: str, tiny: bool, cell: tuple[str, str]) -> dict[str, Any] | str:
    """Both comparisons of a cell; why it is skipped where a package is not there."""
    try:
        return {"graphs": graphs_cell(device, tiny, cell), "agree": agree_cell(device, cell)}
    except MissingPackage as e:
        return f"skipped: {e}"


def cells(run: Run) -> dict[str, Any]:
    """Every cell: graphs against eager, the device against the CPU. On a CPU both sides are the same: the code runs, the
    answer is known."""
    found: dict[str, Any] = {"cells": {}, "tolerance": TOLERANCE, "steps": STEPS, "failed": [], "not_captured": {}}
    work, begun = partial(check, run.device, run.tiny), partial(begin, run.device)
    if run.processes == 1:
        begun()
        each: Iterator[Any] = ((c, work(c) if run.left > 0 else "skipped: out of time") for c in chosen(run))
    else:
        each = shared(chosen(run), work, begun, run.processes, lambda: run.left)
    for cell, entry in each:
        name = "+".join(cell)
        found["cells"][name] = entry
        found["failed"] += [f"{name} {w}" for w in wrong(entry)]
        if isinstance(entry, dict) and entry["graphs"].get("not_captured"):
            found["not_captured"][name] = entry["graphs"]["not_captured"]
        run.keep(found)
    return {"processes": run.processes, **found}


def wrong(entry: dict[str, Any] | str) -> Iterator[str]:
    """What is not as it should be with a cell."""
    if isinstance(entry, str):
        if not entry.startswith("skipped"):
            yield entry
        return
    graphs, agree = entry["graphs"], entry["agree"]
    if not graphs["same"]:
        yield f"graphs: {graphs.get('error') or graphs['differs']}, eager repeats itself: {graphs.get('eager_repeats')}"
    for dtype in TOLERANCE:
        if isinstance(agree[dtype], str) or not agree[dtype] <= tolerance(agree, dtype):
            yield f"{dtype}: {agree[dtype]}" + (f", rounding {agree['float32_rounding']}" if f"{dtype}_rounding" in agree else "")


def company(run: Run) -> dict[str, Any]:
    from tests import golden

    some = (("tfn", "msmix", 1), ("lmf", "none", 2), ("tfn", "none", 3))
    short = {"train": {"max_epochs": 1 if run.tiny else 3}, "fraction": 0.2 if run.tiny else 1.0}
    jobs = [Job(golden.cell_config(b, m).with_(**short), s) for b, m, s in some]
    with tempfile.TemporaryDirectory() as folder:
        stores = [Store(f"{folder}/{n}") for n in ("alone", "together")]
        for j in jobs:
            members_of([j], stores[0], run, 1)
        errors = members_of(jobs, stores[1], run, len(jobs))
        same = {j.id: stores[0].history(j).equals(stores[1].history(j)) for j in jobs if not errors}
    return {"same": same, "errors": errors, "failed": bool(errors) or not all(same.values())}


def parity(run: Run) -> dict[str, Any]:
    """The reference implementations' fixtures ($BENCH_PARITY_DIR) on the device, by the tests of parity themselves."""
    folder = os.environ.get("BENCH_PARITY_DIR") or str(Path(__file__).parents[2] / "shared" / "parity")
    if not Path(folder).is_dir():
        return {"skipped": "no fixtures: set BENCH_PARITY_DIR"}
    files = sorted(str(p) for p in Path("tests").glob("test_parity*.py")) if not run.tiny else ["tests/test_parity.py"]
    command = [sys.executable, "-m", "pytest", "-o", "addopts=", "-q", *files]
    command += [w for plugin in ("tests.on_device", "no:cacheprovider", "no:benchmark") for w in ("-p", plugin)]
    if run.processes > 1:
        command += ["-n", str(run.processes), "--dist", "worksteal"]
    env = {**os.environ, "BENCH_TEST_DEVICE": run.device, "BENCH_PARITY_DIR": folder, "OMP_NUM_THREADS": "1"}
    with tempfile.TemporaryDirectory() as made:
        report = Path(made) / "report.xml"
        try:
            done = subprocess.run(
                [*command, "--tb=line", f"--junitxml={report}"], capture_output=True, text=True, env=env, timeout=max(run.left, 1)
            )
        except subprocess.TimeoutExpired:
            return {"skipped": "out of time"}
        failed = failures(report) if report.is_file() else {}
    lines = done.stdout.splitlines()
    counts = {kind: int(n) for n, kind in re.findall(r"(\d+) (passed|failed|skipped|error)", lines[-1] if lines else "")}
    return {**counts, "failed": failed, "last": lines[-1:], **({} if counts else {"error": (done.stdout + done.stderr)[-500:]})}


def failures(report: Path) -> dict[str, str]:
    """Test -> why it failed, in one line, of pytest's JUnit report."""
    found = {}
    for case in ElementTree.parse(report).iter("testcase"):
        for bad in (*case.findall("failure"), *case.findall("error")):
            found[f"{case.get('classname')}::{case.get('name')}"] = " ".join((bad.get("message") or "").split())[:300]
    return found
