"""Noise on features: (1 - NR) U + NR N, and random erasing (SAM-LML Eq. 35 and A.14)."""

import torch
from torch import Tensor

from bench.data.corruption.spec import Part
from bench.draws import Draws

_DRAWN = {"drawn": ("laplace", "erasing"), "drawn3": ("laplace", "erasing", "gaussian")}


def noisy(part: Part, draws: Draws, channel: str, u: Tensor) -> Tensor:
    """u [B, ...] under "feature_noise". One kind of noise per sample for all its modalities where it is drawn; the
    entries' draws differ by `channel`."""
    kinds = _DRAWN.get(part.value, (part.value,))
    found = [_one(kind, part.rate, draws, channel, u) for kind in kinds]
    if len(found) == 1:
        return found[0]
    which = (draws.samples("noise-kind") * len(kinds)).long().view(-1, *[1] * (u.dim() - 1))  # (B, 1...)
    out = found[0]
    for k in range(1, len(found)):
        out = torch.where(which == k, found[k], out)
    return out


def _one(kind: str, rate: float, draws: Draws, channel: str, u: Tensor) -> Tensor:
    shape, channel = tuple(u.shape[1:]), f"{kind}|{channel}"
    if kind == "erasing":
        return u.masked_fill(draws.entries(channel, shape) < rate, 0.0)
    n = draws.normal(channel, shape) if kind == "gaussian" else draws.laplace(channel, shape)
    return (1 - rate) * u + rate * n.to(u.dtype)
