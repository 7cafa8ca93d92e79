"""MS-Mix as its released code computes it, where that differs from the paper's text.

Shapes: B batch. Pairs by the min-max scaled similarity, ordered both ways; intensities scaled by the absolute value
(a latent vector) or used signed and unscaled (a latent of several tokens: ratios may then leave [0, 1]); alignment of
absolute intensities with absolute labels, both divided by 3 whatever the range of the labels.
"""

from collections.abc import Iterable

import torch
from torch import Generator, Tensor

from bench.mixers.sampling import Draws

DELTA = 0.4  # default threshold of the released functions; no caller overrides it
_RANGE = 3.0
_EPS = 1e-8


def scaled_similarity(similarity: Tensor) -> Tensor:
    """Min-max scaling of the off-diagonal entries to [0, 1], diagonal 0, [B, B]; 0.5 where all entries are equal."""
    itself = torch.eye(len(similarity), dtype=torch.bool, device=similarity.device)
    low = similarity.masked_fill(itself, torch.inf).min()
    span = similarity.masked_fill(itself, -torch.inf).max() - low
    scaled = torch.where(span > _EPS, (similarity - low) / span.clamp_min(_EPS), 0.5)
    return scaled.masked_fill(itself, 0)


def candidates(scaled: Tensor, threshold: float, count: int) -> Tensor:
    """Ordered pairs that may be drawn, bool [B, B]: those above the threshold, or, where fewer than `count` pass, the
    2 * `count` highest of the upper triangle (which run into other entries where the triangle is smaller)."""
    passing = scaled > threshold
    upper = scaled.masked_fill(torch.ones_like(passing).tril(), -1)
    best = upper.flatten().topk(min(2 * count, upper.numel())).indices
    fallback = torch.zeros_like(passing).flatten().index_fill(0, best, True).view_as(passing)
    return torch.where(passing.sum() >= count, passing, fallback)


def pair_draws(size: int, generator: Generator) -> Draws:
    """A key per ordered pair of a batch of `size`."""
    return {"keys": torch.rand(size * size, generator=generator, device=generator.device)}


def pairs(scaled: Tensor, threshold: float, draws: Draws) -> tuple[Tensor, Tensor]:
    """B candidates without replacement, (first [B], second [B]); scaled [B, B] as `scaled_similarity` gives it."""
    n = len(scaled)
    allowed = candidates(scaled, threshold, n).flatten()
    drawn = torch.where(allowed, draws["keys"], -1.0).topk(n).indices
    return drawn // n, drawn % n


def salience(intensity: Tensor, several_tokens: bool) -> Tensor:
    """Weight of each sample in the ratio, [B]."""
    if several_tokens:
        return intensity
    magnitude = intensity.abs()
    low = magnitude.min()
    return (magnitude - low) / (magnitude.max() - low + _EPS)


def alignment(intensities: Iterable[Tensor], targets: Tensor) -> Tensor:
    """Sum over the modalities of KL(labels || intensities) / B; softmax over the batch, 1e-8 added to each entry."""
    label = torch.softmax(targets.abs() / _RANGE, 0) + _EPS
    predicted = (torch.softmax(i.abs() / _RANGE, 0) + _EPS for i in intensities)
    return sum((label * (label.log() - p.log())).sum() / len(targets) for p in predicted)
