"""The Mixer contract: latents and targets in, mixed latents and targets out. Training only.

Shapes: B batch, n mixed rows, latents {modality: [B, ...]}, targets [B]. Every random draw comes from the explicit
generator (on the latents' device), so that a mixer cannot disturb dropout or batch order. A mixer knows no backbone:
modality keys and widths are given to it. Mixed rows are always produced for all n rows without looking at tensor
values on the host (no .item(), no data-dependent `if`). Each mixer file defines `VERSION` (a literal int), `Params`
(frozen dataclass) and `Mix`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Generator, Tensor, nn

Latents = dict[str, Tensor]
Criterion = Callable[[Tensor, Tensor], Tensor]  # (prediction [n], target [n]) -> scalar mean


@dataclass
class Mixed:
    """What one training step does with the mixture.

    The step's loss is clean_weight * task(clean) + mixed_weight * L_mix + sum(losses) + the backbone's own losses,
    where L_mix is `loss(prediction of the mixed rows)` if given, else the backbone's criterion against `targets`.
    With clean_weight 0 the clean rows do not pass the fusion network at all.
    """

    latents: Latents  # modality -> [n, ...]
    targets: Tensor  # [n]
    clean_weight: float = 1.0
    mixed_weight: float = 1.0
    loss: Callable[[Tensor], Tensor] | None = None  # prediction [n] -> scalar
    losses: Mapping[str, Tensor] = field(default_factory=dict)  # extra scalar losses, already weighted
    ratios: Mapping[str, Tensor] = field(default_factory=dict)  # for tests and figures: lambda per modality, pairs
    noted: Mapping[str, Tensor] = field(default_factory=dict)  # detached scalars; history.csv has their means, train_mix_*


class Mixer(nn.Module):
    """Base class of every mixer. `params`: its file's Params. `dims`: modality -> shape of one sample's latent.

    probability: p_mix, the share of training steps that mix, which the loop draws; start_epoch: the first epoch that
    mixes. They are `params.p_mix` and `params.start_epoch`.
    """

    probed: bool = False  # losses of its own whose weight against the task history.csv shows (train/probe.py)
    batch_multiplier: int = 1  # 2: a step that mixes wants twice as many rows (Manifold Mixup as PowMix runs it)

    def __init__(self, params: Any, dims: Mapping[str, tuple[int, ...]], label_bound: float) -> None:
        super().__init__()
        self.params = params
        self.probability: float = params.p_mix
        self.start_epoch: int = params.start_epoch
        self.dims = dict(dims)
        self.label_bound = label_bound

    def mix(self, latents: Latents, targets: Tensor, generator: Generator) -> Mixed:
        """One batch's mixture. Called only with B >= 2."""
        raise NotImplementedError

    def adversary(
        self, latents: Latents, targets: Tensor, fuse: Callable[[Latents], Tensor], criterion: Criterion,
        generator: Generator,
    ) -> None:
        """Called before `mix` with detached latents; a mixer with an inner maximisation takes its own step here.
        `fuse` maps latents to predictions [n]; the gradient must not reach the backbone's parameters."""

    def own_parameters(self) -> list[nn.Parameter]:
        """Parameters that join the backbone's optimiser (group 'main'). Those a mixer steps itself are not listed."""
        return list(self.parameters())
