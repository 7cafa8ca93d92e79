"""A dataset as tensors on one device: only the arrays a model needs, batches by gather, no loader."""

import math
from collections.abc import Hashable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from bench.data.contents import Dataset
from bench.data.corruption.text import lengths as text_lengths
from bench.data.ragged import Ragged, normalised
from bench.data.reader import UNIMODAL
from bench.data.spec import SPLITS
from bench.data.videos import Videos, table
from bench.errors import DataError

Cut = tuple[tuple[str, int], ...]  # (key, steps): a batch's sequences are gathered up to so many steps


def train_subset(size: int, fraction: float, generator: np.random.Generator) -> np.ndarray:
    """Sorted rows [round(fraction * size)] of a training split, drawn uniformly without replacement and without
    stratification; all rows, and no draw, for fraction 1."""
    if not 0 < fraction <= 1:
        raise ValueError(f"a training fraction lies in (0, 1], got {fraction}")
    if fraction == 1:
        return np.arange(size)
    n = max(1, math.floor(fraction * size + 0.5))
    return np.sort(generator.choice(size, n, replace=False))

_ROWS = 512  # whose steps are counted at once


class Resident:
    """The splits of a prepared dataset (prepare.py) as tensors on a device. models/base.py lists a batch's keys.

    time_mean: audio and vision are their means over time (length 1). tokens: text_bert [N, 3, L] int64 in place of
    text. unimodal: label_text, label_audio, label_vision [N] too. train_index: rows [n] of the training split to
    keep; `index` in its batches then counts within these rows. videos: a batch's clips come with their videos' (at most
    so many; 0: all), and text_lengths [N] too (videos.py). Waves and features of raw sound stay flat and are
    padded, waves also normalised, when a batch is gathered.
    On a CPU the tensors share the pages of the cache with all other workers; the cache cannot be changed through
    them, yet do not write into them: replace an entry of `tensors` by a changed copy (input corruption).
    Raises DataError, in one line, if the dataset lacks what is asked for.
    """

    variant: Hashable = ()  # as of a model (models/base.py): what of a batch the host decided in `begin_epoch`
    ragged: Mapping[str, Mapping[str, Ragged]] = {}  # split -> key -> rows of a flat tensor; none but for raw sound
    videos: Mapping[str, Videos] = {}  # split -> its clips' videos; none but for models that read them

    def __init__(
        self,
        dataset: Dataset,
        device: torch.device | str = "cpu",
        time_mean: bool = False,
        tokens: bool = False,
        unimodal: bool = False,
        train_index: np.ndarray | Tensor | None = None,
        videos: int | None = None,
    ) -> None:
        dataset.require_finite(time_mean)
        if tokens and not dataset.has_tokens:
            raise DataError(f"{dataset.path}: no text_bert in some split; this model fine-tunes a text encoder")
        if unimodal and not dataset.has_unimodal:
            raise DataError(f"{dataset.path}: no labels of single modalities; this model needs them")
        names = _names(dataset, time_mean, tokens, unimodal)
        self.dataset, self.time_mean = dataset, time_mean
        self.device = torch.device(device)
        self.train_index = train_index
        self.tensors: dict[str, dict[str, Tensor]] = {}  # split -> key -> [N, ...]
        self._filled: dict[tuple[str, str], np.ndarray] = {}
        self.ragged, self.videos = {}, {}
        for split in SPLITS:
            rows = None if train_index is None or split != "train" else np.asarray(train_index)
            arrays = dataset.splits[split]
            tensors = {key: as_tensor(arrays[name], rows, self.device) for key, name in names.items()}
            tensors |= {key: t.long() for key, t in tensors.items() if key.endswith("text_bert")}
            if time_mean:
                ones = torch.ones(len(tensors["label"]), dtype=torch.int64, device=self.device)
                tensors |= {"audio_lengths": ones, "vision_lengths": ones}
            self.tensors[split] = tensors
            self.ragged[split] = self._sound(arrays, rows)
            if videos is not None:
                self._with_videos(split, rows, videos)

    def _with_videos(self, split: str, rows: np.ndarray | None, most: int) -> None:
        arrays, ids = self.dataset.splits[split], self.dataset.ids(split)
        steps = text_lengths(arrays.get("text_bert"), arrays.get("text"))
        self.tensors[split]["text_lengths"] = as_tensor(steps, rows, self.device)
        kept = ids if rows is None else [ids[i] for i in rows]
        self.videos[split] = table(kept, most, self.device)

    def _sound(self, arrays: Mapping[str, np.ndarray], rows: np.ndarray | None) -> dict[str, Ragged]:
        found = {}
        for name, steps in self.dataset.steps.items():
            flat = as_tensor(arrays[name], None, self.device)
            for key, part in (("audio", name), ("context_audio", f"{name}_context")):
                if f"{part}_start" in arrays:
                    where = (as_tensor(arrays[f"{part}_{end}"], rows, self.device) for end in ("start", "length"))
                    found[key] = Ragged(flat, *where, steps)
        return found

    def inputs(self) -> dict[str, object]:
        """What a model may know when it is built, as keywords of models.base.Inputs."""
        return {**self.dataset.inputs(self.time_mean), "train_size": self.size("train")}

    def size(self, split: str) -> int:
        return len(self.tensors[split]["label"])

    def labels(self, split: str) -> np.ndarray:
        """The split's labels [N] on the host."""
        return self.tensors[split]["label"].cpu().numpy()

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        flat = {id(r.flat): r.flat.nbytes for rows in self.ragged.values() for r in rows.values()}
        return sum(t.nbytes for tensors in self.tensors.values() for t in tensors.values()) + sum(flat.values())

    def begin_epoch(self, epoch: int) -> None:
        """Called before an epoch's first training batch. Clean data are the same in every epoch."""

    def filled(self, split: str, key: str) -> np.ndarray:
        """Steps [N] of each row's text, on the host: ones of the attention mask of word pieces, else up to the last
        step of the features that is not zero."""
        if (split, key) not in self._filled:
            t = self.tensors[split][key]
            if t.dtype == torch.int64:  # word pieces [N, 3, L]
                steps = t[:, 1].sum(1)
            else:
                order = torch.arange(1, t.shape[1] + 1, device=t.device)
                steps = torch.cat([((rows != 0).any(-1) * order).amax(1) for rows in t.split(_ROWS)])
            self._filled[split, key] = steps.cpu().numpy()
        return self._filled[split, key]

    def cut(self, split: str, rows: np.ndarray, keys: Sequence[str]) -> Cut:
        """Where the sequences `keys` of a batch of rows [B] (on the host) may end, for a model that never reads beyond
        a row's own steps: at the longest of them; on a GPU rounded up to a multiple of eight, so that the shapes that
        a training meets, each a graph of its own, stay few. Keys that the data lack are left out."""
        step = 8 if self.device.type == "cuda" else 1
        found = []
        for key in keys:
            if key in self.tensors[split]:
                longest = max(int(self.filled(split, key)[rows].max()), 1)
                found.append((key, min(-(-longest // step) * step, self._steps(split, key))))
        return tuple(found)

    def _steps(self, split: str, key: str) -> int:
        t = self.tensors[split][key]
        return t.shape[2] if t.dtype == torch.int64 else t.shape[1]

    def batch(self, split: str, index: Tensor, cut: Cut = ()) -> dict[str, Tensor]:
        """Rows `index` [B] int64 (on the device) of every tensor, and `index` itself. `cut`: see there."""
        if split in self.videos:
            return self.videos[split].batch(index, lambda rows: self.rows(split, rows, cut))
        return self.rows(split, index, cut)

    def rows(self, split: str, index: Tensor, cut: Cut = ()) -> dict[str, Tensor]:
        """`batch` of clips alone, whatever their videos."""
        shorter = dict(cut)

        def rows_of(key: str, t: Tensor) -> Tensor:  # (B, ...)
            if key in shorter:
                t = t.narrow(2 if t.dtype == torch.int64 else 1, 0, shorter[key])
            return t.index_select(0, index)

        gathered = {key: rows_of(key, t) for key, t in self.tensors[split].items()}
        for key, rows in self.ragged.get(split, {}).items():
            sound, lengths = rows.gather(index)
            if self.dataset.audio_kind == "wave":
                gathered[key], gathered[f"{key}_mask"] = normalised(sound, lengths)
            else:
                gathered[key], gathered[f"{key}_lengths"] = sound.float(), lengths
        return {**gathered, "index": index}


def _names(dataset: Dataset, time_mean: bool, tokens: bool, unimodal: bool) -> dict[str, str]:
    """Batch key -> array of a split, for all that is one row per sample."""
    own = ("label", *(UNIMODAL if unimodal else ()))
    if dataset.format == "msena":
        text, audio, vision = dataset.arrays(time_mean)
        names = {"text_bert": "text_bert"} if tokens else {"text": text}
        names |= {"audio": audio, "vision": vision} | {key: key for key in own}
        lengths = () if time_mean else ("audio_lengths", "vision_lengths")
        return names | {key: key for key in lengths}
    if time_mean or not tokens:
        raise DataError(f"{dataset.path}: format '{dataset.format}' serves models that fine-tune a text encoder")
    if dataset.format == "audio":
        wanted = ("text_bert", "context_text_bert", "label", *UNIMODAL)
    else:
        wanted = ("text_bert", "audio", "vision", "hcf", *own, "audio_lengths", "vision_lengths", "lengths")
    return {key: key for key in wanted if key in dataset.splits["train"]}


def as_tensor(array: np.ndarray, rows: np.ndarray | None, device: torch.device) -> Tensor:
    """An array, or some of its rows, on a device; on a CPU without a copy where all rows are taken."""
    if rows is not None:
        array = array[rows]  # a copy of these rows
    array = np.ascontiguousarray(array).view()  # the map itself, unless somebody sliced it
    if not array.flags.writeable:  # torch warns of read-only arrays
        try:
            array.flags.writeable = True  # a copy-on-write map allows it and keeps the file as it is
        except ValueError:
            array = array.copy()
    return torch.from_numpy(array).to(device)
