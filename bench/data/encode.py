"""Text features of another encoder, written into a copy of an M-SENA file: frozen encoders are then run once.

`text` becomes the encoder's last hidden states, zero at padded positions, and `text_bert` its word pieces, tokenised
from raw_text to the file's own length; everything else stays as it was. The copy names its encoder under the key
"text_encoder" ({"name", "sha256"}), and, its hash being another, its provenance is no longer "official".
"""

import os
import pickle
import secrets
from pathlib import Path
from typing import Any

import numpy as np

from bench import encoders
from bench.data.spec import SPLITS
from bench.data.unpickle import load_pickle
from bench.errors import BenchError, DataError


def encode_file(in_pickle: str | os.PathLike, out_pickle: str | os.PathLike, encoder: str, device: str = "cpu") -> None:
    """Write `out_pickle`, complete or not at all. Raises BenchError if the encoder is missing or for tests only,
    DataError if the file is no M-SENA file or carries no transcripts."""
    source, target = Path(in_pickle), Path(out_pickle)
    if encoder == encoders.NONE or encoders.spec(encoder).test_only:
        raise BenchError(f"'{encoder}' has no trained weights: its features would say nothing about text")
    if target.exists() and target.samefile(source):
        raise BenchError(f"{target}: the copy would overwrite the file that it is made from")
    encoders.find(encoder)
    data = load_pickle(source)
    for split in SPLITS:
        _check(data, split, source)

    from bench.models.parts.text import TextEncoder

    model = TextEncoder(encoder, finetune=False).to(device)
    for split in SPLITS:
        part = data[split]
        tokens = encoders.tokenise(part["raw_text"], encoder, part["text"].shape[1])  # (N, 3, L)
        data[split] = {**part, "text": model.encode_all(tokens), "text_bert": tokens.astype(np.float32)}
    data["text_encoder"] = {"name": encoder, "sha256": encoders.fingerprint(encoder)}
    _write(_plain(data), target)


def _check(data: Any, split: str, source: Path) -> None:
    if not isinstance(data, dict) or not isinstance(data.get(split), dict):
        raise DataError(f"{source}: not an M-SENA file, it has no split '{split}'")
    part = data[split]
    if "raw_text" not in part or not any(map(str, part["raw_text"])):
        raise DataError(f"{source}: {split} has no transcripts (raw_text) to encode")
    shape, n = list(np.shape(part.get("text"))), len(part["raw_text"])
    if len(shape) != 3 or shape[0] != n:
        raise DataError(f"{source}: {split}/text has shape {shape}; expected [{n}, L, d]")


def _plain(value: Any) -> Any:
    """The same content in plain containers and arrays, whatever the reader wrapped them in."""
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_plain(v) for v in value]
    return np.asarray(value) if isinstance(value, np.ndarray) else value


def _write(data: Any, target: Path) -> None:
    part = target.with_name(f".{target.name}.{secrets.token_hex(6)}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as f:
            pickle.dump(data, f, protocol=4)
        part.replace(target)
    except OSError as error:
        raise DataError(f"{target}: cannot be written ({error.strerror})") from None
    finally:
        part.unlink(missing_ok=True)
