"""Resident data as a model sees them under a corruption. Legend: B batch, T steps, d width, |M| modalities."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from bench.data.corruption import frames, missing, noise, text
from bench.data.corruption.clips import Clips
from bench.data.corruption.inside import Inside
from bench.data.corruption.spec import Corruption, Part
from bench.data.dataset import Dataset
from bench.data.resident import Cut, Resident
from bench.data.spec import SPLITS
from bench.draws import Draws
from bench.errors import BenchError

Batch = dict[str, Tensor]
BLANKED = {"text": ("text", "text_bert", "hcf", "context_text_bert"), "audio": ("audio", "context_audio"), "vision": ("vision",)}


class Corrupted(Resident):
    """A dataset's tensors whose batches are corrupted as they are gathered; the tensors themselves stay as they are.

    model: what the batches are for; one that computes U_m itself or encodes word pieces gets its noise there
    (inside.py), and one that `reads_keep` deals with missing modalities by the batch's keep_<modality>.
    seed: of the stream "corruption", which no backbone enters. Raises BenchError where a missing rate cannot be reached
    or noise has no place, or no modality is left.
    """

    def __init__(self, data: Resident, dataset: Dataset, corruption: Corruption, seed: int, model: nn.Module) -> None:
        vars(self).update(vars(data))  # the tensors are shared
        self.points = {part.name: part for part in corruption.sweep}
        self._corruption, self._seed = corruption, seed
        self._reads_keep = getattr(model, "reads_keep", False)
        self._dropped = corruption.dropped
        self._clips = Clips(data, dataset, getattr(model, "time_mean", False))
        self.modalities = tuple(self._clips.streams)
        kinds = {p.kind for p in (*corruption.parts, *corruption.sweep)}
        self._inside = Inside(model, kinds, self.modalities, self.tensors["train"].get("text_bert"))
        self._mask_id = text.mask_token(getattr(getattr(model, "text_encoder", None), "name", "bert-base-uncased"))
        if self._dropped and not {m for m, keys in BLANKED.items() if any(map(self._has, keys))} - set(self._dropped):
            raise BenchError(f"{type(model).__module__.rpartition('.')[2]}: none of the modalities that are kept is in what it reads")
        self._point: Part | None = None
        self._epoch = 0
        # the epoch on the device, of training and of the other splits: a captured step reads the first one
        self._epochs = {s: torch.zeros((), dtype=torch.int64, device=self.device) for s in SPLITS}
        self._keep: dict[tuple[str, Part], Tensor] = {}
        self._mean_text: Tensor | None = None

    def begin_epoch(self, epoch: int) -> None:
        """Redraw what is redrawn for the training split, in place."""
        self._epoch = epoch
        self._epochs["train"].fill_(epoch)
        for (split, part), keep in self._keep.items():
            if split == "train":
                keep.copy_(self._draw_kept(split, part))

    @contextmanager
    def at(self, point: str) -> Iterator[None]:
        """The test split at a point of the sweep, while the context lasts."""
        self._point = self.points[point]
        try:
            yield
        finally:
            self._point = None

    def cut(self, split: str, rows: np.ndarray, keys: Sequence[str]) -> Cut:
        """As of clean data; noise and means fill what was padding, so that text under them is never cut."""
        parts = self._corruption.on(split, self._point)
        filling = any(p.kind in ("feature_noise", "text_mean", "missing") for p in parts)
        return () if filling else super().cut(split, rows, keys)

    def rows(self, split: str, index: Tensor, cut: Cut = ()) -> Batch:
        """Rows `index` [B] of every tensor, corrupted, then cut; `index`; keep_<modality> [B] bool under "missing"."""
        batch = super().rows(split, index)
        parts = self._corruption.on(split, self._point)
        draws = Draws(self._seed, split, self._epochs[split], self._clips.file_rows[split][index])
        self._inside.now(parts, draws)
        for part in parts:
            if part.kind == "missing":
                keep = self._kept(split, part).index_select(0, index)  # (B, |M|)
                batch |= {f"keep_{m}": column for m, column in zip(self.modalities, keep.unbind(1), strict=True)}
        for m in self.modalities if parts else ():
            self._drop(batch, m, parts, draws)
            self._fill(batch, m, parts, draws)
        batch |= self._blank(batch)
        return batch | {key: batch[key][..., :n] if key.endswith("text_bert") else batch[key][:, :n] for key, n in cut}

    def _has(self, key: str) -> bool:
        return key in self.tensors["train"] or key in self.ragged.get("train", {})

    def _blank(self, batch: Batch) -> Batch:
        """What becomes of the modalities that are not kept."""
        found: Batch = {}
        for m in self._dropped:
            for key in (k for k in BLANKED[m] if k in batch):
                x = batch[key]
                every = x.new_ones((len(x), 1), dtype=torch.bool)
                found[key] = frames.masked_words(x, every, self._mask_id) if key.endswith("text_bert") else torch.zeros_like(x)
        for m in self.modalities if self._dropped and self._reads_keep else ():
            given = batch.get(f"keep_{m}", batch["index"].new_ones(len(batch["index"]), dtype=torch.bool))
            found[f"keep_{m}"] = torch.zeros_like(given) if m in self._dropped else given
        return found

    def missing_rates(self) -> dict[str, float]:
        """split -> missing rate by Eq. 34 of the masks at hand, under a fixed part "missing"."""
        parts = [p for p in self._corruption.parts if p.kind == "missing"]
        return {s: missing.missing_rate(self._kept(s, p).cpu().numpy()) for p in parts for s in SPLITS}

    def _kept(self, split: str, part: Part) -> Tensor:
        """Kept cells [N, |M|] of a split."""
        if (split, part) not in self._keep:
            self._keep[split, part] = self._draw_kept(split, part).to(self.device)
        return self._keep[split, part]

    def _draw_kept(self, split: str, part: Part) -> Tensor:
        """Kept cells of an epoch of the training split, of all epochs of another one, on the host."""
        epoch = self._epoch if split == "train" else 0
        generator = np.random.default_rng([self._seed, SPLITS.index(split), epoch % 2**32])  # preparations count below 0
        return torch.from_numpy(missing.draw_kept(self.size(split), len(self.modalities), part.rate, generator))

    # --- one modality of a batch -------------------------------------------------------------------------------------

    def _drop(self, batch: Batch, m: str, parts: tuple[Part, ...], draws: Draws) -> None:
        """Zero the steps that fall, and whole modalities that are gone."""
        fallen = _union(self._fallen(p, batch["index"], m, draws) for p in parts)  # (B, T)
        gone = _union(self._gone(p, batch, m, draws) for p in parts)  # (B, 1)
        if fallen is not None and self._clips.is_mean(m):
            sequence = self._clips.sequence(draws.split, m).index_select(0, draws.rows)  # (B, T, d)
            batch[m], fallen = frames.mean_over_time(sequence, fallen), None
        dropped = _union((fallen, gone))
        for key in self._clips.streams[m] if dropped is not None else ():
            if key == "text_bert":
                batch[key] = frames.masked_words(batch[key], dropped, self._mask_id)
            else:
                batch[key] = frames.zeroed(batch[key], dropped)

    def _fallen(self, part: Part, index: Tensor, m: str, draws: Draws) -> Tensor | None:
        if part.kind not in ("occlusion", "frame_drop"):
            return None
        length, spans = (self._clips.length(draws.split, k)[index] for k in (m, "text"))
        return frames.fallen(part, draws, m, self._clips.steps(draws.split, m), length, spans)

    def _gone(self, part: Part, batch: Batch, m: str, draws: Draws) -> Tensor | None:
        if part.kind == "text_drop" and m == "text":
            return (draws.samples("text") < part.rate)[:, None]
        if part.kind == "missing" and not self._reads_keep:
            return ~batch[f"keep_{m}"][:, None]
        return None

    def _fill(self, batch: Batch, m: str, parts: tuple[Part, ...], draws: Draws) -> None:
        """Put noise, or a mean, where no hook inside the model does."""
        for part in parts:
            for key in (k for k in self._clips.streams[m] if k != "text_bert"):
                x = batch[key]  # (B, T, d)
                if part.kind == "text_mean" and key == "text":
                    batch[key] = torch.where((draws.samples("text") < part.rate)[:, None, None], self._mean(), x)
                elif part.kind == "missing" and part.value == "noise" and not self._reads_keep:
                    filling = draws.normal(f"missing|{key}", tuple(x.shape[1:]))
                    batch[key] = torch.where(batch[f"keep_{m}"][:, None, None], x, filling)
                elif part.kind == "feature_noise" and m not in self._inside.noisy:
                    batch[key] = noise.noisy(part, draws, key, x)

    def _mean(self) -> Tensor:
        if self._mean_text is None:
            self._mean_text = text.mean_features(self.tensors["train"]["text"])
        return self._mean_text


def _union(masks: Iterable[Tensor | None]) -> Tensor | None:
    """Masks or-ed, or None where there is none."""
    found = None
    for mask in masks:
        found = mask if found is None else found if mask is None else found | mask
    return found
