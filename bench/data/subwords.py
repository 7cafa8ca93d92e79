"""From words to the word pieces of an encoder, and rows of features beside them. Torch-free.

Every word is cut into pieces by itself (MAG-BERT, HKT); each piece takes the row of its word, special tokens and
padding a row of zeros. Where the tokenizer puts its CLS token last (XLNet), padding stands on the left, else on the
right. A tokenizer of the byte-level kind (RoBERTa) sees a word with the blank before it, as in running text, except
the first of a text.

    one text   [CLS] words [SEP]                       cut at the end                     (MAG-BERT)
    a pair     [CLS] context [SEP] punchline [SEP]     context cut at its front, then the punchline at its end   (HKT)
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from bench import encoders

NO_WORD = -1  # word index of special tokens and padding
_LEFT_SEGMENT = 3  # of padding on the left (MAG-BERT's XLNet)


@dataclass(frozen=True)
class Layout:
    """Where an encoder puts its special tokens: (id, segment) of each, before, between and after the two texts."""

    before: tuple[tuple[int, int], ...]
    between: tuple[tuple[int, int], ...]
    after: tuple[tuple[int, int], ...]
    segments: tuple[int, int]  # of the two texts' own pieces
    padding: tuple[int, int]  # (id, segment)
    left: bool = False  # padding stands on the left

    @property
    def special(self) -> int:
        return len(self.before) + len(self.between) + len(self.after)


@dataclass(frozen=True)
class Pieces:
    """tokens [N, 3, L] int32: ids, attention mask, segments; word [N, L] int64: the row of each piece's word in the
    flat features, or NO_WORD; lengths [N] int64: pieces, special tokens included."""

    tokens: np.ndarray
    word: np.ndarray
    lengths: np.ndarray


def layout(name: str, pair: bool) -> Layout:
    """The layout of an encoder for one text or for a pair. Raises BenchError if the encoder is missing."""
    if encoders.spec(name).test_only:  # BERT's
        return Layout(((101, 0),), ((102, 0),) if pair else (), ((102, int(pair)),), (0, 1), (0, 0))
    tokenizer = encoders.tokenizer(name)
    found = tokenizer(*("a", "a")[: 1 + pair], return_special_tokens_mask=True, return_token_type_ids=True)
    special = [bool(m) for m in found["special_tokens_mask"]]
    marks = list(zip(found["input_ids"], found["token_type_ids"]))
    own = [i for i, m in enumerate(special) if not m]
    runs = [i for i in own if i == own[0] or special[i - 1]]  # where each text begins
    inner = range(runs[0], runs[-1]) if pair else ()
    after = tuple(marks[own[-1] + 1 :])
    left = bool(after) and after[-1][0] == tokenizer.cls_token_id
    return Layout(
        before=tuple(marks[: own[0]]),
        between=tuple(marks[i] for i in inner if special[i]),
        after=after,
        segments=(marks[own[0]][1], marks[own[-1]][1]),
        padding=(tokenizer.pad_token_id or 0, _LEFT_SEGMENT if left else 0),
        left=left,
    )


def word_ids(name: str, words: Iterable[str]) -> dict[str, list[int]]:
    """The piece ids of each word by itself; under " " + word those inside a text. Each distinct word is cut once."""
    distinct = sorted(set(words))
    if encoders.spec(name).test_only:
        return {form: [encoders.hashed_word(w)] for w in distinct for form in (w, f" {w}")}
    tokenizer = encoders.tokenizer(name)
    cut = lambda texts: tokenizer(texts, add_special_tokens=False)["input_ids"] if texts else []
    alone = dict(zip(distinct, cut(distinct)))
    if "ByteLevel" in str(tokenizer.backend_tokenizer.pre_tokenizer):
        return alone | {f" {w}": ids for w, ids in zip(distinct, cut([f" {w}" for w in distinct]))}
    return alone | {f" {w}": ids for w, ids in alone.items()}


def arrange(
    words: Sequence[Sequence[str]], start: np.ndarray, name: str, max_len: int, context: np.ndarray | None = None
) -> Pieces:
    """The pieces of N texts of words, at most `max_len` each.

    start [N]: row of each text's first word in the flat features. context [N]: how many of a text's words are context
    (a pair: context, then punchline); None for single texts. Raises BenchError if the encoder is missing.
    """
    pair = context is not None
    own = layout(name, pair)
    cased = [_sentence_case(line) for line in words]
    ids_of = word_ids(name, (w for line in cased for w in line))
    tokens = np.zeros((len(words), 3, max_len), np.int32)
    tokens[:, 0], tokens[:, 2] = own.padding
    word = np.full((len(words), max_len), NO_WORD, np.int64)
    lengths = np.zeros(len(words), np.int64)
    for n, line in enumerate(cased):
        split = int(context[n]) if pair else 0
        first = _pieces(line[:split], int(start[n]), ids_of)
        second = _pieces(line[split:], int(start[n]) + split, ids_of)
        room = max(max_len - own.special, 0)
        if pair:
            first = first[max(len(first) + len(second) - room, 0) :]
        second = second[: room - len(first)]
        row = [(*m, NO_WORD) for m in own.before]
        row += [(i, own.segments[0], w) for i, w in first]
        row += [(*m, NO_WORD) for m in own.between]
        row += [(i, own.segments[pair], w) for i, w in second]
        row += [(*m, NO_WORD) for m in own.after]
        lengths[n] = len(row)
        at = slice(max_len - len(row), max_len) if own.left else slice(0, len(row))
        tokens[n, 0, at], tokens[n, 2, at], word[n, at] = np.array(row).T
        tokens[n, 1, at] = 1
    return Pieces(tokens, word, lengths)


def spread(features: np.ndarray, word: np.ndarray) -> np.ndarray:
    """[N, L, d] from rows of words [W, d]: each piece gets its word's row, special tokens and padding zeros."""
    return features[np.maximum(word, 0)] * (word != NO_WORD)[..., None].astype(features.dtype)


def _pieces(words: Sequence[str], start: int, ids_of: dict[str, list[int]]) -> list[tuple[int, int]]:
    """(id, row of its word) of the pieces of one text."""
    return [(i, start + k) for k, w in enumerate(words) for i in ids_of[f" {w}" if k else w]]


def _sentence_case(words: Sequence[str]) -> list[str]:
    """encoders.sentence_case, word by word."""
    if not " ".join(words).isupper():
        return list(words)
    return [encoders.sentence_case(words[0]), *(w.lower() for w in words[1:])]
