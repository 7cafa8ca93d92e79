"""How fast a GPU trains: measured ceilings, steps per second of each backbone, kernels of a step, a peer's loop, an
encoder, several processes."""

import math
import multiprocessing
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from bench.data.dataset import load
from bench.job import settle
from bench.launch.company import Member
from bench.matrix import Job
from bench.models.parts.cost import gflops
from bench.train.engine import choose
from bench.train.loop import training
from benchmarks.gpu_run import FROZEN, Run, job_of, parts_of, streams_of
from benchmarks.gpu_service import mps

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
            continue
        try:
            jobs = rate_jobs(run, backbone, "msmix")
            entry["eager"] = speed(run, jobs[:1], "eager", seconds)
            entry["graph"] = speed(run, jobs[:1], "auto", seconds)
            best, size = entry["graph"]["steps_per_s"], 1
            for n in (2,) if run.tiny else COMPANIES:
                if run.left < 15 and not run.tiny:
                    break
                entry[f"company_{n}"] = speed(run, jobs[:n], "auto", seconds)
                if entry[f"company_{n}"]["steps_per_s"] < 1.05 * best:
                    break
                best, size = entry[f"company_{n}"]["steps_per_s"], n
            entry["best_company"], entry["over_eager"] = size, round(best / entry["eager"]["steps_per_s"], 1)
            plain = rate_jobs(run, backbone, "none")
            entry["none"] = {"eager": speed(run, plain[:1], "eager", seconds), "graph": speed(run, plain[:1], "auto", seconds)}
            if size > 1:
                entry["none"][f"company_{size}"] = speed(run, plain[:size], "auto", seconds)
            entry["floor_seconds_a_step"] = floor(run, jobs[0])
        except Exception as e:  # noqa: BLE001
            entry["error"] = f"{type(e).__name__}: {e}"[:300]
    found["failed"] = [b for b, e in found["backbones"].items() if "error" in e]
    return found


def rate_jobs(run: Run, backbone: str, mixer: str) -> list[Job]:
    """Jobs of a cell that differ in their seeds and go on for ever."""
    params = {} if backbone in FROZEN else {"encoder": "none"}
    job = job_of(run, backbone, mixer, max_epochs=10**6, patience=10**6, batch_size=8 if run.tiny else 32, accumulate=1)
    return [Job(job.config.with_(backbone_params=params), 1111 + i) for i in range(max(COMPANIES))]


def kernels(run: Run) -> dict[str, Any]:
    """What a training step launches, and how long the device works on it: of one eager step, by torch's profiler."""
    found: dict[str, Any] = {"steps": {}}
    for backbone in run.backbones or (("lmf",) if run.tiny else FROZEN):
        for mixer in ("none", "msmix"):
            job = rate_jobs(run, backbone, mixer)[0]
            parts, streams = parts_of(job, run.device), streams_of(job, run.device)
            turns = training(parts.model, parts.mixer, parts.data, parts.protocol, streams, parts.family, lambda line: None, choose("eager", run.device))
            found["steps"][f"{backbone}+{mixer}"] = _launched(run, lambda turns=turns: next(turns))
    found["steps"]["encoder, batch 32"] = _launched(run, _encoder_step(run, _bert(run), 32, 16 if run.tiny else 48))
    return found


def _launched(run: Run, step: Callable[[], object]) -> dict[str, Any]:
    from torch.profiler import ProfilerActivity, profile

    for _ in range(5):
        step()
    run.wait()
    with profile(activities=[ProfilerActivity.CUDA if run.cuda else ProfilerActivity.CPU]) as seen:
        for _ in range(3):
            step()
        run.wait()
    events = [e for e in seen.events() if not run.cuda or e.device_type == torch.autograd.DeviceType.CUDA]
    times: dict[str, list[float]] = {}
    for e in events:
        times.setdefault(e.name[:90], []).append(e.device_time if run.cuda else e.self_cpu_time_total)
    top = sorted(times.items(), key=lambda kv: -sum(kv[1]))[:16]
    return {
        "kernels": round(len(events) / 3), "device_us": round(sum(map(sum, times.values())) / 3, 1),
        "top": [[n, round(len(v) / 3, 1), round(sum(v) / 3, 1)] for n, v in top],
    }


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
    return {"backbones": found}


def encoder(run: Run) -> dict[str, Any]:
    """A text encoder of BERT-base's size, random weights, sentences of 48 word pieces, dropout, forward, backward, AdamW,
    bf16: eagerly and as graphs at batch 32, in company, and at batch 128. `share_of_matmul_rate`: of the rate measured
    by the part machine."""
    length = 16 if run.tiny else 48
    found: dict[str, Any] = {"word_pieces": length}
    for batch, size in ((32, 1),) if run.tiny else ((32, 1), (32, 2), (32, 4), (32, 8), (128, 1)):
        if run.left < 10 and not run.tiny:
            break
        run.clean()
        found[f"batch {batch}, {size} at once"] = _encoders(run, batch, length, size)
    return found


def _encoders(run: Run, batch: int, length: int, size: int) -> dict[str, Any]:
    steps = []
    for _ in range(size):
        model = _bert(run)
        steps.append((choose("auto", run.device), _encoder_step(run, model, batch, length)))
        steps[-1][0].parameters = list(model.parameters())

    def all_steps() -> None:
        for engine, step in steps:
            with engine.context():
                engine.run(("encoder step",), step)

    found: dict[str, Any] = {}
    if size == 1:
        found["eager_ms"] = round(1e3 * timed(run, steps[0][1], 0.3), 3)
    each = timed(run, all_steps, 0.3 if run.tiny else 1.0) / size
    weights = sum(q.numel() for n, q in model.named_parameters() if q.ndim == 2 and "embeddings" not in n)
    config = model.config
    flops = 6 * batch * length * (weights + 2 * length * config.hidden_size * config.num_hidden_layers)
    found |= {
        "ms": round(1e3 * each, 3), "reason": steps[0][0].reason, "tflops": round(flops / each / 1e12, 4),
        "sentences_per_s": round(batch / each, 1), "memory_mb": run.memory_mb(),
    }
    rate = run.found.get("machine", {}).get("matmul_tflops_bfloat16")
    return found | ({"share_of_matmul_rate": round(flops / each / 1e12 / rate, 3)} if rate else {})


def _bert(run: Run) -> nn.Module:
    from transformers import BertConfig, BertModel

    sizes = dict(hidden_size=64, num_hidden_layers=2, num_attention_heads=2, intermediate_size=128) if run.tiny else {}
    return BertModel(BertConfig(**sizes), add_pooling_layer=False).to(run.device).train()


def _encoder_step(run: Run, model: nn.Module, batch: int, length: int) -> Callable[[], None]:
    ids = torch.randint(1000, 20000, (batch, length), device=run.device)
    mask = torch.ones(batch, 1, 1, length, dtype=torch.bool, device=run.device)
    optimiser = torch.optim.AdamW(model.parameters(), 1e-5, fused=True, capturable=run.cuda)

    def step() -> None:
        with torch.autocast(run.device.split(":")[0], torch.bfloat16):
            loss = model(input_ids=ids, attention_mask=mask).last_hidden_state[:, 0].float().square().mean()
        loss.backward()
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)

    return step


def _process(device: str, job_args: tuple[str, str], size: int, tiny: bool, seconds: float, barrier: Any, results: Any) -> None:
    settle(device)
    run = Run(device, tiny, time.monotonic() + 600)
    jobs = rate_jobs(run, *job_args)[:size]
    results.put(speed(run, jobs, "auto", seconds, barrier.wait)["steps_per_s"])


def processes(run: Run) -> dict[str, Any]:
    """The same jobs in one process or shared out over several, which take turns on a GPU unless its Multi-Process Service
    runs (where its daemon can be started for this test, it is, in a folder of its own, and ended)."""
    found: dict[str, Any] = {}
    seconds, shapes = (0.3, ((2, 1),)) if run.tiny else (2.0, ((1, 16), (4, 4), (4, 8)))
    for service in (False, True) if run.cuda else (False,):
        with mps(service) as state:
            if service:
                found["service"] = state
                if state != "on":
                    break
            for backbone in run.backbones or (("lmf",) if run.tiny else ("lmf", "mult")):
                for n, size in shapes[1:] if service else shapes:
                    if run.left > 15 or run.tiny:
                        found[f"{backbone}, {n} x {size}" + (", service" if service else "")] = _together(run, backbone, n, size, seconds)
    return found


def _together(run: Run, backbone: str, n: int, size: int, seconds: float) -> dict[str, Any]:
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(n), context.Queue()
    those = [
        context.Process(target=_process, args=(run.device, (backbone, "msmix"), size, run.tiny, seconds, barrier, results), daemon=True)
        for _ in range(n)
    ]
    for p in those:
        p.start()
    try:
        each = [results.get(timeout=60 if run.cuda else 300) for _ in those]
    except Exception as e:  # noqa: BLE001 - an empty queue: one of them died
        for p in those:
            p.kill()
        return {"error": f"{type(e).__name__}"}
    for p in those:
        p.join(10)
    return {"steps_per_s": round(sum(each), 1), "each": each}
