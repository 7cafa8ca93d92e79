"""Transformers of TMBL. Legend: N sequences, S steps, d width of a stream, k width of queries and keys, h heads."""

import torch
from torch import Tensor, nn

from bench.models.parts.layers import dropout

EPS = 1e-6  # of every LayerNorm in here


def waves(steps: int, width: int) -> Tensor:
    """Position table [steps, width]: sine on even, cosine on odd channels, positions from 0, 10000^(-2 floor(i/2)/width)."""
    channel = torch.arange(width, dtype=torch.float64)
    angle = torch.arange(steps, dtype=torch.float64)[:, None] * 10000.0 ** (-2 * (channel // 2) / width)
    return torch.where(channel % 2 == 0, angle.sin(), angle.cos()).float()


class Attention(nn.Module):
    """LN(x + Lin(attention)): query from x [N, S, d], key and value from their own streams [N, S, .].

    No biases; scores are divided by sqrt(k), k the width of all heads together. `rows`: there is a mixing of queries,
    and of keys, along their S steps, which acts where S = rows alone.
    """

    def __init__(self, widths: tuple[int, int, int], heads: int, k: int, out: int, rate: float, rows: int = 0) -> None:
        super().__init__()
        x, key, value = widths
        self.query, self.key = nn.Linear(x, k, bias=False), nn.Linear(key, k, bias=False)
        self.value, self.out = nn.Linear(value, out, bias=False), nn.Linear(out, x, bias=False)
        self.mix = nn.Conv1d(rows, rows, 1) if rows else None
        self.norm = nn.LayerNorm(x, EPS)
        self.heads, self.rows, self.scale, self.rate = heads, rows, k**-0.5, rate

    def forward(self, x: Tensor, key: Tensor, value: Tensor) -> Tensor:
        q, k, v = self.query(x), self.key(key), self.value(value)
        if self.mix is not None and x.shape[1] == self.rows:
            q, k = self.mix(q), self.mix(k)
        q, k, v = (z.unflatten(2, (self.heads, -1)).transpose(1, 2) for z in (q, k, v))  # (N, h, S, .)
        weights = dropout((q @ k.transpose(2, 3) * self.scale).softmax(-1), self.rate, self.training)
        found = self.out((weights @ v).transpose(1, 2).flatten(2))
        return self.norm(dropout(found, self.rate, self.training) + x)


class Gated(nn.Module):
    """LN(x + Lin(ReLU(a) b)), (a, b) = halves of Lin(Lin(Lin x))."""

    def __init__(self, d: int, inner: int, rate: float) -> None:
        super().__init__()
        self.enter, self.up, self.keep = nn.Linear(d, inner), nn.Linear(inner, 2 * inner), nn.Linear(2 * inner, 2 * inner)
        self.leave, self.norm, self.rate = nn.Linear(inner, d), nn.LayerNorm(d, EPS), rate

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.keep(self.up(self.enter(x))).chunk(2, -1)
        return self.norm(dropout(self.leave(a.relu() * b), self.rate, self.training) + x)


class Layer(nn.Module):
    """Attention, then the gated network."""

    def __init__(
        self, widths: tuple[int, int, int], heads: int, k: int, out: int, inner: int, rate: float, rows: int = 0
    ) -> None:
        super().__init__()
        self.attention = Attention(widths, heads, k, out, rate, rows)
        self.feed_forward = Gated(widths[0], inner, rate)

    def forward(self, x: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return self.feed_forward(self.attention(x, key, value))


class Entrance(nn.Module):
    """x [N, S, d] -> LN(dropout(x + positions)), S at most `steps`."""

    positions: Tensor

    def __init__(self, steps: int, d: int, rate: float) -> None:
        super().__init__()
        self.register_buffer("positions", waves(steps, d))
        self.drop, self.norm = nn.Dropout(rate), nn.LayerNorm(d, EPS)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.drop(x + self.positions[: x.shape[1]]))


def orthogonality(x: Tensor, z: Tensor) -> Tensor:
    """MISA's difference loss of two codes [n, d]: the mean squared entry of their d x d correlation, their rows centred
    over n and divided by their detached norms; by way of the n x n products of each with itself."""

    def gram(code: Tensor) -> Tensor:
        code = code - code.mean(0)
        code = code / (torch.linalg.vector_norm(code, dim=1, keepdim=True).detach() + 1e-6)
        return code @ code.T

    return (gram(x) * gram(z)).sum() / (x.shape[1] * z.shape[1])
