"""Manifold Mixup (Verma et al. 2019) on the latents before late fusion: PowMix Eq. 1-2, MS-Mix Eq. 1.

    h~ = lambda h_i + (1 - lambda) h_j,   y~ = lambda y_i + (1 - lambda) y_j,   lambda ~ Beta(alpha, alpha)

The same pairs and the same lambda serve every modality; otherwise the label would be undefined.

What the papers leave open, and the switches:
- `protocol`: PowMix (Sec. 5.5) processes batches of twice the size, splits each in half and mixes row k of one half
  with row k of the other: "halves", the step trains on these mixtures alone. MS-Mix says only "random mixing in the
  latent space", and its Table 4 adds its own modules to this row; so "joint" is MS-Mix with SASS, SIG and SAL off:
  a random permutation of the batch, clean loss + weight * mixed loss.
- `ratio`: one lambda per "pair" (PowMix Eq. 1 speaks of a pair; MS-Mix's own way too), which the tables of both papers
  run, or one per "step", as mixup code usually has it and the default here.
- `criterion`: loss of the mixtures, the backbone's own ("task") or "mse" (what MS-Mix uses for its own mixtures).
- A short last batch of odd size has no equal halves: the middle row is then used in two pairs.
- A permutation may leave a row where it is; that pair is an un-mixed row.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from bench.mixers import options
from bench.mixers.base import Latents, Mixed, Mixer
from bench.mixers.combine import interpolate
from bench.mixers.sampling import Draws, beta, permutation, precision

VERSION = 2  # 2: with halves, a step that does not mix takes a batch of the usual size, not of twice that


@dataclass(frozen=True)
class Params:
    protocol: str = "halves"  # pairs and losses: "halves" (PowMix Sec. 5.5) or "joint" (MS-Mix Table 4, row 1)
    alpha: float = 1.0  # α of Beta(α, α), PowMix Sec. 5.5
    ratio: str = "step"  # one λ per "step" or per "pair"
    weight: float = 1.0  # weight of the mixed loss in the "joint" protocol
    criterion: str = "task"  # mixed loss: "task" (the backbone's own) or "mse"
    p_mix: float = 1.0  # share of the steps that mix
    start_epoch: int = 1  # first epoch that mixes

    def __post_init__(self) -> None:
        options.one_of("manifold", "protocol", self.protocol, ("halves", "joint"))
        options.one_of("manifold", "ratio", self.ratio, ("step", "pair"))
        options.one_of("manifold", "criterion", self.criterion, ("task", "mse"))
        options.positive("manifold", alpha=self.alpha)
        options.at_least("manifold", 0, weight=self.weight)
        options.probability("manifold", p_mix=self.p_mix)


class Mix(Mixer):
    def __init__(self, params: Params, dims: Mapping[str, tuple[int, ...]], label_bound: float) -> None:
        super().__init__(params, dims, label_bound)
        self.batch_multiplier = 2 if params.protocol == "halves" else 1

    def draw(self, size: int, generator: Generator, dtype: torch.dtype) -> Draws:
        """{"first" [n], "second" [n], "ratio" [n]} of a batch of `size` rows."""
        everyone = torch.arange(size, device=generator.device)
        if self.params.protocol == "halves":
            n = (size + 1) // 2
            first, second = everyone[:n], everyone[size - n :]
        else:
            n = size
            first, second = everyone, permutation(size, generator)
        ratio = beta(self.params.alpha, 1 if self.params.ratio == "step" else n, generator, dtype)
        return {"first": first, "second": second, "ratio": ratio.expand(n)}

    def apply(self, latents: Latents, targets: Tensor, draws: Draws) -> Mixed:
        first, second, ratio = draws["first"], draws["second"], draws["ratio"]
        mixed_targets = interpolate(targets, first, second, ratio)  # (n,)
        joint = self.params.protocol == "joint"
        return Mixed(
            latents={k: interpolate(v, first, second, ratio) for k, v in latents.items()},
            targets=mixed_targets,
            clean_weight=1.0 if joint else 0.0,
            mixed_weight=self.params.weight if joint else 1.0,
            loss=partial(F.mse_loss, target=mixed_targets) if self.params.criterion == "mse" else None,
            ratios={"label": ratio, "first": first, "second": second},
        )

    def mix(self, latents: Latents, targets: Tensor, generator: Generator) -> Mixed:
        return self.apply(latents, targets, self.draw(len(targets), generator, precision(targets)))
