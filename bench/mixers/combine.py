"""Convex combinations of latents and targets.

Shapes: B batch, n mixed rows, latents [B, ...] of any rank; scores are taken on the flattened latents, mixing acts on
the latents as they are, one ratio per row and modality broadcast over the rest.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from bench.mixers.base import Latents


def interpolate(values: Tensor, first: Tensor, second: Tensor, ratio: Tensor) -> Tensor:
    """ratio * values[first] + (1 - ratio) * values[second], [n, ...]; `ratio` [n], or of the shape of the result
    (MS-Mix Eq. 1-2, PowMix Eq. 1-2)."""
    ratio = ratio.reshape(ratio.shape + (1,) * (values.dim() - ratio.dim()))
    return (ratio * values[first] + (1 - ratio) * values[second]).to(values.dtype)


def weigh(weights: Tensor, values: Tensor) -> Tensor:
    """weights [n, B] times values [B, ...] -> [n, ...] (PowMix Eq. 3-4 and 7-8)."""
    with torch.autocast(values.device.type, enabled=False):  # bf16 products would round labels
        mixed = weights @ values.to(weights.dtype).reshape(len(values), -1)  # (n, D)
    return mixed.reshape(len(weights), *values.shape[1:]).to(values.dtype)


def joined(latents: Latents, keys: Sequence[str]) -> Tensor:
    """The latents of one modality side by side, [B, D]."""
    return torch.cat([latents[k].flatten(1) for k in keys], 1)


def sequence(latents: Latents, keys: Sequence[str]) -> Tensor:
    """The latents of one modality as a sequence of tokens, [B, T, D]: rank-3 latents of one length are joined token
    by token; anything else is flattened to a single token."""
    members = [latents[k] for k in keys]
    if all(m.dim() == 3 and m.shape[1] == members[0].shape[1] for m in members):
        return torch.cat(members, -1)
    return joined(latents, keys).unsqueeze(1)


def sequence_shape(shapes: Sequence[tuple[int, ...]]) -> tuple[int, int]:
    """(T, D) that `sequence` gives for latents whose samples have these shapes."""
    if all(len(s) == 2 and s[0] == shapes[0][0] for s in shapes):
        return shapes[0][0], sum(s[1] for s in shapes)
    return 1, sum(torch.Size(s).numel() for s in shapes)
