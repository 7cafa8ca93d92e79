"""Files of arrays per split under other names than M-SENA's: what their keys mean here.

    M-SENA, MMSA-FET   train / valid / test -> id, text, text_bert, audio, vision, regression_labels, raw_text, ...
    MulT, MultiBench   train / valid / test -> id, text, audio, vision, labels [N, 1, 1]
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.data.spec import MODALITIES, SPLITS
from bench.errors import DataError

_NAMES = {  # our key -> what others call it
    "id": ("id", "ids", "segment", "names"),
    "regression_labels": ("regression_labels", "labels", "label"),
    "vision": ("vision", "video", "visual"),
    "audio": ("audio", "acoustic"),
    "raw_text": ("raw_text", "raw_texts"),
}
_DEV = ("valid", "dev", "val")


def as_msena(data: Any, source: Path) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """split -> arrays under M-SENA's keys, and notes on what was renamed. Raises DataError in one line."""
    if not isinstance(data, Mapping):
        raise DataError(f"{source}: not an M-SENA file: expected a dict of splits, found {type(data).__name__}")
    found: dict[str, dict[str, Any]] = {}
    for split in SPLITS:
        names = _DEV if split == "valid" else (split,)
        part = next((data[n] for n in names if n in data), None)
        if isinstance(part, (list, tuple)) and part and isinstance(part[0], (list, tuple)):
            what = f"{split} is a list of samples: this is a word-level file (MAG-BERT, MISA)"
            raise DataError(f"{source}: {what}; put it into the data folder as mosi.pkl, mosei.pkl or the like")
        if part is None:
            keys = ", ".join(map(_quoted, list(data)[:12])) or "nothing"
            raise DataError(f"{source}: no split '{split}'; found {keys}")
        if not isinstance(part, Mapping):
            raise DataError(f"{source}: '{split}' is a {type(part).__name__}; expected a dict of arrays")
        found[split] = {key: value for key, value in part.items() if isinstance(key, str)}
    notes = []
    for key, names in _NAMES.items():
        given = next((n for n in names if all(n in found[s] for s in SPLITS)), key)
        for split in SPLITS:
            if given != key and key not in found[split]:
                found[split][key] = found[split].pop(given)
        if given != key:
            notes.append(f"'{given}' is read as '{key}'")
    for split in SPLITS:
        for key in ("id", "regression_labels"):
            if key not in found[split]:
                keys = ", ".join(map(_quoted, list(found[split])[:16])) or "nothing"
                raise DataError(f"{source}: {split} has no '{key}'; found {keys}")
    given = {s: {m for m in MODALITIES if m in found[s]} for s in SPLITS}
    for split in SPLITS:
        if lacks := set.union(*given.values()) - given[split]:
            other = next(s for s in SPLITS if lacks & given[s])
            raise DataError(f"{source}: {split} has no '{min(lacks)}', which {other} has")
    if not given["train"]:
        raise DataError(f"{source}: train has none of 'text', 'audio', 'vision'")
    return found, notes


def _quoted(key: Any) -> str:
    return repr(key)[:40]
