"""Cross-modal attention of two sequences, as MMML's encoder (Wu et al., 2024): SLaD Eq. 3-6 and what follows them.

A learned vector stands before each sequence and carries what is read off at the end. Every layer: each sequence queries
the other, both as they enter the layer; then itself; then a position-wise feed-forward network with ReLU. Every
sub-block is dense, dropout, residual, LayerNorm, with weights of its own per modality. No positions.

Legend: B batch, l steps, d width. Masks [B, l] bool are True at what is no padding.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.errors import BenchError

_EPS = 1e-12  # of the LayerNorms, as in BERT


class Attention(nn.Module):
    """x [B, l, d] queries source [B, s, d], where mask [B, s] allows; residual and LayerNorm."""

    def __init__(self, d: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.rate = heads, dropout
        self.query, self.key, self.value, self.out = (nn.Linear(d, d) for _ in range(4))
        self.dropout = nn.Dropout(dropout)
        self.norm = nn.LayerNorm(d, _EPS)

    def forward(self, x: Tensor, source: Tensor, mask: Tensor) -> Tensor:
        q, k, v = (
            f(z).unflatten(2, (self.heads, -1)).transpose(1, 2)  # (B, heads, l or s, d / heads)
            for f, z in ((self.query, x), (self.key, source), (self.value, source))
        )
        rate = self.rate if self.training else 0.0
        y = F.scaled_dot_product_attention(q, k, v, mask[:, None, None], rate).transpose(1, 2).flatten(2)
        return self.norm(x + self.dropout(self.out(y)))


class FeedForward(nn.Module):
    """d -> hidden -> d with ReLU; residual and LayerNorm."""

    def __init__(self, d: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(d, hidden), nn.Linear(hidden, d)
        self.dropout = nn.Dropout(dropout)
        self.norm = nn.LayerNorm(d, _EPS)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x + self.dropout(self.down(self.up(x).relu())))


class Layer(nn.Module):
    """One layer over both sequences."""

    def __init__(self, d: int, heads: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.across = nn.ModuleList([Attention(d, heads, dropout) for _ in range(2)])
        self.within = nn.ModuleList([Attention(d, heads, dropout) for _ in range(2)])
        self.feed_forward = nn.ModuleList([FeedForward(d, hidden, dropout) for _ in range(2)])

    def forward(self, pair: list[Tensor], masks: list[Tensor]) -> list[Tensor]:
        pair = [f(pair[i], pair[1 - i], masks[1 - i]) for i, f in enumerate(self.across)]
        pair = [f(x, x, m) for f, x, m in zip(self.within, pair, masks)]
        return [f(x) for f, x in zip(self.feed_forward, pair)]


class CrossModalEncoder(nn.Module):
    """Two sequences [B, l, d] and their masks -> one vector [B, d] of each. Raises BenchError if the heads do not
    divide the width. `hidden`: width of the feed-forward networks, 4 d by default."""

    def __init__(self, d: int, heads: int, depth: int, dropout: float, hidden: int = 0) -> None:
        super().__init__()
        if d % heads:
            raise BenchError(f"attention of width {d} cannot have {heads} heads; set heads to a divisor of {d}")
        self.first = nn.Parameter(torch.randn(2, d))  # the learned vectors
        self.layers = nn.ModuleList([Layer(d, heads, hidden or 4 * d, dropout) for _ in range(depth)])

    def forward(self, one: Tensor, other: Tensor, mask_one: Tensor, mask_other: Tensor) -> list[Tensor]:
        return [x[:, 0] for x in self.sequences(one, other, mask_one, mask_other)]

    def sequences(self, one: Tensor, other: Tensor, mask_one: Tensor, mask_other: Tensor) -> list[Tensor]:
        """Both sequences after the last layer, [B, 1 + l, d], the learned vector's place first."""
        pair = [torch.cat([v.expand(len(x), 1, -1), x], 1) for v, x in zip(self.first, (one, other))]  # (B, 1 + l, d)
        masks = [F.pad(m, (1, 0), value=True) for m in (mask_one, mask_other)]
        for layer in self.layers:
            pair = layer(pair, masks)
        return pair
