"""What corruptions need to know of a resident dataset's samples: modalities, steps, lengths, full sequences."""

import numpy as np
import torch
from torch import Tensor

from bench.data.corruption import text
from bench.data.dataset import Dataset
from bench.data.resident import Resident, as_tensor
from bench.data.spec import MODALITIES, SPLITS

_STREAMS = {"text": ("text", "text_bert", "hcf"), "audio": ("audio",), "vision": ("vision",)}  # keys of a batch


class Clips:
    """Facts about the samples of `data`, found when first asked for. A row is a sample's place in the resident split;
    `file_rows[split]` [N] is its place in the file, which a training fraction does not change.

    averaged: the model reads audio and vision as means over time, whose sequences only the dataset has.
    streams: modality -> the tensors that carry it.
    """

    def __init__(self, data: Resident, dataset: Dataset, averaged: bool) -> None:
        self._tensors, self._dataset, self._device, self._averaged = data.tensors, dataset, data.device, averaged
        present = {m: tuple(k for k in _STREAMS[m] if k in data.tensors["train"]) for m in MODALITIES}
        self.streams = {m: keys for m, keys in present.items() if keys}
        self.file_rows = {s: torch.arange(data.size(s), device=data.device) for s in SPLITS}
        if data.train_index is not None:
            self.file_rows["train"] = torch.as_tensor(np.asarray(data.train_index), device=data.device)
        self._lengths: dict[tuple[str, str], Tensor] = {}
        self._sequences: dict[tuple[str, str], Tensor] = {}

    def is_mean(self, modality: str) -> bool:
        """Whether the model reads the modality's mean over time."""
        return self._averaged and modality != "text"

    def steps(self, split: str, modality: str) -> int:
        """T of the modality's sequence."""
        if self.is_mean(modality):
            return self._dataset.splits[split][modality].shape[1]
        tensors = self._tensors[split]
        return tensors["text_bert"].shape[2] if "text_bert" in self.streams[modality] else tensors[modality].shape[1]

    def sequence(self, split: str, modality: str) -> Tensor:
        """[N of the file, T, d] of a modality whose mean the model reads."""
        key = split, modality
        if key not in self._sequences:
            self._sequences[key] = as_tensor(self._dataset.splits[split][modality], None, self._device)
        return self._sequences[key]

    def length(self, split: str, modality: str) -> Tensor:
        """Steps of each sample within its clip [N]; all T where the file does not say."""
        key = split, modality
        if key not in self._lengths:
            self._lengths[key] = torch.from_numpy(self._found_length(split, modality)).to(self._device)
        return self._lengths[key]

    def _found_length(self, split: str, modality: str) -> np.ndarray:
        arrays, tensors = self._dataset.splits[split], self._tensors[split]
        if "text_bert" in self.streams[modality]:
            return text.lengths(tensors["text_bert"].cpu().numpy(), None)
        rows = self.file_rows[split].cpu().numpy()
        if modality == "text":
            return text.lengths(arrays.get("text_bert"), arrays["text"])[rows]
        whole = np.full(len(rows), self.steps(split, modality))
        return np.array(arrays[f"{modality}_lengths"][rows]) if f"{modality}_lengths" in arrays else whole
