"""What a feature file is like, beyond being readable: labels, zeros, constant columns, duplicates, shared videos, word
pieces, and what a user should do about it. Torch-free; plain values throughout."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from bench.data.contents import Dataset
from bench.data.spec import MODALITIES, SPLITS
from bench.data.values import video_of

_BINS = 13  # of a histogram of labels
_ZERO_SHARE = 0.5  # of a modality's steps; more is suspicious
_MANY = 0.2  # of a modality's columns that never change
_STREAMS = {"word": ("word_audio", "word_vision"), "hkt": ("word_audio", "word_vision", "word_hcf")}


def survey(dataset: Dataset) -> dict[str, Any]:
    """Facts of a dataset by section, and `suspicious`: [{"what", "count", "do"}]."""
    labels = {s: _histogram(dataset, s) for s in SPLITS}
    streams = {name: _stream(dataset, name) for name in _names(dataset)}
    copies = {s: _duplicates(dataset, s) for s in SPLITS}
    videos = {s: {v for i in dataset.ids(s) if (v := video_of(i))} for s in SPLITS}
    shared = {f"{a} and {b}": len(videos[a] & videos[b]) for a, b in (SPLITS[:2], SPLITS[1:], SPLITS[::2])}
    facts = {
        "padding": {m: _padding(dataset, m) for m in MODALITIES} if dataset.format == "msena" else {},
        "labels": labels,
        "streams": streams,
        "duplicated_samples": copies,
        "videos": {s: len(v) for s, v in videos.items()},
        "shared_videos": shared,
        "empty_transcripts": {s: sum(not t.strip() for t in dataset.raw_text(s)) for s in SPLITS},
        "word_pieces": _pieces(dataset),
    }
    return {**facts, "suspicious": _suspicious(dataset, facts)}


def _names(dataset: Dataset) -> list[str]:
    if dataset.format == "msena":
        return list(MODALITIES)
    return [*(_STREAMS.get(dataset.format, ())), *(["frames"] if "frames" in dataset.splits["train"] else [])]


def _histogram(dataset: Dataset, split: str) -> dict[str, Any]:
    y, bound = np.asarray(dataset.splits[split]["label"]), dataset.label_bound
    low, bins = (0, 2) if dataset.spec.binary else (-bound, _BINS)
    counts, edges = np.histogram(y, bins=bins, range=(low, bound))
    return {"n": len(y), "mean": round(float(y.mean()), 4), "negative": int((y < 0).sum()), "zero": int((y == 0).sum()),
            "positive": int((y > 0).sum()), "counts": counts.tolist(), "edges": np.round(edges, 4).tolist()}  # fmt: skip


def _stream(dataset: Dataset, name: str) -> dict[str, Any]:
    """Shape, share of steps that are zero (within a sample's length), constant columns of the training split."""
    zero = steps = 0
    low = high = None
    for split in SPLITS:
        array = dataset.splits[split][name]
        for rows, inside in _blocks(dataset, split, name, array):
            zero += int((~rows.any(-1) & inside).sum())
            steps += int(inside.sum())
            if split == "train":
                flat = rows.reshape(-1, rows.shape[-1])
                a, b = flat.min(0), flat.max(0)
                low, high = (a, b) if low is None else (np.minimum(low, a), np.maximum(high, b))
    shape = list(map(int, array.shape[1:] if array.ndim == 3 else array.shape[-1:]))
    constant = int((low == high).sum()) if low is not None else 0
    return {"shape": shape, "columns": shape[-1], "constant_columns": constant, "least": float(np.nanmin(low)),
            "largest": float(np.nanmax(high)), "zero_steps": round(zero / max(steps, 1), 4)}  # fmt: skip


def _blocks(dataset: Dataset, split: str, name: str, array: np.ndarray) -> Any:
    """Parts of an array and which of their steps hold data: [n, T, d], [n, T] or [w, d], [w]."""
    lengths = dataset.splits[split].get(f"{'audio' if name == 'text' and dataset.aligned else name}_lengths")
    for i in range(0, len(array), 512):
        rows = np.asarray(array[i : i + 512])
        if rows.ndim == 3 and lengths is not None:
            yield rows, np.arange(rows.shape[1]) < np.asarray(lengths[i : i + 512])[:, None]
        elif rows.ndim == 3:  # text of an unaligned file: up to its last step that is not zero
            used = rows.any(-1)
            yield rows, np.cumsum(used[:, ::-1], 1)[:, ::-1] > 0
        else:
            yield rows, np.ones(len(rows), bool)


def _padding(dataset: Dataset, modality: str) -> str:
    """The side on which the file pads a modality."""
    if any(w.startswith(f"{modality}:") and "padded at the start" in w for w in dataset.warnings):
        return "start"
    array = np.asarray(dataset.splits["train"][modality][:512])
    return "end" if (~array[:, -1].any(-1)).any() else "none seen"


def _duplicates(dataset: Dataset, split: str) -> int:
    """Samples of a split whose features are those of an earlier sample of it."""
    arrays = dataset.splits[split]
    if dataset.format == "msena":
        keys = [hash(tuple(np.asarray(arrays[m][i]).tobytes() for m in MODALITIES)) for i in range(len(arrays["label"]))]
    elif "word_start" in arrays:
        start = arrays["word_start"]
        keys = [hash(arrays["word_vision"][a:b].tobytes() + arrays["word_audio"][a:b].tobytes())
                for a, b in zip(start[:-1], start[1:])]  # fmt: skip
    else:
        keys = [hash((t, float(y))) for t, y in zip(dataset.raw_text(split), arrays["label"])]
    return len(keys) - len(set(keys))


def _pieces(dataset: Dataset) -> dict[str, Any]:
    """The file's word pieces: their vocabulary, the largest id, the longest text, texts that fill all their places."""
    if not dataset.has_tokens:
        return {}
    tokens = [np.asarray(dataset.splits[s]["text_bert"]) for s in SPLITS]
    lengths = np.concatenate([t[:, 1].sum(-1) for t in tokens])
    return {"vocabulary": dataset.vocabulary, "largest_id": int(max(t[:, 0].max() for t in tokens)),
            "longest": int(lengths.max()), "places": int(tokens[0].shape[2]),
            "full": int((lengths == tokens[0].shape[2]).sum())}  # fmt: skip


def _suspicious(dataset: Dataset, facts: Mapping[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    note = lambda what, count, do: found.append({"what": what, "count": count, "do": do})
    for name, s in facts["streams"].items():
        if s["zero_steps"] > _ZERO_SHARE:
            note(f"{name}: share of steps that are zero", s["zero_steps"], "extraction failed there? extract it again")
        if s["constant_columns"] > _MANY * s["columns"]:
            what = f"{name}: columns of {s['columns']} that never change in train"
            note(what, s["constant_columns"], "harmless to most models; check the extraction")
    for split, n in facts["duplicated_samples"].items():
        if n:
            note(f"{split}: samples with the features of another one", n, "remove them, or know why they are there")
    for pair, n in facts["shared_videos"].items():
        if n:
            note(f"videos that occur in {pair}", n, "speakers are known from there; CH-SIMS is split so, MOSI is not")
    for split, n in facts["empty_transcripts"].items():
        if n:
            note(f"{split}: empty transcripts", n, "text models see nothing there")
    for split, y in facts["labels"].items():
        if y["n"] < 20:
            note(f"{split}: samples", y["n"], "too few to select or to score a model on")
    pieces = facts["word_pieces"]
    if pieces and pieces["full"] > 0.05 * sum(dataset.size(s) for s in SPLITS):
        note("texts that fill all their word pieces (cut?)", pieces["full"], "longer texts lose their end")
    return found
