"""The M-SENA pickle: a dict of splits, each a dict of arrays. Checks it and writes it out as .npy files.

Rules, as in M-SENA's own loader:
* -inf in audio becomes 0, always, and so does a double that single precision has no room for below. Where audio or
  vision is averaged over time, padding counts, and a NaN of the mean becomes 0; the mean has length 1.
* Own lengths are read from unaligned files only; in aligned files every stream has the text's length, which is the
  number of ones in the token mask.
Where M-SENA has no rule: NaN in audio or vision is kept and recorded, and only the path that reads whole sequences
refuses it; any other value that is not finite (in text or labels, +inf anywhere, -inf in vision) is an error. The
mean is taken in float64 and stored in float32 (M-SENA: float32 throughout; the difference is rounding). Sequences that
are padded at the start (MMSA-FET, MulT) are moved to the front, for lengths and masks mean first steps everywhere here.
A modality that the file does not have is zero and one column wide. Samples of different lengths are padded (uneven.py).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from bench import encoders
from bench.data import padding
from bench.data.layouts import as_msena
from bench.data.reader import UNIMODAL, Reader, where
from bench.data.spec import MODALITIES, SPLITS, DatasetSpec
from bench.data.uneven import pad_splits
from bench.data.values import column
from bench.plural import count

READER = 3  # version of what is written here; part of every cache folder's name
_BERT = ("bert-base-uncased", "bert-base-chinese")
_FEW = 100  # features whose values are all whole numbers beyond this are token ids


def convert(data: Any, spec: DatasetSpec, features: str, source: Path, folder: Path) -> dict[str, Any]:
    """Write `<split>-<array>.npy` and `<split>-strings.json` into a folder; `data` is emptied on the way, so that a
    large file is in memory only once.

    Arrays (N samples): text [N, L, d_t], audio [N, T_a, d_a], vision [N, T_v, d_v], audio_mean [N, 1, d_a],
    vision_mean [N, 1, d_v], label [N], label_text, label_audio, label_vision [N] float32; text_bert [N, 3, L] int32;
    audio_lengths, vision_lengths [N] int64. Returns the reader's meta data and "text_encoder", the name of the encoder
    that the file says its text is of (encode.py), or "". Raises DataError with one line that says what is wrong and
    where.
    """
    splits, notes = as_msena(data, source)
    notes += pad_splits(splits, source)
    encoder = data.get("text_encoder")
    name = encoder.get("name", "") if isinstance(encoder, Mapping) else ""
    reader = _Reader(spec, "synthetic" in data, source, folder)
    reader.aligned, reader.encoder = features == "aligned", name if isinstance(name, str) else ""
    reader.warnings += notes
    reader.left = {m: padding.at_start(splits["train"].get(m), m, splits["train"]) for m in MODALITIES}
    data.clear()
    for split in SPLITS:
        reader.split(split, dict(splits.pop(split)))
    return reader.meta(text_encoder=reader.encoder)


class _Reader(Reader):
    aligned = False
    encoder = ""  # that the file names
    left: Mapping[str, bool] = {}  # modality -> whether the file pads it at the start

    def split(self, split: str, raw: dict[str, Any]) -> None:
        ids = self.ids(split, "id", raw["id"])
        words = self.transcripts(split, "raw_text", raw["raw_text"], ids) if "raw_text" in raw else [""] * len(ids)
        if "raw_text" not in raw:
            rest = "of 3 has none: other text encoders than the file's own cannot be used"
            self.tally("raw_text", 1, f"split {rest}", f"splits {rest.replace('has', 'have')}")
        steps = self._steps(split, raw)
        text = self._features(split, "text", raw.pop("text", None), ids, steps)  # (N, L, d_t)
        tokens = self._tokens(split, raw.get("text_bert"), ids, words, text.shape[1])  # (N, 3, L) or None
        shift = padding.leading(text, tokens) if self.left["text"] else None  # (N,)
        if shift is not None:
            text = self._moved("text", text, shift)
            tokens = None if tokens is None else padding.moved(tokens.swapaxes(1, 2), shift).swapaxes(1, 2)
        text_lengths = _text_lengths(text, tokens)  # (N,)
        self.save(split, "text", text)
        if tokens is not None:
            self.save(split, "text_bert", tokens)
        seen = [text]
        for name in ("audio", "vision"):
            sequence = self._features(split, name, raw.pop(name, None), ids, text.shape[1] if self.aligned else 1)
            if self.aligned and sequence.shape[1] != text.shape[1]:
                raise self.error(
                    split, name, f"has {sequence.shape[1]} steps and text {text.shape[1]}: not an aligned file"
                )
            if self.aligned and shift is not None:
                sequence = self._moved(name, sequence, shift)
            elif self.left[name] and not self.aligned:
                sequence = self._moved(name, sequence, padding.leading(sequence, None))
            mean = sequence.mean(axis=1, keepdims=True, dtype=np.float64)  # (N, 1, d), padding included
            self.save(split, f"{name}_mean", np.nan_to_num(mean, nan=0.0).astype(np.float32))
            lengths = text_lengths if self.aligned else self._lengths(split, name, raw, sequence, ids)
            self.save(split, name, sequence)
            self.save(split, f"{name}_lengths", lengths)
            seen.append(sequence)
        self.save(split, "label", self.labels(split, "regression_labels", raw["regression_labels"], ids))
        self._unimodal(split, raw, ids)
        self.note_copies(split, seen, ids)
        self.save_strings(split, ids, words)

    def _unimodal(self, split: str, raw: Mapping[str, Any], ids: list[str]) -> None:
        own = {name: key for name, t in UNIMODAL.items() if (key := f"regression_labels_{t}") in raw}
        if len(own) == len(UNIMODAL):
            for name, key in own.items():
                self.save(split, name, self.labels(split, key, raw[key], ids))
        elif own:
            self.warnings.append(f"{split}: {', '.join(own.values())} alone; labels of single modalities are not read")
        elif self.spec.unimodal:
            self.warnings.append(f"{split}: no labels of single modalities")

    def _steps(self, split: str, raw: Mapping[str, Any]) -> int:
        """How many steps a text has that is not there."""
        given = next((raw[k] for k in ("text_bert", "audio", "vision") if k in raw), None)
        return self.array(split, "audio", given).shape[-1 if "text_bert" in raw else 1] if "text" not in raw else 0

    def _features(self, split: str, name: str, value: Any, ids: list[str], steps: int) -> np.ndarray:
        """(N, T, d) float32 after the rules for values that are not finite; (N, steps, 1) zeros for what is absent."""
        if value is None:
            self.same_shape(split, name, (steps, 1))
            self.warnings.append(f"{split}: no {name}; zeros stand for it{self._without(name)}")
            return np.zeros((len(ids), steps, 1), np.float32)
        if name == "text" and (given := self.array(split, name, value)).ndim in (2, 3) and _token_ids(given):
            what = f"token ids (whole numbers up to {int(given.max())}), not features"
            raise self.error(split, name, f"holds {what}: text_bert's place; encode it with `bench data encode`")
        array = self.numbers(split, name, value, 3, len(ids))
        return self.single(split, name, array, ids, audio=name == "audio", nan="refuse" if name == "text" else "keep")

    def _tokens(
        self, split: str, value: Any, ids: list[str], words: list[str], steps: int
    ) -> np.ndarray | None:
        if value is None:
            self.warnings.append(f"{split}: no text_bert; models that fine-tune a text encoder cannot use this file")
            return None
        array = self.numbers(split, "text_bert", value, 3, len(ids))
        if array.shape[1] != 3:
            turned = "; its last two axes are swapped" if array.shape[2] == 3 else ""
            raise self.error(split, "text_bert", f"has shape {list(array.shape)}; expected [N, 3, L]{turned}")
        whole = (array >= 0) & (array < 2**31) & (array == np.floor(array))  # stored as float in some files
        if not whole.all():
            raise self.error(split, "text_bert", f"has {where(~whole, ids)} beyond what token ids can be")
        tokens = array.astype(np.int32)  # (N, 3, L): ids, mask, segments
        if (wrong := tokens[:, 1] > 1).any():
            raise self.error(split, "text_bert", f"has {where(wrong, ids)} in its mask other than 0 and 1")
        if (empty := ~tokens[:, 1].any(-1)).any():
            raise self.error(split, "text_bert", f"has no token at all in {count(int(empty.sum()), 'sample')} (first "
                             f"{ids[int(np.argmax(empty))]!r}): the mask is 0 everywhere there")  # fmt: skip
        self._vocabulary(split, tokens, ids)
        if tokens.shape[2] < steps:
            what = f"has {tokens.shape[2]} tokens per sample and text {steps} steps: it is shorter than text"
            raise self.error(split, "text_bert", what)
        used = tokens[:, 1].sum(-1)
        few = np.array([n < tokens.shape[2] and n - 2 < len(w.split()) for n, w in zip(used, words)], bool)
        if few.any():
            what = f"{count(int(few.sum()), 'sample has', 'samples have')} fewer word pieces than words (first {ids[int(np.argmax(few))]!r})"
            self.warnings.append(f"{split}/text_bert: {what}: of other transcripts than raw_text?")
        return tokens

    def _vocabulary(self, split: str, tokens: np.ndarray, ids: list[str]) -> None:
        vocabulary = self._name_of_vocabulary()
        size = encoders.vocabulary_size(vocabulary)
        if size and (beyond := tokens[:, 0] >= size).any():
            what = f"beyond {vocabulary}'s vocabulary of {size:,}"
            raise self.error(split, "text_bert", f"has {where(beyond, ids)} {what} (largest {int(tokens[:, 0].max())})")
        if (wrong := tokens[:, 2] > (1 if vocabulary in _BERT else 4)).any():
            raise self.error(split, "text_bert", f"has {where(wrong, ids)} in its third row beyond the segments")

    def _name_of_vocabulary(self) -> str:
        return (encoders.spec(self.encoder).vocabulary or self.encoder) if self.encoder else self.spec.vocabulary

    def _moved(self, name: str, sequence: np.ndarray, shift: np.ndarray) -> np.ndarray:
        """Data that are padded at the start, moved to the front; counted."""
        self.tally(name, int((shift > 0).sum()), "sample is padded at the start; it is moved to the front", "samples are padded at the start; they are moved to the front")
        return padding.moved(sequence, shift)

    def _lengths(
        self, split: str, name: str, raw: Mapping[str, Any], sequence: np.ndarray, ids: list[str]
    ) -> np.ndarray:
        key, steps = f"{name}_lengths", sequence.shape[1]
        if key not in raw:
            return np.full(len(ids), steps, np.int64)
        lengths = column(self.array(split, key, raw[key], words=True))
        if lengths.shape != (len(ids),):
            raise self.error(split, key, f"has shape {list(lengths.shape)}; expected one length for each of {len(ids)} ids")
        if (bad := ~np.isfinite(lengths)).any():
            raise self.error(split, key, f"has {where(bad, ids)} of NaN or infinity")
        clipped = np.clip(lengths, 1, steps).astype(np.int64)
        if (changed := clipped != lengths).any():
            self.tally(key, int(changed.sum()), *(f"{word} outside 1..{steps} clipped" for word in ("value", "values")))
        return clipped


def _token_ids(array: np.ndarray) -> bool:
    """Whether features are word pieces by mistake: whole numbers, none negative, as large as only ids are."""
    head = array[:64]
    return bool(np.isfinite(head).all() and (head == np.floor(head)).all() and head.min() >= 0 and head.max() > _FEW)


def _text_lengths(text: np.ndarray, tokens: np.ndarray | None) -> np.ndarray:
    """(N,) steps that carry a token: ones of the mask; without tokens, up to the last row that is not all zero."""
    if tokens is not None:
        lengths = np.minimum(tokens[:, 1].sum(axis=-1), text.shape[1])
    else:
        used = text.any(axis=-1)  # (N, L)
        lengths = text.shape[1] - np.argmax(used[:, ::-1], axis=1)
        lengths = np.where(used.any(axis=1), lengths, 1)
    return np.maximum(lengths, 1).astype(np.int64)
