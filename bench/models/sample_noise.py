"""Gaussian noise that belongs to a sample: a pure function of its row number, whatever the batch, order or device.

Evaluation needs it where noise stands for a missing modality: a prediction must depend neither on the random stream
nor on which rows share a batch.
"""

import torch
from torch import Tensor

_MASK = 0xFFFFFFFF


def sample_noise(index: Tensor, steps: int, width: int, salt: int = 0) -> Tensor:
    """Standard normal noise [B, T, d] float32 of the rows `index` [B] int64; another `salt` gives independent noise."""
    row = _mix(_mix(index & _MASK) + _mix(torch.full_like(index, salt + 1)) & _MASK)  # (B,)
    cell = torch.arange(steps * width, device=index.device) * 0x9E3779B9 & _MASK  # (T d,)
    bits = _mix(row[:, None] + cell & _MASK) >> 8  # 24 bits: exact in float32
    uniform = (bits.double() + 0.5) / 2**24
    return torch.special.ndtri(uniform).float().view(len(index), steps, width)


def _mix(x: Tensor) -> Tensor:
    """A 32-bit integer hash with good avalanche (Wellons' lowbias32), in int64."""
    x = (x ^ x >> 16) * 0x7FEB352D & _MASK
    x = (x ^ x >> 15) * 0x846CA68B & _MASK
    return x ^ x >> 16
