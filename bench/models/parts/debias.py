"""Front-door debiasing of one modality (AtCAF): a local self-attention branch and a global one whose keys and values are
a learned dictionary; and the cross-attention and tanh networks around it.

Legend: B batch, T, S steps, d input width, w width of an encoder.
"""

import torch
from torch import Tensor, nn

from bench.models.parts.encoder import Alter, Encoder, Rates, interleaved
from bench.models.parts.layers import dropout


class Cross(nn.Module):
    """x [B, T, d] queries source [B, S, d_s]: encoder of width w, then Lin ReLU Lin; [B, T, w]."""

    def __init__(self, d: int, d_source: int, encoder: Encoder, width: int) -> None:
        super().__init__()
        self.query, self.source = nn.Linear(d, width, bias=False), nn.Linear(d_source, width, bias=False)
        self.encoder = encoder
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor, source: Tensor, bias: Tensor | None = None, alter: Alter | None = None) -> Tensor:
        return self.down(self.up(self.encoder(self.query(x), self.source(source), bias, alter)).relu())


class TanhNet(nn.Module):
    """Dropout, three tanh layers of h, 2h, h, a linear one; returns the result and the last hidden layer."""

    def __init__(self, d: int, h: int, out: int, rate: float) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(d, h), nn.Linear(h, 2 * h), nn.Linear(2 * h, h)])
        self.out, self.rate = nn.Linear(h, out), rate

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = dropout(x, self.rate, self.training)
        for layer in self.layers:
            x = layer(x).tanh()
        return self.out(x), x


class Debias(nn.Module):
    """Local and global branch of one modality: x [B, T, d] -> mediated [B, T, d + w] and x' [B, T, d]."""

    def __init__(
        self, d: int, steps: int, hidden: int, width_self: int, width: int, heads: int, layers: int, entries: int,
        rates: Rates,
    ) -> None:
        """`entries`: K of the dictionary."""
        super().__init__()
        s, w = width_self, width
        self.local = nn.Linear(d, s, bias=False)
        self.encoder = Encoder(s, heads, layers, rates, interleaved(steps, s))
        self.up, self.down = nn.Linear(s, 4 * s), nn.Linear(4 * s, d)
        self.dictionary = nn.Parameter(torch.empty(entries, d))
        table = interleaved(steps, w)
        self.wide = Cross(d, d, Encoder(w, heads, layers, rates, table, bare_source=True), w)
        self.mlp = TanhNet(d + w, hidden, d, 0.0)

    def forward(self, x: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:
        local = self.down(self.up(self.encoder(self.local(x), bias=bias)))
        mediated = torch.cat([local, self.wide(x, self.dictionary.expand(len(x), -1, -1))], -1)
        return mediated, self.mlp(mediated)[0]
