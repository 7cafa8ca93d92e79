"""Sequences of different lengths in one flat tensor: gathered and padded when a batch needs them."""

from dataclasses import dataclass

import torch
from torch import Tensor

from bench.data.waves import FULL_SCALE

_EPSILON = 1e-7  # beneath the variance, as in wav2vec 2.0's feature extractor


@dataclass(frozen=True)
class Ragged:
    """flat [S, ...]; start, length [N] int64: where each row lies; steps T: what rows are padded to."""

    flat: Tensor
    start: Tensor
    length: Tensor
    steps: int

    def gather(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """Rows `index` [B] as [B, T, ...], zero after their ends, and their lengths [B], T at most."""
        length = self.length[index].clamp(max=self.steps)  # (B,)
        step = torch.arange(self.steps, device=index.device)  # (T,)
        place = (self.start[index, None] + step).clamp(max=len(self.flat) - 1)  # (B, T)
        inside = step < length[:, None]  # (B, T)
        rows = self.flat[place]  # (B, T, ...)
        return rows * inside.view(*inside.shape, *[1] * (rows.dim() - 2)).to(rows.dtype), length


def normalised(wave: Tensor, length: Tensor) -> tuple[Tensor, Tensor]:
    """16-bit samples [B, T], zero after `length` [B], as float32 with zero mean and unit variance over the real
    samples, zero after them; and the mask [B, T] int64 of the real samples. A wave without samples stays zero."""
    mask = torch.arange(wave.shape[1], device=wave.device) < length[:, None]  # (B, T)
    x, n = wave.float() / FULL_SCALE, length.clamp(min=1)[:, None]
    x = (x - x.sum(1, keepdim=True) / n) * mask
    x = x * (x.square().sum(1, keepdim=True) / n + _EPSILON).rsqrt()
    return x, mask.long()
