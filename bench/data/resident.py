"""A dataset as tensors on one device: only the arrays a model needs, batches by gather, no loader."""

import math

import numpy as np
import torch
from torch import Tensor

from bench.data.dataset import Dataset
from bench.data.msena import UNIMODAL
from bench.data.spec import SPLITS
from bench.errors import DataError


def train_subset(size: int, fraction: float, generator: np.random.Generator) -> np.ndarray:
    """Sorted rows [round(fraction * size)] of a training split, drawn uniformly without replacement and without
    stratification; all rows, and no draw, for fraction 1."""
    if not 0 < fraction <= 1:
        raise ValueError(f"a training fraction lies in (0, 1], got {fraction}")
    if fraction == 1:
        return np.arange(size)
    n = max(1, math.floor(fraction * size + 0.5))
    return np.sort(generator.choice(size, n, replace=False))


class Resident:
    """The splits of a dataset as tensors on a device.

    time_mean: audio and vision are their means over time (length 1). tokens: text_bert [N, 3, L] int64 in place of
    text. unimodal: label_text, label_audio, label_vision [N] too. train_index: rows [n] of the training split to
    keep; `index` in its batches then counts within these rows.
    On a CPU the tensors share the pages of the cache with all other workers; the cache cannot be changed through
    them, yet do not write into them: replace an entry of `tensors` by a changed copy (input corruption).
    Raises DataError, in one line, if the dataset lacks what is asked for.
    """

    def __init__(
        self,
        dataset: Dataset,
        device: torch.device | str = "cpu",
        time_mean: bool = False,
        tokens: bool = False,
        unimodal: bool = False,
        train_index: np.ndarray | Tensor | None = None,
    ) -> None:
        dataset.require_finite(time_mean)
        if tokens and not dataset.has_tokens:
            raise DataError(f"{dataset.path}: no text_bert in some split; this model fine-tunes a text encoder")
        if unimodal and not dataset.has_unimodal:
            raise DataError(f"{dataset.path}: no labels of single modalities; this model needs them")
        text, audio, vision = dataset.arrays(time_mean)
        names = {"text_bert": "text_bert"} if tokens else {"text": text}
        names |= {"audio": audio, "vision": vision, "label": "label"}
        if not time_mean:
            names |= {"audio_lengths": "audio_lengths", "vision_lengths": "vision_lengths"}
        if unimodal:
            names |= {name: name for name in UNIMODAL}
        self.device = torch.device(device)
        self.tensors: dict[str, dict[str, Tensor]] = {}  # split -> key -> [N, ...]
        for split in SPLITS:
            rows = None if train_index is None or split != "train" else np.asarray(train_index)
            arrays = dataset.splits[split]
            tensors = {key: _tensor(arrays[name], rows, self.device) for key, name in names.items()}
            if tokens:
                tensors["text_bert"] = tensors["text_bert"].long()
            if time_mean:
                ones = torch.ones(len(tensors["label"]), dtype=torch.int64, device=self.device)
                tensors |= {"audio_lengths": ones, "vision_lengths": ones}
            self.tensors[split] = tensors

    def size(self, split: str) -> int:
        return len(self.tensors[split]["label"])

    def labels(self, split: str) -> np.ndarray:
        """The split's labels [N] on the host."""
        return self.tensors[split]["label"].cpu().numpy()

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        return sum(t.nbytes for tensors in self.tensors.values() for t in tensors.values())

    def batch(self, split: str, index: Tensor) -> dict[str, Tensor]:
        """Rows `index` [B] int64 (on the device) of every tensor, and `index` itself."""
        gathered = {key: t.index_select(0, index) for key, t in self.tensors[split].items()}  # (B, ...)
        return {**gathered, "index": index}


def _tensor(array: np.ndarray, rows: np.ndarray | None, device: torch.device) -> Tensor:
    if rows is not None:
        array = array[rows]  # a copy of these rows
    array = np.ascontiguousarray(array).view()  # the map itself, unless somebody sliced it
    if not array.flags.writeable:  # torch warns of read-only arrays
        try:
            array.flags.writeable = True  # a copy-on-write map allows it and keeps the file as it is
        except ValueError:
            array = array.copy()
    return torch.from_numpy(array).to(device)
