"""Which modalities of which samples are missing: quota sampling at a missing rate (SAM-LML Eq. 34). Torch-free.

Independent Bernoulli draws with a repair of samples that lost everything miss the rate (0.53 for 0.6): here the number
of kept cells is fixed and only their places are drawn.
"""

import math

import numpy as np

from bench.errors import BenchError


def draw_kept(n: int, modalities: int, rate: float, generator: np.random.Generator) -> np.ndarray:
    """Kept cells [n, modalities] bool: round(n |M| (1 - MR)) of them, at least one per sample.

    Every sample first gets one modality, uniformly; the remainder goes to the other cells, uniformly and without
    replacement. MR = 0.7 of three modalities leaves one each, a rate of 2/3 (the paper's most severe setting); a rate
    that no such draw comes near raises BenchError.
    """
    highest = 1 - 1 / modalities
    if rate > highest + 0.05:
        raise BenchError(
            f"missing rate {rate:g}: each sample keeps one of {modalities} modalities, so it is {highest:.3f} at most"
        )
    keep = np.zeros((n, modalities), bool)
    keep[np.arange(n), generator.integers(0, modalities, n)] = True
    order = generator.random((n, modalities))  # a lower rate keeps what a higher one keeps
    order[keep] = np.inf
    more = math.floor(n * modalities * (1 - rate) + 0.5) - n
    if more > 0:
        keep.ravel()[np.argsort(order, axis=None, kind="stable")[:more]] = True
    return keep


def missing_rate(keep: np.ndarray) -> float:
    """MR = 1 - sum_i M_i / (N |M|) of kept cells [N, |M|] (Eq. 34)."""
    return 1.0 - float(keep.sum()) / keep.size
