"""No mixing: every step is a clean step. The plain rows of all tables."""

from dataclasses import dataclass
from typing import ClassVar

from bench.mixers.base import Mixer

VERSION = 1


@dataclass(frozen=True)
class Params:
    """Nothing to choose."""

    p_mix: ClassVar[float] = 0.0
    start_epoch: ClassVar[int] = 1


class Mix(Mixer):
    """Never mixes: its probability is 0, so the loop never calls `mix`."""
