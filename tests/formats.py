"""Small files of the formats beside M-SENA's, and tokenizers made on the spot, for tests."""

import pickle
import wave
from pathlib import Path

import numpy as np

COUNTS = {"train": 3, "dev": 2, "test": 2}
VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "un", "##believ", "##able", "good", "movie", "a", ".", "bad", "so"]


def put(path: Path, data) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(data, protocol=4))
    return path


def word_content(widths=(5, 4)) -> dict:
    """A MAG pickle: words "unbelievable movie" etc., vision and audio rows that count up."""
    rng, data = np.random.default_rng(0), {}
    lines = [["so", "unbelievable"], ["a", "good", "movie"], ["bad"]]
    for split, n in COUNTS.items():
        data[split] = [
            (
                (w, *(rng.uniform(1, 2, (len(w), d)).astype(np.float32) for d in widths)),
                np.array([[0.5 * i - 1]]), f"{split}[{i}]",
            )
            for i, w in enumerate(lines[:n])
        ]  # fmt: skip
    return data


def hkt_rows(words: int, first: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """visual [n, 91], acoustic [n, 81], hcf [n, 4]: row i holds first + i + column / 100."""
    return tuple(first + np.arange(words)[:, None] + np.arange(d) / 100 for d in (91, 81, 4))


def hkt_content() -> dict:
    """An HKT pickle: every sample has the context "a good movie" / "so bad" and the punchline "unbelievable a"."""
    sample = lambda i: (
        ("unbelievable a", *hkt_rows(2, 100)), (["a good movie", "so bad"], *hkt_rows(5, 1)), f"id{i}", i % 2
    )  # fmt: skip
    data, start = {}, 0
    for split, n in COUNTS.items():
        data[split] = [sample(start + i) for i in range(n)]
        start += n
    return data


def encoder_folder(folder: Path, kind: str = "bert") -> str:
    """A folder that passes for a text encoder, with a tokenizer and no real weights; returns its name. kind: "bert",
    "xlnet" (special tokens last, padding left) or "bytes" (byte-level pieces, as RoBERTa's)."""
    import transformers
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    marks = {t: i for i, t in enumerate(VOCABULARY)}
    special = [(t, marks[t]) for t in ("[CLS]", "[SEP]")]
    if kind == "bytes":
        words = ["so", "Ġso", "good", "Ġgood", "bad", "Ġbad", "Ġ"]
        tokenizer = Tokenizer(models.WordLevel({t: i for i, t in enumerate(VOCABULARY[:4] + words)}, unk_token="[UNK]"))
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    else:
        tokenizer = Tokenizer(models.WordPiece(marks, unk_token="[UNK]"))
        tokenizer.normalizer = normalizers.Lowercase()
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    single, pair = ("[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1")
    if kind == "xlnet":
        single, pair = "$A [SEP] [CLS]:2", "$A [SEP] $B:1 [SEP]:1 [CLS]:2"
    tokenizer.post_processor = processors.TemplateProcessing(single=single, pair=pair, special_tokens=special)
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]"
    ).save_pretrained(folder)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").touch()
    return str(folder)


def write_wav(path: Path, samples: np.ndarray, rate: int = 16_000) -> None:
    """Mono or [n, channels], int16."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(samples.shape[1] if samples.ndim == 2 else 1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(samples.astype("<i2").tobytes())


def table(rows: list[tuple], head: str = "video_id,clip_id,text,label,label_T,label_A,label_V,annotation,mode") -> str:
    return "\n".join([head, *(",".join(map(str, r)) for r in rows)]) + "\n"
