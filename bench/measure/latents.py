"""Latents of a trained model and the mixtures that its mixer makes of them, in evaluation mode.

Shapes: n rows, D width of a representation.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from bench.errors import BenchError
from bench.measure.trained import Trained
from bench.mixers.base import Mixed
from bench.mixers.sampling import modality_groups
from bench.models.base import Latents
from bench.train.loop import epoch_batches, evaluation_batches

FUSED = "fused"  # not a latent: what the fusion network makes of them, before its head


def pooled(x: Tensor) -> Tensor:
    """[n, d] as it is; a sequence [n, T, d] as the mean over the steps that are not all zero (padding is)."""
    if x.dim() == 2:
        return x
    valid = (x != 0).any(-1, keepdim=True).to(x.dtype)  # (n, T, 1)
    return (x * valid).sum(1) / valid.sum(1).clamp(min=1)


def representation(latents: Latents, name: str) -> Tensor:
    """[n, D]: the latent of that name, or the latents of that modality side by side (MISA: private and shared).
    Raises BenchError where there is neither."""
    groups = {k: (k,) for k in latents} | {m: k for m, k in modality_groups(latents).items() if m not in latents}
    if name not in groups:
        raise BenchError(f"the model has no latent '{name}'; it has {', '.join(groups)}")
    return torch.cat([pooled(latents[k]) for k in groups[name]], 1).float()


@torch.no_grad()
def representations(t: Trained, split: str, names: Sequence[str], rows: Tensor | None = None) -> dict[str, Tensor]:
    """name -> [n, D] of rows of a split (all by default). `FUSED` names the fused features."""
    rows = torch.arange(t.data.size(split), device=t.data.device) if rows is None else rows
    found: dict[str, list[Tensor]] = {name: [] for name in names}
    for part in evaluation_batches(t.model, rows):
        latents = t.model.encode(t.data.batch(split, part)).latents
        for name in names:
            if name == FUSED and name not in latents:
                features = t.model.fuse(latents).features
                if "fusion" not in features:
                    raise BenchError(f"{t.job.config.backbone} does not hand out its fused features")
                found[name].append(pooled(features["fusion"]).float())
            else:
                found[name].append(representation(latents, name))
    return {name: torch.cat(parts) for name, parts in found.items()}


@torch.no_grad()
def mixtures(t: Trained, split: str, seed: int) -> Iterator[Mixed]:
    """The mixtures of one epoch: every batch in a random order, each mixed once. Order and draws come from `seed`
    alone. Raises BenchError for a job without a mixer."""
    if t.job.config.mixer == "none":
        raise BenchError(f"{t.job.config.backbone} was trained without a mixer: there are no mixtures")
    generator = torch.Generator(t.data.device).manual_seed(seed)
    order = np.random.default_rng(seed)
    for rows in epoch_batches(t.data.size(split), t.protocol, t.mixer.batch_multiplier, order):
        batch = t.data.batch(split, torch.from_numpy(rows).to(t.data.device))
        if len(rows) > 1:
            yield t.mixer.mix(t.model.encode(batch).latents, batch["label"], generator)
