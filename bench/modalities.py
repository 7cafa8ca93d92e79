"""Training on some of the modalities: which ones a cell reads, and the cell on a part of them. Torch-free.

`--modalities text,audio` (or `--set data.modalities=text,audio`) is kept in `Config.corruption` under "modalities" and so
is part of a job's identity; how the others are blanked stands in bench/data/corruption. A cell that keeps all that it
reads is the cell as it was.
"""

from typing import Any

from bench import registry
from bench.data.corruption import VERSION, kept_modalities
from bench.data.dataset import spec
from bench.data.spec import MODALITIES
from bench.errors import BenchError
from bench.matrix import Config

SETTING = "data.modalities"


def read_by(config: Config) -> tuple[str, ...]:
    """The modalities that a cell's data have and its backbone reads (a model that reads fewer says `MODALITIES`)."""
    file = spec(config.dataset).features.get(config.features)
    there = MODALITIES if file is None else tuple(m for m in MODALITIES if m != "vision" or file.vision[1])
    own: Any = registry.constants("models", config.backbone).get("MODALITIES", MODALITIES)
    return tuple(m for m in there if m in own)


def restricts(config: Config, value: object) -> bool:
    """Whether keeping only some modalities takes any away from a cell. A cell that is defined on a part of them (a
    row "text only") is none of those that are changed."""
    kept, read, own = kept_modalities(value), read_by(config), config.corruption.get("modalities")
    if own is not None and own != _left(read, kept):
        return False
    return not set(read) <= set(kept)


def _left(read: tuple[str, ...], kept: tuple[str, ...]) -> list[str]:
    return [m for m in read if m in kept] or list(kept)


def keep(config: Config, value: object) -> Config:
    """The cell on some of its modalities, which are "text,audio" or a list; the cell itself where that takes none away."""
    if not restricts(config, value):
        return config
    left = _left(read_by(config), kept_modalities(value))
    return config.with_(corruption={**config.corruption, "modalities": left}, versions={"corruption": VERSION})


def check(config: Config) -> None:
    """Raise BenchError, in one line, where nothing is left of what a cell's backbone reads."""
    kept, read = config.corruption.get("modalities"), read_by(config)
    if kept is not None and not set(kept_modalities(kept)) & set(read):
        raise BenchError(f"{config.backbone} on {config.dataset}/{config.features} reads {' and '.join(read)} alone: "
                         f"nothing is left of it with {SETTING}={','.join(kept)}; --only leaves it out")
