"""One encoder of the MulT family, in plain form, for systems that change something inside it: masks of single samples,
attention weights, other position tables. Where nothing is changed towers.py is quicker.

Input times sqrt(w), positions, dropout; pre-norm layers: one LayerNorm for query, key and value alike, attention,
residual; LayerNorm, ReLU feed-forward of width 4w, residual; a LayerNorm at the end. In cross attention keys and values
are the embedded source at every layer. Legend: B batch, T query steps, S key steps, w width, H heads.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bench.errors import BenchError
from bench.models.parts.layers import dropout

Alter = Callable[[Tensor, int], Tensor]  # attention weights [B, H, T, S] of a layer -> what stands for them


@dataclass(frozen=True)
class Rates:
    """Dropouts of an encoder."""

    attention: float = 0.0
    relu: float = 0.0
    residual: float = 0.0
    embed: float = 0.0


def interleaved(steps: int, width: int) -> Tensor:
    """Position table [steps, width] of the positions 1..steps: channel i has frequency 10000^(-(i // 2) / (w/2 - 1)),
    sine where i is even, cosine where it is odd."""
    channel = torch.arange(width)
    frequency = torch.exp((channel // 2) * (-math.log(10000.0) / max(width // 2 - 1, 1)))
    angle = torch.arange(1, steps + 1)[:, None] * frequency
    return torch.where(channel % 2 == 0, angle.sin(), angle.cos())


class EncoderLayer(nn.Module):
    """x [B, T, w], source [B, S, w] or None for self-attention, bias [B or 1, H or 1, T or 1, S] added to the scores."""

    def __init__(self, width: int, heads: int, rates: Rates) -> None:
        super().__init__()
        self.heads, self.rates = heads, rates
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.norm_attention, self.norm_feed_forward = nn.LayerNorm(width), nn.LayerNorm(width)
        nn.init.xavier_uniform_(self.qkv.weight)
        for layer in (self.out, self.up, self.down):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
        nn.init.zeros_(self.qkv.bias)

    def attend(self, x: Tensor, source: Tensor | None, bias: Tensor | None, alter: Callable | None = None) -> Tensor:
        """Attention with its LayerNorm and output map, [B, T, w], before dropout and residual."""
        z = self.norm_attention(x)
        k = z if source is None else self.norm_attention(source)
        w = x.shape[-1]
        wq, wk, wv = self.qkv.weight.split(w)
        bq, bk, bv = self.qkv.bias.split(w)
        q, k, v = (
            torch.nn.functional.linear(y, a, b).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for y, a, b in ((z, wq, bq), (k, wk, bk), (k, wv, bv))
        )  # (B, H, T or S, h)
        scores = (q * q.shape[-1] ** -0.5) @ k.transpose(2, 3)
        weights = (scores if bias is None else scores + bias).softmax(-1)
        if alter is not None:
            weights = alter(weights)
        y = dropout(weights, self.rates.attention, self.training) @ v
        return self.out(y.transpose(1, 2).flatten(2))

    def feed_forward(self, x: Tensor) -> Tensor:
        y = dropout(self.up(self.norm_feed_forward(x)).relu(), self.rates.relu, self.training)
        return x + dropout(self.down(y), self.rates.residual, self.training)

    def forward(self, x: Tensor, source: Tensor | None, bias: Tensor | None, alter: Callable | None = None) -> Tensor:
        x = x + dropout(self.attend(x, source, bias, alter), self.rates.residual, self.training)
        return self.feed_forward(x)


class Encoder(nn.Module):
    """x [B, T, w] -> [B, T, w]. `table` [>= T, w]: positions of x and, unless `bare_source`, of the source; a step whose
    channel 0 is exactly 0 gets none. `last_norm`: the LayerNorm at the end. Raises BenchError for a width that the heads do
    not divide."""

    def __init__(
        self, width: int, heads: int, layers: int, rates: Rates, table: Tensor | None = None, bare_source: bool = False,
        last_norm: bool = True,
    ) -> None:
        super().__init__()
        if width % heads:
            raise BenchError(f"an encoder of width {width} cannot have {heads} heads")
        self.layers = nn.ModuleList(EncoderLayer(width, heads, rates) for _ in range(layers))
        self.norm = nn.LayerNorm(width) if last_norm else nn.Identity()
        self.rates, self.bare_source = rates, bare_source
        self.register_buffer("table", table, persistent=False)

    def embed(self, x: Tensor, positions: bool = True) -> Tensor:
        y = x * math.sqrt(x.shape[-1])
        if self.table is not None and positions:
            y = y + self.table[: x.shape[1]] * (x[..., :1] != 0)
        return dropout(y, self.rates.embed, self.training)

    def forward(
        self, x: Tensor, source: Tensor | None = None, bias: Tensor | None = None, alter: Alter | None = None
    ) -> Tensor:
        x = self.embed(x)
        source = None if source is None else self.embed(source, not self.bare_source)
        for i, layer in enumerate(self.layers):
            x = layer(x, source, bias, None if alter is None else lambda w, i=i: alter(w, i))
        return self.norm(x)


def key_bias(x: Tensor, lengths: Tensor) -> Tensor:
    """[B, 1, 1, S] of the sequences x [B, S, d]: 0 at the first `lengths` [B] steps, -inf behind."""
    step = torch.arange(x.shape[1], device=x.device)
    padded = step >= lengths[:, None]
    return torch.zeros_like(x[..., 0]).masked_fill(padded, -math.inf)[:, None, None]
