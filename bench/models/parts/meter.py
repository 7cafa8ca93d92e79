"""Means over an epoch, kept on the device and read once."""

from collections.abc import Mapping

from torch import Tensor


class Meter:
    """Weighted running means of named scalars. Adding never waits for the device; reading does."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._weights: dict[str, float] = {}

    def add(self, values: Mapping[str, Tensor], weight: float = 1.0) -> None:
        """Count scalars once more, with a weight (the batch size, where a mean over samples is wanted)."""
        for name, value in values.items():
            value = value.detach() * weight
            self._sums[name] = self._sums[name] + value if name in self._sums else value
            self._weights[name] = self._weights.get(name, 0.0) + weight

    def read(self) -> dict[str, float]:
        """The means since the last reset, by name."""
        return {name: float(total) / self._weights[name] for name, total in self._sums.items()}

    def reset(self) -> None:
        self._sums, self._weights = {}, {}
