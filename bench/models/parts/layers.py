"""Small layers that several backbones share. Legend: B batch, T steps, d width, n towers."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.errors import BenchError
from bench.models.parts.lstm import LSTM


class FeatureNet(nn.Module):
    """Audio or vision sub-network of TFN and LMF: BatchNorm, dropout, three ReLU layers (architectures of M-SENA).

    [B, T, d] -> [B, hidden], entries >= 0. Features come averaged over time (T = 1), where the mean here is exact.
    """

    def __init__(self, width: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(width)
        self.dropout = dropout
        self.layers = nn.ModuleList([nn.Linear(width, hidden), nn.Linear(hidden, hidden), nn.Linear(hidden, hidden)])

    def forward(self, x: Tensor) -> Tensor:
        x = dropout(self.norm(x.mean(1)), self.dropout, self.training)  # (B, d)
        for layer in self.layers:
            x = layer(x).relu()  # (B, hidden)
        return x


class TextNet(nn.Module):
    """Text sub-network of TFN and LMF: LSTM, its state at one step, then a linear layer; [B, L, d] -> [B, out],
    signed. M-SENA's text dropout is forced to 0 by its single layer, so there is none.

    state "padded" reads the state after the last step, padding included (M-SENA); "valid" after the last step that has
    a non-zero feature. The two agree where padding is not zero, as in M-SENA's own BERT features. Over zero padding
    the padded state forgets the words: an LSTM starts with its forget gates at one half, and 38 of 50 steps are
    padding on MOSI. Raises BenchError for another name.
    """

    def __init__(self, width: int, hidden: int, out: int, state: str = "padded") -> None:
        super().__init__()
        if state not in ("padded", "valid"):
            raise BenchError(f"text_state is 'padded' or 'valid', not '{state}'")
        self.state = state
        self.rnn = LSTM(width, hidden)
        self.linear = nn.Linear(hidden, out)

    def forward(self, x: Tensor) -> Tensor:
        last = (filled_steps(x) - 1).clamp(min=0) if self.state == "valid" else None
        return self.linear(self.rnn.last_state(x, last))


class Convolution(nn.Module):
    """Conv1d over time without bias or padding, [B, T, i] -> [B, T - k + 1, o]: one product for all taps, then a sum
    of shifted views (no transposition of the input, and vmap turns it into one batched product)."""

    def __init__(self, width: int, out: int, kernel: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(out, width, kernel))
        nn.init.kaiming_uniform_(self.weight, a=5**0.5)  # as nn.Conv1d

    def forward(self, x: Tensor) -> Tensor:
        out, width, kernel = self.weight.shape
        steps = x.shape[1] - kernel + 1
        taps = (x @ self.weight.permute(1, 2, 0).reshape(width, kernel * out)).split(out, -1)  # k x (B, T, o)
        return torch.stack([tap[:, j : j + steps] for j, tap in enumerate(taps)]).sum(0)


def pool_steps(x: Tensor, steps: int) -> Tensor:
    """[B, T, d] -> [B, steps, d]: means of ceil(T / steps) neighbours each, the last step repeated until they fit; x
    itself where T is `steps` (M-SENA's "model-aligned" features)."""
    size = -(-x.shape[1] // steps)
    if x.shape[1] == steps:
        return x
    filled = torch.cat([x, x[:, -1:].expand(-1, steps * size - x.shape[1], -1)], 1)
    return filled.unflatten(1, (steps, size)).mean(2)


def local_maxima(x: Tensor, n: int) -> Tensor:
    """[B, d, T] -> [B, d, n]: the greatest of each of n spans of steps, the k-th from floor(k T / n) to before
    ceil((k + 1) T / n), as torch's adaptive pooling has them. That has no deterministic gradient on a GPU; this one adds
    up in the same order."""
    T = x.shape[2]
    spans = [x[..., k * T // n : -(-(k + 1) * T // n)].max(2).values for k in reversed(range(n))]
    return torch.stack(spans[::-1], 2)


def filled_steps(x: Tensor) -> Tensor:
    """Number of steps [B] up to the last one with a non-zero feature, of x [B, T, d]."""
    order = torch.arange(1, x.shape[1] + 1, device=x.device)
    return ((x != 0).any(-1) * order).amax(1)


def prepend_one(x: Tensor) -> Tensor:
    """[B, d] -> [B, d + 1] with a constant 1 in front."""
    return F.pad(x, (1, 0), value=1.0)


def dropout(x: Tensor, rate: float | Tensor, training: bool) -> Tensor:
    """Inverted dropout. A tensor of rates is broadcast over x, so that towers can differ; masks are independent.

    Away from CUDA the mask is a comparison of uniform draws, which takes half the time of torch's Bernoulli draw.
    """
    if not training:
        return x
    if not isinstance(rate, Tensor):
        if rate == 0:
            return x
        if x.is_cuda:
            return F.dropout(x, rate)
    return x * ((torch.rand_like(x) >= rate) / (1.0 - rate))


def sinusoid(steps: int, width: int) -> Tensor:
    """Position table [steps, width] of the positions 1..steps: [sin(p f) | cos(p f)] side by side, frequencies
    10000^(-k / (width // 2 - 1)), a zero column if the width is odd (MulT's official code)."""
    half = width // 2
    frequency = torch.exp(torch.arange(half) * (-math.log(10000.0) / max(half - 1, 1)))
    angle = torch.arange(1, steps + 1)[:, None] * frequency  # (steps, half)
    return F.pad(torch.cat([angle.sin(), angle.cos()], 1), (0, width % 2))
