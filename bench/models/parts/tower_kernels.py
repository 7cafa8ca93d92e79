"""Attention with narrow heads and LayerNorm of narrow rows, each one kernel of a GPU (Triton): what MulT's towers do most.

A head of MulT is 5 wide: as products of matrices its scores are thousands of small ones whose inner length is 5, with a
pass over memory for each of mask, softmax and dropout between them. Here one program has a head's scores [T, S] in its
registers from the products to the weighted values, backward too, which computes them again; nothing adds up in an order
that varies. Dropout draws from a seed that is itself drawn on the device, from the default generator, so that a captured
step draws anew with every replay.

Legend: n towers, B batch, T query steps, S key steps, H heads, h width of a head, w = H h.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

MOST_STEPS = 64  # T, S: a tile of scores stays in registers
MOST_WIDTH = 16  # h: products go column by column
_ROWS = 32  # rows that a program of LayerNorm takes
MOST_NORM = 256  # width of a LayerNorm


@triton.jit
def _scores(Q, K, MASK, q0, k0, m0, q_t, k_s, T: tl.constexpr, S: tl.constexpr, W: tl.constexpr, BT: tl.constexpr, BS: tl.constexpr, real: tl.constexpr):
    """Masked scores [BT, BS], -inf outside of [T, S]; a row outside is all 0."""
    t, s = tl.arange(0, BT), tl.arange(0, BS)
    scores = tl.zeros((BT, BS), real)
    for i in tl.static_range(W):
        q = tl.load(Q + q0 + t * q_t + i, t < T, 0.0).to(real)
        k = tl.load(K + k0 + s * k_s + i, s < S, 0.0).to(real)
        scores += q[:, None] * k[None, :]
    inside = (t[:, None] < T) & (s[None, :] < S)
    mask = tl.load(MASK + m0 + t[:, None] * S + s[None, :], inside, 0.0).to(real)
    return scores + tl.where(s[None, :] < S, mask, float("-inf"))


@triton.jit
def _kept(seed, program, rate, BT: tl.constexpr, BS: tl.constexpr, real: tl.constexpr):
    """Factor of every weight: 0 where it is dropped, else 1 / (1 - rate)."""
    t, s = tl.arange(0, BT), tl.arange(0, BS // 4)
    one, two, three, four = tl.rand4x(seed, program * (BT * BS // 4) + t[:, None] * (BS // 4) + s[None, :])
    uniform = tl.reshape(tl.join(tl.join(one, two), tl.join(three, four)), (BT, BS))  # four of each draw, side by side
    return tl.where(uniform >= rate, 1.0 / (1.0 - rate), 0.0).to(real)


@triton.jit
def _attend(
    Q, K, V, MASK, RATE, SEED, Y, LSE, B, q_n, q_b, q_t, k_n, k_b, k_s, v_n, v_b, v_s, y_n, y_b, y_t, m_n,
    T: tl.constexpr, S: tl.constexpr, H: tl.constexpr, W: tl.constexpr, BT: tl.constexpr, BS: tl.constexpr,
    DROP: tl.constexpr, real: tl.constexpr,
):
    program = tl.program_id(0)
    head, b, n = program % H, (program // H) % B, program // (H * B)
    t, s = tl.arange(0, BT), tl.arange(0, BS)
    scores = _scores(Q, K, MASK, n * q_n + b * q_b + head * W, n * k_n + b * k_b + head * W, n * m_n, q_t, k_s, T, S, W, BT, BS, real)
    top = tl.max(scores, 1)
    weights = tl.exp(scores - top[:, None])
    total = tl.sum(weights, 1)
    tl.store(LSE + program * T + t, top + tl.log(total), t < T)
    weights = weights / total[:, None]
    if DROP:
        weights *= _kept(tl.load(SEED), program, tl.load(RATE + n), BT, BS, real)
    for i in tl.static_range(W):
        v = tl.load(V + n * v_n + b * v_b + head * W + s * v_s + i, s < S, 0.0).to(real)
        y = tl.sum(weights * v[None, :], 1)
        tl.store(Y + n * y_n + b * y_b + head * W + t * y_t + i, y.to(Y.dtype.element_ty), t < T)


@triton.jit
def _attend_backward(
    Q, K, V, MASK, RATE, SEED, LSE, G, DQ, DK, DV, B, q_n, q_b, q_t, k_n, k_b, k_s, v_n, v_b, v_s, g_n, g_b, g_t, m_n,
    T: tl.constexpr, S: tl.constexpr, H: tl.constexpr, W: tl.constexpr, BT: tl.constexpr, BS: tl.constexpr,
    DROP: tl.constexpr, real: tl.constexpr,
):
    program = tl.program_id(0)
    head, b, n = program % H, (program // H) % B, program // (H * B)
    t, s = tl.arange(0, BT), tl.arange(0, BS)
    q0, k0, v0 = n * q_n + b * q_b + head * W, n * k_n + b * k_b + head * W, n * v_n + b * v_b + head * W
    g0 = n * g_n + b * g_b + head * W
    scores = _scores(Q, K, MASK, q0, k0, n * m_n, q_t, k_s, T, S, W, BT, BS, real)
    lse = tl.load(LSE + program * T + t, t < T, 0.0)
    p = tl.where(t[:, None] < T, tl.exp(scores - lse[:, None]), 0.0)
    dp = tl.zeros((BT, BS), real)
    for i in tl.static_range(W):
        g = tl.load(G + g0 + t * g_t + i, t < T, 0.0).to(real)
        v = tl.load(V + v0 + s * v_s + i, s < S, 0.0).to(real)
        dp += g[:, None] * v[None, :]
    weights = p
    if DROP:
        kept = _kept(tl.load(SEED), program, tl.load(RATE + n), BT, BS, real)
        weights, dp = p * kept, dp * kept
    ds = p * (dp - tl.sum(p * dp, 1)[:, None])
    w: tl.constexpr = H * W
    for i in tl.static_range(W):
        q = tl.load(Q + q0 + t * q_t + i, t < T, 0.0).to(real)
        k = tl.load(K + k0 + s * k_s + i, s < S, 0.0).to(real)
        g = tl.load(G + g0 + t * g_t + i, t < T, 0.0).to(real)
        rows, keys = (n * B + b) * T * w + head * W + i, (n * B + b) * S * w + head * W + i
        tl.store(DQ + rows + t * w, tl.sum(ds * k[None, :], 1).to(DQ.dtype.element_ty), t < T)
        tl.store(DK + keys + s * w, tl.sum(ds * q[:, None], 0).to(DK.dtype.element_ty), s < S)
        tl.store(DV + keys + s * w, tl.sum(weights * g[:, None], 0).to(DV.dtype.element_ty), s < S)


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, mask: Tensor, rates: Tensor, heads: int, drop: bool) -> Tensor:
        n, B, T, w = q.shape
        real = torch.float64 if q.dtype == torch.float64 else torch.float32
        y = torch.empty_like(q, memory_format=torch.contiguous_format)
        lse = torch.empty(n * B * heads * T, dtype=real, device=q.device)
        seed = torch.empty((), dtype=torch.int64, device=q.device)
        if drop:
            seed.random_()
        ctx.of, ctx.heads, ctx.drop = _of(q, k, mask, heads, drop, real), heads, drop
        mask, rates = mask.to(real).contiguous(), rates.to(real).contiguous()
        _attend[(n * B * heads,)](
            q, k, v, mask, rates, seed, y, lse, B, *q.stride()[:3], *k.stride()[:3], *v.stride()[:3], *y.stride()[:3],
            mask.stride(0) if len(mask) > 1 else 0, **ctx.of,
        )
        ctx.save_for_backward(q, k, v, mask, rates, seed, lse)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, mask, rates, seed, lse = ctx.saved_tensors
        n, B, _, _ = q.shape
        g = g.contiguous()
        dq, dk, dv = (torch.empty_like(x, memory_format=torch.contiguous_format) for x in (q, k, v))
        _attend_backward[(n * B * ctx.heads,)](
            q, k, v, mask, rates, seed, lse, g, dq, dk, dv, B, *q.stride()[:3], *k.stride()[:3], *v.stride()[:3], *g.stride()[:3],
            mask.stride(0) if len(mask) > 1 else 0, **ctx.of,
        )
        return dq, dk, dv, None, None, None, None


def _of(q: Tensor, k: Tensor, mask: Tensor, heads: int, drop: bool, real: torch.dtype) -> dict[str, Any]:
    T, S = q.shape[2], k.shape[2]
    return {
        "T": T, "S": S, "H": heads, "W": q.shape[3] // heads, "BT": max(triton.next_power_of_2(T), 16),
        "BS": max(triton.next_power_of_2(S), 16), "DROP": drop, "real": tl.float64 if real == torch.float64 else tl.float32,
        "num_warps": 4,
    }


def attention(q: Tensor, k: Tensor, v: Tensor, heads: int, mask: Tensor, rates: Tensor, drop: bool) -> Tensor:
    """softmax(q k^T + mask) v per tower and head, weights dropped out if `drop`: [n, B, T, w].

    q [n, B, T, w], scaled; k, v [n, B, S, w]; the last axis of each contiguous. mask [n or 1, 1, T, S], 0 or -inf, the
    first key visible to every query; rates [n, ...], dropout of each tower. Computes in float32, in float64 for that.
    """
    q, k, v = (x if x.stride(-1) == 1 else x.contiguous() for x in (q, k, v))
    return _Attention.apply(q, k, v, mask, rates, heads, drop)


@triton.jit
def _norm(X, Y, R, rows, W: tl.constexpr, BW: tl.constexpr, BR: tl.constexpr, eps: tl.constexpr, real: tl.constexpr):
    r, c = tl.program_id(0) * BR + tl.arange(0, BR), tl.arange(0, BW)
    inside = (r[:, None] < rows) & (c[None, :] < W)
    x = tl.load(X + r[:, None] * W + c[None, :], inside, 0.0).to(real)
    mean = tl.sum(x, 1) / W
    centred = tl.where(c[None, :] < W, x - mean[:, None], 0.0)
    scale = 1.0 / tl.sqrt(tl.sum(centred * centred, 1) / W + eps)
    tl.store(Y + r[:, None] * W + c[None, :], (centred * scale[:, None]).to(Y.dtype.element_ty), inside)
    tl.store(R + r, scale, r < rows)


@triton.jit
def _norm_backward(Y, R, G, D, rows, W: tl.constexpr, BW: tl.constexpr, BR: tl.constexpr, real: tl.constexpr):
    r, c = tl.program_id(0) * BR + tl.arange(0, BR), tl.arange(0, BW)
    inside = (r[:, None] < rows) & (c[None, :] < W)
    y = tl.load(Y + r[:, None] * W + c[None, :], inside, 0.0).to(real)
    g = tl.load(G + r[:, None] * W + c[None, :], inside, 0.0).to(real)
    scale = tl.load(R + r, r < rows, 0.0)
    d = (g - (tl.sum(g, 1) / W)[:, None] - y * (tl.sum(g * y, 1) / W)[:, None]) * scale[:, None]
    tl.store(D + r[:, None] * W + c[None, :], d.to(D.dtype.element_ty), inside)


class _Norm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, eps: float) -> Tensor:
        x = x.contiguous()
        w = x.shape[-1]
        rows, real = x.numel() // w, torch.float64 if x.dtype == torch.float64 else torch.float32
        y, scale = torch.empty_like(x), torch.empty(rows, dtype=real, device=x.device)
        ctx.of = {"W": w, "BW": triton.next_power_of_2(w), "BR": _ROWS, "real": tl.float64 if real == torch.float64 else tl.float32}
        _norm[(triton.cdiv(rows, _ROWS),)](x, y, scale, rows, eps=eps, **ctx.of)
        ctx.save_for_backward(y, scale)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None]:
        y, scale = ctx.saved_tensors
        g, d = g.contiguous(), torch.empty_like(y)
        _norm_backward[(triton.cdiv(scale.numel(), _ROWS),)](y, scale, g, d, scale.numel(), **ctx.of)
        return d, None


def normalise(x: Tensor, eps: float = 1e-5) -> Tensor:
    """LayerNorm over the last axis, without gain and shift; computes in float32, in float64 for that."""
    return _Norm.apply(x, eps)
