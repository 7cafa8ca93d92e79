"""The training loop: one job, resident data, selection on validation only.

No value is read back from the device inside an epoch: losses accumulate on the device and are read once per epoch.
The test split is not passed in at all.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from bench.data.resident import Resident
from bench.errors import BenchError
from bench.metrics import evaluate
from bench.mixers.base import Mixer
from bench.models.base import Backbone, Pass, Update
from bench.train import probe
from bench.train.optim import Steps
from bench.train.precision import native_bf16
from bench.train.protocol import Protocol

EVAL_BATCH = 256
_CRITERIA = {"l1": F.l1_loss, "mse": F.mse_loss, "bce": F.binary_cross_entropy_with_logits}


class Diverged(BenchError):
    """A training or validation loss is not finite."""


@dataclass
class Fit:
    """What a training leaves: the selected weights are loaded into the model when `fit` returns."""

    best_epoch: int
    epochs: int
    updates: int
    best_valid_loss: float
    history: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True)
class Streams:
    """Independent random streams of one job (bench.seeds): batch order, mixing decisions, mixing draws."""

    order: np.random.Generator
    decisions: np.random.Generator
    mixing: torch.Generator


def criterion(p: Protocol) -> Callable[[Tensor, Tensor], Tensor]:
    """Task criterion of a protocol: (prediction [n], target [n]) -> scalar mean."""
    return _CRITERIA[p.loss]


def epoch_batches(n: int, p: Protocol, multiplier: int, order: np.random.Generator) -> list[np.ndarray]:
    """Row indices of each training batch. A last batch of one row is dropped: batch statistics need two."""
    size = p.batch_size * multiplier
    rows = order.permutation(n)
    batches = [rows[i : i + size] for i in range(0, n, size)]
    if (p.drop_last and len(batches[-1]) < size or len(batches[-1]) < 2) and len(batches) > 1:
        batches.pop()
    return batches


def step_losses(
    model: Backbone, mixer: Mixer | None, batch: dict[str, Tensor], task: Callable[[Tensor, Tensor], Tensor],
    generator: torch.Generator | None,
) -> tuple[dict[str, Tensor], Any]:
    """Losses of one step and what the model's hooks need: ({name: scalar, "total": scalar}, (encoded, output)). What
    the mixer notes beside them is under "mix_<name>" and in no sum.

    One encoder pass, then one pass of the fusion network over the clean rows followed by the mixed rows; the clean
    rows are left out where the mixer trains on mixtures alone. `mixer` None: a clean step.
    """
    y = batch["label"]
    encoded = model.encode(batch)
    if mixer is None:
        output = model.fuse(encoded.latents)
        losses = {"task": task(output.prediction, y)}
    else:
        mixer.adversary(
            {k: v.detach() for k, v in encoded.latents.items()}, y, lambda z: model.fuse(z).prediction, task, generator
        )
        mixed = mixer.mix(encoded.latents, y, generator)
        if mixed.clean_weight:
            both = model.fuse({k: torch.cat([v, mixed.latents[k]]) for k, v in encoded.latents.items()})
            n = len(y)
            output = type(both)(both.prediction[:n], {k: v[:n] for k, v in both.features.items()})
            mixed_prediction = both.prediction[n:]
            losses = {"task": mixed.clean_weight * task(output.prediction, y)}
        else:
            output, losses = None, {}
            mixed_prediction = model.fuse(mixed.latents).prediction
        of_mixture = mixed.loss(mixed_prediction) if mixed.loss else task(mixed_prediction, mixed.targets)
        losses |= {"mixed": mixed.mixed_weight * of_mixture, **mixed.losses}
    losses |= model.aux_losses(batch, encoded, output)
    losses["total"] = sum(losses.values())
    if mixer is not None:
        losses |= {f"mix_{name}": value for name, value in mixed.noted.items()}  # no losses: after the sum
    return losses, (encoded, output)


def stage_losses(update: Update, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """Losses of an update that has its own: {"<update>_<loss>": scalar, "total": their sum}."""
    losses = update.losses(batch)
    return {f"{update.name}_{k}": v for k, v in losses.items()} | {"total": sum(losses.values())}


def pass_batches(one: Pass, n: int, p: Protocol, multiplier: int, order: np.random.Generator) -> list[np.ndarray]:
    """Row indices of the batches of one pass, its share of them."""
    batches = epoch_batches(n, p, multiplier, order)
    return batches[: max(int(len(batches) * one.share), 1)]


def evaluation_batches(model: Backbone, rows: Tensor) -> tuple[Tensor, ...]:
    """Rows [n] of a split in batches as large as the model is evaluated in."""
    return rows.split(model.eval_batch or EVAL_BATCH)


@torch.no_grad()
def predict(model: Backbone, data: Resident, split: str, rows: Tensor | None = None) -> np.ndarray:
    """Predictions [n] float64 of rows of a split (all in file order by default), evaluation mode."""
    model.eval()
    rows = torch.arange(data.size(split), device=data.device) if rows is None else rows
    parts = [model(data.batch(split, r)).prediction.float() for r in evaluation_batches(model, rows)]
    return torch.cat(parts).cpu().numpy().astype(np.float64)


def task_loss(prediction: np.ndarray, label: np.ndarray, p: Protocol) -> float:
    """The task criterion over a whole split, every sample weighted alike (M-SENA averages over batches)."""
    return float(criterion(p)(torch.from_numpy(prediction), torch.from_numpy(label.astype(np.float64))))


def fit(
    model: Backbone, mixer: Mixer, data: Resident, p: Protocol, streams: Streams, family: str,
    report: Callable[[str], None] = lambda line: None,
) -> Fit:
    """Train with early stopping on the validation loss; leaves the best epoch's weights in the model.

    `data` needs the splits "train" and "valid" only. Raises Diverged where a loss is not finite.
    """
    task = criterion(p)
    if p.checkpointing:
        checkpoint_encoders(model)
    steps = Steps(model, mixer.own_parameters(), p, _updates_per_epoch(model, data.size("train"), mixer, p))
    valid_label = data.labels("valid")
    autocast = torch.autocast(data.device.type, torch.bfloat16, enabled=p.amp and native_bf16(data.device))
    result = Fit(0, 0, 0, math.inf)
    best_state: dict[str, Tensor] = {}

    for epoch in range(1 - model.preparation, p.max_epochs + 1):
        model.train(), mixer.train()
        model.on_epoch_start(epoch)
        data.begin_epoch(epoch)
        steps.before_epoch(epoch)
        sums: dict[str, Tensor] = {}
        counts: dict[str, int] = {}
        for one in model.passes(epoch):
            for rows in pass_batches(one, data.size("train"), p, mixer.batch_multiplier, streams.order):
                batch = data.batch("train", torch.from_numpy(rows).to(data.device, non_blocking=True))
                for update in one.updates:
                    if update.losses is not None:
                        with autocast:
                            losses = stage_losses(update, batch)
                        losses["total"].backward()
                    else:
                        # the draw is made whatever the mixer, so that every method sees the same stream
                        mixing = streams.decisions.random() < mixer.probability and epoch >= mixer.start_epoch and len(rows) >= 2
                        with autocast:
                            losses, hooks = step_losses(model, mixer if mixing else None, batch, task, streams.mixing)
                        losses["total"].backward()
                        model.after_backward(batch, *hooks)
                    result.updates += steps.gradient(update)
                    for name, value in losses.items():
                        sums[name] = sums.get(name, 0.0) + value.detach()
                        counts[name] = counts.get(name, 0) + 1
            result.updates += steps.end_pass()

        train = {name: float(total) / counts[name] for name, total in sums.items()}
        prediction = predict(model, data, "valid")
        valid_loss = task_loss(prediction, valid_label, p)
        if not (math.isfinite(train["total"]) and math.isfinite(valid_loss)):
            raise Diverged(f"training diverged in epoch {epoch}: training loss {train['total']}, validation loss {valid_loss}")
        valid = evaluate(prediction, valid_label, family)
        result.history.append({
            "epoch": epoch, "lr": steps.rate, **{f"train_{k}": v for k, v in train.items()},
            "valid_loss": valid_loss, **{f"valid_{k}": v for k, v in valid.items()}, **model.scalars(),
            **probe.shares(model, mixer, data, task, p.batch_size, train),
        })
        report(f"epoch {epoch} train {train['total']:.4f} valid {valid_loss:.4f} avg {valid.get('avg', math.nan):.4f}")
        if epoch < 1:
            continue
        if valid_loss < result.best_valid_loss - p.min_delta:
            result.best_valid_loss, result.best_epoch = valid_loss, epoch
            best_state = {k: v.detach().clone() for k, v in model.state_dict().items()}
        steps.after_epoch(valid_loss)
        result.epochs = epoch
        if epoch - result.best_epoch >= p.patience:
            break
    model.load_state_dict(best_state)
    return result


def checkpoint_encoders(model: Backbone) -> None:
    """Gradient checkpointing of every pretrained transformer inside. Raises BenchError where there is none."""
    encoders = [m for m in model.modules() if getattr(m, "supports_gradient_checkpointing", False)]
    if not encoders:
        raise BenchError("train.checkpointing needs a model that fine-tunes an encoder")
    for encoder in encoders:  # transformers 5 renamed the switch
        enable = getattr(encoder, "activation_checkpointing_enable", None) or encoder.gradient_checkpointing_enable
        enable({"use_reentrant": False})


def _updates_per_epoch(model: Backbone, n: int, mixer: Mixer, p: Protocol) -> dict[str, int]:
    """Updates of the first epoch that counts, by optimiser. Raises BenchError where there are none."""
    found: dict[str, int] = {}
    for one in model.passes(1):
        n_batches = len(pass_batches(one, n, p, mixer.batch_multiplier, np.random.default_rng(0)))
        if len(one.updates) > 1 and p.accumulate > 1:
            raise BenchError("a system with several updates a batch cannot accumulate gradients: set train.accumulate=1")
        updates = n_batches // p.accumulate + (not p.drop_remainder and n_batches % p.accumulate > 0)
        if updates == 0:
            raise BenchError(f"{n} training samples give {n_batches} batches, fewer than accumulate={p.accumulate}: no update would ever be made")
        for update in one.updates:
            found[update.optimiser] = found.get(update.optimiser, 0) + updates
    return found
