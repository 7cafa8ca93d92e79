"""PowMix (Georgiou et al.), Algorithm 1 and Eq. 5-9: sparse, reweighted, modality-wise mixing of many rows.

    a_m = ReLU(mean_d H_m) / sum_m' ReLU(mean_d H_m')                       Eq. 5, mixing factor reweighting
    Lambda_m ~ Dirichlet(alpha_m), alpha_m ~ U(0.5, 2) per row              anisotropic mixing
    M ~ Bernoulli(P / B), P ~ U(2, 4) elementwise                           dynamic mixing, shared mask
    Lambda~_m = rows of (a_m^T * M * Lambda_m) divided by their sum         Eq. 6
    H~_m = Lambda~_m H_m,  y~_m = Lambda~_m y                               Eq. 7-8
    y~ = mean over m of y~_m                                                Eq. 9, cross-modal label mixing

Shapes: B batch, n = n_O mixed rows, M modalities. Every latent is a modality of its own, as in the paper's MISA
(Sec. 5.4): six latents give M = 6 in Eq. 5 and Eq. 9. Line 8 of Algorithm 1 prints y_m where Eq. 8 has y.

The five components and their switches: `n_mixed` (None: as many as the batch has), `reweight`, `anisotropic` (off:
the first Lambda serves all), `dynamic` (off: no mask), `label_mixing` (off: the label of the first modality; the
paper gives no alternative). `mask_sharing` off draws one mask per modality (Table 3).

What the paper leaves undefined, and our choices:
- Eq. 5 is 0/0 where no modality of a sample has a positive mean: a_m = (q_m + eps) / (sum q + M eps), which gives 1/M
  there, and keeps a modality whose mean is negative on the whole batch well defined (Eq. 6 is scale-free per row).
- A mask row may be empty (3.6 % of the rows at B = 16): it gets one uniformly chosen column. A row with one entry is
  an un-mixed example and stays. P / B above 1 acts as 1. `mask_rows` "redraw": rows with no or one entry are drawn
  again, as in an implementation found in the open, so that every row mixes at least two examples.
- `alpha_per` "row": one alpha_m for each of the n_O rows, since alpha_m is said to lie in R^{n_O}; "column", as in that
  implementation: one for each of the B examples, the same in all rows of the matrix. It also has `eps` 1e-5.
- `detach_weights`: a_m is called a weight, so no gradient passes through it; off: it does.
- Latents of rank 3: the mean of Eq. 5 is over all axes but the batch.
- `clean_plus_mixed`: a mixing step trains on the mixtures alone (the paper sets itself apart from methods that need
  several forward passes), or on clean plus mixed rows.
- p_mix and the tuned n_O are not printed: 0.5 and the starting value 256 (Sec. 5.5).
"""

from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from bench.mixers import options
from bench.mixers.base import Latents, Mixed, Mixer
from bench.mixers.combine import weigh
from bench.mixers.sampling import Draws, dirichlet, precision, redrawn_masks, sparse_masks

VERSION = 1


@dataclass(frozen=True)
class Params:
    n_mixed: int | None = 256  # mixed rows, n_O; None: the batch size
    p_mix: float = 0.5  # share of the steps that mix, Sec. 5.5; value ours
    alpha_range: tuple[float, float] = (0.5, 2.0)  # range that α_m ~ U(0.5, 2) is drawn from
    mask_range: tuple[float, float] = (2.0, 4.0)  # range that P ~ U(2, 4) is drawn from; Fig. 3 varies it
    anisotropic: bool = True  # a Λ per modality; off: the first one serves all
    reweight: bool = True  # mixing factor reweighting, Eq. 5
    mask_sharing: bool = True  # one mask for all modalities; off: one each
    dynamic: bool = True  # the mask M; off: none
    label_mixing: bool = True  # Eq. 9; off: the label of the first modality
    eps: float = 1e-4  # ε of Eq. 5; ours
    mask_rows: str = "repair"  # rows of the mask without an entry get one ("repair"), or are drawn again ("redraw")
    alpha_per: str = "row"  # one alpha for each mixed "row", or for each "column", an example
    detach_weights: bool = True  # no gradient through Eq. 5
    clean_plus_mixed: bool = False  # a mixing step trains on clean rows too
    start_epoch: int = 1  # first epoch that mixes; Self-MM: 2 on MOSI, 3 on SIMS and MOSEI (Sec. 5.5)

    def __post_init__(self) -> None:
        options.at_least("powmix", 1, n_mixed=1 if self.n_mixed is None else self.n_mixed)
        options.probability("powmix", p_mix=self.p_mix)
        options.interval("powmix", alpha_range=self.alpha_range, mask_range=self.mask_range)
        options.positive("powmix", eps=self.eps)
        options.one_of("powmix", "mask_rows", self.mask_rows, ("repair", "redraw"))
        options.one_of("powmix", "alpha_per", self.alpha_per, ("row", "column"))


def attention_weights(latents: Latents, eps: float) -> Tensor:
    """Mixing factor attention weights a_m (Eq. 5), [M, B]; they sum to 1 over the modalities."""
    q = torch.stack([v.to(precision(v)).flatten(1).mean(1).relu() for v in latents.values()])  # (M, B)
    return (q + eps) / (q.sum(0) + len(q) * eps)


def mixing_matrices(attention: Tensor, masks: Tensor, weights: Tensor) -> Tensor:
    """Reweighted mixing matrices Lambda~_m (Eq. 6): attention [M, B], masks and weights [M or 1, n, B] -> [M, n, B]."""
    product = attention.unsqueeze(1) * masks * weights
    return product / product.sum(-1, keepdim=True)


class Mix(Mixer):
    def draw(self, size: int, generator: Generator, dtype: torch.dtype) -> Draws:
        """{"weights" [M, n, B], "masks" bool [M or 1, n, B]} of a batch of `size` rows. The order of the draws is
        such that a switch changes nothing drawn before it: two variants under one seed stay paired."""
        p, modalities, n = self.params, len(self.dims), self.params.n_mixed or size
        per_column = p.alpha_per == "column"
        weights = dirichlet(modalities, n, size, p.alpha_range, generator, dtype, per_column=per_column)
        masks = sparse_masks(1, n, size, p.mask_range, generator, dtype)
        if not p.mask_sharing:
            more = sparse_masks(modalities - 1, n, size, p.mask_range, generator, dtype)
            masks = torch.cat([masks, more])
        if p.mask_rows == "redraw":  # a repaired row has one entry, and is drawn again too
            masks = redrawn_masks(masks, 2, p.mask_range, generator, dtype)
        return {"weights": weights, "masks": masks}

    def matrices(self, latents: Latents, draws: Draws) -> Tensor:
        """Lambda~_m of every modality, [M, n, B], after the switches."""
        p, weights, masks = self.params, draws["weights"], draws["masks"]
        attention = attention_weights(latents, p.eps)  # (M, B)
        if p.detach_weights:
            attention = attention.detach()
        if not p.reweight:
            attention = torch.full_like(attention, 1 / len(attention))
        if not p.anisotropic:
            weights = weights[:1]
        if not p.dynamic:
            masks = torch.ones_like(masks)
        return mixing_matrices(attention, masks, weights)

    def apply(self, latents: Latents, targets: Tensor, draws: Draws) -> Mixed:
        matrices = self.matrices(latents, draws)  # (M, n, B)
        labels = torch.stack([weigh(w, targets) for w in matrices])  # (M, n), Eq. 8
        return Mixed(
            latents={k: weigh(w, v) for w, (k, v) in zip(matrices, latents.items(), strict=True)},  # Eq. 7
            targets=labels.mean(0) if self.params.label_mixing else labels[0],  # Eq. 9
            clean_weight=1.0 if self.params.clean_plus_mixed else 0.0,
            ratios=dict(zip(latents, matrices, strict=True)),
        )

    def mix(self, latents: Latents, targets: Tensor, generator: Generator) -> Mixed:
        return self.apply(latents, targets, self.draw(len(targets), generator, precision(targets)))
