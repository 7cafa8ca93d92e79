"""A finished job as it was after training: its data, its selected weights, its mixer."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from bench import weights
from bench.data.dataset import Dataset, load
from bench.data.resident import Resident
from bench.errors import BenchError
from bench.job import Parts, assemble, settle
from bench.matrix import Job
from bench.mixers.base import Mixer
from bench.models.base import Backbone
from bench.store import DONE, Store
from bench.train.engine import determinism
from bench.train.protocol import Protocol


@dataclass(frozen=True)
class Trained:
    """What a measure is given. Model and mixer are in evaluation mode: no dropout, batch statistics as trained."""

    job: Job
    parts: Parts
    predictions: dict[str, np.ndarray]  # as the job stored them (store.py)

    @property
    def protocol(self) -> Protocol:
        return self.parts.protocol

    @property
    def dataset(self) -> Dataset:
        return self.parts.dataset

    @property
    def data(self) -> Resident:
        return self.parts.data

    @property
    def model(self) -> Backbone:
        return self.parts.model

    @property
    def mixer(self) -> Mixer:
        return self.parts.mixer

    def rows(self, split: str, count: int | None, seed: int) -> Tensor:
        """Sorted rows [min(count, N)] of a split, drawn without replacement by `seed` alone; all where count is None."""
        n = self.data.size(split)
        drawn = np.arange(n) if count is None or count >= n else np.random.default_rng(seed).choice(n, count, replace=False)
        return torch.from_numpy(np.sort(drawn)).to(self.data.device)


def restore(job: Job, store: Store, data_dir: str | Path | None = None, device: str = "cpu") -> Trained:
    """Rebuild a finished job from its checkpoint. Raises BenchError, in one line, where the job is not done, its
    checkpoint is gone, or the data at hand are not those it was trained on."""
    settle(device)
    if store.status(job) != DONE:
        raise BenchError(f"{store.folder(job)} holds no finished job; run it first")
    if store.entry(job).env.get("not_deterministic"):  # its training needed such an operation (bench/job.py)
        determinism(lenient=True)
    if not store.checkpoint(job).exists():
        raise BenchError(f"no weights in {store.folder(job)}; `bench run` of the figure's artefact trains the job again")
    dataset = load(job.config.dataset, job.config.features, data_dir)
    if store.status(job, {(job.config.dataset, job.config.features): dataset.sha256}) != DONE:
        raise BenchError(f"{store.folder(job)} was made from another data file; run it again")
    parts = assemble(job, dataset, device)
    weights.restore(weights.load(store.checkpoint(job)), parts.model, parts.mixer)
    parts.model.eval(), parts.mixer.eval()
    return Trained(job, parts, store.predictions(job) or {})
