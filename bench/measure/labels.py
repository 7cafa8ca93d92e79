"""Labels that a mixer generates, against the real ones (MS-Mix Fig. 1, right).

Settings: split, bins, range, smoothing, seed.
"""

import numpy as np
import torch

from bench.measure.latents import mixtures
from bench.measure.spec import Values
from bench.measure.trained import Trained


def histogram(values: np.ndarray, bins: int, bounds: tuple[float, float], smoothing: float) -> np.ndarray:
    """Shares [bins] of values in bins of equal width, those outside the bounds in the outermost ones, mixed with the
    uniform distribution: (1 - smoothing) share + smoothing / bins."""
    counts, _ = np.histogram(np.clip(values, *bounds), bins, bounds)
    return (1 - smoothing) * counts / len(values) + smoothing / bins


def divergence(p: np.ndarray, q: np.ndarray) -> float:
    """KL(p || q) in nats of two histograms without zeros."""
    return float(np.sum(p * np.log(p / q)))


def compute(t: Trained, settings: dict) -> Values:
    """The labels of a split, the labels of one epoch's mixtures, and KL(labels || mixed labels)."""
    label = t.data.labels(settings["split"]).astype(np.float32)
    mixed = torch.cat([m.targets.float() for m in mixtures(t, settings["split"], settings["seed"])]).cpu().numpy()
    p, q = (
        histogram(x.astype(np.float64), settings["bins"], tuple(settings["range"]), settings["smoothing"])
        for x in (label, mixed)
    )
    return {"kl": divergence(p, q)}, {"label": label, "mixed": mixed}
