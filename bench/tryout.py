"""A component tried out on a small cell of generated data: the cell, its model, its training steps (contract.py and the
tests look at what they do)."""

import json
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch

from bench import registry
from bench.data.dataset import load, spec
from bench.errors import BenchError
from bench.job import build_data, build_mixer, build_model, corrupt
from bench.matrix import Config, Job
from bench.models.base import Backbone, Inputs, Update
from bench.seeds import numpy_stream, stream_seed
from bench.train import protocol
from bench.train.capturable import as_on_gpu
from bench.train.optim import Steps
from bench.train.protocol import Protocol, from_params
from bench.train.step import Piece, Stepper

SEED = 1111


def cell(backbone: str, mixer: str = "none", dataset: str = "", **params: Any) -> Config:
    """A small cell on generated data: the component's own defaults but what its BRIEF says, the tiny encoder where one is
    fine-tuned, and the first data set (MOSI before others), and kind of its files, on which the model can be built."""
    model = registry.load("models", backbone).Model
    tiny: dict[str, Any] = {"encoder": "tiny"} if model.needs_tokens else {}
    tiny |= {**registry.constants("models", backbone).get("BRIEF", {}), **params}
    where, features = _readable(backbone, dataset, json.dumps(tiny))
    return _cell(backbone, mixer, where, features, tiny)


def _cell(backbone: str, mixer: str, dataset: str, features: str, params: dict[str, Any]) -> Config:
    versions = {"backbone": registry.version("models", backbone), "mixer": registry.version("mixers", mixer),
                "dataset": registry.version("datasets", dataset), "train": protocol.VERSION}
    return Config(
        f"synthetic-{dataset}", features, backbone, mixer, backbone_params=params, fraction=0.3,
        train={"batch_size": 16, "max_epochs": 1}, versions=versions,
    )


@lru_cache
def _readable(backbone: str, dataset: str, params: str) -> tuple[str, str]:
    """(data set, features) that a model can be built on, the first of each if there are none."""
    datasets = [dataset] if dataset else sorted(registry.names("datasets"), key=lambda name: name != "mosi")
    words = registry.load("models", backbone).Model.needs_words
    order = {f: i for i, f in enumerate(("word", "hkt", "msena", "audio") if words else ("msena", "word", "audio", "hkt"))}
    found = [(d, f) for d in datasets for f, file in sorted(spec(d).features.items(), key=lambda f: order.get(f[1].format, len(order)))]
    for d, f in found:
        try:
            built(Job(_cell(backbone, "none", d, f, json.loads(params)), SEED))
        except BenchError:
            continue
        return d, f
    return found[0]


def built(job: Job) -> tuple[Any, Any]:
    """(model, data)"""
    data = build_data(job, load(job.config.dataset, job.config.features), registry.load("models", job.config.backbone).Model, "cpu")
    return build_model(job, Inputs(**data.inputs())), data


def stepper(job: Job) -> Stepper:
    """A job ready for its steps, with an optimiser as on a GPU and the second epoch's order in place."""
    c = job.config
    model, data = built(job)
    data = corrupt(job, data, data.dataset, model)
    mixer = build_mixer(job, model)
    as_on_gpu(model)
    p = from_params(Protocol, c.train, "protocol")
    model.train(), mixer.train(), model.on_epoch_start(2)
    data.begin_epoch(2)
    generator = torch.Generator().manual_seed(stream_seed(c.dataset, c.backbone, job.seed, "mixing"))
    torch.manual_seed(stream_seed(c.dataset, c.backbone, job.seed, "dropout"))
    updates = updates_of(model, *range(1 - model.preparation, 3))
    every = Steps(model, mixer.own_parameters(), p, {u.optimiser: 1 for u in updates}, capturable=True)
    steps = Stepper(model, mixer, data, p, every, generator, lambda: torch.autocast("cpu", enabled=False))
    steps.begin_pass(numpy_stream(c.dataset, c.backbone, job.seed, "order").permutation(data.size("train")))
    return steps


def updates_of(model: Backbone, *epochs: int) -> list[Update]:
    return [u for epoch in epochs for one in model.passes(epoch) for u in one.updates]


def one_step(steps: Stepper, mixing: bool, epoch: int = 2) -> Callable[[], None]:
    """What runs one training step, all updates of the model's passes in an epoch."""
    updates = updates_of(steps.model, epoch)

    def step() -> None:
        for u in updates:
            steps.run(Piece(4, mixing and u.losses is None, (), u, True, u is updates[-1]))

    return step
