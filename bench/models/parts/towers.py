"""Transformer encoders of one shape, computed together as one stack of towers (MulT's encoders).

An encoder multiplies its input by sqrt(w), adds positions if asked, drops out, and runs pre-norm layers: one LayerNorm
for query, key and value alike, attention, residual; LayerNorm, ReLU feed-forward of width 4w, residual; a LayerNorm at
the end. In cross attention keys and values are the embedded source at every layer, never its evolving state.

What makes the stack quick changes no number beyond rounding: weights of all towers lie behind one leading axis; a
LayerNorm's gain and shift are folded into the linear map behind it; the keys and values of all layers of a cross
encoder come from one product, as their source does not change; and where only one step of the output is wanted, the
last layer computes that step alone, without projecting the keys and values of the others.

Legend: n towers, L layers, B batch, T query steps, S key steps, w width, H heads, h = w / H.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.models.parts.layers import dropout, sinusoid


class Fold(nn.Module):
    """Towers that run together: which ones, padded to which lengths, what each may see, its attention dropout."""

    mask: Tensor  # (n or 1, 1, T, S), 0 or -inf; n only where the towers' own lengths differ

    def __init__(
        self, towers: Sequence[int], queries: Sequence[int], keys: Sequence[int], rates: Sequence[float], causal: bool
    ) -> None:
        super().__init__()
        self.towers = tuple(towers)
        self.steps = (max(queries), max(keys))
        # query i sees key j for j <= i + |S - T|, with the tower's own lengths
        i, j = torch.arange(self.steps[0])[:, None], torch.arange(self.steps[1])
        masks = [
            torch.zeros(self.steps).masked_fill((j >= s) | (causal & (j > i + abs(s - t))), -math.inf)
            for t, s in zip(queries, keys, strict=True)
        ]
        same = all(torch.equal(m, masks[0]) for m in masks)
        self.register_buffer("mask", torch.stack(masks[:1] if same else masks)[:, None], persistent=False)
        self.each_rate = tuple(rates)
        self.register_buffer("rates", torch.tensor(rates, dtype=torch.float32).view(-1, 1, 1, 1), persistent=False)

    @property
    def rate(self) -> float | Tensor:
        """Attention dropout: one number, or (n, 1, 1, 1) where towers differ."""
        return self.each_rate[0] if len(set(self.each_rate)) == 1 else self.rates


class Towers(nn.Module):
    """n encoders of L layers. Stacked parameters lead with (n, L); initialisation is Xavier uniform per tower and
    layer (the packed query, key, value matrix is one draw), biases 0, LayerNorm 1 and 0."""

    together: bool = False  # attention of all towers at once, as on CUDA

    def __init__(
        self, n: int, width: int, heads: int, levels: int, *, embed_dropout: float, relu_dropout: float,
        residual_dropout: float, positions: int = 0,
    ) -> None:
        super().__init__()
        w = width
        self.n, self.width, self.heads, self.levels = n, width, heads, levels
        self.embed_dropout, self.relu_dropout, self.residual_dropout = embed_dropout, relu_dropout, residual_dropout
        shapes = {"qkv": (3 * w, w), "out": (w, w), "fc1": (4 * w, w), "fc2": (w, 4 * w)}
        for name, (rows, columns) in shapes.items():
            weight = torch.empty(n, levels, rows, columns)
            nn.init.uniform_(weight, -math.sqrt(6 / (rows + columns)), math.sqrt(6 / (rows + columns)))
            self.register_parameter(f"{name}_weight", nn.Parameter(weight))
            self.register_parameter(f"{name}_bias", nn.Parameter(torch.zeros(n, levels, rows)))
        self.norm_weight = nn.Parameter(torch.ones(n, levels, 2, w))  # before attention, before the feed-forward
        self.norm_bias = nn.Parameter(torch.zeros(n, levels, 2, w))
        self.end_weight = nn.Parameter(torch.ones(n, w))
        self.end_bias = nn.Parameter(torch.zeros(n, w))
        scale = torch.ones(3 * w)
        scale[:w] = (w // heads) ** -0.5
        self.register_buffer("query_scale", scale, persistent=False)
        self.register_buffer("positions", sinusoid(positions, w) if positions else None, persistent=False)

    def forward(self, x: Tensor, fold: Fold, source: Tensor | None = None, last: Tensor | None = None) -> Tensor:
        """x [n, B, T, w] of the fold's n towers; source [n, B, S, w] for cross attention, else self-attention.

        Returns [n, B, T, w], or [n, B, w] of the steps `last` [n, B] (int64; self-attention only).
        """
        p = self._folded(fold.towers)
        x = self._embed(x)
        fixed = [None] * self.levels if source is None else self._keys_values(source, p)
        layers = zip(*(p[k].unbind(1) for k in _LAYER_PARAMETERS), fixed, strict=True)
        for level, (qkv_w, qkv_b, out_w, out_b, fc1_w, fc1_b, fc2_w, fc2_b, kv) in enumerate(layers):
            z = normalise(x)
            if last is not None and level == self.levels - 1:
                x, y = pick(x, last), self._attend_last(z, qkv_w, qkv_b, last, fold)  # (n, B, 1, w)
            elif kv is None:
                y = self._attend(*self._split(linear(z, qkv_w, qkv_b), 3), fold)
            else:
                w = self.width
                y = self._attend(*self._split(linear(z, qkv_w[:, :w], qkv_b[:, :w]), 1), *kv, fold)
            x = x + self._residual_drop(linear(y, out_w, out_b))
            y = dropout(linear(normalise(x), fc1_w, fc1_b).relu(), self.relu_dropout, self.training)
            x = x + self._residual_drop(linear(y, fc2_w, fc2_b))
        x = torch.addcmul(p["end_bias"][:, None, None], normalise(x), p["end_weight"][:, None, None])
        return x if last is None else x.squeeze(2)

    def _folded(self, towers: tuple[int, ...]) -> dict[str, Tensor]:
        """Stacked parameters of some towers, LayerNorms folded into the maps behind them, queries scaled by h^-0.5."""
        p = {name: getattr(self, name) for name in (*_LAYER_PARAMETERS, *_NORMS)}
        if towers != tuple(range(self.n)):
            p = {k: torch.stack([v.unbind(0)[i] for i in towers]) for k, v in p.items()}
        for k, name in enumerate(("qkv", "fc1")):
            weight, gain, shift = p[f"{name}_weight"], p["norm_weight"][:, :, k], p["norm_bias"][:, :, k]
            p[f"{name}_bias"] = p[f"{name}_bias"] + (weight @ shift[..., None]).squeeze(-1)
            p[f"{name}_weight"] = weight * gain[:, :, None]
        p["qkv_weight"], p["qkv_bias"] = p["qkv_weight"] * self.query_scale[:, None], p["qkv_bias"] * self.query_scale
        return p

    def _embed(self, x: Tensor) -> Tensor:
        """Scale, position, dropout. A step whose channel 0 is exactly 0 counts as padding and gets no position."""
        y = x * math.sqrt(self.width)
        if self.positions is not None:
            y = y + self.positions[: x.shape[2]] * (x[..., :1] != 0)
        return dropout(y, self.embed_dropout, self.training)

    def _keys_values(self, source: Tensor, p: dict[str, Tensor]) -> list[tuple[Tensor, Tensor]]:
        """Per layer the keys and values (n B H, S, h) of a source that no layer changes. The two have embedding
        dropout masks of their own, so they are one product only where there is no such dropout."""
        w, L = self.width, self.levels
        n, B, S, _ = source.shape
        if self.training and self.embed_dropout > 0:
            parts = ((w, 2 * w), (2 * w, 3 * w))
        else:
            parts = ((w, 3 * w),)
        found: list[Tensor] = []
        for a, b in parts:
            weight, bias = p["qkv_weight"][:, :, a:b].flatten(1, 2), p["qkv_bias"][:, :, a:b].flatten(1, 2)
            y = linear(normalise(self._embed(source)), weight, bias)  # (n, B, S, L * (b - a))
            y = y.view(n, B, S, L, (b - a) // w, self.heads, -1).permute(4, 3, 0, 1, 5, 2, 6)
            found += y.reshape(-1, L, n * B * self.heads, S, w // self.heads).unbind(0)
        keys, values = found
        return list(zip(keys.unbind(0), values.unbind(0), strict=True))

    def _split(self, x: Tensor, parts: int) -> tuple[Tensor, ...]:
        """[n, B, T, parts * w] -> parts x (n B H, T, h)."""
        n, B, T, _ = x.shape
        x = x.view(n, B, T, parts, self.heads, -1).permute(3, 0, 1, 4, 2, 5)
        return x.reshape(parts, n * B * self.heads, T, -1).unbind(0)

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, fold: Fold) -> Tensor:
        """q (n B H, T, h), k and v (n B H, S, h), q already scaled; returns [n, B, T, w].

        Away from CUDA the towers take turns: a tower's scores fit into the cache, those of six do not.
        """
        n, T = len(fold.towers), q.shape[1]
        if q.is_cuda or self.together:
            y = self._weighted(q, k, v, fold.mask, fold.rate)
        else:
            masks = fold.mask.expand(n, -1, -1, -1).split(1)
            parts = zip(q.chunk(n), k.chunk(n), v.chunk(n), masks, fold.each_rate, strict=True)
            y = torch.cat([self._weighted(*part) for part in parts])
        return y.view(n, -1, self.heads, T, q.shape[2]).transpose(2, 3).flatten(3)

    def _weighted(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor, rate: float | Tensor) -> Tensor:
        """Attention of (n B H, T, h); mask (n or 1, 1, T, S), rate a number or (n, 1, 1, 1)."""
        n = max(len(mask), len(rate) if isinstance(rate, Tensor) else 1)
        scores = (q @ k.transpose(1, 2)).view(n, -1, *mask.shape[-2:]) + mask  # (n, B H, T, S)
        weights = dropout(scores.softmax(-1), rate, self.training)
        return weights.view(-1, *mask.shape[-2:]) @ v

    def _attend_last(self, z: Tensor, weight: Tensor, bias: Tensor, last: Tensor, fold: Fold) -> Tensor:
        """Self-attention of one query per row over the steps up to it: [n, B, 1, w] from z [n, B, S, w].

        With one query the products are cheaper the other way round: q (W_k z) = (q W_k) z, and W_v is applied to the
        averaged z.
        """
        n, B, S, w = z.shape
        wq, wk, wv = weight.view(n, 3, self.heads, -1, w).unbind(1)  # (n, H, h, w)
        bq, bk, bv = bias.view(n, 3, 1, self.heads, -1).unbind(1)  # (n, 1, H, h)
        one = pick(z, last).transpose(1, 2)  # (n, 1, B, w)
        q = (one @ wq.transpose(2, 3)).transpose(1, 2) + bq  # (n, B, H, h)
        keys = (q.transpose(1, 2) @ wk).transpose(1, 2)  # (n, B, H, w)
        scores = keys @ z.transpose(2, 3) + (q * bk).sum(-1, keepdim=True)  # (n, B, H, S)
        mask = fold.mask.expand(n, 1, S, S).squeeze(1).gather(1, last[:, :, None].expand(n, B, S))  # (n, B, S)
        weights = dropout((scores + mask[:, :, None]).softmax(-1), fold.rate, self.training)
        mean = (weights @ z).transpose(1, 2)  # (n, H, B, w)
        y = (mean @ wv.transpose(2, 3)).transpose(1, 2) + weights.sum(-1, keepdim=True) * bv  # (n, B, H, h)
        return y.reshape(n, B, 1, w)

    def _residual_drop(self, x: Tensor) -> Tensor:
        return dropout(x, self.residual_dropout, self.training)


_LAYER_PARAMETERS = tuple(f"{name}_{part}" for name in ("qkv", "out", "fc1", "fc2") for part in ("weight", "bias"))
_NORMS = ("norm_weight", "norm_bias", "end_weight", "end_bias")


def normalise(x: Tensor) -> Tensor:
    """LayerNorm without gain and shift."""
    return F.layer_norm(x, x.shape[-1:])


def linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Each tower's linear map: x [n, B, T, i], weight [n, o, i], bias [n, o] -> [n, B, T, o]."""
    y = torch.baddbmm(bias[:, None], x.flatten(1, 2), weight.transpose(1, 2))
    return y.view(*x.shape[:3], -1)


def pick(x: Tensor, step: Tensor) -> Tensor:
    """The steps [n, B] of x [n, B, T, w] as [n, B, 1, w]."""
    return x.gather(2, step[:, :, None, None].expand(-1, -1, 1, x.shape[3]))
