"""Random draws of the mixers, and how latents group into modalities.

Shapes: B batch, n mixed rows, P = B (B - 1) / 2 unordered pairs.

Every draw comes from an explicit generator and lies on its device. Sizes depend on the batch size alone and no value
is read on the host, so that a step can be captured as a CUDA graph. Each mixer keeps drawing apart from mixing:
`draw` returns a dict of tensors, `apply` is a deterministic function of latents, targets and that dict.
"""

from collections.abc import Iterable, Sequence

import torch
from torch import Generator, Tensor

Draws = dict[str, Tensor]

_SMALLEST = 1e-12  # a Dirichlet weight may underflow to 0 in float32; a row of zeros could not be normalised


def modality_groups(keys: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Latents that belong to one modality: keys are grouped by what follows their last underscore.

    {"private_text", "private_audio", "shared_text", "shared_audio"} -> {"text": ("private_text", "shared_text"),
    "audio": ("private_audio", "shared_audio")}; a key without an underscore is its own modality.
    """
    groups: dict[str, tuple[str, ...]] = {}
    for key in keys:
        modality = key.rsplit("_", 1)[-1]
        groups[modality] = (*groups.get(modality, ()), key)
    return groups


def precision(values: Tensor) -> torch.dtype:
    """The dtype of draws and ratios that go with a tensor: float64 for float64, else float32 (autocast included)."""
    return torch.promote_types(values.dtype, torch.float32)


def uniform(size: Sequence[int], interval: Sequence[float], generator: Generator, dtype: torch.dtype) -> Tensor:
    """U(low, high) elementwise."""
    low, high = interval
    return low + (high - low) * torch.rand(tuple(size), generator=generator, device=generator.device, dtype=dtype)


def gamma(concentration: Tensor, generator: Generator) -> Tensor:
    """Gamma(concentration, 1) elementwise. torch.distributions draws from the global state only; this is the
    operator underneath it, which takes a generator."""
    return torch._standard_gamma(concentration, generator=generator)


def beta(alpha: float, size: int, generator: Generator, dtype: torch.dtype) -> Tensor:
    """Beta(alpha, alpha) [size], as the ratio of two Gammas."""
    first, second = gamma(torch.full((2, size), alpha, device=generator.device, dtype=dtype), generator)
    return first / (first + second)


def permutation(size: int, generator: Generator) -> Tensor:
    """A uniform permutation [size]; fixed points are possible, as in the usual in-batch mixup."""
    return torch.rand(size, generator=generator, device=generator.device).argsort()


def dirichlet(
    count: int, rows: int, columns: int, interval: Sequence[float], generator: Generator, dtype: torch.dtype,
    per_row: bool = True, per_column: bool = False,
) -> Tensor:
    """`count` matrices whose rows follow Dirichlet(alpha, ..., alpha) with alpha ~ U(interval), [count, rows, columns].

    One alpha per row, or per matrix where `per_row` is off (PowMix Sec. 3.3 and 4.1); with `per_column` every column
    has its own, the same in all rows: Dirichlet(alpha_1, ..., alpha_B). No entry is exactly 0.
    """
    shape = (count, 1, columns) if per_column else (count, rows if per_row else 1, 1)
    alpha = uniform(shape, interval, generator, dtype)
    weights = gamma(alpha.expand(count, rows, columns).contiguous(), generator)
    return (weights / weights.sum(-1, keepdim=True)).clamp_min(_SMALLEST)


def sparse_masks(
    count: int, rows: int, columns: int, interval: Sequence[float], generator: Generator, dtype: torch.dtype
) -> Tensor:
    """Bernoulli(min(P / columns, 1)) with P ~ U(interval) elementwise (PowMix Sec. 4.1), bool [count, rows, columns].

    A row that comes out empty, which the paper leaves undefined, gets one uniformly chosen column.
    """
    mask = bernoulli_masks(count, rows, columns, interval, generator, dtype)
    spare = torch.rand(mask.shape, generator=generator, device=generator.device).argmax(-1, keepdim=True)
    repair = torch.arange(columns, device=generator.device) == spare  # (count, rows, columns), one True per row
    return mask | (repair & ~mask.any(-1, keepdim=True))


def bernoulli_masks(
    count: int, rows: int, columns: int, interval: Sequence[float], generator: Generator, dtype: torch.dtype
) -> Tensor:
    """The masks as drawn, bool [count, rows, columns]; a row may be empty."""
    size = (count, rows, columns)
    expected = uniform(size, interval, generator, dtype)  # P: how many of a row's entries survive on average
    return torch.rand(size, generator=generator, device=generator.device, dtype=dtype) < expected / columns


def redrawn_masks(
    first: Tensor, least: int, interval: Sequence[float], generator: Generator, dtype: torch.dtype, tries: int = 8
) -> Tensor:
    """`first` [count, rows, columns] with each row of fewer than `least` entries drawn again until it has them, `tries`
    times at most (at B >= 16 one row in a million is left, as a rule); the rest gets `least` uniformly chosen columns.
    The number of draws depends on shapes alone."""
    count, rows, columns = first.shape
    least = min(least, columns)
    result, short = first, first.sum(-1, keepdim=True) < least  # short (count, rows, 1)
    for _ in range(tries):
        result = torch.where(short, bernoulli_masks(count, rows, columns, interval, generator, dtype), result)
        short = result.sum(-1, keepdim=True) < least
    keys = torch.rand(first.shape, generator=generator, device=generator.device)
    filled = torch.zeros_like(first).scatter(-1, keys.topk(least, -1).indices, True)
    return torch.where(short, filled, result)


def pair_draws(size: int, generator: Generator) -> Draws:
    """What `pairs_above` needs for a batch of `size`: a key per unordered pair, and a position per mixed row."""
    device = generator.device
    return {
        "keys": torch.rand(size * (size - 1) // 2, generator=generator, device=device),  # (P,)
        "positions": torch.rand(size, generator=generator, device=device),  # (B,)
    }


def pairs_above(similarity: Tensor, threshold: float, draws: Draws) -> tuple[Tensor, Tensor]:
    """B pairs (first [B], second [B]), uniform among the pairs i < j with similarity [B, B] above the threshold.

    Without replacement where at least B pairs pass; with replacement where some pass, but fewer than B; where none
    passes, every row takes its most similar other row.
    """
    n = len(similarity)
    rows, columns = torch.triu_indices(n, n, 1, device=similarity.device)  # (P,), (P,)
    passing = similarity[rows, columns] > threshold  # (P,)
    count = passing.sum()
    shuffled = torch.where(passing, draws["keys"], -1.0).topk(min(n, len(rows))).indices  # passing pairs come first
    everyone = torch.arange(n, device=similarity.device)
    repeated = (draws["positions"] * count).long()
    position = torch.where(count >= n, everyone, repeated).clamp(0, len(shuffled) - 1)
    drawn = shuffled[position]  # (B,)
    itself = torch.eye(n, dtype=torch.bool, device=similarity.device)
    nearest = similarity.masked_fill(itself, -torch.inf).argmax(1)  # (B,)
    return torch.where(count > 0, rows[drawn], everyone), torch.where(count > 0, columns[drawn], nearest)
