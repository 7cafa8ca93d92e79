"""What every part of benchmarks/gpu.py needs: the device, the clock, jobs and what they are made of."""

import gc
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from bench.data.dataset import load
from bench.job import Parts, assemble, running
from bench.launch.company import Company, Member
from bench.matrix import Job
from bench.seeds import numpy_stream, stream_seed
from bench.store import Store
from bench.train.loop import Streams

FROZEN = ("tfn", "lmf", "mult")  # msmix-t1's backbones with frozen text
METHODS = ("none", "manifold", "multimix", "advmixup", "powmix", "msmix")


@dataclass
class Run:
    device: str
    tiny: bool
    end: float  # time.monotonic
    cells: list[str] = field(default_factory=list)
    backbones: list[str] = field(default_factory=list)
    processes: int = 1  # for the parts that check cells
    data: str = ""  # a folder with real MOSI
    results: str = ""  # where the runs on it are kept
    found: dict[str, Any] = field(default_factory=dict)
    kept: Callable[[dict[str, Any]], None] = lambda found: None  # writes what the part under way has found so far
    said: bool = False  # whether the part under way printed its results as they came

    def keep(self, found: dict[str, Any], line: str = "") -> None:
        """Every part calls it after each finished measurement: a run that is ended from outside leaves what it had."""
        self.kept(found)
        if line:
            self.said = True
            print(f"  {line}", flush=True)

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


def members_of(jobs: Sequence[Job], store: Store, run: Run, size: int, engine: str = "auto") -> list[str]:
    """Run jobs in companies of `size`; returns the errors."""
    waiting, errors = list(jobs), []

    def done(job: Job) -> Callable[[Any, BaseException | None], None]:
        c = job.config
        return lambda _, error: errors.append(f"{c.backbone}+{c.mixer}: {type(error).__name__}: {error}") if error else None

    def more() -> Member | None:
        if not waiting or run.left < 0:
            return None
        j = waiting.pop(0)
        return Member(j.id, running(j, store, None, run.device, engine=engine), torch.device(run.device), done(j))

    Company(more, size).run()
    return errors + [f"{j.id}: out of time" for j in waiting]
