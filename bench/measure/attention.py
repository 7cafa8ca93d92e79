"""Attention matrices with noise in some columns (SAM-LML Fig. 3, 6): is the noise given little weight?

The features U_m of the modality `noised` are replaced by Gaussian noise at some steps, in front of every attention; the
matrix is what the steps of `query` then give to those of `key`. Settings: split, query, key, noised, columns (steps
counted from 0), pieces, seed.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from bench.errors import BenchError
from bench.measure.spec import Values
from bench.measure.trained import Trained


def weights(matrix: np.ndarray, columns: Sequence[int]) -> dict[str, float]:
    """Mean weight of some columns, of the other columns, and the standard deviation of all entries. matrix [Q, K]."""
    noised = np.isin(np.arange(matrix.shape[1]), columns)
    return {
        "weight_noised": float(matrix[:, noised].mean()),
        "weight_other": float(matrix[:, ~noised].mean()) if not noised.all() else float("nan"),
        "weight_std": float(matrix.std()),
    }


def sample(t: Trained, split: str, pieces: int) -> tuple[int, int]:
    """(row, word pieces) of the first sample of a split with at least `pieces` word pieces, or of the longest one."""
    tokens = t.data.tensors[split].get("text_bert")
    if tokens is None:
        raise BenchError(f"{t.job.config.backbone} reads no word pieces: no sample can be chosen by their number")
    lengths = tokens[:, 1].sum(1)  # (N,)
    enough = (lengths >= pieces).nonzero()
    row = int(enough[0]) if len(enough) else int(lengths.argmax())
    return row, int(lengths[row])


def noise_hook(noised: str, columns: Sequence[int], seed: int):
    """A feature hook (models/base.py) that puts standard normal noise at some steps of one modality."""
    generator = torch.Generator().manual_seed(seed)

    def hook(modality: str, u: Tensor) -> Tensor:
        if modality != noised:
            return u
        noise = torch.randn(len(columns), u.shape[2], generator=generator).to(u)  # the same in every row
        return u.index_copy(1, torch.tensor(columns, device=u.device), noise.expand(len(u), -1, -1).contiguous())

    return hook


@torch.no_grad()
def compute(t: Trained, settings: dict) -> Values:
    """The matrix of one sample, cut to its valid queries and keys, and the weights of the noised columns."""
    query, key, noised = settings["query"], settings["key"], settings["noised"]
    if noised != key:
        raise BenchError(f"noise is in {noised}, but the matrix has columns of {key}")
    if not hasattr(t.model, "feature_hook"):
        raise BenchError(f"{t.job.config.backbone} has no features that noise could be put into")
    row, pieces = sample(t, settings["split"], settings["pieces"])
    batch = t.data.batch(settings["split"], torch.tensor([row], device=t.data.device))

    def valid(m: str, steps: int) -> int:  # aligned sequences are as long as the text
        length = batch.get(f"{m}_lengths")
        return min(steps, pieces if m == "text" or length is None else int(length))

    before = t.model.feature_hook
    width = pieces if noised == "text" else valid(noised, batch[noised].shape[1])
    columns = [c for c in settings["columns"] if c < width]
    if not columns:
        raise BenchError(f"{noised} of the sample has {width} steps; none of the columns {settings['columns']} is there")
    t.model.feature_hook = noise_hook(noised, columns, settings["seed"])
    try:
        features = t.model(batch).features
    finally:
        t.model.feature_hook = before
    name = f"attention_{query}" if query == key else f"attention_{query}_{key}"
    if name not in features:
        raise BenchError(f"{t.job.config.backbone} hands out no matrix '{name}'")
    full = features[name]  # (1, Q, K), or (1, heads, Q, K)
    full = full[0].float().mean(0) if full.dim() == 4 else full[0].float()
    matrix = full[: valid(query, full.shape[0]), : valid(key, full.shape[1])].cpu().numpy()
    marked = np.isin(np.arange(matrix.shape[1]), columns)
    return weights(matrix, columns), {"matrix": matrix, "noised": marked, "columns": np.array(columns)}
