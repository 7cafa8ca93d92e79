"""AdvMixUp as MS-Mix describes it (Sec. 2.2 and 4.2): adversarial, sample-dependent, feature-level masks.

The description is two sentences: a compact mask generator gives a sample-dependent interpolation mask, trained by
min-max optimisation to produce hard mixtures near decision boundaries; extended to MSA by feeding features instead of
images and mixing each modality separately. Everything below is our reading; the report says so.

Shapes: B batch, D_m width of modality m (its latents flattened and side by side).
1. Pairs: a random permutation of the batch, shared by the modalities.
2. Mask: K_m = sigmoid(Lin(ReLU(Lin([z_i, z_j])))) in (0, 1)^D_m, hidden width r = min(128, D_m), last layer 0 at the
   start, so that K = 0.5 everywhere.
3. lambda ~ Beta(1, 1) per pair; K'_m = clamp(K_m + lambda - mean(K_m), 0, 1), so that the mask's mean follows lambda.
4. z~_m = K'_m z_i + (1 - K'_m) z_j; label ratio = mean over m of mean(K'_m), detached.
5. Inner step (maximise): on detached latents the generators ascend criterion(fuse(z~), y~) - rho * mean over m of
   mean((K'_m - lambda)^2), own Adam, one step. The penalty keeps the trivial maximiser away. The gradient is taken
   with respect to the generators alone: the backbone receives none. The fusion network takes part without dropout and
   with its stored batch statistics (train/step.py), so that this pass moves no random stream and no running mean.
6. Outer step (minimise): the masks of the same pairs and lambda are computed again without gradient; the loss is
   clean + xi * mixed with the backbone's criterion. Gradients reach the latents.
`inner_steps` 0 leaves the generators as they are; `group` off gives every latent its own mask generator and an equal
vote in the label ratio (on: latents of one modality are masked together, see sampling.modality_groups).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Generator, Tensor, nn

from bench.mixers import options
from bench.mixers.base import Criterion, Latents, Mixed, Mixer
from bench.mixers.combine import interpolate, joined
from bench.mixers.sampling import Draws, beta, modality_groups, permutation, precision

VERSION = 2  # 2: the inner pass is without dropout; masks are computed in float32 under autocast too


@dataclass(frozen=True)
class Params:
    alpha: float = 1.0  # α of Beta(α, α)
    xi: float = 1.0  # ξ, weight of the mixed loss
    rho: float = 0.1  # ρ, weight of the penalty on masks far from λ
    lr: float = 1e-3  # learning rate of the mask generators
    inner_steps: int = 1  # maximisation steps per training step
    hidden: int = 128  # widest hidden layer of a mask generator
    group: bool = True  # latents of one modality are masked together
    p_mix: float = 1.0  # share of the steps that mix
    start_epoch: int = 1  # first epoch that mixes

    def __post_init__(self) -> None:
        options.positive("advmixup", alpha=self.alpha, lr=self.lr, hidden=self.hidden)
        options.at_least("advmixup", 0, xi=self.xi, rho=self.rho, inner_steps=self.inner_steps)
        options.probability("advmixup", p_mix=self.p_mix)


def _mask_generator(width: int, hidden: int) -> nn.Sequential:
    last = nn.Linear(min(hidden, width), width)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return nn.Sequential(nn.Linear(2 * width, min(hidden, width)), nn.ReLU(), last, nn.Sigmoid())


class Mix(Mixer):
    def __init__(self, params: Params, dims: Mapping[str, tuple[int, ...]], label_bound: float) -> None:
        super().__init__(params, dims, label_bound)
        self.groups = modality_groups(dims) if params.group else {k: (k,) for k in dims}
        widths = {g: sum(torch.Size(dims[k]).numel() for k in keys) for g, keys in self.groups.items()}
        self.generators = nn.ModuleDict({g: _mask_generator(w, params.hidden) for g, w in widths.items()})
        # nothing of it is read on the host, so that a captured step may take it along
        self.optimiser = torch.optim.Adam(
            self.generators.parameters(), params.lr, maximize=True, fused=True, capturable=True
        )
        self.held: Draws | None = None  # the adversary's draws, used again by the `mix` that follows

    def own_parameters(self) -> list[nn.Parameter]:
        return []  # the mixer steps its generators itself

    def draw(self, size: int, generator: Generator, dtype: torch.dtype) -> Draws:
        """{"second" [B], "ratio" [B]} of a batch of `size` rows."""
        return {"second": permutation(size, generator), "ratio": beta(self.params.alpha, size, generator, dtype)}

    def masks(self, latents: Latents, draws: Draws) -> dict[str, Tensor]:
        """K'_m of every modality, [B, D_m], with gradient to the generators."""
        result = {}
        for modality, keys in self.groups.items():
            z = joined(latents, keys)  # (B, D_m)
            # not under autocast: it would go on using the weights as it cast them before the inner step
            with torch.autocast(z.device.type, enabled=False):
                z = z.to(precision(z))
                mask = self.generators[modality](torch.cat([z, z[draws["second"]]], 1))
            shift = draws["ratio"].unsqueeze(1) - mask.mean(1, keepdim=True)  # (B, 1)
            result[modality] = (mask + shift).clamp(0, 1)
        return result

    def blend(self, latents: Latents, targets: Tensor, second: Tensor, masks: dict[str, Tensor]) -> Mixed:
        """The mixture that given masks [B, D_m] make of the pairs (k, second[k])."""
        first = torch.arange(len(targets), device=targets.device)
        mixed = {}
        for modality, keys in self.groups.items():
            parts = masks[modality].split([latents[k][0].numel() for k in keys], 1)
            for key, part in zip(keys, parts, strict=True):
                mixed[key] = interpolate(latents[key], first, second, part.reshape(latents[key].shape))
        ratio = torch.stack([m.mean(1) for m in masks.values()]).mean(0).detach()  # (B,)
        return Mixed(
            latents={k: mixed[k] for k in latents},
            targets=interpolate(targets, first, second, ratio),
            mixed_weight=self.params.xi,
            ratios={"label": ratio, "first": first, "second": second, **masks},
        )

    def objective(
        self, latents: Latents, targets: Tensor, draws: Draws, fuse: Callable[[Latents], Tensor], criterion: Criterion
    ) -> Tensor:
        """What the inner step maximises, a scalar: the mixed loss less the penalty."""
        masks = self.masks(latents, draws)
        mixed = self.blend(latents, targets, draws["second"], masks)
        ratio = draws["ratio"].unsqueeze(1)  # (B, 1)
        spread = torch.stack([(m - ratio).square().mean() for m in masks.values()]).mean()
        return criterion(fuse(mixed.latents), mixed.targets) - self.params.rho * spread

    def adversary(
        self, latents: Latents, targets: Tensor, fuse: Callable[[Latents], Tensor], criterion: Criterion,
        generator: Generator,
    ) -> None:
        self.held = self.draw(len(targets), generator, precision(targets))
        parameters = list(self.generators.parameters())
        for _ in range(self.params.inner_steps):
            loss = self.objective(latents, targets, self.held, fuse, criterion)
            for p, gradient in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
                p.grad = gradient
            self.optimiser.step()
            self.optimiser.zero_grad()

    def mix(self, latents: Latents, targets: Tensor, generator: Generator) -> Mixed:
        draws = self.held or self.draw(len(targets), generator, precision(targets))
        self.held = None
        with torch.no_grad():
            masks = self.masks(latents, draws)
        return self.blend(latents, targets, draws["second"], masks)
