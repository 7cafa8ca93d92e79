"""The training loop: one job, resident data, selection on validation only.

No value is read back from the device inside an epoch: losses accumulate there and are read once per epoch, together
with the predictions of the validation split, in one transfer. The test split is not passed in at all.
"""

import math
from collections.abc import Callable, Generator, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench.data.resident import Resident
from bench.errors import BenchError
from bench.metrics import evaluate
from bench.mixers.base import Mixer
from bench.models.base import Backbone, Pass
from bench.plural import count
from bench.train.engine import Eager, Fetch
from bench.train.optim import Steps
from bench.train.precision import native_bf16
from bench.train.probe import Probe
from bench.train.protocol import Protocol
from bench.train.scores import Scores, evaluation_batches, predict
from bench.train.step import Piece, Stepper, criterion, step_losses

__all__ = [
    "Diverged", "Fit", "Streams", "checkpoint_encoders", "constant_loss", "criterion", "epoch_batches", "evaluation_batches", "fit",
    "planned", "predict", "step_losses", "task_loss", "training",
]


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


def planned(
    n: int, p: Protocol, mixer: Mixer, epoch: int, decisions: np.random.Generator | None
) -> Iterator[tuple[int, bool]]:
    """(rows, whether they are mixed) of each batch of a pass over n samples, in order.

    A batch that is mixed takes as many rows as the mixer wants (`batch_multiplier`); a clean one is always of the
    protocol's size, in the epochs before the mixer starts and where p_mix is below 1. A last batch of one row is
    dropped: batch statistics need two. One decision is drawn for every batch, whatever the mixer, so that methods
    whose batches agree see the same stream; `decisions` None: a pass in which nothing is ever mixed.
    """
    at = 0
    while at < n:
        left = n - at
        if at and (left < 2 or p.drop_last and left < p.batch_size):
            return
        drawn = decisions is not None and decisions.random() < mixer.probability
        mixing = drawn and epoch >= mixer.start_epoch and left >= 2
        full = p.batch_size * (mixer.batch_multiplier if mixing else 1)
        if at and p.drop_last and left < full:
            return
        yield min(full, left), mixing
        at += full


def epoch_batches(n: int, p: Protocol, multiplier: int, order: np.random.Generator) -> list[np.ndarray]:
    """Row indices of each batch of an epoch in which all batches are mixed, or none (multiplier 1)."""
    size = p.batch_size * multiplier
    rows = order.permutation(n)
    batches = [rows[i : i + size] for i in range(0, n, size)]
    if (p.drop_last and len(batches[-1]) < size or len(batches[-1]) < 2) and len(batches) > 1:
        batches.pop()
    return batches


def updates_per_epoch(model: Backbone, n: int, mixer: Mixer, p: Protocol) -> dict[str, float]:
    """Updates of the first epoch that counts, by optimiser. Raises BenchError where there are none."""
    found: dict[str, float] = {}
    for one in model.passes(1):
        n_batches = _batches(one, n, mixer, p)
        if len(one.updates) > 1 and p.accumulate > 1:
            raise BenchError("a system with several updates a batch cannot accumulate gradients: set train.accumulate=1")
        updates = n_batches // p.accumulate + (not p.drop_remainder and n_batches % p.accumulate > 0)
        if updates == 0:
            raise BenchError(f"{count(n, 'training sample gives', 'training samples give')} {n_batches:g} {'batch' if n_batches == 1 else 'batches'}, fewer than accumulate={p.accumulate}: no update would ever be made")
        for update in one.updates:
            found[update.optimiser] = found.get(update.optimiser, 0) + updates
    return found


def _batches(one: Pass, n: int, mixer: Mixer, p: Protocol) -> float:
    """Batches of a pass; their expected number, over the schedule, where mixed ones are larger than clean ones."""
    clean, mixed = (len(epoch_batches(n, p, k, np.random.default_rng(0))) for k in (1, mixer.batch_multiplier))
    if clean == mixed or all(u.losses is not None for u in one.updates):
        return max(int(clean * one.share), 1)
    if mixer.probability == 1 and mixer.start_epoch <= 1:
        return max(int(mixed * one.share), 1)
    epochs = p.schedule_epochs or p.max_epochs
    before = min(mixer.start_epoch - 1, epochs)
    while_mixing = 1 / (mixer.probability / mixed + (1 - mixer.probability) / clean)  # the rows a batch takes add up
    return max((before * clean + (epochs - before) * while_mixing) / epochs * one.share, 1)


def task_loss(prediction: np.ndarray, label: np.ndarray, p: Protocol) -> float:
    """The task criterion over a whole split, every sample weighted alike (M-SENA averages over batches)."""
    return float(criterion(p)(torch.from_numpy(prediction), torch.from_numpy(label.astype(np.float64))))


def constant_loss(label: np.ndarray, p: Protocol) -> float:
    """The task criterion of the best constant prediction of labels [n]: what a training that learned nothing is left with."""
    y = label.astype(np.float64)
    share = float(np.clip(y.mean(), 1e-6, 1 - 1e-6))
    best = np.median(y) if p.loss == "l1" else y.mean() if p.loss == "mse" else math.log(share / (1 - share))
    return task_loss(np.full(len(y), float(best)), label, p)


def fit(
    model: Backbone, mixer: Mixer, data: Resident, p: Protocol, streams: Streams, family: str,
    report: Callable[[str], None] = lambda line: None, engine: Eager | None = None,
) -> Fit:
    """Train with early stopping on the validation loss; leaves the best epoch's weights in the model.

    `data` needs the splits "train" and "valid" only. Raises Diverged where a loss is not finite.
    """
    engine = engine or Eager(data.device)
    with engine.context():
        turns = training(model, mixer, data, p, streams, family, report, engine)
        while True:
            try:
                next(turns)
            except StopIteration as end:
                return end.value


def training(
    model: Backbone, mixer: Mixer, data: Resident, p: Protocol, streams: Streams, family: str,
    report: Callable[[str], None], engine: Eager,
) -> Generator[bool | Fetch, None, Fit]:
    """`fit` in turns: gives way after every step that it has handed to the device (True), and again and again while it
    waits for numbers from there (the Fetch, whose `ready` says when a turn is worth while). Whoever drives it may let
    another training have its turn."""
    if p.checkpointing:
        checkpoint_encoders(model)
    n = data.size("train")
    steps = Steps(model, mixer.own_parameters(), p, updates_per_epoch(model, n, mixer, p))
    amp = p.amp and native_bf16(data.device)
    # a context object for every step: one that is entered again would keep weights cast before an update
    autocast = (lambda: torch.autocast(data.device.type, torch.bfloat16)) if amp else nullcontext
    stepper = Stepper(model, mixer, data, p, steps, streams.mixing, autocast, held=engine.graphs and p.accumulate > 1)
    engine.parameters = stepper.parameters
    scores = Scores(model, data, "valid")
    probe = Probe(model, mixer, data, stepper.task, p.batch_size)
    valid_label = data.labels("valid")
    result = Fit(0, 0, 0, math.inf)
    best_state: dict[str, Tensor] = {}
    left: dict[Any, tuple[int, ...]] = {}  # piece -> the parameters whose gradients wait after it

    def run(key: Any, work: Callable[[], None]) -> None:
        replayed = engine.run(key, work)
        if stepper.held is None:
            return
        if replayed:
            stepper.adopt(left[key])
        else:
            left[key] = stepper.waiting()

    for epoch in range(1 - model.preparation, p.max_epochs + 1):
        model.train(), mixer.train()
        model.on_epoch_start(epoch)
        data.begin_epoch(epoch)
        steps.before_epoch(epoch)
        stepper.begin_epoch()
        for one in model.passes(epoch):
            order = streams.order.permutation(n)
            stepper.begin_pass(order)
            main = any(u.losses is None for u in one.updates)
            batches = planned(n, p, mixer, epoch, streams.decisions if main else None)
            if one.share < 1:
                batches = islice(batches, max(int(len(epoch_batches(n, p, 1, np.random.default_rng(0))) * one.share), 1))
            at = 0
            for size, mixing in batches:
                cut = data.cut("train", order[at : at + size], model.cut_keys) if model.cut_keys else ()
                at += size
                for update in one.updates:
                    stepping = steps.due(update)
                    result.updates += stepping
                    piece = Piece(
                        size, mixing and update.losses is None, cut, update, stepping, update is one.updates[-1],
                        () if stepper.held is None else stepper.waiting(), (model.variant, data.variant),
                    )
                    run(piece.key, partial(stepper.run, piece))
                    stepper.count(piece)
                    yield True
            rest = steps.left_over()
            if rest is not None:
                run(("update", stepper.waiting(), rest.groups, rest.optimiser), partial(steps.step, rest))
                result.updates += 1

        model.eval()
        for name, work in scores.batches():
            engine.run(("validation batch", *name), work)
            yield True
        probe.run(engine)
        fetch = Fetch([torch.stack([v.double() for v in stepper.sums.values()]), scores.found, probe.norms])
        while not fetch.ready():
            yield fetch
        sums, found, norms = fetch.tensors()
        train = {name: total / stepper.counts[name] for name, total in zip(stepper.sums, sums.tolist()) if name in stepper.counts}
        prediction = found.numpy().astype(np.float64)
        valid_loss = task_loss(prediction, valid_label, p)
        if not (math.isfinite(train["total"]) and math.isfinite(valid_loss)):
            raise Diverged(f"training diverged in epoch {epoch}: training loss {train['total']}, validation loss {valid_loss}")
        valid = evaluate(prediction, valid_label, family)
        result.history.append({
            "epoch": epoch, "lr": steps.rate, **{f"train_{k}": v for k, v in train.items()},
            "valid_loss": valid_loss, **{f"valid_{k}": v for k, v in valid.items()}, **model.scalars(),
            **probe.shares(norms.tolist(), train),
        })
        average = f" avg {valid['avg']:.4f}" if "avg" in valid else ""  # of the metric families that have one
        report(f"epoch {epoch} train {train['total']:.4f} valid {valid_loss:.4f}{average}")
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
