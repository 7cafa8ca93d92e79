"""Unimodal networks of feature sequences (SAM-LML Sec. A.1): a convolution and a transformer, in either order.

Two transformers: "mult", MulT's encoder with sinusoidal positions (towers.py), and "hkt", that of the Humor Knowledge
enriched Transformer. Neither masks padding. Legend: B batch, T steps, w width inside the transformer.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.errors import BenchError
from bench.models.parts.towers import Fold, Towers

POSITIONS = 5000  # rows of HKT's position table


class Stack(NamedTuple):
    """Sizes of one transformer. `feed_forward` and `dropout` 0.1 are HKT's; MulT's feed-forward is 4 w."""

    blocks: str  # "mult" or "hkt"
    layers: int
    heads: int
    feed_forward: int
    attention_dropout: float  # "mult"
    dropout: float  # "mult": embedding, feed-forward and residual dropout


def transformer(stack: Stack, steps: int, width: int) -> nn.Module:
    """[B, T, w] -> [B, T, w]. Raises BenchError for an unknown kind and for a width that the heads do not divide."""
    if width % stack.heads:
        raise BenchError(f"a transformer of width {width} cannot have {stack.heads} heads")
    if stack.blocks == "mult":
        return MultTransformer(stack, steps, width)
    if stack.blocks == "hkt":
        return HktTransformer(stack, width)
    raise BenchError(f"blocks must be 'mult' or 'hkt', not '{stack.blocks}'")


class ConvTransformer(nn.Module):
    """Convolution, then the transformer at width d (Eq. 31): [B, T, d_m] -> [B, T, d]."""

    def __init__(self, steps: int, d_m: int, d: int, stack: Stack) -> None:
        super().__init__()
        self.convolution = nn.Conv1d(d_m, d, 3, padding=1, bias=False)
        self.transformer = transformer(stack, steps, d)

    def forward(self, x: Tensor) -> Tensor:
        return self.transformer(self.convolution(x.transpose(1, 2)).transpose(1, 2))


class TransformerConv(nn.Module):
    """The transformer at width d_m, then a convolution (Eq. 32): [B, T, d_m] -> [B, T, d]."""

    def __init__(self, steps: int, d_m: int, d: int, stack: Stack) -> None:
        super().__init__()
        self.transformer = transformer(stack, steps, d_m)
        self.convolution = nn.Conv1d(d_m, d, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.convolution(self.transformer(x).transpose(1, 2)).transpose(1, 2)


class MultTransformer(nn.Module):
    """MulT's self-attention encoder, with positions and without causal mask."""

    def __init__(self, stack: Stack, steps: int, width: int) -> None:
        super().__init__()
        self.encoder = Towers(
            1, width, stack.heads, stack.layers, embed_dropout=stack.dropout, relu_dropout=stack.dropout,
            residual_dropout=stack.dropout, positions=steps,
        )
        self.fold = Fold([0], [steps], [steps], [stack.attention_dropout], causal=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.encoder(x[None], self.fold)[0]


class HktTransformer(nn.Module):
    """HKT's encoder: learned positions, which start at normal(0, 1) as an embedding of torch does, LayerNorm, post-norm
    layers with one more residual around each. `rate`: of every dropout in a layer."""

    def __init__(self, stack: Stack, width: int, positions: int = POSITIONS, rate: float = 0.1) -> None:
        super().__init__()
        self.positions = nn.Parameter(torch.randn(positions, width))
        self.norm = nn.LayerNorm(width)
        self.layers = nn.ModuleList([HktLayer(width, stack.heads, stack.feed_forward, rate) for _ in range(stack.layers)])

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(x + self.positions[: x.shape[1]])
        for layer in self.layers:
            x = x + layer(x)
        return x


class HktLayer(nn.Module):
    """Multi-head self-attention without output projection, whose weights are dropped out, then a feed-forward network;
    the output of either is dropped out, added to its input and normalised."""

    def __init__(self, width: int, heads: int, feed_forward: int, rate: float = 0.1) -> None:
        super().__init__()
        self.heads, self.rate = heads, rate
        self.qkv = nn.Linear(width, 3 * width)
        self.attention_norm = nn.LayerNorm(width)
        self.up, self.down = nn.Linear(width, feed_forward), nn.Linear(feed_forward, width)
        self.feed_forward_norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(rate)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)  # (B, H, T, w / H) each
        y = F.scaled_dot_product_attention(q, k, v, dropout_p=self.rate if self.training else 0.0)
        x = self.attention_norm(x + self.dropout(y.transpose(1, 2).flatten(2)))
        return self.feed_forward_norm(x + self.dropout(self.down(self.up(x).relu())))
