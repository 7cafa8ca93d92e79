"""Generated data in the M-SENA pickle layout, so that everything runs on a machine that has no data; the clips that
generate.py writes in the other layouts are made of the same parts.

A clip has a label y drawn from the real label histogram, and each modality its own sentiment u = y + noise; in some
clips voice and face contradict the words. The words follow u_text: they are real words, among them sentiment words,
under their real BERT ids; a word's feature vector is a fixed random one plus its polarity along one direction. Audio
and vision are slow random processes that show their u weakly and for a part of the clip only. The strengths (each
dataset's Recipe) are set so that a linear probe on time-pooled features finds non-0 Acc2 near 80 % in the text, and
near 55 % in audio and in vision where the classes weigh the same (in MOSEI and CH-SIMS the majority class alone
gives 63-64 %).

Only sums and products of single numbers and numpy's random streams are used (no matrix product, no
transcendental function), so that the arrays are the same bytes on every machine.
"""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from bench.data.spec import SPLITS, DatasetSpec
from bench.data.vocabulary import CLS, SEP, WORDS

GENERATOR = 1  # version of everything below

_NOISE = 0.55  # of the voice's and the face's sentiment around the label, in units of the label bound
_CONFLICT = 0.15  # share of clips whose voice and face contradict the words
_WORD_SHARE = 0.35  # share of the words that may carry sentiment
_WORD_NOISE = 0.45  # spread of their polarity around the clip's
_DIRECTION = 0.6  # length per dimension of the polarity direction among word vectors of length 0.5 per dimension
_FACTORS = 4  # slow processes behind audio and vision
_MOOD = 0.8  # length per dimension of the direction in which voice and face show a mood


@dataclass(frozen=True)
class Size:
    """How much to generate: samples per split, steps per modality. Widths are always the published ones."""

    samples: Mapping[str, int]
    text: int
    audio: int
    vision: int


def size(spec: DatasetSpec, features: str, full: bool = False) -> Size:
    """The published sizes, or small ones for a quick run on a CPU. Aligned streams have the text's length."""
    file = spec.features[features]
    if full:
        return Size(spec.sizes, file.text[0], file.audio[0], file.vision[0])
    samples = {"train": 240, "valid": 80, "test": 160}
    return Size(samples, 16, 16, 16) if features == "aligned" else Size(samples, 16, 24, 20)


def generate(spec: DatasetSpec, features: str, size: Size, seed: int = 0) -> dict[str, Any]:
    """An M-SENA file's content. A clip's words and labels are the same in the aligned and in the unaligned file."""
    data: dict[str, Any] = {s: _split(spec, features, size, s, seed) for s in SPLITS}
    return {**data, "synthetic": {"generator": GENERATOR, "seed": seed}}  # the mark by which the reader knows it


def label_histogram(spec: DatasetSpec) -> tuple[np.ndarray, np.ndarray]:
    """Label values [K], ascending, and their relative frequencies [K]."""
    counts = np.array(spec.recipe.label_counts, dtype=np.float64)
    half = len(counts) // 2
    return np.arange(-half, half + 1) * spec.label_bound / half, counts / counts.sum()


def clips(spec: DatasetSpec, n: int, split: str, seed: int) -> tuple[np.ndarray, dict[str, np.ndarray], list[str]]:
    """Labels [N], each modality's own sentiment [N] in [-1, 1], ids [N] of the clips of a split."""
    rng = stream(spec.name, split, "labels", seed)
    labels = _labels(spec, n, rng)  # (N,)
    noise = {"text": spec.recipe.text_noise, "audio": _NOISE, "vision": _NOISE}
    own = {m: np.clip(labels / spec.label_bound + s * rng.standard_normal(n), -1, 1) for m, s in noise.items()}
    conflict = rng.random(n) < _CONFLICT
    own |= {m: np.where(conflict, -own["text"], own[m]) for m in ("audio", "vision")}  # each (N,) in [-1, 1]
    return labels, own, [f"{split}{i // 20:04d}$_${i % 20}" for i in range(n)]


def own_label(u: np.ndarray, bound: float) -> np.ndarray:
    """(N,) float32: a modality's own sentiment as a label in fifths of the bound."""
    return (np.rint(u * 5) / 5 * bound).astype(np.float32)


def _split(spec: DatasetSpec, features: str, size: Size, split: str, seed: int) -> dict[str, Any]:
    n, bound, widths = size.samples[split], spec.label_bound, spec.features[features]
    labels, own, ids = clips(spec, n, split, seed)

    sign = np.sign(labels).astype(int)
    raw = {
        "id": np.array(ids),
        "regression_labels": labels.astype(np.float32),
        "classification_labels": (sign + 1).astype(np.float32),
        "annotations": np.array(["Negative", "Neutral", "Positive"])[sign + 1],
        **transcripts(own["text"], size.text, widths.text[1], spec.name, split, seed),
    }
    for m, strength in zip(("audio", "vision"), spec.recipe.strength):
        steps, rng = getattr(size, m), stream(spec.name, split, f"{features} {m}", seed)
        if features == "aligned":
            lengths = raw["text_bert"][:, 1].sum(axis=-1)  # (N,)
        else:
            lengths = np.maximum(steps * rng.integers(30, 101, n) // 100, 1)
            raw[f"{m}_lengths"] = lengths.tolist()
        shared = stream(spec.name, "", m, seed)  # the same expression means the same in every split
        raw[m] = signal(own[m], lengths, steps, getattr(widths, m)[1], strength, rng, shared)
    if spec.unimodal:
        for key, m in (("T", "text"), ("A", "audio"), ("V", "vision")):
            raw[f"regression_labels_{key}"] = own_label(own[m], bound)
    return raw


def _labels(spec: DatasetSpec, n: int, rng: np.random.Generator) -> np.ndarray:
    """(N,) labels whose counts are the real frequencies to within one sample per value (largest remainder)."""
    values, frequencies = label_histogram(spec)
    counts = np.floor(frequencies * n).astype(int)
    short = n - counts.sum()
    counts[np.argsort(counts - frequencies * n, kind="stable")[:short]] += 1
    return rng.permutation(np.repeat(values, counts))


def transcripts(u: np.ndarray, steps: int, width: int, name: str, split: str, seed: int) -> dict[str, Any]:
    """raw_text [N], text [N, L, d], text_bert [N, 3, L]: CLS, words, SEP, then padding of zeros."""
    n, rng = len(u), stream(name, split, "text", seed)
    words = [(w, i, polarity) for polarity, group in WORDS.items() for w, i in group.items()]
    by_polarity = {p: np.array([k for k, w in enumerate(words) if w[2] == p]) for p in WORDS}
    grid = np.array(sorted(by_polarity))  # (5,)
    uniform = rng.random(n)
    counts = np.minimum((3 + 26 * uniform * uniform).astype(int), steps - 2)  # (N,) median 9, 95 % below 27: as in MOSI
    words_here = np.arange(steps - 2) < counts[:, None]  # (N, L - 2)

    wanted = u[:, None] + _WORD_NOISE * rng.standard_normal((n, steps - 2))  # (N, L - 2)
    carries = rng.random((n, steps - 2)) < _WORD_SHARE
    nearest = np.abs(wanted[..., None] - grid).argmin(axis=-1)  # (N, L - 2)
    polarity = np.where(carries & words_here, grid[nearest], 0.0)  # (N, L - 2)
    pick = rng.integers(0, 1 << 20, (n, steps - 2))
    word = np.zeros((n, steps - 2), int)
    for p, members in by_polarity.items():
        word = np.where(polarity == p, members[pick % len(members)], word)

    ids = np.zeros((n, steps), np.int64)
    ids[:, 1:-1] = np.where(words_here, np.array([w[1] for w in words])[word], 0)
    ids[:, 0] = CLS
    ids[np.arange(n), counts + 1] = SEP
    mask = np.arange(steps) < counts[:, None] + 2  # (N, L)

    shared = stream(name, "", "word vectors", seed)  # the same words mean the same in every split
    vectors = 0.5 * shared.standard_normal((len(words) + 2, width), dtype=np.float32)  # (W + 2, d)
    direction = _DIRECTION * shared.standard_normal(width, dtype=np.float32)  # (d,)
    row = np.full((n, steps), len(words))  # CLS
    row[:, 1:-1] = word
    row[np.arange(n), counts + 1] = len(words) + 1  # SEP
    mean = polarity.sum(axis=1) / counts  # (N,) what a contextual encoder spreads over all tokens
    shown = np.zeros((n, steps))
    shown[:, 1:-1] = polarity
    shown = ((shown + mean[:, None]) * mask).astype(np.float32)  # (N, L)
    text = vectors[row] * mask[..., None].astype(np.float32)  # (N, L, d)
    for rows in _chunks(n):
        text[rows] += shown[rows, :, None] * direction
    tokens = np.stack([ids, mask, np.zeros_like(ids)], axis=1).astype(np.int32)  # (N, 3, L)
    raw = [" ".join(words[k][0] for k in line[:c]) for line, c in zip(word.tolist(), counts.tolist())]
    return {"raw_text": np.array(raw), "text": text, "text_bert": tokens}


def signal(
    u: np.ndarray,
    lengths: np.ndarray,
    steps: int,
    width: int,
    strength: float,
    rng: np.random.Generator,
    shared: np.random.Generator,
) -> np.ndarray:
    """(N, T, d) float32: slow factors and a constant speaker offset seen through fixed loadings, a mood along one
    direction during a third of the clip, white noise; zero after the clip's length."""
    loadings = shared.standard_normal((_FACTORS, width), dtype=np.float32)
    direction = shared.standard_normal(width, dtype=np.float32)
    out = np.empty((len(u), steps, width), np.float32)
    time = np.arange(steps)
    for rows in _chunks(len(u)):
        n, length = len(u[rows]), lengths[rows]
        factor = rng.standard_normal((n, _FACTORS), dtype=np.float32)
        speaker = np.float32(0.5) * rng.standard_normal((n, _FACTORS), dtype=np.float32)
        start = length * rng.integers(0, 67, n) // 100  # (n,) the sentiment shows from here ...
        shows = (time >= start[:, None]) & (time <= (start + length // 3)[:, None])  # (n, T) ... for a third
        mood = strength * u[rows] + rng.standard_normal(n)  # (n,) mostly not about the sentiment
        level = (_MOOD * mood[:, None] * shows).astype(np.float32)  # (n, T)
        x = np.float32(0.3) * rng.standard_normal((n, steps, width), dtype=np.float32)  # (n, T, d)
        for t in range(steps):
            factor = np.float32(0.8) * factor + np.float32(0.6) * rng.standard_normal(factor.shape, dtype=np.float32)
            for k in range(_FACTORS):
                x[:, t] += (factor[:, k] + speaker[:, k])[:, None] * loadings[k]
        x += level[..., None] * direction
        out[rows] = x * (time < length[:, None])[..., None].astype(np.float32)
    return out


def _chunks(n: int, rows: int = 256) -> Iterator[slice]:
    return (slice(i, min(i + rows, n)) for i in range(0, n, rows))


def stream(name: str, split: str, purpose: str, seed: int) -> np.random.Generator:
    digest = hashlib.sha256(f"synthetic|{name}|{split}|{purpose}|{seed}".encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "big"))
