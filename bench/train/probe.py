"""What a mixer's own losses weigh against the task, once an epoch: columns of history.csv, nothing that is trained on.

For a mixer that says so (`Mixer.probed`), per loss of its own:

    <loss>_loss_share      its part of the epoch's mean total loss
    <loss>_gradient_share  its part of the gradient that reaches the encoders: the norm of its gradient with respect to
                           the latents over the sum of the norms of the clean, the mixed and the mixer's own losses

The gradients are those of the first training batch in file order, in evaluation mode and with draws of their own: no
weight, statistic or random stream of the training changes. It is a piece of work of its own for the engine.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from bench.data.resident import Resident
from bench.mixers.base import Mixer
from bench.models.base import Backbone
from bench.train.engine import Eager
from bench.train.step import noiseless

Task = Callable[[Tensor, Tensor], Tensor]


class Probe:
    """The gradient norms of one training, epoch by epoch: `norms` is on the device, empty where the mixer has nothing to
    show, and read by whoever reads an epoch's other numbers."""

    def __init__(self, model: Backbone, mixer: Mixer, data: Resident, task: Task, batch_size: int) -> None:
        self.model, self.mixer, self.data, self.task = model, mixer, data, task
        self.rows = torch.arange(min(batch_size, data.size("train")), device=data.device)
        self.generator = torch.Generator(data.device)
        self.names: list[str] = []  # of the losses
        self.norms = torch.zeros(0, dtype=torch.float64, device=data.device)

    def run(self, engine: Eager) -> None:
        """Fill `norms`. The model is in evaluation mode, and the mixer is when it returns."""
        if not self.mixer.probed:
            return
        self.mixer.eval()
        device = self.data.device
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):  # some models sample in evaluation too
            self.generator.manual_seed(0)  # the same draws in every epoch
            engine.run(("probe", self.model.variant, self.data.variant), self._work, (self.generator,))

    def _work(self) -> None:
        found = gradient_norms(self.model, self.mixer, self.data.batch("train", self.rows), self.task, self.generator)
        if not self.names:
            self.names, self.norms = list(found), torch.zeros(len(found), dtype=torch.float64, device=self.data.device)
        self.norms.copy_(torch.stack(list(found.values())))

    def shares(self, norms: list[float], train: Mapping[str, float]) -> dict[str, float]:
        """{column: share in [0, 1]} of `norms` as they were read; train: the epoch's mean losses by name."""
        total = sum(norms)
        each = {n: v for n, v in zip(self.names, norms, strict=True) if n not in ("task", "mixed")}
        found = {f"{name}_loss_share": train[name] / train["total"] for name in each if name in train}
        return found | {f"{name}_gradient_share": v / total if total else 0.0 for name, v in each.items()}


def gradient_norms(
    model: Backbone, mixer: Mixer, batch: dict[str, Tensor], task: Task, generator: torch.Generator
) -> dict[str, Tensor]:
    """Loss -> norm (float64 scalar) of its gradient with respect to all latents of a batch, weights included. Model and
    mixer are in evaluation mode."""
    with torch.no_grad():
        latents = model.encode(batch).latents
    latents = {k: v.detach().requires_grad_() for k, v in latents.items()}
    mixed = mixer.mix(latents, batch["label"], generator)
    with noiseless(model):
        mixture = model.fuse(mixed.latents).prediction
        clean = model.fuse(latents).prediction if mixed.clean_weight else None
    losses = {"mixed": mixed.mixed_weight * (mixed.loss(mixture) if mixed.loss else task(mixture, mixed.targets))}
    if clean is not None:
        losses["task"] = mixed.clean_weight * task(clean, batch["label"])
    return {name: _norm(loss, list(latents.values())) for name, loss in {**losses, **mixed.losses}.items()}


def _norm(loss: Tensor, latents: list[Tensor]) -> Tensor:
    """The L2 norm of a loss's gradient over all latents."""
    found = torch.autograd.grad(loss, latents, retain_graph=True, allow_unused=True)
    return torch.stack([g.double().square().sum() for g in found if g is not None]).sum().sqrt()
