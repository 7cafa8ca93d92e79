"""What a mixer's own losses weigh against the task, once an epoch: columns of history.csv, nothing that is trained on.

For a mixer that says so (`Mixer.probed`), per loss of its own:

    <loss>_loss_share      its part of the epoch's mean total loss
    <loss>_gradient_share  its part of the gradient that reaches the encoders: the norm of its gradient with respect to
                           the latents over the sum of the norms of the clean, the mixed and the mixer's own losses

The gradients are those of the first training batch in file order, in evaluation mode and with draws of their own: no
weight, statistic or random stream of the training changes. It is no part of a captured step.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from bench.data.resident import Resident
from bench.mixers.base import Mixer
from bench.models.base import Backbone


def shares(
    model: Backbone, mixer: Mixer, data: Resident, task: Callable[[Tensor, Tensor], Tensor], batch_size: int,
    train: Mapping[str, float],
) -> dict[str, float]:
    """{column: share in [0, 1]}; empty where the mixer has nothing to show. train: the epoch's mean losses by name."""
    if not mixer.probed:
        return {}
    norms = gradient_norms(model, mixer, data, task, batch_size)
    own = [name for name in norms if name not in ("task", "mixed")]
    total = sum(norms.values())
    found = {f"{name}_loss_share": train[name] / train["total"] for name in own if name in train}
    return found | {f"{name}_gradient_share": norms[name] / total if total else 0.0 for name in own}


def gradient_norms(
    model: Backbone, mixer: Mixer, data: Resident, task: Callable[[Tensor, Tensor], Tensor], batch_size: int
) -> dict[str, float]:
    """Loss -> norm of its gradient with respect to all latents of the probe batch, weights included."""
    device = data.device
    training = model.training, mixer.training
    cuda = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda):  # some models sample in evaluation too
        model.eval(), mixer.eval()
        rows = torch.arange(min(batch_size, data.size("train")), device=device)
        with torch.no_grad():
            batch = data.batch("train", rows)
            latents = model.encode(batch).latents
        latents = {k: v.detach().requires_grad_() for k, v in latents.items()}
        mixed = mixer.mix(latents, batch["label"], torch.Generator(device).manual_seed(0))
        mixture = model.fuse(mixed.latents).prediction
        losses = {"mixed": mixed.mixed_weight * (mixed.loss(mixture) if mixed.loss else task(mixture, mixed.targets))}
        if mixed.clean_weight:
            losses["task"] = mixed.clean_weight * task(model.fuse(latents).prediction, batch["label"])
        losses |= mixed.losses
        norms = torch.stack([_norm(loss, list(latents.values())) for loss in losses.values()])
    model.train(training[0]), mixer.train(training[1])
    return dict(zip(losses, norms.tolist(), strict=True))


def _norm(loss: Tensor, latents: list[Tensor]) -> Tensor:
    """The L2 norm of a loss's gradient over all latents."""
    found = torch.autograd.grad(loss, latents, retain_graph=True, allow_unused=True)
    return torch.stack([g.double().square().sum() for g in found if g is not None]).sum().sqrt()
