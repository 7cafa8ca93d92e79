"""No mixing: every step is a clean step. The plain rows of all tables."""

from collections.abc import Mapping
from dataclasses import dataclass

from bench.mixers.base import Mixer

VERSION = 1


@dataclass(frozen=True)
class Params:
    """Nothing to choose."""


class Mix(Mixer):
    """Never mixes: `probability` is 0, so the loop never calls `mix`."""

    probability = 0.0

    def __init__(self, params: Params, dims: Mapping[str, tuple[int, ...]], label_bound: float) -> None:
        super().__init__(dims, label_bound)
        self.params = params
