"""Label relations and losses of SLaD (Eq. 7-21); its readings are in slad.py.

Legend: B batch, d width. y^t, y^a [B]: labels of text and audio, within [-1, 1] where they were divided by the label
bound. Vectors [B, d] have length 1. Losses are scalars, in float32 under autocast too.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

EQUAL = 1e-6  # labels that differ by less are equal; predictions never are to the bit
_EPS = 1e-8  # Eq. 10


class Relations(NamedTuple):
    """Which relation holds for each sample, [B] bool; exactly one does."""

    incompatible: Tensor  # R1, Eq. 7
    equal: Tensor  # R2, Eq. 8
    partial: Tensor  # R3, Eq. 9


def relations(y_text: Tensor, y_audio: Tensor) -> Relations:
    """Eq. 7-9. Two zeros are in R1, which Eq. 10 asks for first."""
    incompatible = y_text.sign() * y_audio.sign() <= 0
    equal = ~incompatible & ((y_text - y_audio).abs() < EQUAL)
    return Relations(incompatible, equal, ~incompatible & ~equal)


def label_similarity(y_text: Tensor, y_audio: Tensor, alpha: float) -> Tensor:
    """omega [B] in [0, 1]: structural consistency times numerical similarity (Eq. 10-12)."""
    relation = relations(y_text, y_audio)
    low, high = torch.minimum(y_text.abs(), y_audio.abs()), torch.maximum(y_text.abs(), y_audio.abs())
    structure = torch.where(relation.equal, 1.0, 0.1 + 0.8 * low / (high + _EPS))  # Eq. 10
    value = torch.exp(-(y_text - y_audio).square() / (2 * alpha**2))  # Eq. 11
    return torch.where(relation.incompatible, 0.0, structure * value).clamp(0, 1)


def similarities(one: Tensor, other: Tensor, tau: float) -> Tensor:
    """Cosines of all pairs over the temperature, [B, B'] (Eq. 13, 17)."""
    with torch.autocast(one.device.type, enabled=False):  # a softmax over them wants more than bf16
        return _precise(one) @ _precise(other).T / tau


def contrastive(text: Tensor, audio: Tensor, omega: Tensor, tau: float, top_k: int) -> Tensor:
    """L_con of the invariant vectors (Eq. 13-16): each text finds its own audio among the batch's, and its `top_k` most
    similar other ones (B - 1 at most) are pushed away."""
    s = similarities(text, audio, tau)  # (B, B)
    own = s.diagonal()
    loss = s.logsumexp(1) - own  # Eq. 14, (B,)
    k = min(top_k, len(s) - 1)
    if k:
        hard = _without_own(s).topk(k, 1).values  # N_i, (B, K)
        scale = tau * own.mean().sigmoid().detach()  # lambda
        loss = loss + scale * F.softplus(hard).mean(1)  # Eq. 15
    return (omega * loss).mean()


def repulsive(text: Tensor, audio: Tensor, omega: Tensor, tau: float, margin: float, own: bool = False) -> Tensor:
    """L_rep of the specific vectors (Eq. 17-18): the most similar audio of another sample, or of any one with `own`, is
    to stay below a cosine of `margin`. 0 for a single sample without `own`."""
    r = similarities(text, audio, tau)  # (B, B)
    if len(r) == 1 and not own:
        return (0 * r).sum()
    hardest = (r if own else _without_own(r)).amax(1)  # (B,)
    return (omega * (hardest - margin / tau).relu()).sum() / (omega.sum() + _EPS)


def overlap_weights(y: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    """W and M^pos [N, N'] of label sets y [N, C], other [N', C] (Eq. 19-20), the pairs i = j included.

    A set holds |y| per label; two labels of one sign overlap by the lesser of their sizes, others not at all. 0 has no
    sign: it overlaps with nothing. Signs are compared, not products, which underflow to 0.
    """
    a, b = y[:, None], other[None]  # (N, 1, C), (1, N', C)
    alike = a.sign() * b.sign() > 0
    common = torch.where(alike, torch.minimum(a.abs(), b.abs()), 0.0).sum(-1)  # |y_i & y_j|
    size = y.abs().sum(1, keepdim=True)  # |y_i|, (N, 1)
    shared, different = common / (size + _EPS), 1 / (1 + size - common)  # K_s, K_d
    if y.shape[1] == 1:
        return shared * different, alike.squeeze(-1).to(y.dtype)
    return shared * different, ((a * b).sum(-1) > 0).to(y.dtype)


def multi_label(
    text: Tensor, audio: Tensor, y_text: Tensor, y_audio: Tensor, tau: float, paired: bool = False, mean: bool = False
) -> Tensor:
    """L_ml of the invariant vectors (Eq. 19-21).

    The 2B sub-modal labels and their vectors are the items: texts, then audios. `paired`: the B samples are, with a set
    of two labels each, compared by Eq. 13's matrix, texts against audios. `mean`: of an item's pairs the weighted mean
    counts, not the sum. The mean over the items is returned: half of Eq. 21 with 2B items, which divides by B.
    """
    if paired:
        y, s = torch.stack([y_text, y_audio], 1), similarities(text, audio, tau)  # (B, 2), (B, B)
    else:
        stacked = torch.cat([text, audio])  # (2B, d)
        y, s = torch.cat([y_text, y_audio])[:, None], similarities(stacked, stacked, tau)  # (2B, 1), (2B, 2B)
    if len(s) == 1:
        return (0 * s).sum()
    weight, positive = overlap_weights(y, y)
    itself = torch.eye(len(s), dtype=torch.bool, device=s.device)
    surprise = -_without_own(s).log_softmax(1).masked_fill(itself, 0.0)
    pairs = (weight * positive).masked_fill(itself, 0.0)
    total = (pairs * surprise).sum(1)
    return (total / (pairs.sum(1) + _EPS) if mean else total).mean()


def _without_own(s: Tensor) -> Tensor:
    """A square matrix with a diagonal of minus infinity."""
    return s.masked_fill(torch.eye(len(s), dtype=torch.bool, device=s.device), -torch.inf)


def _precise(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))
