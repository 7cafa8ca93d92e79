"""What the systems that read whole videos share: one vector per utterance, and losses over a video's utterances.

Legend: B clips of a batch, each among the C utterances of its video; T steps, d width.
"""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from bench.models.base import Batch, Latents

CHUNK = 32  # clips that are read at once, each with its video


class Utterances(nn.Module):
    """Modality -> u_m [B, C, d]: means of the features [B, C, T, d] over the steps within a clip that are not all zero,
    standardised per channel once `measure` was called; 0 at places that no utterance takes."""

    def __init__(self, widths: Mapping[str, int]) -> None:
        super().__init__()
        self.modalities = tuple(widths)
        for m, d in widths.items():
            self.register_buffer(f"mean_{m}", torch.zeros(d))
            self.register_buffer(f"spread_{m}", torch.ones(d))

    def forward(self, batch: Batch) -> Latents:
        there = batch["utterances"][..., None]
        return {
            m: (_mean(batch, m) - self.get_buffer(f"mean_{m}")) / self.get_buffer(f"spread_{m}") * there
            for m in self.modalities
        }

    @torch.no_grad()
    def measure(self, rows_of: Callable[[Tensor], Batch], size: int) -> None:
        """Mean and deviation of every channel over the training clips [size]; a constant channel becomes 0."""
        found: dict[str, list[Tensor]] = {m: [] for m in self.modalities}
        for rows in torch.arange(size, device=next(self.buffers()).device).split(CHUNK):
            batch = rows_of(rows)
            for m in self.modalities:
                found[m].append(own(_mean(batch, m), batch))
        for m, parts in found.items():
            x = torch.cat(parts).double()
            spread = x.std(0, correction=0)
            self.get_buffer(f"mean_{m}").copy_(x.mean(0))
            self.get_buffer(f"spread_{m}").copy_(torch.where(spread > 1e-6, spread, torch.inf))


def _mean(batch: Batch, m: str) -> Tensor:
    """(B, C, d)"""
    x = batch[m]
    used = x.ne(0).any(-1)  # (B, C, T)
    if f"{m}_lengths" in batch:
        used = used & (torch.arange(x.shape[2], device=x.device) < batch[f"{m}_lengths"][..., None])
    weight = used.to(x.dtype) / used.sum(-1, keepdim=True).clamp(min=1)
    return (weight[..., None, :] @ x).squeeze(-2)


def availability(batch: Batch, modalities: Sequence[str]) -> Tensor:
    """(B, C, |M|) bool: which modalities of a place are there; all of them without a corruption "missing"."""
    there = batch["utterances"]
    return torch.stack([there & batch[f"keep_{m}"] if f"keep_{m}" in batch else there for m in modalities], -1)


def own(x: Tensor, batch: Batch) -> Tensor:
    """Rows [B, ...] of the clips themselves in x [B, C, ...]."""
    return x[torch.arange(len(x), device=x.device), batch["place"]]


def others(batch: Batch) -> Tensor:
    """(B, C) weights that sum to 1 / B over the other utterances of each clip's video; all 0 where it has none."""
    there = batch["utterances"]
    rest = there & (torch.arange(there.shape[1], device=there.device) != batch["place"][:, None])
    return rest / rest.sum(1, keepdim=True).clamp(min=1) / len(rest)


def each(batch: Batch) -> Tensor:
    """(B, C) weights that sum to 1 / B over all utterances of each clip's video."""
    there = batch["utterances"]
    return there / there.sum(1, keepdim=True).clamp(min=1) / len(there)
