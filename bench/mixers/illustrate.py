"""Points of the plane as the mixers mix them (PowMix Figure 2): `python -m bench.mixers.illustrate`.

The report draws them and never imports torch, so this runs as a program: a JSON object on standard input, "points"
[P, 2], "mixes" (one number of mixed points, or null, per picture), "generated" and "seed"; on standard output an npz
of "0", "1", ..., [generated, 2] float64, one per picture.
"""

import io
import json
import sys
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from bench.mixers import manifold, multimix, powmix
from bench.mixers.base import Mixer


def generate(points: Sequence[Sequence[float]], mixes: int | None, generated: int, seed: int) -> Tensor:
    """[generated, 2] mixtures of `points` [P, 2], by the mixer that mixes so many points at a time.

    2: Manifold Mixup, a ratio per pair. P: MultiMix. Any number between: PowMix with that expected number, of which
    the mixtures of exactly so many points are kept. None: PowMix as it is run, U(2, 4).
    """
    given = torch.tensor(points, dtype=torch.float64)  # (P, 2)
    draws = torch.Generator().manual_seed(seed)
    mixer = _mixer(len(given), mixes, generated)
    found: list[Tensor] = []
    while sum(map(len, found)) < generated:
        mixed = mixer.mix({"plane": given}, torch.zeros(len(given), dtype=torch.float64), draws)
        kept = mixed.latents["plane"]  # (n, 2)
        if mixes is not None and 2 < mixes < len(given):
            kept = kept[(mixed.ratios["plane"] > 0).sum(1) == mixes]
        found.append(kept)
    return torch.cat(found)[:generated]


def _mixer(size: int, mixes: int | None, generated: int) -> Mixer:
    dims = {"plane": (2,)}
    if mixes == 2:
        return manifold.Mix(manifold.Params(protocol="joint", ratio="pair"), dims, 1.0)
    if mixes == size:
        return multimix.Mix(multimix.Params(n_mixed=generated), dims, 1.0)
    between = {} if mixes is None else {"mask_range": (float(mixes), float(mixes))}
    return powmix.Mix(powmix.Params(n_mixed=generated, **between), dims, 1.0)


def main() -> None:
    """The points of each picture, to standard output; what is wanted comes as JSON."""
    wanted = json.load(sys.stdin)
    buffer = io.BytesIO()
    pictures = [generate(wanted["points"], n, wanted["generated"], wanted["seed"]) for n in wanted["mixes"]]
    np.savez_compressed(buffer, **{str(k): p.numpy() for k, p in enumerate(pictures)})
    sys.stdout.buffer.write(buffer.getvalue())


if __name__ == "__main__":
    main()
