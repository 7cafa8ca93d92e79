"""Run ONE job: data -> model -> train -> evaluate -> job folder."""

import os
import time
import traceback
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from bench import encoders, environment, registry, weights
from bench.data.corruption import Corruption, parse
from bench.data.corruption.corrupted import Corrupted
from bench.data.dataset import Dataset, load
from bench.data.prepare import for_model
from bench.data.resident import Resident, train_subset
from bench.errors import BenchError
from bench.matrix import Job
from bench.metrics import evaluate
from bench.mixers.base import Mixer
from bench.models.base import Backbone, Inputs
from bench.models.parts.cost import operations, parameters_by_paper
from bench.seeds import numpy_stream, stream_seed
from bench.store import Store
from bench.train.engine import choose, determinism
from bench.train.loop import Streams, constant_loss, predict, task_loss, training
from bench.train.precision import native_bf16
from bench.train.protocol import Protocol, from_params
from bench.train.turns import drive


class JobTimeout(BenchError):
    """The job ran past its time limit."""


def build_model(job: Job, inputs: Inputs) -> Backbone:
    """The job's backbone with the weights of its "init" stream, which no mixer can change."""
    c = job.config
    params = _backbone_params(job)
    torch.manual_seed(stream_seed(c.dataset, c.backbone, job.seed, "init"))
    return registry.load("models", c.backbone).Model(params, inputs)


def _backbone_params(job: Job) -> Any:
    c = job.config
    return from_params(registry.load("models", c.backbone).Params, c.backbone_params, f"backbone '{c.backbone}'")


def build_mixer(job: Job, model: Backbone) -> Mixer:
    """The job's mixer, sized to the backbone's latents."""
    c = job.config
    module = registry.load("mixers", c.mixer)
    params = from_params(module.Params, c.mixer_params, f"mixer '{c.mixer}'")
    torch.manual_seed(stream_seed(c.dataset, c.backbone, job.seed, "mixer-init"))
    return module.Mix(params, model.latent_dims, model.label_bound)


def build_data(job: Job, dataset: Dataset, model_class: type[Backbone], device: str) -> Resident:
    """The splits as the model reads them, on the device, with the training split cut to the job's fraction."""
    c = job.config
    params = _backbone_params(job)
    key = (dataset.sha256, c.dataset, c.features, c.backbone, str(c.backbone_params), c.fraction, c.fraction < 1 and job.seed, device)
    if key in _residents:
        return _residents[key]
    dataset = for_model(dataset, model_class, params)
    rows = None
    if c.fraction < 1.0:
        draw = numpy_stream(c.dataset, c.backbone, job.seed, "fraction")
        rows = train_subset(dataset.train_size, c.fraction, draw)
    tokens = model_class.needs_tokens and getattr(params, "encoder", "") != encoders.NONE
    unimodal = model_class.needs_unimodal or model_class.wants_unimodal and dataset.has_unimodal
    data = Resident(
        dataset, device, time_mean=model_class.time_mean, tokens=tokens, unimodal=unimodal, train_index=rows,
        videos=params.neighbours if model_class.reads_videos else None,
    )
    if device != "cpu":
        torch.cuda.current_stream(data.device).synchronize()  # jobs on other streams read it too
        while len(_residents) >= _KEPT:
            del _residents[next(iter(_residents))]
        _residents[key] = data
    return data


_KEPT = 3
_residents: dict[Any, Resident] = {}  # on a GPU: one copy of the data for the jobs of a process, which only read it


def corrupt(
    job: Job, data: Resident, dataset: Dataset, model: Backbone, corruption: Corruption | None = None
) -> Resident:
    """The data as the job's corruption shows them to the model, or another one from the same draws; the same object where
    there is none."""
    c = job.config
    corruption = corruption or parse(c.corruption)
    if not corruption:
        return data
    return Corrupted(data, dataset, corruption, stream_seed(c.dataset, c.backbone, job.seed, "corruption"), model)


@dataclass(frozen=True)
class Parts:
    """Everything a job trains with, before its first step."""

    protocol: Protocol
    dataset: Dataset
    data: Resident
    model: Backbone
    mixer: Mixer

    @property
    def family(self) -> str:
        """Metric family that the dataset is evaluated in (bench/metrics.py)."""
        return self.dataset.spec.family(self.dataset.features)


def assemble(job: Job, dataset: Dataset, device: str = "cpu") -> Parts:
    """Put a job's data on the device and build its model and mixer, with initial weights."""
    c = job.config
    p: Protocol = from_params(Protocol, c.train, "the training protocol")
    model_class = registry.load("models", c.backbone).Model
    model_class.check(_backbone_params(job), p)
    data = build_data(job, dataset, model_class, device)
    model = build_model(job, Inputs(**data.inputs())).to(device)
    if p.batch_size == 1 and any(isinstance(m, torch.nn.modules.batchnorm._BatchNorm) for m in model.modules()):
        raise BenchError(f"train.batch_size=1: {c.backbone} normalises over the batch, which needs at least 2 rows")
    data = corrupt(job, data, data.dataset, model)
    return Parts(p, dataset, data, model, build_mixer(job, model).to(device))


def settle(device: str) -> None:
    """Deterministic operators, and no slow denormal numbers. Changes the process. A job that needs an operation without a
    deterministic form on its GPU trains with it all the same, and its env.json names it (`running`).

    Not by torch.use_deterministic_algorithms, which imports a compiler (1.4 CPU seconds a worker); and uninitialised
    memory, which nothing here reads, is not filled (4 to 7 % of a step of TFN and LMF).
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when the first product is made on a GPU
    determinism()
    torch.utils.deterministic.fill_uninitialized_memory = False
    torch.set_flush_denormal(True)
    if device != "cpu":
        tf32 = os.environ.get("BENCH_TF32") == "1"  # faster float32 products of 10 bits; off unless asked for
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
        torch.backends.cudnn.benchmark = False


_NOT_DETERMINISTIC = " does not have a deterministic implementation"  # torch's words


def run(
    job: Job, store: Store, data_dir: str | Path | None = None, device: str = "cpu", keep: Sequence[str] = (),
    report: Callable[[str], None] = lambda line: None, on: Mapping[str, Any] | None = None, engine: str = "auto",
) -> dict[str, Any]:
    """Train and evaluate a job and write its folder; returns what went into metrics.json.

    The test split is evaluated once, with the weights selected on validation. Raises whatever went wrong, after
    leaving failed.json; a job is done only when its metrics.json exists. `on`: what the caller knows of the
    circumstances that a failure depends on (store.py: fail).
    """
    return drive(running(job, store, data_dir, device, keep, report, on, engine))


def running(
    job: Job, store: Store, data_dir: str | Path | None = None, device: str = "cpu", keep: Sequence[str] = (),
    report: Callable[[str], None] = lambda line: None, on: Mapping[str, Any] | None = None, engine: str = "auto", alone: bool = False,
) -> Generator[Any, None, dict[str, Any]]:
    """`run` in turns (train/loop.py: training): first gives out its engine, under whose `context` every later turn has
    to be taken. Whoever drives it may let other jobs of the process have their turns in between (launch/company.py).
    alone: nothing else runs on the device meanwhile, so that times and memory are the job's own."""
    store.begin(job)
    log: list[str] = []
    env: dict[str, Any] = {**environment.code(), **environment.device(device), "alone": alone}
    attempt = partial(_run, job, store, data_dir, device, keep, log, env, report, engine)
    try:
        try:
            return (yield from attempt())
        except RuntimeError as e:
            if _NOT_DETERMINISTIC not in str(e) or device == "cpu":
                raise
            env["not_deterministic"] = str(e).split(_NOT_DETERMINISTIC)[0].split()[-1]
        log.append(f"begins again: {env['not_deterministic']} has no deterministic form on this device, runs may differ in rounding")
        return (yield from attempt())
    except BaseException as e:
        if isinstance(e, (KeyboardInterrupt, GeneratorExit)):
            raise
        log += traceback.format_exc().splitlines()
        first = str(e).splitlines()[0] if str(e) else ""
        error = first if isinstance(e, BenchError) else f"{type(e).__name__}: {first}"
        store.fail(job, error, type(e).__name__, log, env, on)
        if isinstance(e, SystemExit):  # a component that exits fails; the process and the other jobs in it go on
            raise BenchError(error) from e
        raise
    finally:
        store.drop(job)


def _run(
    job: Job, store: Store, data_dir: str | Path | None, device: str, keep: Sequence[str], log: list[str],
    env: dict[str, Any], report: Callable[[str], None], engine: str,
) -> Generator[Any, None, dict[str, Any]]:
    c, began = job.config, time.perf_counter()
    settle(device)
    mixing = torch.Generator(device).manual_seed(stream_seed(c.dataset, c.backbone, job.seed, "mixing"))
    steps = choose(engine, device, [mixing])
    steps.lenient = "not_deterministic" in env
    yield steps
    if device != "cpu":
        torch.cuda.reset_peak_memory_stats(device)

    def say(line: str) -> None:
        log.append(line)
        report(line)

    p: Protocol = from_params(Protocol, c.train, "the training protocol")
    env["precision"] = "bf16 autocast" if p.amp and native_bf16(torch.device(device)) else "float32"
    dataset = load(c.dataset, c.features, data_dir)
    env |= {"data_sha256": dataset.sha256, "provenance": dataset.provenance, "data_notes": list(dataset.leaks)}
    say(f"{job.id} {c.dataset}/{c.features} ({dataset.provenance}) {c.backbone}+{c.mixer} seed {job.seed} on {env['device']}")
    log += dataset.warnings

    parts = assemble(job, dataset, device)
    p, data, model, mixer = parts.protocol, parts.data, parts.model, parts.mixer
    env |= {
        "parameters": sum(q.numel() for q in model.parameters()),
        "mixer_parameters": sum(q.numel() for q in mixer.parameters()),
        "test_only": bool(getattr(model, "test_only", False)),
        "parameters_paper": parameters_by_paper(model),
        **_operations(c.id, model, data),
    }
    streams = Streams(
        order=numpy_stream(c.dataset, c.backbone, job.seed, "order"),
        decisions=numpy_stream(c.dataset, c.backbone, job.seed, "mixing"),
        mixing=mixing,
    )
    torch.manual_seed(stream_seed(c.dataset, c.backbone, job.seed, "dropout"))
    train_began = time.perf_counter()
    result = yield from training(model, mixer, data, p, streams, parts.family, say, steps)
    env |= steps.facts()
    if steps.reason:
        say(f"engine: {steps.reason}; runs eagerly")
    env["train_seconds"] = round(time.perf_counter() - train_began, 3)
    env["train_seconds_per_epoch"] = round(env["train_seconds"] / result.epochs, 3)  # with its validation pass

    metrics: dict[str, Any] = {
        "best_epoch": result.best_epoch, "epochs": result.epochs, "updates": result.updates, "n": {},
    }
    arrays: dict[str, np.ndarray] = {}
    for split in ("valid", "test"):
        predict_began = time.perf_counter()
        prediction, label = predict(model, data, split), data.labels(split)
        env[f"{split}_seconds_per_epoch"] = round(time.perf_counter() - predict_began, 3)
        metrics[split] = {**evaluate(prediction, label, parts.family), "loss": task_loss(prediction, label, p)}
        metrics["n"][split] = len(label)
        arrays |= {f"{split}_id": np.array(dataset.ids(split)), f"{split}_prediction": prediction, f"{split}_label": label}
    metrics["n"]["train"] = data.size("train")
    metrics["constant_loss"] = constant_loss(arrays["valid_label"], p)
    if isinstance(data, Corrupted):
        metrics |= {k: v for k, v in {"missing_rate": data.missing_rates()}.items() if v}  # by SAM-LML Eq. 34
    env["wall_seconds"] = round(time.perf_counter() - began, 3)
    if device == "cpu" or env["alone"]:  # on a GPU several jobs may share the process, and the peak is everybody's
        env["peak_memory_mb"] = round(environment.peak_memory_mb(device), 1)
    if "checkpoint" in keep:
        weights.save(store.checkpoint(job), job, Inputs(**data.inputs()), model, mixer)
    say(f"done: best epoch {result.best_epoch} of {result.epochs}, test loss {metrics['test']['loss']:.4f}")
    store.finish(job, metrics, pd.DataFrame(result.history), arrays, env, log)
    return metrics


_counted: dict[str, dict[str, float]] = {}


def _operations(config: str, model: Backbone, data: Resident) -> dict[str, float]:
    """GFLOPs per sample under both rules; counted once per config and process, as seeds do not differ in it."""
    if config not in _counted:
        rows = torch.arange(min(2, data.size("valid")), device=data.device)
        found = operations(model, data.batch("valid", rows))
        _counted[config] = {"gflops": round(found.gflops, 6), "gflops_paper": round(found.paper, 6)}
    return _counted[config]
