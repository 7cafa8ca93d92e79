"""Random numbers by address: a draw is a pure function of (stream, row, position), on any device, in any order.

SplitMix64 (Steele, Lea and Flood, OOPSLA 2014) started anew for every row, its `position`-th number taken by
arithmetic. Generators with a state would make a sample's corruption depend on which samples came before it.
"""

import hashlib
from dataclasses import dataclass

import torch
from torch import Tensor

_GAMMA = 0x9E3779B97F4A7C15 - (1 << 64)  # int64 arithmetic wraps around, as the algorithm wants it
_MIX = ((30, 0xBF58476D1CE4E5B9 - (1 << 64)), (27, 0x94D049BB133111EB - (1 << 64)))


def _mix(z: Tensor) -> Tensor:
    """The generator's output for a state, in place."""
    for shift, factor in _MIX:
        z ^= _shifted(z, shift)
        z *= factor
    z ^= _shifted(z, 31)
    return z


def _shifted(z: Tensor, bits: int) -> Tensor:
    """Logical shift to the right of int64, whose own shift repeats the sign."""
    return (z >> bits).bitwise_and_((1 << (64 - bits)) - 1)


def _unit(z: Tensor) -> Tensor:
    """The upper 23 bits as a float32 strictly between 0 and 1; one bit more, and the half would round up to 1."""
    return (_shifted(z, 41).float() + 0.5) * 2.0**-23


@dataclass(frozen=True)
class Draws:
    """The draws of some samples: rows [B] int64 of `split`, in an epoch (0 where it must not matter). An epoch that is
    a tensor (int64 scalar on the rows' device) may change its value between replays of a captured step."""

    seed: int
    split: str
    epoch: int | Tensor
    rows: Tensor

    def at(self, channel: str, position: Tensor) -> Tensor:
        """Uniform on (0, 1), float32 [B, ...], at `position` int64, [1, ...] or [B, ...]; independent by channel."""
        text = f"{self.seed}|{self.split}|{channel}"
        key = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big", signed=True)
        epoch = torch.full((), self.epoch, device=self.rows.device) if isinstance(self.epoch, int) else self.epoch
        of_epoch = _mix(epoch * _GAMMA + key)
        start = _mix(self.rows * _GAMMA + of_epoch).view(-1, *[1] * (position.dim() - 1))  # (B, 1...)
        return _unit(_mix(start + (position + 1) * _GAMMA))

    def samples(self, channel: str) -> Tensor:
        """One uniform per sample, [B]."""
        return self.entries(channel, (1,)).squeeze(1)

    def entries(self, channel: str, shape: tuple[int, ...]) -> Tensor:
        """Uniforms [B, *shape]."""
        count = torch.Size(shape).numel()
        return self.at(channel, torch.arange(count, device=self.rows.device).view(1, *shape))

    def normal(self, channel: str, shape: tuple[int, ...]) -> Tensor:
        """Standard normal, [B, *shape]."""
        return torch.erfinv(2 * self.entries(channel, shape) - 1) * 2**0.5

    def laplace(self, channel: str, shape: tuple[int, ...]) -> Tensor:
        """Laplace of mean 0 and variance 1 (scale 1 / sqrt 2), [B, *shape]."""
        v = 2 * self.entries(channel, shape) - 1  # (-1, 1)
        return -v.sign() * torch.log1p(-v.abs()) * 0.5**0.5
