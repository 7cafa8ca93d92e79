"""What a training step launches on a GPU."""

from collections.abc import Callable
from typing import Any

import torch

from bench.train.engine import choose
from bench.train.loop import training
from benchmarks.gpu_encoder import bert, encoder_step
from benchmarks.gpu_run import FROZEN, Run, parts_of, streams_of
from benchmarks.gpu_speed import rate_jobs


def kernels(run: Run) -> dict[str, Any]:
    """What a training step launches, and how long the device works on it: of one eager step, by torch's profiler."""
    found: dict[str, Any] = {"steps": {}}
    for backbone in run.backbones or (("lmf",) if run.tiny else FROZEN):
        for mixer in ("none", "msmix"):
            job = rate_jobs(run, backbone, mixer)[0]
            parts, streams = parts_of(job, run.device), streams_of(job, run.device)
            turns = training(parts.model, parts.mixer, parts.data, parts.protocol, streams, parts.family, lambda line: None, choose("eager", run.device))
            found["steps"][f"{backbone}+{mixer}"] = _launched(run, lambda turns=turns: next(turns))
            run.keep(found)
    found["steps"]["encoder, batch 32"] = _launched(run, encoder_step(run, bert(run), 32, 16 if run.tiny else 48))
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
