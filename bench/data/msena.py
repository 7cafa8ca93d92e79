"""The M-SENA pickle: a dict of splits, each a dict of arrays. Checks it and writes it out as .npy files.

Rules, as in M-SENA's own loader:
* -inf in audio becomes 0, always. Where audio or vision is averaged over time, padding counts, and a NaN of the mean
  becomes 0; the mean has length 1.
* Own lengths are read from unaligned files only; in aligned files every stream has the text's length, which is the
  number of ones in the token mask.
Where M-SENA has no rule: NaN in audio or vision is kept and recorded, and only the path that reads whole sequences
refuses it; any other value that is not finite (in text or labels, +inf anywhere, -inf in vision) is an error. The
mean is taken in float64 and stored in float32 (M-SENA: float32 throughout; the difference is rounding).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from bench.data.reader import UNIMODAL, Reader, as_text, column, where
from bench.data.spec import SPLITS, DatasetSpec
from bench.errors import DataError

READER = 2  # version of what is written here; part of every cache folder's name


def convert(data: Any, spec: DatasetSpec, features: str, source: Path, folder: Path) -> dict[str, Any]:
    """Write `<split>-<array>.npy` and `<split>-strings.json` into a folder; `data` is emptied on the way, so that a
    large file is in memory only once.

    Arrays (N samples): text [N, L, d_t], audio [N, T_a, d_a], vision [N, T_v, d_v], audio_mean [N, 1, d_a],
    vision_mean [N, 1, d_v], label [N], label_text, label_audio, label_vision [N] float32; text_bert [N, 3, L] int32;
    audio_lengths, vision_lengths [N] int64. Returns the reader's meta data and "text_encoder", the name of the encoder
    that the file says its text is of (encode.py), or "". Raises DataError with one line that says what is wrong and
    where.
    """
    if not isinstance(data, dict):
        raise DataError(f"{source}: not an M-SENA file: expected a dict of splits, found {type(data).__name__}")
    missing = [s for s in SPLITS if not isinstance(data.get(s), Mapping)]
    if missing:
        raise DataError(f"{source}: no split '{missing[0]}'; found {', '.join(map(repr, data)) or 'nothing'}")
    encoder = data.get("text_encoder")
    reader = _Reader(spec, "synthetic" in data, source, folder)
    reader.aligned = features == "aligned"
    for split in SPLITS:
        reader.split(split, dict(data.pop(split)))
    return reader.meta(text_encoder=as_text(encoder.get("name", "")) if isinstance(encoder, Mapping) else "")


class _Reader(Reader):
    aligned = False

    def split(self, split: str, raw: dict[str, Any]) -> None:
        for key in ("id", "text", "audio", "vision", "regression_labels"):
            if key not in raw:
                raise DataError(f"{self.source}: {split} has no '{key}'")
        ids = [as_text(i) for i in raw["id"]]
        self.note_ids(split, ids)
        words = [as_text(t) for t in raw.get("raw_text", [""] * len(ids))]
        if len(words) != len(ids):
            raise self.error(split, "raw_text", f"has {len(words)} entries for {len(ids)} ids")

        text = self._features(split, "text", raw.pop("text"), ids)  # (N, L, d_t)
        tokens = self._tokens(split, raw.get("text_bert"), ids)  # (N, 3, L) or None
        text_lengths = _text_lengths(text, tokens)  # (N,)
        self.save(split, "text", text)
        if tokens is not None:
            self.save(split, "text_bert", tokens)
        for name in ("audio", "vision"):
            sequence = self._features(split, name, raw.pop(name), ids)  # (N, T, d)
            if self.aligned and sequence.shape[1] != text.shape[1]:
                raise self.error(
                    split, name, f"has {sequence.shape[1]} steps and text {text.shape[1]}: not an aligned file"
                )
            mean = sequence.mean(axis=1, keepdims=True, dtype=np.float64)  # (N, 1, d), padding included
            self.save(split, f"{name}_mean", np.nan_to_num(mean, nan=0.0).astype(np.float32))
            lengths = text_lengths if self.aligned else self._lengths(split, name, raw, len(ids), sequence.shape[1])
            self.save(split, name, sequence)
            self.save(split, f"{name}_lengths", lengths)
        self.save(split, "label", self.labels(split, "regression_labels", raw["regression_labels"], ids))
        own = {name: key for name, t in UNIMODAL.items() if (key := f"regression_labels_{t}") in raw}
        if len(own) == len(UNIMODAL):
            for name, key in own.items():
                self.save(split, name, self.labels(split, key, raw[key], ids))
        elif own:
            raise self.error(split, next(iter(own.values())), "stands alone: all of _T, _A and _V are needed")
        elif self.spec.unimodal:
            self.warnings.append(f"{split}: no labels of single modalities")
        self.save_strings(split, ids, words)

    def _features(self, split: str, name: str, value: Any, ids: list[str]) -> np.ndarray:
        """(N, T, d) float32 after the rules for values that are not finite."""
        array = self.numbers(split, name, value, 3, len(ids))
        with np.errstate(over="ignore"):  # a float64 beyond float32 becomes inf and is reported below
            array = array.astype(np.float32, copy=False)
        if np.isfinite(array).all():
            return array
        if name == "audio" and (zeroed := np.isneginf(array)).any():
            array = np.where(zeroed, np.float32(0), array)
            self.counts["audio: {} values of -inf set to 0"] += int(zeroed.sum())
        if (infinite := np.isinf(array)).any():
            raise self.error(split, name, f"has {where(infinite, ids)} of inf; mend the file")
        if (nan := np.isnan(array)).any():
            if name == "text":
                raise self.error(split, name, f"has {where(nan, ids)} of NaN; mend the file")
            self.nan.setdefault(name, f"{split}/{name} has {where(nan, ids)} of NaN")
            self.counts[name + ": {} values of NaN; only models that average over time can use this file"] += int(
                nan.sum()
            )
        return array

    def _tokens(self, split: str, value: Any, ids: list[str]) -> np.ndarray | None:
        if value is None:
            self.warnings.append(f"{split}: no text_bert; models that fine-tune a text encoder cannot use this file")
            return None
        array = self.numbers(split, "text_bert", value, 3, len(ids))
        if array.shape[1] != 3:
            raise self.error(split, "text_bert", f"has shape {list(array.shape)}; expected [N, 3, L]")
        whole = (array >= 0) & (array < 2**31) & (array == np.floor(array))  # stored as float in some files
        if not whole.all():
            raise self.error(split, "text_bert", f"has {where(~whole, ids)} that are no token ids")
        return array.astype(np.int32)

    def _lengths(self, split: str, name: str, raw: Mapping[str, Any], n: int, steps: int) -> np.ndarray:
        key = f"{name}_lengths"
        if key not in raw:
            return np.full(n, steps, np.int64)
        lengths = self.numbers(split, key, column(raw[key]), 1, n)
        clipped = np.nan_to_num(np.clip(lengths, 1, steps), nan=1).astype(np.int64)
        if (changed := clipped != lengths).any():
            self.counts[f"{key}: {{}} values outside 1..{steps} clipped"] += int(changed.sum())
        return clipped


def _text_lengths(text: np.ndarray, tokens: np.ndarray | None) -> np.ndarray:
    """(N,) steps that carry a token: ones of the mask; without tokens, up to the last row that is not all zero."""
    if tokens is not None:
        lengths = np.minimum(tokens[:, 1].sum(axis=-1), text.shape[1])
    else:
        used = text.any(axis=-1)  # (N, L)
        lengths = text.shape[1] - np.argmax(used[:, ::-1], axis=1)
        lengths = np.where(used.any(axis=1), lengths, 1)
    return np.maximum(lengths, 1).astype(np.int64)
