"""Unimodal encoders with a knowledge branch beside them (KuDA): transformer states, adapters at some of them, a head.

Legend: B batch, T steps, w width. `padded` [B, T] bool is True at padding.
"""

import torch
from torch import Tensor, nn

from bench.errors import BenchError


def transformer(width: int, heads: int, hidden: int, layers: int, dropout: float) -> nn.ModuleList:
    if width % heads:
        raise BenchError(f"a transformer of width {width} cannot have {heads} heads")
    return nn.ModuleList(
        nn.TransformerEncoderLayer(width, heads, hidden, dropout, "gelu", batch_first=True) for _ in range(layers)
    )


class Adapter(nn.Module):
    """x [B, T, w] -> x + Lin(transformer(Lin(x))), half as wide inside; `padded` [B, T] bool."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.down, self.up = nn.Linear(width, width // 2), nn.Linear(width // 2, width)
        self.layers = transformer(width // 2, heads, width // 4, 2, dropout)

    def forward(self, x: Tensor, padded: Tensor) -> Tensor:
        y = self.down(x)
        for layer in self.layers:
            y = layer(y, src_key_padding_mask=padded)
        return x + self.up(y)


class Unimodal(nn.Module):
    """Knowledge branch and head of one modality. States: list of [B, T, w], inputs first."""

    def __init__(self, width: int, at: tuple[int, ...], heads: int, dropout: float) -> None:
        super().__init__()
        self.at = at
        self.norm = nn.LayerNorm(width)
        self.adapters = nn.ModuleList(Adapter(width, heads, dropout) for _ in at)
        widths = [2 * width, width // 2, width // 4, width // 8]
        layers = [layer for a, b in zip(widths, widths[1:]) for layer in (nn.Linear(a, b), nn.GELU())]
        self.decoder = nn.Sequential(*layers, nn.Linear(width // 8, 1))

    def knowledge(self, states: list[Tensor], padded: Tensor) -> Tensor:
        k = states[0]
        for i, adapter in zip(self.at, self.adapters):
            k = adapter(self.norm(k + states[i]), padded)
        return k

    def forward(self, states: list[Tensor], last: Tensor, padded: Tensor) -> tuple[Tensor, Tensor]:
        """u [B, T, 2w] and the unimodal prediction [B]; padded steps count in its mean."""
        u = torch.cat([last, self.knowledge(states, padded)], -1)
        return u, self.decoder(u.mean(1)).squeeze(-1)


class Sequence(nn.Module):
    """Audio or vision x [B, T, d_m] -> states of every layer, inputs first."""

    def __init__(self, steps: int, d_in: int, width: int, heads: int, layers: int, dropout: float) -> None:
        super().__init__()
        self.project = nn.Linear(d_in, width)
        self.positions = nn.Parameter(torch.randn(steps, width) * 0.02)
        self.layers = transformer(width, heads, width // 2, layers, dropout)

    def forward(self, x: Tensor, padded: Tensor) -> list[Tensor]:
        states = [self.project(x) + self.positions]
        for layer in self.layers:
            states.append(layer(states[-1], src_key_padding_mask=padded))
        return states
