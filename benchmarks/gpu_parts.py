"""The parts of benchmarks/gpu.py. Each is a function of a Run and returns what goes into the JSON."""

import gc
import math
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bench import selftest
from bench.data.dataset import load
from bench.job import Parts, assemble, running
from bench.launch.company import Company, Member
from bench.matrix import Job
from bench.models.parts.cost import gflops
from bench.seeds import numpy_stream, stream_seed
from bench.store import Store
from bench.train.capturable import as_on_gpu
from bench.train.engine import choose
from bench.train.loop import Streams, training
from bench.train.step import Piece

TOLERANCE = {"float64": 1e-9, "float32": 2e-3}  # largest difference of a weight after STEPS steps, relative to its tensor
STEPS = 5
FROZEN = ("tfn", "lmf", "mult")  # msmix-t1's backbones with frozen text
METHODS = ("none", "manifold", "multimix", "advmixup", "powmix", "msmix")


@dataclass
class Run:
    device: str
    tiny: bool
    end: float  # time.monotonic
    cells: list[str] = field(default_factory=list)
    found: dict[str, Any] = field(default_factory=dict)

    @property
    def left(self) -> float:
        return self.end - time.monotonic()

    @property
    def cuda(self) -> bool:
        return self.device.startswith("cuda")

    def wait(self) -> None:
        if self.cuda:
            torch.cuda.synchronize()

    def clean(self) -> None:
        gc.collect()
        if self.cuda:
            torch.cuda.synchronize()
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()

    def memory_mb(self) -> float:
        return round(torch.cuda.max_memory_allocated() / 2**20, 1) if self.cuda else 0.0


def cells(run: Run) -> list[tuple[str, str]]:
    from tests import golden

    if run.cells:
        return [tuple(c.split("+")) for c in run.cells]
    return [("lmf", "none"), ("tfn", "msmix")] if run.tiny else golden.cells()


def job_of(run: Run, backbone: str, mixer: str, seed: int = 1111, **train: Any) -> Job:
    """A cell of msmix-t1 at its published sizes on MOSI-sized generated data, or as the golden tests have it."""
    from bench.experiments.common import config
    from tests import golden

    if run.tiny:
        return Job(golden.cell_config(backbone, mixer).with_(train=train, fraction=0.2), seed)
    c = config("msmix", backbone, "mosi", mixer)
    features = "aligned" if backbone == "mult" else c.features
    return Job(c.with_(dataset="synthetic-mosi-full", features=features, train=train), seed)


def parts_of(job: Job, device: str) -> Parts:
    return assemble(job, load(job.config.dataset, job.config.features), device)


def streams_of(job: Job, device: str) -> Streams:
    c = job.config
    return Streams(
        numpy_stream(c.dataset, c.backbone, job.seed, "order"), numpy_stream(c.dataset, c.backbone, job.seed, "mixing"),
        torch.Generator(device).manual_seed(stream_seed(c.dataset, c.backbone, job.seed, "mixing")),
    )


# --- correctness --------------------------------------------------------------------------------------------------------


@contextmanager
def silenced(model: nn.Module) -> Iterator[None]:
    """Training mode without dropout and gate noise: what two devices do not draw alike."""
    from bench.models.parts import layers

    for m in model.modules():
        if isinstance(m, nn.Dropout):
            m.p = 0.0
        if isinstance(m, nn.MultiheadAttention):
            m.dropout = 0.0
    real, randn_like, functional = layers.dropout, torch.randn_like, nn.functional.dropout

    def quiet(x: Tensor, *_: Any, **__: Any) -> Tensor:
        return x

    patched = [m for n, m in list(sys.modules.items()) if n.startswith("bench.models") and getattr(m, "dropout", None) is real]
    for m in patched:
        m.dropout = quiet
    torch.randn_like, nn.functional.dropout = torch.zeros_like, quiet
    try:
        yield
    finally:
        for m in patched:
            m.dropout = real
        torch.randn_like, nn.functional.dropout = randn_like, functional


def short_training(job: Job, device: str, dtype: torch.dtype) -> dict[str, Tensor]:
    """Weights after STEPS steps, draws of the mixer made on the CPU wherever the step runs."""
    from bench.train.optim import Steps
    from bench.train.step import Stepper

    parts = parts_of(job, device)
    model, mixer = parts.model.to(dtype), parts.mixer.to(dtype)
    parts.data.tensors = {
        s: {k: t.to(dtype) if t.is_floating_point() else t for k, t in tensors.items()} for s, tensors in parts.data.tensors.items()
    }
    as_on_gpu(model)
    if hasattr(mixer, "draw"):
        draw, generator = mixer.draw, torch.Generator().manual_seed(5)
        mixer.draw = lambda size, _, d: {k: v.to(device) for k, v in draw(size, generator, d).items()}
    steps = Steps(model, mixer.own_parameters(), parts.protocol, {u.optimiser: 1 for p in model.passes(2) for u in p.updates})
    from contextlib import nullcontext

    stepper = Stepper(model, mixer, parts.data, parts.protocol, steps, torch.Generator(device), nullcontext)
    model.train(), mixer.train(), model.on_epoch_start(2), parts.data.begin_epoch(2)
    stepper.begin_pass(np.random.default_rng(0).permutation(parts.data.size("train")))
    updates = [u for p in model.passes(2) for u in p.updates]
    with silenced(model):
        for _ in range(STEPS):
            for u in updates:
                stepper.run(Piece(8, mixer.probability > 0 and u.losses is None, (), u, True, u is updates[-1]))
    return {k: v.detach().double().cpu() for k, v in model.named_parameters()}


def agree(run: Run) -> dict[str, Any]:
    from tests import golden

    found: dict[str, Any] = {"cells": {}, "tolerance": TOLERANCE, "steps": STEPS, "failed": []}
    for backbone, mixer in cells(run):
        if run.left < 0 or sum(c.get("seconds", 0) for c in found["cells"].values()) > (90 if run.cuda else 1e9):
            found["cells"][f"{backbone}+{mixer}"] = {"skipped": "out of time"}
            continue
        began, entry = time.monotonic(), {}
        for dtype in (torch.float64, torch.float32):
            name = str(dtype).removeprefix("torch.")
            try:
                job = Job(golden.cell_config(backbone, mixer), 1111)
                here, there = (short_training(job, d, dtype) for d in (run.device, "cpu"))
                worst = max(((here[k] - there[k]).abs().max() / there[k].abs().max().clamp(min=1e-3)).item() for k in here)
                entry[name] = worst
                if not worst <= TOLERANCE[name]:
                    found["failed"].append(f"{backbone}+{mixer} {name} {worst:.1e}")
            except Exception as e:  # noqa: BLE001
                entry[name] = f"{type(e).__name__}: {e}"[:200]
                found["failed"].append(f"{backbone}+{mixer} {name}")
        found["cells"][f"{backbone}+{mixer}"] = {**entry, "seconds": round(time.monotonic() - began, 2)}
    return found


def graphs(run: Run) -> dict[str, Any]:
    """On a CPU the same comparison is between two eager trainings: the code runs, the answer is known."""
    from tests import golden

    found: dict[str, Any] = {"cells": {}, "failed": [], "not_captured": {}}
    began = time.monotonic()
    for backbone, mixer in cells(run):
        name = f"{backbone}+{mixer}"
        if run.left < 0 or run.cuda and time.monotonic() - began > 90:
            found["cells"][name] = "skipped: out of time"
            continue
        try:
            job = Job(golden.cell_config(backbone, mixer).with_(
                train={"max_epochs": 1 if run.tiny else 3, "batch_size": 8, "accumulate": 2 if backbone == "mult" else 1},
                fraction=0.2 if run.tiny else 1.0,
            ), 1111)
            a, b = selftest.train(job, run.device, "eager"), selftest.train(job, run.device, "auto")
            worst = max((a.weights[k].double() - v.double()).abs().max().item() for k, v in b.weights.items() if v.numel())
            found["cells"][name] = "bitwise" if selftest.same(a, b) else f"differs by {worst:.1e}"
            if not selftest.same(a, b):
                found["failed"].append(name)
            if b.engine.reason:
                found["not_captured"][name] = b.engine.reason
        except Exception as e:  # noqa: BLE001
            found["cells"][name] = f"{type(e).__name__}: {e}"[:200]
            found["failed"].append(name)
    return found


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


def members_of(jobs: Sequence[Job], store: Store, run: Run, size: int, engine: str = "auto") -> list[str]:
    """Run jobs in companies of `size`; returns the errors."""
    waiting, errors = list(jobs), []

    def more() -> Member | None:
        if not waiting or run.left < 0:
            return None
        j = waiting.pop(0)
        return Member(
            j.id, running(j, store, None, run.device, engine=engine), torch.device(run.device),
            lambda _, error: errors.append(f"{j.config.backbone}+{j.config.mixer}: {error}") if error else None,
        )

    Company(more, size).run()
    return errors + [f"{j.id}: out of time" for j in waiting]


# --- speed --------------------------------------------------------------------------------------------------------------


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
    x = torch.empty(2**22 if run.tiny else 2**28, device=run.device)
    y = torch.empty_like(x)
    found["copy_gb_s"] = round(2 * x.nbytes / timed(run, lambda: y.copy_(x)) / 1e9, 2)
    return found


def speed(run: Run, jobs: Sequence[Job], engine: str, seconds: float) -> dict[str, Any]:
    """Training steps per second, all jobs together, validation and the epochs' ends included; after two epochs, in
    which graphs are captured."""
    run.clean()
    steps = 0

    def member(j: Job) -> Member:
        parts, streams = parts_of(j, run.device), streams_of(j, run.device)
        chosen = choose(engine, run.device, [streams.mixing])
        real = chosen.run

        def counting(key: Any, work: Any) -> bool:
            nonlocal steps
            steps += key[0] == "training step"
            return real(key, work)

        chosen.run = counting

        def turns() -> Iterator[Any]:
            yield chosen
            yield from training(parts.model, parts.mixer, parts.data, parts.protocol, streams, parts.family, lambda line: None, chosen)

        return Member(j.id, turns(), torch.device(run.device), lambda _, error: errors.append(str(error)))

    errors: list[str] = []
    began_all = time.perf_counter()
    everyone = [member(j) for j in jobs]
    c = jobs[0].config
    n = math.ceil(load(c.dataset, c.features).train_size * c.fraction / c.train["batch_size"])
    while steps < 2 * n * len(jobs) and time.perf_counter() - began_all < 3 * seconds + (0 if run.tiny else 8) and everyone:
        everyone = [m for m in everyone if m.turn()]
    run.wait()
    steps, began = 0, time.perf_counter()
    while time.perf_counter() - began < seconds and everyone:
        for _ in range(20):
            everyone = [m for m in everyone if m.turn()]
    run.wait()
    rate = steps / (time.perf_counter() - began)
    reasons = sorted({m.engine.reason for m in everyone if m.engine and m.engine.reason})
    return {"steps_per_s": round(rate, 1), "jobs": len(jobs), "memory_mb": run.memory_mb(), "utilisation": _busy(run),
            **({"reasons": reasons} if reasons else {}), **({"errors": errors} if errors else {}), "steps_an_epoch": n}


def _busy(run: Run) -> int | None:
    try:
        return torch.cuda.utilization() if run.cuda else None
    except Exception:  # noqa: BLE001 - needs nvidia-ml-py
        return None


def rates(run: Run) -> dict[str, Any]:
    seconds = 0.3 if run.tiny else 3.0
    found: dict[str, Any] = {"backbones": {}, "batch": 32}
    backbones = ("lmf", "tfn") if run.tiny else (*FROZEN, "misa", "self_mm", "almt", "glomo")
    for backbone in backbones:
        entry: dict[str, Any] = {}
        found["backbones"][backbone] = entry
        try:
            params = {} if backbone in FROZEN else {"encoder": "none"}
            job = job_of(run, backbone, "msmix", max_epochs=10**6, patience=10**6, batch_size=8 if run.tiny else 32, accumulate=1)
            jobs = [Job(job.config.with_(backbone_params=params), 1111 + i) for i in range(16)]
            entry["eager"] = speed(run, jobs[:1], "eager", seconds)
            entry["graph"] = speed(run, jobs[:1], "auto", seconds)
            best = entry["graph"]["steps_per_s"]
            for size in (2,) if run.tiny else (4, 8, 16):
                if run.left < 60 and not run.tiny:
                    break
                entry[f"company_{size}"] = speed(run, jobs[:size], "auto", seconds)
                if entry[f"company_{size}"]["steps_per_s"] < 1.05 * best:
                    break
                best = entry[f"company_{size}"]["steps_per_s"]
            entry["floor_seconds_a_step"] = floor(run, jobs[0])
        except Exception as e:  # noqa: BLE001
            entry["error"] = f"{type(e).__name__}: {e}"[:300]
    found["failed"] = [b for b, e in found["backbones"].items() if "error" in e]
    return found


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
        n, total, began, limit = 0, 0.0, time.perf_counter(), 0.3 if run.tiny else 5.0
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
        best = max((e["steps_per_s"] for k, e in ours.items() if isinstance(e, dict) and (k == "graph" or k.startswith("company"))), default=None)
        found[backbone] = entry | ({"ratio": round(best / entry["steps_per_s"], 1)} if best else {})
    return {"backbones": found}


def encoder(run: Run) -> dict[str, Any]:
    """A text encoder of BERT-base's size, random weights, 32 sentences of 48 word pieces, forward, backward, AdamW."""
    from transformers import BertConfig, BertModel

    sizes = dict(hidden_size=64, num_hidden_layers=2, num_attention_heads=2, intermediate_size=128) if run.tiny else {}
    batch, length = (4, 16) if run.tiny else (32, 48)
    model = BertModel(BertConfig(**sizes), add_pooling_layer=False).to(run.device).train()
    ids = torch.randint(1000, 20000, (batch, length), device=run.device)
    mask = torch.ones(batch, 1, 1, length, dtype=torch.bool, device=run.device)
    optimiser = torch.optim.AdamW(model.parameters(), 1e-5, fused=True, capturable=True)

    def step() -> None:
        with torch.autocast(run.device.split(":")[0], torch.bfloat16):
            loss = model(input_ids=ids, attention_mask=mask).last_hidden_state[:, 0].float().square().mean()
        loss.backward()
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)

    found: dict[str, Any] = {"eager_ms": round(1e3 * timed(run, step, 0.3 if run.tiny else 1.5), 3)}
    if run.cuda:
        chosen = choose("auto", run.device)
        chosen.parameters = list(model.parameters())
        with chosen.context():
            found["graph_ms"] = round(1e3 * timed(run, lambda: chosen.run(("encoder step",), step), 1.5), 3)
        found["reason"] = chosen.reason
    weights = sum(q.numel() for n, q in model.named_parameters() if q.ndim == 2 and "embeddings" not in n)
    d = model.config.hidden_size
    flops = 6 * batch * length * (weights + 2 * length * d * model.config.num_hidden_layers)
    rate = run.found.get("machine", {}).get("matmul_tflops_bfloat16")
    best = found.get("graph_ms", found["eager_ms"]) / 1e3
    found |= {"tflops": round(flops / best / 1e12, 4), "sentences_per_s": round(batch / best, 1), "memory_mb": run.memory_mb()}
    return found | ({"share_of_matmul_rate": round(flops / best / 1e12 / rate, 3)} if rate else {})


def slice_(run: Run) -> dict[str, Any]:
    """End to end: data, training with early stopping, test, job folders. Fewer seeds where the time is short; the wall
    time of all 90 jobs is then scaled, and says so."""
    backbones, methods = (("lmf",), ("none", "msmix")) if run.tiny else (FROZEN, METHODS)
    sizes = run.found.get("rates", {}).get("backbones", {})
    best = [max((int(k.split("_")[1]) for k in e if k.startswith("company")), default=4) for e in sizes.values()]
    size = max(best, default=4)
    seeds = range(1111, 1112 if run.tiny else 1116)
    ended, began, errors = 0, time.monotonic(), []
    train = {"max_epochs": 1} if run.tiny else {"max_epochs": 40}
    with tempfile.TemporaryDirectory() as folder:
        store = Store(folder)
        for seed in seeds:  # whole rounds, so that a shorter one is a fair share of all
            if run.left < (60 if not run.tiny else 0) and ended:
                break
            jobs = [job_of(run, b, m, seed, **train) for b in backbones for m in methods]
            errors += members_of(jobs, store, run, size)
            ended += len(jobs)
    wall, all_jobs = time.monotonic() - began, len(backbones) * len(methods) * len(seeds)
    return {"jobs": ended, "of": all_jobs, "company": size, "wall_s": round(wall, 1), "errors": errors[:5],
            "wall_s_of_all": round(wall * all_jobs / max(ended, 1), 1), "scaled": ended < all_jobs, "failed": bool(errors)}


def projection(run: Run) -> dict[str, Any]:
    """GPU-hours of the paper suite: every job at its backbone's best measured rate, those without one at the slowest
    measured; early stopping after EPOCHS epochs; encoders at their measured time per sentence."""
    from bench.experiments import select
    from bench.plan import make_plan
    from bench.suites import suite

    epochs = 20
    best = {}
    for b, entry in run.found.get("rates", {}).get("backbones", {}).items():
        found = [e["steps_per_s"] for e in entry.values() if isinstance(e, dict) and "steps_per_s" in e]
        if found:
            best[b] = max(found)
    if not best:
        return {"skipped": "no rates were measured"}
    sizes = {"mosi": 1284, "mosei": 16326, "sims": 1368, "ur_funny": 7614, "mustard": 410}
    sentences = run.found.get("encoder", {}).get("sentences_per_s")
    with tempfile.TemporaryDirectory() as folder:
        plan = make_plan(select(()), suite("paper"), Store(folder))
    hours: dict[str, float] = {}
    for j in plan.jobs:
        c = j.config
        n = sizes.get(c.dataset.removeprefix("synthetic-").removesuffix("-full"), 1284) * c.fraction
        seconds = epochs * n / c.train.get("batch_size", 32) / best.get(c.backbone, min(best.values()))
        if c.backbone_params.get("encoder", "none") != "none" and sentences:
            seconds += epochs * n / sentences
        hours[c.backbone] = hours.get(c.backbone, 0.0) + seconds / 3600
    return {"jobs": len(plan.jobs), "epochs_assumed": epochs, "gpu_hours": round(sum(hours.values()), 2),
            "by_backbone": {b: round(h, 2) for b, h in sorted(hours.items(), key=lambda kv: -kv[1])},
            "of_sizes": "tiny: no projection of anything" if run.tiny else "as published"}


PARTS: dict[str, Callable[[Run], dict[str, Any]]] = {
    "agree": agree, "graphs": graphs, "company": company, "machine": machine, "rates": rates, "peer": peer,
    "encoder": encoder, "slice": slice_, "projection": projection,
}


def table(name: str, found: dict[str, Any]) -> str:
    """A part in a few lines."""
    if name == "rates" and "backbones" in found:
        lines = []
        for b, entry in found["backbones"].items():
            each = [f"{k} {e['steps_per_s']:g}/s" for k, e in entry.items() if isinstance(e, dict)]
            lines.append(f"  {b:10s} " + ", ".join(each) + (f" {entry['error']}" if "error" in entry else ""))
        return "\n".join(lines)
    if "cells" in found:
        well = len(found["cells"]) - len(found.get("failed", []))
        rest = "".join(f"\n  {c}: {why}" for c, why in found.get("not_captured", {}).items())
        return f"  {well} of {len(found['cells'])} cells well" + "".join(f"\n  {f}" for f in found.get("failed", [])[:20]) + rest
    return "\n".join(f"  {k}: {v}" for k, v in found.items() if k != "seconds")
