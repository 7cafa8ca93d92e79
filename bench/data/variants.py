"""Which published variant of a dataset a file is, by experiments/variants.toml, and what differs from the papers' file."""

from functools import lru_cache
from pathlib import Path
from typing import Any

from bench import EXPERIMENTS
from bench.data.contents import Dataset
from bench.data.spec import MODALITIES, SPLITS
from bench.errors import BenchError

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    import tomli as tomllib

TABLE = EXPERIMENTS / "variants.toml"
_WIDTHS = {"text": "text", "audio": "word_audio", "vision": "word_vision"}
_KEYS = {"dataset", "title", "format", "sizes", "text", "audio", "vision", "source", "unconfirmed", "note"}


@lru_cache
def table(path: Path = TABLE) -> tuple[dict[str, Any], ...]:
    """The entries of a table. Raises BenchError, in one line, where it cannot be read."""
    try:
        entries = tomllib.loads(path.read_text(encoding="utf-8")).get("variant", [])
    except FileNotFoundError:
        return ()
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise BenchError(f"{path}: cannot be read ({error})") from None
    for entry in entries:
        if not {"dataset", "title"} <= set(entry) <= _KEYS:
            raise BenchError(f"{path}: an entry has {', '.join(entry)}; known: {', '.join(sorted(_KEYS))}")
    return tuple(entries)


def title(entry: dict[str, Any] | None) -> str:
    """What to call an entry, and what of it no source was found for; "" of none."""
    if entry is None:
        return ""
    return entry["title"] + (f"; no source was found for {entry['unconfirmed']}" if "unconfirmed" in entry else "")


def widths(dataset: Dataset) -> dict[str, int]:
    """Columns of each modality as the file has them (HKT's before columns are chosen are not known any more)."""
    arrays = dataset.splits["train"]
    own = {m: arrays[k].shape[-1] for m, k in (_WIDTHS if "word_start" in arrays else {m: m for m in MODALITIES}).items()
           if k in arrays}  # fmt: skip
    return {m: int(n) for m, n in own.items()}


def variant(dataset: Dataset) -> dict[str, Any] | None:
    """The entry with most facts that all hold of a dataset; None where none does."""
    own, sizes = widths(dataset), [dataset.size(s) for s in SPLITS]
    best, most = None, 0
    for entry in table():
        facts = {k: v for k, v in entry.items() if k in ("sizes", *MODALITIES)}
        fits = entry["dataset"] == dataset.spec.name and entry.get("format", dataset.format) == dataset.format
        if fits and facts and all(sizes == v if k == "sizes" else own.get(k) == v for k, v in facts.items()):
            if len(facts) + ("format" in entry) > most:
                best, most = entry, len(facts) + ("format" in entry)
    return best


def differences(dataset: Dataset) -> list[str]:
    """What differs from the file that the papers here used: numbers of clips, columns, steps."""
    file, own, found = dataset.spec.features[dataset.features], widths(dataset), []
    for split in SPLITS if dataset.spec.sizes_published else ():
        if dataset.size(split) != dataset.spec.sizes[split]:
            found.append(f"{split} has {dataset.size(split):,} clips, not {dataset.spec.sizes[split]:,}")
    for modality, width in own.items():
        known = getattr(file, modality)[1]
        if known and width != known:
            found.append(f"{modality} has {width} columns, not {known}")
    for modality in MODALITIES if dataset.format == "msena" else ():
        steps, known = dataset.splits["train"][modality].shape[1], getattr(file, modality)[0]
        if steps != known:
            found.append(f"{modality} has {steps} steps, not {known}")
    return found
