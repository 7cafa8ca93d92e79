"""What bounds a company: the time that the host takes to launch a captured step, or the time that the GPU works on it."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

from bench.launch.company import Member
from bench.train.engine import choose
from bench.train.loop import training
from benchmarks.gpu_run import FROZEN, Run, parts_of, streams_of
from benchmarks.gpu_speed import rate_jobs

JOBS = 16
THREADS = (1, 2, 4)
Replay = tuple[Any, Any, torch.Tensor, int]  # a captured step, its stream, the place of its rows in the epoch, steps of that


def launch(run: Run) -> dict[str, Any]:
    """Captured steps of JOBS jobs replayed and nothing else, no validation, no host decisions: by one host thread or
    several; and the host's share of one replay on an idle GPU."""
    if not run.cuda:
        return {"skipped": "needs CUDA"}
    found: dict[str, Any] = {}
    for backbone in run.backbones or FROZEN:
        for mixer in ("none", "msmix"):
            if run.left < 10:
                found[f"{backbone}+{mixer}"] = {"skipped": "out of time"}
                continue
            run.clean()
            replays = _captured(run, backbone, mixer)
            if not replays:
                found[f"{backbone}+{mixer}"] = {"skipped": "no step was captured in time"}
                continue
            entry: dict[str, Any] = {"host_us_a_launch": round(_host(run, replays[0]), 1), "alone_per_s": _rate(run, replays[:1], 1)}
            for threads in THREADS:
                entry[f"{len(replays)} jobs, {threads} threads, per_s"] = _rate(run, replays, threads)
            found[f"{backbone}+{mixer}"] = entry
            run.keep(found)
    return found


def _captured(run: Run, backbone: str, mixer: str) -> list[Replay]:
    """The captured training steps of those jobs that had one in time."""
    engines, members, kinds, steppers = [], [], {}, {}
    batch = 8 if run.tiny else 32
    for j in rate_jobs(run, backbone, mixer)[:JOBS]:
        parts, streams = parts_of(j, run.device), streams_of(j, run.device)
        engine = choose("graph", run.device, [streams.mixing])
        real = engine.run

        def noting(key: Any, work: Any, *more: Any, engine: Any = engine, real: Any = real) -> bool:
            replayed = real(key, work, *more)
            if replayed and key[0] == "training step" and key[1] == batch and key[2] == (mixer != "none"):
                kinds[engine] = key
                steppers[engine] = work.func.__self__
            return replayed

        engine.run = noting

        def turns(parts: Any = parts, streams: Any = streams, engine: Any = engine) -> Iterator[Any]:
            yield engine
            yield from training(parts.model, parts.mixer, parts.data, parts.protocol, streams, parts.family, lambda line: None, engine)

        engines.append(engine)
        members.append(Member(j.id, turns(), torch.device(run.device), lambda _, error: None))
    until = time.monotonic() + 20
    while members and time.monotonic() < until and len(kinds) < len(engines):
        members = [m for m in members if m.turn()]
    run.wait()
    return [(e.captured[kinds[e]], e.stream, steppers[e].place, len(steppers[e].order) // batch) for e in kinds]


def _host(run: Run, replay: Replay) -> float:
    graph, stream, place, steps = replay
    n = min(steps, 8)
    times = []
    with torch.cuda.stream(stream):
        for _ in range(5):
            place.zero_()
            run.wait()
            began = time.perf_counter()
            for _ in range(n):
                graph.replay()
            times.append((time.perf_counter() - began) / n)
    return 1e6 * sorted(times)[2]


def _rate(run: Run, replays: Sequence[Replay], threads: int, seconds: float = 1.0) -> float:
    counts = [0] * threads

    def work(k: int) -> Callable[[], None]:
        def go() -> None:
            mine, until = replays[k::threads], time.perf_counter() + seconds
            while time.perf_counter() < until:
                for graph, stream, place, steps in mine:
                    with torch.cuda.stream(stream):
                        if counts[k] % (steps * len(mine)) == 0:
                            stream.synchronize()  # no further ahead of the GPU than an epoch
                            place.zero_()
                        graph.replay()
                counts[k] += len(mine)

        return go

    run.wait()
    began = time.perf_counter()
    those = [threading.Thread(target=work(k)) for k in range(threads)]
    for t in those:
        t.start()
    for t in those:
        t.join()
    run.wait()
    return round(sum(counts) / (time.perf_counter() - began), 1)
