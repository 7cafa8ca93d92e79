"""Linear map of a dropped-out outer product, without ever holding the product (TFN's first fusion layer, on CPU).

y = W · dropout(pair ⊗ text) + b, with pair [B, P], text [B, T], W [H, P T] (text fastest). The product has B P T
entries, 4.5 million a batch on MOSI, and a training step that stores it spends most of its time moving it through
memory. Here it is rebuilt chunk by chunk, in cache, in the forward and the backward pass. Same function, same
gradients (tests/test_models.py, float64); only the order in which sums are rounded differs.
"""

import torch
from torch import Tensor

_CHUNK = 1 << 18  # entries of the product held at once: 1 MiB of float32


def keep_mask(n: int, rate: float) -> tuple[Tensor, float]:
    """(n booleans that are True with probability q, q), q = 1 - rate up to 2^-16. Sixteen random bits decide each
    entry, from one 64-bit draw of the global generator for four."""
    threshold = round(rate * 65536)
    bits = torch.empty((n + 3) // 4, dtype=torch.int64).random_(-(2**63), None).view(torch.int16)[:n]
    return bits >= threshold - 32768, 1.0 - threshold / 65536


class _OuterLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx, pair: Tensor, text: Tensor, weight: Tensor, bias: Tensor, rate: float) -> Tensor:
        batch, width = pair.shape[0], text.shape[1]
        mask, keep = keep_mask(batch * pair.shape[1] * width, rate) if rate else (None, 1.0)
        mask = None if mask is None else mask.view(pair.shape[1], batch, width)
        scaled = text / keep
        out = bias.expand(batch, -1).clone()  # (B, H)
        for a, b in _chunks(pair, text):
            out.addmm_(_product(pair, scaled, mask, a, b), weight[:, a * width : b * width].t())
        ctx.save_for_backward(pair, text, weight, mask)
        ctx.keep = keep
        return out

    @staticmethod
    def backward(ctx, grad: Tensor):  # grad (B, H)
        pair, text, weight, mask = ctx.saved_tensors
        width = text.shape[1]
        scaled = text / ctx.keep
        d_pair, d_scaled, d_weight = torch.empty_like(pair), torch.zeros_like(text), torch.empty_like(weight)
        grad_t = grad.t().contiguous()
        for a, b in _chunks(pair, text):
            cut = slice(a * width, b * width)
            torch.mm(grad_t, _product(pair, scaled, mask, a, b), out=d_weight[:, cut])
            d = (grad @ weight[:, cut]).view(len(pair), b - a, width)  # (B, c, T)
            if mask is not None:
                d.mul_(mask[a:b].transpose(0, 1))
            torch.bmm(d, scaled[:, :, None], out=d_pair[:, a:b, None])
            d_scaled += torch.bmm(pair[:, None, a:b], d).squeeze(1)
        return d_pair, d_scaled / ctx.keep, d_weight, grad.sum(0), None


def _chunks(pair: Tensor, text: Tensor) -> list[tuple[int, int]]:
    step = max(1, _CHUNK // (len(pair) * text.shape[1]))
    return [(a, min(a + step, pair.shape[1])) for a in range(0, pair.shape[1], step)]


def _product(pair: Tensor, scaled: Tensor, mask: Tensor | None, a: int, b: int) -> Tensor:
    """Columns a..b of pair with all of text, dropped out: [B, (b - a) T]."""
    x = pair[:, a:b, None] * scaled[:, None]  # (B, c, T)
    if mask is not None:
        x.mul_(mask[a:b].transpose(0, 1))
    return x.flatten(1)


def outer_linear(pair: Tensor, text: Tensor, weight: Tensor, bias: Tensor, rate: float) -> Tensor:
    """[B, P], [B, T] -> [B, H]; `rate` is the dropout on the product (0 in evaluation). In the precision of the weights,
    whatever autocast has made of the vectors."""
    return _OuterLinear.apply(pair.to(weight.dtype), text.to(weight.dtype), weight, bias, rate)
