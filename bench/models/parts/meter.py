"""Means over an epoch, kept on the device and read once."""

from collections.abc import Mapping

import torch
from torch import Tensor


class Meter:
    """Weighted running means of named scalars. Adding never waits for the device; reading does, once.

    A name's sum and weight are one tensor that is made when the name is first added and changed in place ever after, so
    that a captured step goes on counting into it when it is replayed.
    """

    def __init__(self) -> None:
        self._totals: dict[str, Tensor] = {}  # name -> [2]: weighted sum, weight

    def add(self, values: Mapping[str, Tensor], weight: float = 1.0) -> None:
        """Count scalars once more, with a weight (the batch size, where a mean over samples is wanted)."""
        for name, value in values.items():
            if name not in self._totals:
                kind = torch.promote_types(value.dtype, torch.float32)
                self._totals[name] = torch.zeros(2, dtype=kind, device=value.device)
            total = self._totals[name]
            total[0].add_(value.detach(), alpha=weight)
            total[1].add_(weight)

    def read(self) -> dict[str, float]:
        """The means since the last reset, by name; without names that were not added since."""
        if not self._totals:
            return {}
        totals = torch.stack([t.double() for t in self._totals.values()]).tolist()
        return {name: total / weight for name, (total, weight) in zip(self._totals, totals, strict=True) if weight}

    def reset(self) -> None:
        """Start again, in place."""
        for total in self._totals.values():
            total.zero_()
