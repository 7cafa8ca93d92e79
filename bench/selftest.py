"""Does a device train as it should: a short training eagerly and as graphs, compared bit for bit. `bench doctor` runs it
on every GPU, python -m benchmarks.gpu on every cell."""

import time
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from bench.data.dataset import load
from bench.job import assemble, settle
from bench.matrix import Config, Job
from bench.seeds import numpy_stream, stream_seed
from bench.train.engine import Eager, choose
from bench.train.loop import Streams, training
from bench.train.turns import drive


@dataclass
class Trained:
    """What a short training left: weights on the CPU, history, the engine that ran it, steps per second after the
    first epoch."""

    weights: dict[str, Tensor]
    history: list[dict[str, Any]]
    engine: Eager
    steps_per_s: float


@dataclass
class Finding:
    """Of one model on one device. `well`: graphs were captured (on a GPU) and gave the numbers of eager execution."""

    what: str
    well: bool
    line: str
    facts: dict[str, Any] = field(default_factory=dict)


def train(job: Job, device: str, engine: str) -> Trained:
    """A job's training without its folder."""
    c = job.config
    parts = assemble(job, load(c.dataset, c.features), device)
    mixing = torch.Generator(device).manual_seed(stream_seed(c.dataset, c.backbone, job.seed, "mixing"))
    streams = Streams(
        numpy_stream(c.dataset, c.backbone, job.seed, "order"), numpy_stream(c.dataset, c.backbone, job.seed, "mixing"), mixing
    )
    chosen = choose(engine, device, [mixing])
    torch.manual_seed(stream_seed(c.dataset, c.backbone, job.seed, "dropout"))
    steps, began = 0, 0.0
    epochs: list[str] = []
    real = chosen.run

    def counting(key: Any, work: Any, *more: Any) -> bool:
        nonlocal steps, began
        if epochs and not began:
            began = time.perf_counter()
        steps += bool(began) and key[0] == "training step"
        return real(key, work, *more)

    def turns():
        yield chosen
        return (yield from training(
            parts.model, parts.mixer, parts.data, parts.protocol, streams, parts.family, epochs.append, chosen
        ))

    chosen.run = counting
    fit = drive(turns())
    chosen.finish()
    seconds = time.perf_counter() - began if began else 0.0
    weights = {k: v.cpu() for k, v in parts.model.state_dict().items()}
    return Trained(weights, fit.history, chosen, steps / seconds if seconds else 0.0)


def same(a: Trained, b: Trained) -> bool:
    """Bit for bit: every weight and every number of the history, a correlation that is undefined in both included."""
    return repr(a.history) == repr(b.history) and all(torch.equal(a.weights[k], b.weights[k]) for k in a.weights)


CELLS = (
    ("LMF", "lmf", {}, "unaligned"),
    ("tiny encoder (MISA)", "misa", {"encoder": "tiny"}, "unaligned"),
)


def check(device: str, epochs: int = 3) -> list[Finding]:
    """The self-test of a device, some twenty seconds on a GPU. Raises nothing for what goes wrong on the device."""
    settle(device)
    found = []
    for what, backbone, params, features in CELLS:
        config = Config(
            "synthetic-mosi", features, backbone, "none", params, train={"batch_size": 16, "max_epochs": epochs},
        )
        try:
            eager, auto = (train(Job(config, 1111), device, engine) for engine in ("eager", "auto"))
        except Exception as e:  # noqa: BLE001 - said in a line, and the next one is tried
            found.append(Finding(what, False, f"{type(e).__name__}: {str(e).splitlines()[0] if str(e) else ''}"))
            continue
        agree, captured = same(eager, auto), auto.engine.graphs and not auto.engine.reason
        line = f"{eager.steps_per_s:.0f} steps/s eager, {auto.steps_per_s:.0f} as graphs, " if auto.engine.graphs else f"{eager.steps_per_s:.0f} steps/s, "
        line += "the same numbers" if agree else "OTHER NUMBERS as graphs than eager: run with --engine eager"
        line += f"; {auto.engine.reason}" if auto.engine.reason else ""
        if device.startswith("cuda"):
            line += f", {torch.cuda.max_memory_allocated(device) / 2**20:.0f} MiB"
        found.append(Finding(what, agree and (captured or not auto.engine.graphs), line))
    return found
