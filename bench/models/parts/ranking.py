"""Losses on attention matrices: rankings between scores, spread and context of their rows, absolute labels.

Pure functions of SAM-LML's equations. Legend: B batch, T query steps, S key steps; scores are before the softmax.
Every loss is one number per sample, [B]: the mean over the entries of its matrix. `rows` [B, T] and `keys` [B, S]
are masks (1 at valid steps) that restrict the mean; None takes every entry.
"""

import torch
from torch import Tensor

Mask = Tensor | None


def entry_mean(x: Tensor, rows: Mask = None, keys: Mask = None) -> Tensor:
    """Mean over the entries of x [B, T, S] -> [B]."""
    if rows is None or keys is None:
        return x.mean((1, 2))
    weight = rows[:, :, None] * keys[:, None]  # (B, T, S)
    return (x * weight).sum((1, 2)) / weight.sum((1, 2)).clamp(min=1)


def step_mean(x: Tensor, rows: Mask = None) -> Tensor:
    """Mean over the steps of x [B, T, ...] -> [B, ...]."""
    if rows is None:
        return x.mean(1)
    weight = rows.view(*rows.shape, *[1] * (x.dim() - 2))
    return (x * weight).sum(1) / weight.sum(1).clamp(min=1)


def batch_mean(x: Tensor, kept: Mask = None) -> Tensor:
    """Mean over the samples of x [B] that are kept [B]; 0 if none is."""
    if kept is None:
        return x.mean()
    weight = kept.to(x.dtype)
    return (x * weight).sum() / weight.sum().clamp(min=1)


def ranking(lower: Tensor, higher: Tensor, margin: float, rows: Mask = None, keys: Mask = None) -> Tensor:
    """mean [lower - higher + margin]+ of two score matrices [B, T, S] (Eq. 4, 8)."""
    return entry_mean((lower - higher + margin).relu(), rows, keys)


def noise_ranking(
    scores: Tensor, noisy: Tensor, share: Tensor, margin: float, rows: Mask = None, keys: Mask = None
) -> Tensor:
    """Keys above noise, and augmented keys above noise (Eq. 4, 6): scores A, noisy A^n [B, T, S], share lambda.

    Keys have no bias, so A^{n'} = lambda A + (1 - lambda) A^n, and A^n - A^{n'} = lambda (A^n - A).
    """
    gap = noisy - scores
    return entry_mean((gap + margin).relu() + (share * gap + margin).relu(), rows, keys)


def mixing_ranking(scores: Tensor, own: Tensor, share: Tensor, margin: float, rows: Mask = None) -> Tensor:
    """Mixed keys above other keys, step by step (Eq. 28, diagonal): scores [B, T] of a query and the other
    modality's key of its time slice, own [B, T] of the query and its own modality's key.

    A^mix = lambda A_12 + (1 - lambda) A_11, so A_12 - A^mix = (1 - lambda) (A_12 - A_11).
    """
    return step_mean(((1 - share) * (scores - own) + margin).relu(), rows)


def spread(weights: Tensor, margin: float, rows: Mask = None, keys: Mask = None) -> Tensor:
    """mean over rows of [margin - std(row)]+ of attention weights [B, T, S] (Eq. 14), population deviation."""
    if keys is None:
        variance = weights.var(-1, correction=0)  # (B, T)
    else:  # weights of padded keys are 0, and the mean of a row is 1 over the number of the others
        number = keys.sum(1)[:, None].clamp(min=1)
        variance = weights.square().sum(-1) / number - number**-2
    deviation = variance.clamp(min=1e-12).sqrt()  # a uniform row has gradient 0, not 0/0
    return step_mean((margin - deviation).relu(), rows)


def context(scores: Tensor, window: int, margin: float, rows: Mask = None, keys: Mask = None) -> Tensor:
    """mean over rows of [mean(row) + margin - mean of `window` entries around the diagonal]+ (Eq. 15).

    scores [B, T, T]. The window is centred on the diagonal (an even one leans to the past) and clipped at the border.
    """
    band = diagonal_band(scores.shape[1], window, scores)[None]  # (1, T, T)
    everything = torch.ones_like(band)
    if keys is not None:
        band, everything = band * keys[:, None], everything * keys[:, None]
    near = (scores * band).sum(-1) / band.sum(-1).clamp(min=1)  # (B, T)
    row = (scores * everything).sum(-1) / everything.sum(-1).clamp(min=1)
    return step_mean((row + margin - near).relu(), rows)


def diagonal_band(steps: int, window: int, like: Tensor) -> Tensor:
    """[T, T], 1 at the `window` entries around the diagonal of each row, in the dtype and on the device of `like`."""
    step = torch.arange(steps, device=like.device)
    offset = step - step[:, None]  # column minus row
    return ((offset >= -(window // 2)) & (offset <= (window - 1) // 2)).to(like.dtype)


def time_slices(steps: int, others: int, device: torch.device) -> Tensor:
    """For each of `steps` steps the step of a sequence of `others` steps at the same relative time, [steps] int64;
    the identity where both are equally long."""
    return ((2 * torch.arange(steps, device=device) + 1) * others).div(2 * steps, rounding_mode="floor")


def at_slices(scores: Tensor) -> Tensor:
    """The entries of scores [B, T, S] where query and key share a time slice, [B, T]: the diagonal if T = S."""
    index = time_slices(scores.shape[1], scores.shape[2], scores.device)
    return scores.gather(2, index.expand(scores.shape[0], -1)[:, :, None]).squeeze(2)


def joint_label(scores: Tensor, other: Tensor, label: float, rows: Mask = None, keys: Mask = None) -> Tensor:
    """Mean squared distance to `label` of the weights of other keys, in one softmax over [scores; other], both
    [B, T, S] (Sec. A.12: NAL-v2, MDRL-v2)."""
    both = torch.cat([masked(scores, keys), masked(other, keys)], -1)  # (B, T, 2S)
    weights = both.softmax(-1)[..., scores.shape[2] :]
    return entry_mean((weights - label).square(), rows, keys)


def slice_label(mixed: Tensor, label: float, rows: Mask = None, keys: Mask = None) -> Tensor:
    """Mean squared distance to `label` of the weight that a query gives the mixed key of its own time slice, in a
    softmax over the row of mixed scores [B, T, S] (Sec. A.12: MML-v2)."""
    weights = masked(mixed, keys).softmax(-1)
    return step_mean((at_slices(weights) - label).square(), rows)


def masked(scores: Tensor, keys: Mask) -> Tensor:
    """Scores [B, T, S] with the lowest number where a key is masked (finite: a row without keys stays free of NaN)."""
    if keys is None:
        return scores
    return scores.masked_fill(keys[:, None] == 0, torch.finfo(scores.dtype).min)
