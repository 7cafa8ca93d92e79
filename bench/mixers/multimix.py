"""MultiMix (Venkataramanan et al. 2023) as PowMix Sec. 3.3 describes it for vectors before late fusion.

    H~_m = Lambda H_m (Eq. 3),  y~ = Lambda y (Eq. 4),  Lambda [n_O, B], rows ~ Dirichlet(alpha), alpha ~ U(0.5, 2)

Shapes: B batch, n = n_O mixed rows. The original's attention over dense features is left out, as in PowMix: the
latents are vectors.

What the papers leave open, and the switches:
- `alpha_per_row`: alpha is drawn per row (ours) or once per step.
- `anisotropic`: one Lambda for all modalities (Eq. 3-4). MS-Mix's related work says MultiMix mixes "independently
  within each modality"; on, each modality has its own Lambda_m and the label is the mean of Lambda_m y over the
  modalities (PowMix Eq. 9), the only reading that defines it.
- `p_mix` and the tuned n_O are not printed (n_O starts at 256; p_mix is tuned first): 0.5 is ours.
- `clean_plus_mixed`: a mixing step trains on the mixtures alone (ours), or on clean plus mixed rows.
"""

from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from bench.mixers import options
from bench.mixers.base import Latents, Mixed, Mixer
from bench.mixers.combine import weigh
from bench.mixers.sampling import Draws, dirichlet, precision

VERSION = 1


@dataclass(frozen=True)
class Params:
    n_mixed: int = 256  # mixed rows, n_O
    p_mix: float = 0.5  # share of the steps that mix; value ours
    alpha_range: tuple[float, float] = (0.5, 2.0)  # range that α ~ U(0.5, 2) is drawn from, Sec. 3.3
    alpha_per_row: bool = True  # α drawn per row; off: once per step
    anisotropic: bool = False  # a Λ per modality; off: one for all
    clean_plus_mixed: bool = False  # a mixing step trains on clean rows too
    start_epoch: int = 1  # first epoch that mixes

    def __post_init__(self) -> None:
        options.at_least("multimix", 1, n_mixed=self.n_mixed)
        options.probability("multimix", p_mix=self.p_mix)
        options.interval("multimix", alpha_range=self.alpha_range)


class Mix(Mixer):
    def draw(self, size: int, generator: Generator, dtype: torch.dtype) -> Draws:
        """{"weights" [M or 1, n, B]} of a batch of `size` rows."""
        p = self.params
        count = len(self.dims) if p.anisotropic else 1
        return {"weights": dirichlet(count, p.n_mixed, size, p.alpha_range, generator, dtype, p.alpha_per_row)}

    def apply(self, latents: Latents, targets: Tensor, draws: Draws) -> Mixed:
        weights = draws["weights"]  # (M or 1, n, B)
        of_modality = dict(zip(latents, weights.expand(len(latents), -1, -1), strict=True))
        return Mixed(
            latents={k: weigh(of_modality[k], v) for k, v in latents.items()},  # Eq. 3
            targets=weigh(weights.mean(0), targets),  # Eq. 4; the mean of Lambda_m y where there are several
            clean_weight=1.0 if self.params.clean_plus_mixed else 0.0,
            ratios=of_modality,
        )

    def mix(self, latents: Latents, targets: Tensor, generator: Generator) -> Mixed:
        return self.apply(latents, targets, self.draw(len(targets), generator, precision(targets)))
