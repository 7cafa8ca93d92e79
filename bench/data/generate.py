"""Generated feature files in every format that is read."""

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.data import synthetic, synthetic_audio, synthetic_words
from bench.data.spec import DatasetSpec

_PICKLES: dict[str, Callable[..., Any]] = {
    "msena": synthetic.generate, "word": synthetic_words.word_file, "hkt": synthetic_words.hkt_file,
}
_VERSIONS = {
    "msena": f"{synthetic.GENERATOR}",
    "word": f"{synthetic.GENERATOR}.{synthetic_words.GENERATOR}",
    "hkt": f"{synthetic.GENERATOR}.{synthetic_words.GENERATOR}",
    "audio": f"{synthetic.GENERATOR}.{synthetic_audio.GENERATOR}",
}


def version(format: str) -> str:
    """Of what is generated in a format; part of the name of its cache folder."""
    return _VERSIONS[format]


def write(path: str | os.PathLike, spec: DatasetSpec, features: str, full: bool = False) -> None:
    """Write a generated feature file (of raw sound: the table at `path`, and the wav folder beside it); pickles under
    another name first, so that no half-written one is ever found."""
    path, size = Path(path), synthetic.size(spec, features, full)
    format = spec.features[features].format
    if format == "audio":
        return synthetic_audio.audio_folder(path, spec, size, full)
    part = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(part, "wb") as file:
            pickle.dump(_PICKLES[format](spec, features, size), file, protocol=4)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
