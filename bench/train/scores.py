"""Predictions of a split, batch by batch into one tensor on the device."""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from bench.data.resident import Cut, Resident
from bench.models.base import Backbone

EVAL_BATCH = 256


def evaluation_batches(model: Backbone, rows: Tensor) -> tuple[Tensor, ...]:
    """Rows [n] of a split in batches as large as the model is evaluated in."""
    return rows.split(model.eval_batch or EVAL_BATCH)


class Scores:
    """Predictions [n] of some rows of a split, in batches of the model's evaluation size, in evaluation mode."""

    def __init__(self, model: Backbone, data: Resident, split: str, rows: Tensor | None = None) -> None:
        self.model, self.data, self.split = model, data, split
        self.rows = torch.arange(data.size(split), device=data.device) if rows is None else rows
        n = len(self.rows)
        self.found = torch.zeros(n, device=data.device)
        self.place = torch.zeros((), dtype=torch.int64, device=data.device)
        self.offsets = torch.arange(n, device=data.device)
        size = model.eval_batch or EVAL_BATCH
        on_host = self.rows.cpu().numpy() if model.cut_keys else np.arange(n)
        self._plan = [
            (len(part), data.cut(split, part, model.cut_keys))
            for part in (on_host[i : i + size] for i in range(0, n, size))
        ]

    def batches(self) -> Iterator[tuple[tuple[int, Cut], Callable[[], None]]]:
        """(name, work) of each batch; their order matters."""
        self.place.zero_()
        for size, cut in self._plan:
            yield (size, cut), lambda size=size, cut=cut: self._batch(size, cut)

    @torch.no_grad()
    def _batch(self, size: int, cut: Cut) -> None:
        places = self.offsets[:size] + self.place  # (B,)
        batch = self.data.batch(self.split, self.rows.index_select(0, places), cut)
        self.found.index_copy_(0, places, self.model(batch).prediction.float())
        self.place.add_(size)


@torch.no_grad()
def predict(model: Backbone, data: Resident, split: str, rows: Tensor | None = None) -> np.ndarray:
    """Predictions [n] float64 of rows of a split (all in file order by default), evaluation mode."""
    model.eval()
    scores = Scores(model, data, split, rows)
    for _, work in scores.batches():
        work()
    return scores.found.cpu().numpy().astype(np.float64)
