"""The Dataset type: what a feature file became, whatever its format. Torch-free."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from bench import encoders
from bench.data.spec import SPLITS, DatasetSpec
from bench.errors import DataError


@dataclass(frozen=True, eq=False)
class Dataset:
    """A feature file, read. `splits[split]` holds read-only arrays, for N samples and by the file's format:

    all    label [N] float32; where the dataset has them label_text, label_audio, label_vision [N] float32
    msena  text [N, L, d_t], audio [N, T_a, d_a], vision [N, T_v, d_v], audio_mean [N, 1, d_a],
           vision_mean [N, 1, d_v] float32; audio_lengths, vision_lengths [N] int64; text_bert [N, 3, L] int32
    word   of W words: word_audio [W, d_a], word_vision [W, d_v] float32, word_start [N + 1] int64
    hkt    the same, word_hcf [W, 4] float32, and context_words [N] int64
    audio  of S samples: wave [S] int16; of F frames: frames [F, d] float; each with <name>_start, <name>_length [N]
           int64 and, where there are preceding clips to read, <name>_context_start, <name>_context_length [N] int64

    Once prepared for an encoder (prepare.py), word and hkt have text_bert [N, 3, L] int32, audio [N, L, d_a],
    vision [N, L, d_v], hcf [N, L, 4] float32, audio_lengths, vision_lengths, lengths [N] int64 instead of words;
    audio has text_bert and context_text_bert."""

    name: str  # as asked for: "mosi", "synthetic-mosi"
    spec: DatasetSpec
    features: str  # "unaligned", "aligned", "word", ...
    provenance: str  # "official", "unlisted", "custom" or "synthetic" (bench/provenance.py)
    sha256: str  # of the file or files; under a synthetic name, of the arrays, whatever numpy wrote them
    path: Path  # the feature file
    splits: Mapping[str, Mapping[str, np.ndarray]]
    warnings: tuple[str, ...] = ()  # one line each
    leaks: tuple[str, ...] = ()  # ids that splits share, which only --allow-leak lets through; among the warnings too
    nan: Mapping[str, str] = field(default_factory=dict)  # "audio", "vision" -> where NaN were found
    folder: Path | None = None  # of the cache
    text_encoder: str = ""  # that the file names as the maker of its text (encode.py); "" means the published one
    steps: Mapping[str, int] = field(default_factory=dict)  # "wave", "frames" -> the length they are padded to

    @property
    def label_bound(self) -> float:
        return self.spec.label_bound

    @property
    def format(self) -> str:
        return self.spec.features[self.features].format

    @property
    def vocabulary(self) -> str:
        """Whose word-piece ids the file's text_bert holds."""
        own = self.text_encoder
        return (encoders.spec(own).vocabulary or own) if own else self.spec.vocabulary

    @property
    def aligned(self) -> bool:
        """Audio and vision have one row for each step of the text."""
        return self.features == "aligned" or self.format in ("word", "hkt")

    @property
    def train_size(self) -> int:
        return self.size("train")

    @property
    def has_tokens(self) -> bool:
        return self._all_have("text_bert")

    @property
    def has_unimodal(self) -> bool:
        return self._all_have("label_text")

    @property
    def audio_kind(self) -> str:
        """"wave" or "features"; "none" where a file of format "audio" has neither wav nor features beside it."""
        if self.format != "audio":
            return "features"
        return "wave" if self._all_have("wave") else "features" if self._all_have("frames") else "none"

    @property
    def has_context(self) -> bool:
        """Preceding clips are there to be read with a clip."""
        return self._all_have("context_text_bert")

    def _all_have(self, key: str) -> bool:
        return all(key in self.splits[s] for s in SPLITS)

    def size(self, split: str) -> int:
        return len(self.splits[split]["label"])

    def ids(self, split: str) -> list[str]:
        """The samples' ids, in the arrays' order."""
        return self.strings(split)["ids"]

    def raw_text(self, split: str) -> list[str]:
        """The transcripts, in the arrays' order; empty strings where the file has none."""
        return self.strings(split)["raw_text"]

    def strings(self, split: str) -> dict[str, list]:
        """"ids", "raw_text" and what a format adds: "words" (word, hkt), "context" (audio)."""
        return self._strings[split]

    def inputs(self, time_mean: bool = False) -> dict[str, object]:
        """What a model may know when it is built: shapes of one sample and facts about the labels, as keywords of
        models.base.Inputs. Raises DataError as `require_finite` does, and for words that are no word pieces yet."""
        self.require_finite(time_mean)
        arrays = self.splits["train"]
        if "word_start" in arrays:
            raise DataError(f"{self.path}: words have no shape before an encoder is chosen")
        names = dict(zip(("text", "audio", "vision"), self.arrays(time_mean)))
        shapes = {m: tuple(map(int, arrays[name].shape[1:])) for m, name in names.items() if name in arrays}
        shapes.setdefault("text", (arrays["text_bert"].shape[2] if "text_bert" in arrays else 0, 0))
        shapes.setdefault("audio", self._audio_shape())
        shapes.setdefault("vision", (0, 0))
        more: dict[str, object] = {"task": "binary"} if self.spec.binary else {}
        if "hcf" in arrays:
            more["hcf"] = tuple(map(int, arrays["hcf"].shape[1:]))
        if self.format == "audio":
            more |= {"audio_kind": self.audio_kind, "context": self.has_context}
        facts = {"label_bound": self.label_bound, "train_size": self.train_size, "aligned": self.aligned}
        return {**shapes, **facts, **more}

    def _audio_shape(self) -> tuple[int, int]:
        if self.audio_kind == "wave":
            return self.steps["wave"], 1
        if "frames" in self.steps:
            return self.steps["frames"], int(self.splits["train"]["frames"].shape[1])
        return 0, 0

    @staticmethod
    def arrays(time_mean: bool) -> tuple[str, str, str]:
        """Names of the three feature arrays of a model."""
        return ("text", "audio_mean", "vision_mean") if time_mean else ("text", "audio", "vision")

    def require_finite(self, time_mean: bool) -> None:
        """Raises DataError if a model that reads whole sequences would read NaN; M-SENA zeroes those only where it
        averages over time."""
        if not time_mean and self.nan:
            where = next(iter(self.nan.values()))
            raise DataError(f"{self.path}: {where}; only models that average over time can use this file")

    @cached_property
    def _strings(self) -> dict[str, dict[str, list[str]]]:
        if self.folder is None:
            raise DataError(f"dataset '{self.name}' was made in memory and carries no ids")
        return {s: json.loads((self.folder / f"{s}-strings.json").read_text(encoding="utf-8")) for s in SPLITS}
