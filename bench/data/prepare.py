"""From a file's content to what one model reads: word pieces of its encoder, the sound it asks for. Torch-free.

    msena  text_bert as it is where the encoder shares the file's vocabulary, else tokenised anew from the transcripts,
           to the same length
    word   sub-words with their words' audio and vision (subwords.py), `max_len` word pieces
    hkt    context and punchline likewise, with human-centric features, at the file kind's own length
    audio  transcripts, and those of the preceding clips joined by the encoder's separator (MMML); waves or features

Word pieces are made once per file, encoder and length, and kept in the cache.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from bench import encoders
from bench.data import cache, subwords
from bench.data.contents import Dataset
from bench.data.dataset import mapped
from bench.data.spec import SPLITS
from bench.errors import DataError

VERSION = 2  # of the word pieces; part of the cache folder's name
_WORDS = ("word_audio", "word_vision", "word_hcf", "word_start", "context_words")

Arrays = dict[str, np.ndarray]


def for_model(dataset: Dataset, model_class: Any, params: Any) -> Dataset:
    """The dataset as a model with these parameters reads it.

    Looks at the class's `needs_tokens` and at the parameters that are there: encoder (text), max_len (word pieces of
    "word" files), audio_encoder ("none": features, else waves), context (of "audio" files). A text encoder "none"
    leaves the text as it is. Raises DataError or BenchError, in one line, if something is missing.
    """
    encoder = getattr(params, "encoder", None)
    if dataset.format != "msena" and encoder in (None, encoders.NONE):
        kind = f"a file of format '{dataset.format}'"
        raise DataError(f"{dataset.path}: {kind} has no text features; name a text encoder")
    if model_class.needs_tokens and encoder not in (None, encoders.NONE):
        dataset = with_pieces(dataset, encoder, getattr(params, "max_len", None))
    if dataset.format == "audio":
        listens, context = getattr(params, "audio_encoder", None), getattr(params, "context", True)
        dataset = with_sound(dataset, None if listens is None else listens != encoders.NONE, bool(context))
    return dataset


def with_pieces(dataset: Dataset, encoder: str, max_len: int | None = None) -> Dataset:
    """The dataset with the word pieces of an encoder. max_len: of a "word" or "audio" file's texts; None: the papers'.

    Raises BenchError if the encoder is missing, DataError if an M-SENA file has neither its tokens nor transcripts.
    """
    length = dataset.spec.features[dataset.features].text[0]
    if max_len and dataset.format in ("word", "audio"):
        length = max_len
    if dataset.format == "msena":
        if dataset.has_tokens and encoders.shares_vocabulary(encoder, dataset.vocabulary):
            return dataset
        if not all(any(dataset.raw_text(s)) for s in SPLITS):
            own = f"its text_bert is of {dataset.vocabulary}" if dataset.has_tokens else "it has no text_bert"
            needs = f"text encoder '{encoder}' needs other tokens ({own})"
            raise DataError(f"{dataset.path}: {needs} and there is no raw_text")
        length = dataset.splits["train"]["text"].shape[1]
    make = {"msena": _transcripts, "word": _words, "hkt": _words, "audio": _transcripts}[dataset.format]
    made = _cached(dataset, encoder, length, make)
    splits = {s: {k: v for k, v in dataset.splits[s].items() if k not in _WORDS} | made[s] for s in SPLITS}
    return replace(dataset, splits=splits)


def with_sound(dataset: Dataset, wave: bool | None, context: bool) -> Dataset:
    """The dataset with waves (True), with features (False) or with what is there (None: waves first) alone, and with
    the preceding clips only if asked. Raises DataError if waves are asked for and there are none; a dataset without
    features stays without sound, for models that read text."""
    kinds = dataset.splits["train"].keys() & {"wave", "frames"}
    if wave and "wave" not in kinds:
        raise DataError(f"{dataset.path}: no folder 'wav' beside it; a model with an audio encoder reads waves")
    kept = "wave" if wave or wave is None and "wave" in kinds else "frames"
    other = "frames" if kept == "wave" else "wave"

    def wanted(key: str) -> bool:
        return key.split("_")[0] != other and (context or "context" not in key)

    splits = {s: {k: v for k, v in arrays.items() if wanted(k)} for s, arrays in dataset.splits.items()}
    return replace(dataset, splits=splits, steps={k: n for k, n in dataset.steps.items() if k != other})


def _cached(
    dataset: Dataset, encoder: str, length: int, make: Callable[[Dataset, str, str, int], Arrays]
) -> Mapping[str, Mapping[str, np.ndarray]]:
    """split -> arrays of make(dataset, split, encoder, length), made once and mapped."""
    if dataset.folder is None:
        return {s: make(dataset, s, encoder, length) for s in SPLITS}

    def write(folder: Path) -> dict[str, Any]:
        for split in SPLITS:
            for name, array in make(dataset, split, encoder, length).items():
                np.save(folder / f"{split}-{name}.npy", array)
        return {"encoder": encoder, "length": length}

    identity = f"{encoder}|{encoders.tokenizer_fingerprint(encoder)}|{length}|{VERSION}"
    key = f"{dataset.folder.name}-pieces-{hashlib.sha256(identity.encode()).hexdigest()[:16]}"
    folder, _ = cache.folder(dataset.folder.parent, key, write)
    return {s: mapped(folder, s) for s in SPLITS}


def _transcripts(dataset: Dataset, split: str, encoder: str, length: int) -> Arrays:
    """text_bert [N, 3, L], and context_text_bert [N, 3, L] where clips have preceding ones."""
    made = {"text_bert": encoders.tokenise(dataset.raw_text(split), encoder, length).astype(np.int32)}
    before = dataset.strings(split).get("context")
    if before is not None:
        between = encoders.separator(encoder)
        joined = [between.join(map(encoders.sentence_case, texts)) for texts in before]
        made["context_text_bert"] = encoders.tokenise(joined, encoder, length).astype(np.int32)
    return made


def _words(dataset: Dataset, split: str, encoder: str, length: int) -> Arrays:
    """text_bert [N, 3, L]; audio, vision, hcf [N, L, d]; lengths, also as audio_lengths and vision_lengths [N]."""
    arrays = dataset.splits[split]
    words = dataset.strings(split)["words"]
    pieces = subwords.arrange(words, arrays["word_start"][:-1], encoder, length, arrays.get("context_words"))
    made = {"text_bert": pieces.tokens} | {n: pieces.lengths for n in ("lengths", "audio_lengths", "vision_lengths")}
    for stream in ("audio", "vision", "hcf"):
        if f"word_{stream}" in arrays:
            made[stream] = subwords.spread(np.asarray(arrays[f"word_{stream}"]), pieces.word)
    return made
