"""HKT's pickles of UR-FUNNY (version 2) and MUStARD: a punchline after its context, features per word (SAM-LML, A.9).

A dict train / dev / test of lists of samples (punchline, context, id, label). punchline: (one string, visual [n, 91],
acoustic [n, 81], hcf [n, 4]), rows per word; context: (list of sentences, visual, acoustic, hcf), rows over the words
of all sentences in order; label 0 or 1.

Rules, as in HKT's own loader: full stops are appended to the punchline and to all sentences of the context but the
last, and belong to the words before them; of the 81 acoustic columns the first 60 are read, of the 91 visual ones the
last 36 (action units and face shape); other widths are a user's own and read in full. Fewer rows than words are an
error, more are cut. Readings: a word is what stands between blanks; an empty sentence of the context counts as none
(HKT would give its full stop a row of its own and shift the rest); NaN and -inf are treated as in word.py.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from bench.data.spec import DatasetSpec
from bench.data.values import as_id, as_list, as_text
from bench.data.word import WordReader, label_of, sample_lists

READER = 2  # version of what is written here; part of every cache folder's name
COLUMNS = {"visual": (91, slice(55, 91)), "acoustic": (81, slice(0, 60))}  # stream -> (width published, columns read)
_STREAMS = {"visual": "word_vision", "acoustic": "word_audio", "hcf": "word_hcf"}
_SHAPE = "((punchline, visual, acoustic, hcf), (context, visual, acoustic, hcf), id, label)"


def convert(data: Any, spec: DatasetSpec, features: str, source: Path, folder: Path) -> dict[str, Any]:
    """Write word_audio [W, 60], word_vision [W, 36], word_hcf [W, 4], label [N] float32, word_start [N + 1],
    context_words [N] int64 and the strings ids, raw_text (the punchline), words (context, then punchline) of each
    split into a folder; returns the reader's meta data.

    Raises DataError with one line that says what is wrong and where.
    """
    reader = WordReader(spec, isinstance(data, Mapping) and "synthetic" in data, source, folder)
    for split, samples in sample_lists(data, source, "an HKT file").items():
        found = reader.parsed(split, samples, _sample, _SHAPE)
        ids = [f[-1] for f in found]
        reader.note_ids(split, ids)
        counts = [n for punchline, context, *_ in found for n in (len(context), len(punchline))]
        owners = [i for i in ids for _ in range(2)]
        for k, (stream, name) in enumerate(_STREAMS.items()):
            values = [part for f in found for part in (f[3][k], f[2][k])]  # context, punchline, context, ...
            rows = reader.rows(split, stream, values, counts, owners, spare=True)  # (W, d)
            published, columns = COLUMNS.get(stream, (0, slice(None)))
            reader.save(split, name, rows[:, columns] if rows.shape[1] == published else rows)
        lengths = np.array(counts).reshape(-1, 2)  # (N, 2)
        reader.save(split, "word_start", np.concatenate([[0], np.cumsum(lengths.sum(1))]).astype(np.int64))
        reader.save(split, "context_words", lengths[:, 0].astype(np.int64))
        reader.save(split, "label", reader.labels(split, "label", [f[4] for f in found], ids))
        reader.note_word_copies(split, [f[0] for f in found], [f[2][0] for f in found], [f[2][1] for f in found], ids)
        punchlines, words = [" ".join(f[0]) for f in found], [f[1] + f[0] for f in found]
        reader.save_strings(split, ids, punchlines, words=words)
    return reader.meta()


def context_words(sentences: list[str]) -> list[str]:
    """Words of a context: its sentences joined by full stops, which stick to the words before them."""
    parts = [words for sentence in sentences if (words := sentence.split())]
    return [w + "." * (i + 1 == len(words) and words is not parts[-1]) for words in parts for i, w in enumerate(words)]


def punchline_words(punchline: str) -> list[str]:
    """Words of a punchline, a full stop at the last."""
    words = punchline.split()
    return [*words[:-1], words[-1] + "."] if words else []


def _sample(sample: Any) -> tuple[list[str], list[str], tuple, tuple, Any, str]:
    """(punchline, context, the punchline's streams, the context's streams, label, id)."""
    (punchline, *own), (sentences, *before), name, label = sample
    if len(own) != 3 or len(before) != 3:
        raise ValueError(f"{len(own)} and {len(before)} streams of features in place of 3 and 3")
    context = context_words([as_text(s) for s in as_list(sentences, "a list of sentences")])
    return punchline_words(as_text(punchline)), context, tuple(own), tuple(before), label_of(label), as_id(name)
