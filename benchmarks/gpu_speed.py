"""How fast a GPU trains: measured ceilings, steps per second of each backbone, a peer's loop."""

import math
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from bench.data.dataset import load
from bench.launch.company import Member
from bench.matrix import Job
from bench.models.parts.cost import gflops
from bench.train.engine import choose
from bench.train.loop import training
from benchmarks.gpu_run import FROZEN, Run, job_of, parts_of, streams_of

COMPANIES = (8, 16, 32)


def timed(run: Run, work: Callable[[], object], seconds: float = 0.5) -> float:
    """Seconds of one call, the median of three rounds."""
    for _ in range(3):
        work()
    run.wait()
    rounds = []
    for _ in range(3):
        n, began = 0, time.perf_counter()
        while time.perf_counter() - began < seconds / 3:
            for _ in range(5):
                work()
            n += 5
            run.wait()
        rounds.append((time.perf_counter() - began) / n)
    return statistics.median(rounds)


def machine(run: Run) -> dict[str, Any]:
    n = 512 if run.tiny else 8192
    found = {}
    for dtype in (torch.float32, torch.bfloat16):
        a = torch.randn(n, n, device=run.device).to(dtype)
        found[f"matmul_tflops_{str(dtype)[6:]}"] = round(2 * n**3 / timed(run, lambda a=a: a @ a) / 1e12, 4)
        run.keep(found)
    x = torch.empty(2**22 if run.tiny else 2**28, device=run.device)
    y = torch.empty_like(x)
    found["copy_gb_s"] = round(2 * x.nbytes / timed(run, lambda: y.copy_(x)) / 1e9, 2)
    return found


def speed(
    run: Run, jobs: Sequence[Job], engine: str, seconds: float, ready: Callable[[], object] = lambda: None
) -> dict[str, Any]:
    """Training steps per second, all jobs together, validation and the epochs' ends included; after two epochs of
    each, in which graphs are captured (eagerly: after five steps), and once `ready` has returned."""
    run.clean()
    steps, epochs = 0, dict.fromkeys((j.id for j in jobs), 0)

    def member(j: Job) -> Member:
        parts, streams = parts_of(j, run.device), streams_of(j, run.device)
        chosen = choose(engine, run.device, [streams.mixing])
        real = chosen.run

        def counting(key: Any, work: Any, *more: Any) -> bool:
            nonlocal steps
            steps += key[0] == "training step"
            return real(key, work, *more)

        chosen.run = counting

        def ended(line: str) -> None:
            epochs[j.id] += 1

        def turns() -> Iterator[Any]:
            yield chosen
            yield from training(parts.model, parts.mixer, parts.data, parts.protocol, streams, parts.family, ended, chosen)

        return Member(j.id, turns(), torch.device(run.device), lambda _, error: errors.append(str(error)))

    errors: list[str] = []
    began_all = time.perf_counter()
    everyone = [member(j) for j in jobs]
    c = jobs[0].config
    n = math.ceil(load(c.dataset, c.features).train_size * c.fraction / c.train["batch_size"])

    def warming() -> bool:
        return steps < 5 if engine == "eager" else min(epochs.values()) < 2

    while warming() and time.perf_counter() - began_all < 3 * seconds + (0 if run.tiny else 30) and everyone:
        everyone = [m for m in everyone if m.turn()]
    run.wait()
    warm = time.perf_counter() - began_all
    ready()
    steps, began, cpu = 0, time.perf_counter(), time.process_time()
    while time.perf_counter() - began < seconds and everyone:
        for _ in range(20):
            everyone = [m for m in everyone if m.turn()]
    run.wait()
    rate, host = steps / (time.perf_counter() - began), (time.process_time() - cpu) / max(steps, 1)
    reasons = sorted({m.engine.reason for m in everyone if m.engine and m.engine.reason})
    return {"steps_per_s": round(rate, 1), "jobs": len(jobs), "memory_mb": run.memory_mb(), "utilisation": _busy(run),
            "host_us_a_step": round(1e6 * host, 1), "warm_s": round(warm, 1),
            **({"reasons": reasons} if reasons else {}), **({"errors": errors} if errors else {}), "steps_an_epoch": n}


def _busy(run: Run) -> int | None:
    try:
        return torch.cuda.utilization() if run.cuda else None
    except Exception:  # noqa: BLE001 - needs nvidia-ml-py
        return None


def rates(run: Run) -> dict[str, Any]:
    """Per backbone at batch 32: with MS-Mix, the dearest method, eagerly, as graphs and in ever larger companies as long
    as they pay; without a mixer in the company that was best."""
    seconds = 0.3 if run.tiny else 1.5
    found: dict[str, Any] = {"backbones": {}, "batch": 8 if run.tiny else 32}
    backbones = run.backbones or (("lmf", "tfn") if run.tiny else (*FROZEN, "misa", "self_mm", "almt", "glomo"))
    for backbone in backbones:
        entry: dict[str, Any] = {}
        found["backbones"][backbone] = entry
        if run.left < 0:
            entry["skipped"] = "out of time"
            run.keep(found, rate_line(backbone, entry))
            continue
        try:
            _rates_of(run, backbone, entry, seconds, lambda: run.keep(found))
        except Exception as e:  # noqa: BLE001
            entry["error"] = f"{type(e).__name__}: {e}"[:300]
        run.keep(found, rate_line(backbone, entry))
    found["failed"] = [b for b, e in found["backbones"].items() if "error" in e]
    return found


def _rates_of(run: Run, backbone: str, entry: dict[str, Any], seconds: float, kept: Callable[[], None]) -> None:
    """Fills a backbone's entry; `kept` is called after each measurement, for it may be the last one."""

    def measure(into: dict[str, Any], name: str, jobs: Sequence[Job], engine: str = "auto") -> float:
        into[name] = speed(run, jobs, engine, seconds)
        kept()
        return into[name]["steps_per_s"]

    jobs = rate_jobs(run, backbone, "msmix")
    eager = measure(entry, "eager", jobs[:1], "eager")
    best, size = measure(entry, "graph", jobs[:1]), 1
    for n in (2,) if run.tiny else COMPANIES:
        if run.left < 15 and not run.tiny:
            break
        together = measure(entry, f"company_{n}", jobs[:n])
        if together < 1.05 * best:
            break
        best, size = together, n
    entry["best_company"], entry["over_eager"] = size, round(best / eager, 1)
    plain = rate_jobs(run, backbone, "none")
    entry["none"] = {}
    measure(entry["none"], "eager", plain[:1], "eager")
    measure(entry["none"], "graph", plain[:1])
    if size > 1:
        measure(entry["none"], f"company_{size}", plain[:size])
    entry["floor_seconds_a_step"] = floor(run, jobs[0])


def rate_line(backbone: str, entry: dict[str, Any]) -> str:
    """What the part prints of a backbone."""
    each = [f"{k} {e['steps_per_s']:g}/s" for k, e in entry.items() if isinstance(e, dict) and "steps_per_s" in e]
    each += [f"none {k} {e['steps_per_s']:g}/s" for k, e in entry.get("none", {}).items()]
    return f"{backbone:10s} " + ", ".join([*each, *(entry[k] for k in ("skipped", "error") if k in entry)])


def rate_jobs(run: Run, backbone: str, mixer: str) -> list[Job]:
    """Jobs of a cell that differ in their seeds and go on for ever."""
    params = {} if backbone in FROZEN else {"encoder": "none"}
    job = job_of(run, backbone, mixer, max_epochs=10**6, patience=10**6, batch_size=8 if run.tiny else 32, accumulate=1)
    return [Job(job.config.with_(backbone_params=params), 1111 + i) for i in range(max(COMPANIES))]


def floor(run: Run, job: Job) -> float | None:
    """Seconds below which no step can be: its products at the measured rate (backward counted as twice the forward
    pass), or Adam's and the gradients' traffic at the measured copy rate, whichever is more."""
    measured = run.found.get("machine", {})
    if "copy_gb_s" not in measured:
        return None
    parts = parts_of(job, run.device)
    batch = parts.data.batch("valid", torch.arange(2, device=run.device))
    flops = 3e9 * gflops(parts.model, batch) * job.config.train["batch_size"] * 2  # clean and mixed rows
    moved = 8 * sum(q.nbytes for q in parts.model.parameters())
    return max(flops / (1e12 * measured["matmul_tflops_float32"]), moved / (1e9 * measured["copy_gb_s"]))


def peer(run: Run) -> dict[str, Any]:
    """A loop as in the field's code: items from a DataLoader, copies, losses read every step, default Adam."""
    found: dict[str, Any] = {}
    for backbone in ("lmf",) if run.tiny else FROZEN:
        run.clean()
        batch_size = 8 if run.tiny else 32
        job = job_of(run, backbone, "none", batch_size=batch_size)
        parts = parts_of(job, "cpu")
        model = parts.model.to(run.device).train()
        tensors = parts.data.tensors["train"]

        class Items(torch.utils.data.Dataset):
            def __init__(self, tensors: dict[str, Tensor]) -> None:
                self.tensors = tensors

            def __len__(self) -> int:
                return len(self.tensors["label"])

            def __getitem__(self, i: int) -> dict[str, Any]:
                return {**{k: torch.tensor(v[i].numpy()) for k, v in self.tensors.items()}, "index": i}

        loader = torch.utils.data.DataLoader(Items(tensors), batch_size=batch_size, shuffle=True)
        optimiser = torch.optim.Adam([q for q in model.parameters() if q.requires_grad], 1e-3)
        n, total, began, limit = 0, 0.0, time.perf_counter(), 0.3 if run.tiny else 3.0
        while time.perf_counter() - began < limit:
            for batch in loader:
                batch = {k: v.to(run.device) for k, v in batch.items()}
                optimiser.zero_grad()
                loss = nn.functional.l1_loss(model(batch).prediction, batch["label"])
                loss.backward()
                optimiser.step()
                total += loss.item()
                n += 1
                if time.perf_counter() - began > limit:
                    break
        entry = {"steps_per_s": round(n / (time.perf_counter() - began), 1)}
        ours = run.found.get("rates", {}).get("backbones", {}).get(backbone, {})
        best = max((e["steps_per_s"] for e in ours.get("none", {}).values()), default=None)
        found[backbone] = entry | ({"ratio": round(best / entry["steps_per_s"], 1)} if best else {})
        run.keep({"backbones": found})
    return {"backbones": found}
