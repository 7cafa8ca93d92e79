"""Generated word-level files: the clips of synthetic.py, each word with one audio and one vision vector.

word  the same clips and words as in the generated M-SENA file, in the MAG pickle's layout
hkt   punchlines whose words lean towards the label (funny or sarcastic: u > 0), after up to three sentences of neutral
      words; audio, vision and human-centric features of the published widths over context and punchline
"""

from typing import Any

import numpy as np

from bench.data.hkt import COLUMNS
from bench.data.spec import SPLITS, DatasetSpec
from bench.data.synthetic import Size, clips, signal, stream, transcripts
from bench.data.vocabulary import WORDS

GENERATOR = 1  # version of everything below

_DEV = {"train": "train", "valid": "dev", "test": "test"}  # names of the splits in these files
_HCF_STRENGTH = 0.8  # of the sentiment in the human-centric features, whose spread is 1
_SENTENCE = (3, 8)  # words of a sentence of the context, least and most


def word_file(spec: DatasetSpec, features: str, size: Size, seed: int = 0) -> dict[str, Any]:
    """A MAG pickle's content."""
    data: dict[str, Any] = {}
    for split in SPLITS:
        labels, own, ids = clips(spec, size.samples[split], split, seed)
        words = _words(own["text"], size.text, spec.name, split, seed)
        counts = np.array([len(w) for w in words])
        streams = {m: _stream_of(spec, features, m, own[m], counts, split, seed) for m in ("vision", "audio")}
        label = labels.astype(np.float32).reshape(-1, 1, 1)  # (N, 1, 1)
        data[_DEV[split]] = [
            ((w, streams["vision"][i, : len(w)], streams["audio"][i, : len(w)]), label[i], ids[i])
            for i, w in enumerate(words)
        ]
    return {**data, "synthetic": {"generator": GENERATOR, "seed": seed}}


def hkt_file(spec: DatasetSpec, features: str, size: Size, seed: int = 0) -> dict[str, Any]:
    """An HKT pickle's content."""
    data: dict[str, Any] = {}
    for split in SPLITS:
        labels, own, ids = clips(spec, size.samples[split], split, seed)
        punchlines = _words(own["text"], size.text, spec.name, split, seed)
        contexts = _contexts(len(ids), spec.name, split, seed)
        before = np.array([sum(map(len, sentences)) for sentences in contexts])  # (N,)
        counts = before + [len(p) for p in punchlines]
        streams = [
            _stream_of(spec, features, m, own[m], counts, split, seed, COLUMNS[name][0])
            for name, m in (("visual", "vision"), ("acoustic", "audio"))
        ]
        rng = stream(spec.name, split, "hcf", seed)
        hcf = rng.standard_normal((len(ids), int(counts.max()), 4)) + _HCF_STRENGTH * own["text"][:, None, None]
        streams.append(hcf.astype(np.float32))
        data[_DEV[split]] = [
            (
                (" ".join(punchlines[i]), *(s[i, before[i] : counts[i]] for s in streams)),
                ([" ".join(w) for w in contexts[i]], *(s[i, : before[i]] for s in streams)),
                ids[i],
                int(labels[i] > 0),
            )
            for i in range(len(ids))
        ]
    return {**data, "synthetic": {"generator": GENERATOR, "seed": seed}}


def _words(u: np.ndarray, steps: int, name: str, split: str, seed: int) -> list[list[str]]:
    """The words that synthetic.py gives the same clips."""
    return [line.split() for line in transcripts(u, steps, 1, name, split, seed)["raw_text"].tolist()]


def _stream_of(
    spec: DatasetSpec, features: str, modality: str, u: np.ndarray, counts: np.ndarray, split: str, seed: int,
    width: int | None = None,
) -> np.ndarray:
    """(N, most words, d) float32, zero after a clip's words."""
    width = width or getattr(spec.features[features], modality)[1]
    strength = dict(zip(("audio", "vision"), spec.recipe.strength))[modality]
    rng, shared = (stream(spec.name, s, f"{features} {modality}", seed) for s in (split, ""))
    return signal(u, counts, int(counts.max()), width, strength, rng, shared)


def _contexts(n: int, name: str, split: str, seed: int) -> list[list[list[str]]]:
    """Per clip up to three sentences of neutral words."""
    rng, neutral = stream(name, split, "context", seed), sorted(WORDS[0.0])
    least, most = _SENTENCE

    def sentence() -> list[str]:
        return [neutral[k] for k in rng.integers(0, len(neutral), rng.integers(least, most + 1))]

    return [[sentence() for _ in range(rng.integers(0, 4))] for _ in range(n)]
