"""MS-Mix (Zhu et al.): emotion-sensitive mixing, Eq. 3-18 and Algorithm 1.

SASS  pairs of the batch whose cosine similarity, averaged over the modalities, exceeds delta         Eq. 3-5
SIG   intensity I^m = f_phi(z^m) -> weights omega -> a ratio lambda^m per modality and pair           Eq. 6-11
SAL   KL between softmax over the batch of the labels and of each modality's intensities              Eq. 15-17
Loss  task(clean) + xi_1 L_mixMSE + xi_2 L_SAL; clean and mixed rows go through the fusion together    Eq. 18

Shapes: B batch and number of mixed rows. Mixing acts on the latents before late fusion. The latents of one modality
(MISA's private and shared ones, say) are concatenated for similarity and intensity and share that modality's ratio
(sampling.modality_groups); `group` off: every latent is a modality.

What the paper leaves open or contradicts, our reading, and the switch to the other one:
- Eq. 5 prints a scalar where a matrix is meant: candidates are the pairs i < j of S with s_ij > delta. `similarity`
  "minmax" thresholds the off-diagonal min-max scaled S instead, as the release does.
- Fewer than B candidates: drawn with replacement; none: every row takes its most similar other row.
- Eq. 6: a latent vector is a sequence of one token, a [T, D] latent one of T tokens; `attend` "batch": the samples
  attend to each other. Linear maps have biases. GlobalPool and widths: bench/mixers/intensity.py.
- Eq. 9 is called a min-max normalisation of I but prints |I_i| over the range of the signed I, where omega leaves
  [0, 1]. `salience` "abs": min-max of |I| (as in the release); "printed": to the letter.
- Eq. 10 is 0/0 for two weakest samples: 1e-8 is added to either weight, which gives 1/2.
- Eq. 13 and Eq. 14 (also Algorithm 1) differ by lambda (1 - lambda) (y_i - y_j)^2: the same gradient for the
  prediction, but Eq. 13 also pushes the ratio. `mix_loss` "eq13" (f(x^) of both terms is the mixture's prediction,
  the product is taken per pair, then averaged) or "eq14". `detach_ratios`: no gradient to the ratios.
- Eq. 15 compares tanh outputs with labels in [-3, 3], to the letter with `sal_labels` "raw"; "bounded" divides the
  labels by the label bound, so that the KL can reach 0.
- The order of a pair carries no meaning (Beta(alpha, alpha) is symmetric); lambda_base is drawn per pair.
- SASS off: a random permutation of the batch. SIG off: lambda_base alone; "ground-truth": I = |y| for every modality
  (Table 4). SAL needs intensities that can be trained.
- `variant` "release": pairs, predictors, weights and alignment of the released code (bench/mixers/msmix_release.py).
  The release also mixes after TFN and LMF put a constant 1 in front of each latent. That is `include_one` of those
  backbones, which a mixer cannot reach: the rows "MS-Mix (release)" of the tables set it, `variant` alone does not.
- The weakest sample has omega 0, and d lambda / d omega grows as 1 / omega next to it: large ratio gradients are the
  method's own.

What the printed equations come to, which history.csv shows in every run:
- L_SAL outweighs the task (alignment_loss_share, alignment_gradient_share: train/probe.py). Eq. 15 takes the softmax
  over the batch of intensities in (-1, 1) and of labels in [-3, 3]. On MOSI's training labels the KL is 0.6 nats per modality
  where intensities are flat and 0.1 at the best that tanh could do. Eq. 16 divides it by B once more; Eq. 17 and 18
  multiply the sum over three modalities by 500: 15 at batch 64 and 57 at batch 16 with flat intensities. In the
  reference runs (MOSI, means over epochs) xi_2 L_SAL is 17 to 19 with LMF at batch 64 and 48 with Self-MM at batch 16,
  beside a task loss of 0.8 to 1.0; with LMF 77 % of the gradient into the encoders are its own. LMF's MAE on MOSI's
  validation split follows its weight (five seeds): plain 0.865, without SAL 0.879, beta 10 0.887, beta 100 0.901, as
  printed (beta 1000) 0.964; the row "MS-Mix (release)" 0.894 (docs/findings.md). `sal_labels` "bounded" removes the
  mismatch of ranges, not the weight.
- delta = 0.2 lets nearly every pair pass with TFN, LMF and MulT (MOSI, as printed, means of train_mix_pairs_passing over
  epochs: 0.97 with TFN, five seeds; 0.9996 with LMF, seed 101; 0.995 in the first epoch of MulT, seed 1111,
  benchmarks/mult_pairs.csv): audio and vision of TFN and LMF have no negative entry. "+ SASS" is there Manifold Mix with
  other draws.
- train_mix_lambda_std: standard deviation of lambda^m over the pairs, mean over the modalities; lambda_base alone,
  Beta(2, 2), has 0.224, and Eq. 10 halves it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial, reduce
from operator import add

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from bench.errors import BenchError
from bench.mixers import msmix_release as release
from bench.mixers import options
from bench.mixers.base import Latents, Mixed, Mixer
from bench.mixers.combine import interpolate, joined, sequence, sequence_shape
from bench.mixers.intensity import AttentionIntensity, LinearIntensity, ReleaseIntensity
from bench.mixers.sampling import Draws, beta, modality_groups, pair_draws, pairs_above, permutation, precision

VERSION = 1
_EPS = 1e-8  # ε, Eq. 9


@dataclass(frozen=True)
class Params:
    variant: str = "paper"  # functions of the "paper" or of the "release"
    sass: bool = True  # pairs by similarity; off: a random permutation
    sig: str = "attention"  # intensities: "attention", "linear", "ground-truth" or "off"
    sal: bool = True  # the alignment loss L_SAL
    delta: float | None = None  # δ; None: 0.2 (Sec. 3.2), in the release 0.4
    alpha: float = 2.0  # α of Beta(α, α), Sec. 4.3
    xi1: float = 0.7  # ξ_1, weight of the mixed loss
    xi2: float = 0.5  # ξ_2, weight of the alignment loss
    beta: float = 1000.0  # β, scale of the alignment loss, Sec. 3.4
    heads: int = 4  # h; 6 on SIMS
    mix_loss: str = "eq13"  # mixed loss: "eq13" or "eq14"
    similarity: str = "cosine"  # similarity of a pair: "cosine", or "minmax" scaled (release)
    attend: str = "tokens"  # what attends: a sample's "tokens", or the samples of the "batch"
    salience: str = "abs"  # normalised intensity of Eq. 9: "abs" (release) or "printed"
    sal_labels: str = "raw"  # labels of the alignment loss: "raw", or divided by their bound ("bounded")
    detach_ratios: bool = False  # no gradient to the ratios
    group: bool = True  # latents of one modality share a ratio; off: every latent is a modality
    p_mix: float = 1.0  # share of the steps that mix
    start_epoch: int = 1  # first epoch that mixes

    def __post_init__(self) -> None:
        choices = {
            "variant": ("paper", "release"), "sig": ("attention", "linear", "ground-truth", "off"),
            "mix_loss": ("eq13", "eq14"), "similarity": ("cosine", "minmax"), "attend": ("tokens", "batch"),
            "salience": ("abs", "printed"), "sal_labels": ("raw", "bounded"),
        }
        for name, allowed in choices.items():
            options.one_of("msmix", name, getattr(self, name), allowed)
        options.positive("msmix", alpha=self.alpha)
        options.at_least("msmix", 1, heads=self.heads)
        options.at_least("msmix", 0, xi1=self.xi1, xi2=self.xi2, beta=self.beta)
        options.probability("msmix", p_mix=self.p_mix)
        if self.sal and self.sig not in ("attention", "linear"):
            raise BenchError(f"mixer 'msmix': sal needs a predictor, but sig is '{self.sig}'; set sal to false")
        if self.variant == "release" and self.sig not in ("attention", "off"):
            raise BenchError(f"mixer 'msmix': the release has no sig '{self.sig}'; set variant to paper")


def mean_cosine(features: Iterable[Tensor]) -> Tensor:
    """Similarity S [B, B], the mean of the modalities' cosine matrices (Eq. 3-4); features [B, D_m]."""
    unit = [F.normalize(f.to(precision(f)), dim=1) for f in features]
    with torch.autocast(unit[0].device.type, enabled=False):  # a threshold wants more than bf16
        return torch.stack([z @ z.T for z in unit]).mean(0)


def salience(intensity: Tensor, printed: bool = False) -> Tensor:
    """Weights omega [..., B] of signed intensities [..., B] (Eq. 9)."""
    magnitude = intensity.abs()
    ranged = intensity if printed else magnitude
    # two minima, in this order: gradients add up in the order of the operations, and another one rounds otherwise
    return (magnitude - ranged.amin(-1, keepdim=True)) / (
        ranged.amax(-1, keepdim=True) - ranged.amin(-1, keepdim=True) + _EPS
    )


def mixing_ratio(first: Tensor, second: Tensor, base: Tensor) -> Tensor:
    """lambda^m of pairs whose members weigh `first` and `second` (Eq. 10), [..., n]; base [n]."""
    return ((first + _EPS) / (first + second + 2 * _EPS) + base) / 2


def mixed_loss(prediction: Tensor, first: Tensor, second: Tensor, ratio: Tensor) -> Tensor:
    """L_mixMSE of Eq. 13, a scalar; predictions of the mixtures, both parents' labels and lambda^L, all [n]."""
    return (ratio * (prediction - first).square() + (1 - ratio) * (prediction - second).square()).mean()


def alignment(intensities: Iterable[Tensor], targets: Tensor) -> Tensor:
    """Sum over the modalities of KL(P^L || P^m) / B (Eq. 15-17 without beta); intensities and targets [B]."""
    label = torch.log_softmax(targets, 0)
    predicted = torch.log_softmax(torch.stack(list(intensities)), 1)  # (M, B)
    return reduce(add, ((label.exp() * (label - predicted)).sum(1) / len(targets)).unbind())


class Mix(Mixer):
    def __init__(self, params: Params, dims: Mapping[str, tuple[int, ...]], label_bound: float) -> None:
        super().__init__(params, dims, label_bound)
        self.release = params.variant == "release"
        self.probed = params.sal
        self.delta = params.delta if params.delta is not None else release.DELTA if self.release else 0.2
        self.groups = modality_groups(dims) if params.group else {k: (k,) for k in dims}
        self.predictors = nn.ModuleDict()
        if params.sig in ("attention", "linear"):
            for modality, keys in self.groups.items():
                self.predictors[modality] = self._predictor(sequence_shape([dims[k] for k in keys])[1])

    def _predictor(self, width: int) -> nn.Module:
        if self.params.sig == "linear":
            return LinearIntensity(width)
        if self.release:
            return ReleaseIntensity(width, self.params.heads)
        return AttentionIntensity(width, self.params.heads, self.params.attend)

    def draw(self, size: int, generator: Generator, dtype: torch.dtype) -> Draws:
        """Draws of the pairs, and lambda_base "base" [B]."""
        if not self.params.sass:
            draws = {"second": permutation(size, generator)}
        else:
            draws = (release.pair_draws if self.release else pair_draws)(size, generator)
        return draws | {"base": beta(self.params.alpha, size, generator, dtype)}

    @torch.no_grad()
    def similarity(self, latents: Latents) -> Tensor:
        """What delta is held against, [B, B]."""
        similarity = mean_cosine(joined(latents, keys) for keys in self.groups.values())
        minmax = self.release or self.params.similarity == "minmax"
        return release.scaled_similarity(similarity) if minmax else similarity

    def passing(self, similarity: Tensor) -> Tensor:
        """Share of the pairs i < j of `similarity` [B, B] above delta, a scalar."""
        above = (similarity > self.delta).triu(1).sum()
        return 2 * above / (len(similarity) * (len(similarity) - 1))

    def pairs(self, similarity: Tensor | None, draws: Draws) -> tuple[Tensor, Tensor]:
        """SASS: (first [B], second [B]); without it, `similarity` None, the permutation that was drawn."""
        if similarity is None:
            return torch.arange(len(draws["second"]), device=draws["second"].device), draws["second"]
        return (release.pairs if self.release else pairs_above)(similarity, self.delta, draws)

    def intensities(self, latents: Latents, targets: Tensor) -> dict[str, Tensor]:
        """SIG: I^m of the un-mixed batch, modality -> [B]; empty where SIG is off."""
        if self.params.sig == "off":
            return {}
        if self.params.sig == "ground-truth":
            return {m: targets.abs() for m in self.groups}
        tokens = {m: sequence(latents, keys) for m, keys in self.groups.items()}  # (B, T, D)
        with torch.autocast(targets.device.type, enabled=False):  # min-max scaling magnifies rounding
            return {m: self.predictors[m](x.to(precision(x))) for m, x in tokens.items()}

    def _weights(self, intensities: Mapping[str, Tensor]) -> Tensor:
        """omega, [M, B]."""
        if self.params.salience == "printed" and not self.release:  # stacked, its gradients would add up in another order
            return torch.stack([salience(i, printed=True) for i in intensities.values()])
        if not self.release:
            return salience(torch.stack(list(intensities.values())))
        several = {m: sequence_shape([self.dims[k] for k in keys])[0] > 1 for m, keys in self.groups.items()}
        return torch.stack([release.salience(i, several[m]) for m, i in intensities.items()])

    def ratios(self, intensities: Mapping[str, Tensor], first: Tensor, second: Tensor, base: Tensor) -> Tensor:
        """lambda^m, [M, n], in the order of the modalities; `base` for all of them where SIG is off."""
        if not intensities:
            return base.expand(len(self.groups), -1)
        weights = self._weights(intensities)
        ratios = mixing_ratio(weights[:, first], weights[:, second], base)
        return ratios.detach() if self.params.detach_ratios else ratios

    def alignment(self, intensities: Mapping[str, Tensor], targets: Tensor) -> Tensor:
        """L_SAL, a scalar (Eq. 17)."""
        if self.release:
            return self.params.beta * release.alignment(intensities.values(), targets)
        scale = self.label_bound if self.params.sal_labels == "bounded" else 1.0
        return self.params.beta * alignment(intensities.values(), targets / scale)

    def blend(self, latents: Latents, targets: Tensor, first: Tensor, second: Tensor, base: Tensor) -> Mixed:
        """The mixture of given pairs [n] under given base ratios [n]."""
        p = self.params
        intensities = self.intensities(latents, targets)
        ratios = self.ratios(intensities, first, second, base)
        ratio = ratios.mean(0) if intensities else base  # lambda^L (n,), Eq. 11
        of_modality = dict(zip(self.groups, ratios.unbind(), strict=True))
        of_latent = {key: of_modality[m] for m, keys in self.groups.items() for key in keys}
        mixed_targets = interpolate(targets, first, second, ratio)  # Eq. 2
        if p.mix_loss == "eq13":
            loss = partial(mixed_loss, first=targets[first], second=targets[second], ratio=ratio)
        else:
            loss = partial(F.mse_loss, target=mixed_targets)  # Eq. 14
        return Mixed(
            latents={k: interpolate(v, first, second, of_latent[k]) for k, v in latents.items()},
            targets=mixed_targets,
            mixed_weight=p.xi1,
            loss=loss,
            losses={"alignment": p.xi2 * self.alignment(intensities, targets)} if p.sal else {},
            ratios={"label": ratio, "first": first, "second": second, **of_modality},
            noted={"lambda_std": ratios.detach().std(1, correction=0).mean()},
        )

    def apply(self, latents: Latents, targets: Tensor, draws: Draws) -> Mixed:
        similarity = self.similarity(latents) if self.params.sass else None
        mixed = self.blend(latents, targets, *self.pairs(similarity, draws), draws["base"])
        passing = {} if similarity is None else {"pairs_passing": self.passing(similarity)}
        return replace(mixed, noted={**mixed.noted, **passing})

    def mix(self, latents: Latents, targets: Tensor, generator: Generator) -> Mixed:
        return self.apply(latents, targets, self.draw(len(targets), generator, precision(targets)))
