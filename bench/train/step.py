"""One training step as a device sees it: everything between two decisions of the host.

Nothing here reads a value back from the device, branches on one, or makes a tensor on the host, so that the same
method runs eagerly on a CPU and is captured as a CUDA graph (train/engine.py). What a step works on is held in tensors
of fixed address: the epoch's order of rows and the place in it, the sums of the losses, the gradients that wait for
their update. What the host decides (to mix or not, how many rows, how many text steps) comes in as plain numbers; it
names the captured step.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.data.resident import Cut, Resident
from bench.mixers.base import Mixer
from bench.models.base import Backbone, Update
from bench.train.optim import Steps
from bench.train.protocol import Protocol

Task = Callable[[Tensor, Tensor], Tensor]  # (prediction [n], target [n]) -> scalar mean
_CRITERIA = {"l1": F.l1_loss, "mse": F.mse_loss, "bce": F.binary_cross_entropy_with_logits}


def criterion(p: Protocol) -> Task:
    """Task criterion of a protocol."""
    return _CRITERIA[p.loss]


@contextmanager
def noiseless(model: nn.Module) -> Iterator[None]:
    """The model without dropout and with its stored batch statistics, whatever `train` says of its parts: a pass in
    here moves neither the stream of dropout nor any running mean. It can be differentiated: recurrent layers are in
    training mode, the only one that cuDNN differentiates, unless they drop out by themselves; nothing else of them
    depends on it."""
    wanted = {m: isinstance(m, nn.RNNBase) and not (m.dropout and m.num_layers > 1) for m in model.modules()}
    modules = [m for m, training in wanted.items() if m.training != training]
    for m in modules:
        m.training = wanted[m]
    try:
        yield
    finally:
        for m in modules:
            m.training = not wanted[m]


def step_losses(
    model: Backbone, mixer: Mixer | None, batch: dict[str, Tensor], task: Task, generator: torch.Generator | None,
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
        def fuse(z: dict[str, Tensor]) -> Tensor:
            with noiseless(model):
                return model.fuse(z).prediction

        mixer.adversary({k: v.detach() for k, v in encoded.latents.items()}, y, fuse, task, generator)
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


@dataclass(frozen=True)
class Piece:
    """One piece of a training's work, and the name of its capture: all that the host decided about it."""

    rows: int
    mixing: bool
    cut: Cut
    update: Update  # which kind of gradient is made
    stepping: bool  # the optimiser's step follows
    last: bool = True  # of the pieces that share these rows
    waiting: tuple[int, ...] = ()  # parameters with a gradient from before
    variant: Any = ()  # of the model and the data

    @property
    def key(self) -> tuple:
        u = self.update
        losses = getattr(u.losses, "__qualname__", u.losses)
        kind = (u.name, losses, u.groups, u.optimiser)
        return ("training step", self.rows, self.mixing, self.cut, kind, self.stepping, self.last, self.waiting, self.variant)


class Stepper:
    """The steps of one training. `held`: gradients that wait for an update lie in tensors of their own, whose address
    outlives a step (a captured step leaves nothing else behind)."""

    def __init__(
        self, model: Backbone, mixer: Mixer, data: Resident, p: Protocol, steps: Steps, generator: torch.Generator,
        autocast: Callable[[], Any], held: bool = False,
    ) -> None:
        self.model, self.mixer, self.data, self.steps = model, mixer, data, steps
        model.rows_of = lambda rows: data.batch("train", rows)
        self.generator, self.autocast, self.task = generator, autocast, criterion(p)
        self.parameters = steps.parameters
        n, device = data.size("train"), data.device
        self.order = torch.zeros(n, dtype=torch.int64, device=device)  # a pass's permutation
        self.place = torch.zeros((), dtype=torch.int64, device=device)  # of the next batch in it
        self.offsets = torch.arange(n, device=device)
        self.sums: dict[str, Tensor] = {}  # name -> scalar on the device
        self.counts: dict[str, int] = {}
        self.names: dict[tuple[str, bool], list[str]] = {}  # kind of piece -> its losses, once one was made
        self.held: dict[Tensor, Tensor] | None = {} if held else None

    # --- between pieces, on the host ---------------------------------------------------------------------------------

    def begin_epoch(self) -> None:
        """No loss has been seen."""
        for total in self.sums.values():
            total.zero_()
        self.counts = {}

    def begin_pass(self, order: np.ndarray) -> None:
        """Upload the order [n] of the training rows."""
        host = torch.from_numpy(order)
        self.order.copy_(host.pin_memory() if self.order.is_cuda else host, non_blocking=True)
        self.place.zero_()

    def count(self, piece: Piece) -> None:
        """A piece of this kind was run."""
        for name in self.names[piece.update.name, piece.mixing]:
            self.counts[name] = self.counts.get(name, 0) + 1

    def waiting(self) -> tuple[int, ...]:
        """Which parameters have a gradient that waits for its update: the same piece is another one after them."""
        return tuple(i for i, q in enumerate(self.parameters) if q.grad is not None)

    def adopt(self, waiting: Sequence[int]) -> None:
        """Those parameters, and no others, have their gradients where a replayed piece left them."""
        for q in self.parameters:
            q.grad = None
        for i in waiting:
            self.parameters[i].grad = self.held[self.parameters[i]]

    # --- on the device -----------------------------------------------------------------------------------------------

    def run(self, piece: Piece) -> None:
        """The next rows of the order: losses, their gradients, and the update where it is due."""
        rows = self.order.index_select(0, self.offsets[: piece.rows] + self.place)  # (B,)
        if piece.last:
            self.place.add_(piece.rows)
        batch = self.data.batch("train", rows, piece.cut)
        hooks = None
        with self.autocast():
            if piece.update.losses is not None:
                losses = stage_losses(piece.update, batch)
            else:
                mixer = self.mixer if piece.mixing else None
                losses, hooks = step_losses(self.model, mixer, batch, self.task, self.generator)
        losses["total"].backward()
        if hooks is not None:
            self.model.after_backward(batch, *hooks)
        if self.held is not None:
            self._hold()
        self.steps.clip()
        self._add(losses, piece)
        if piece.stepping:
            self.steps.step(piece.update)

    def _hold(self) -> None:
        for q in self.parameters:
            if q.grad is None:
                continue
            if q not in self.held:
                self.held[q] = torch.empty_like(q)
            if q.grad is not self.held[q]:
                self.held[q].copy_(q.grad)
                q.grad = self.held[q]

    def _add(self, losses: dict[str, Tensor], piece: Piece) -> None:
        self.names[piece.update.name, piece.mixing] = list(losses)
        values = [v.detach() for v in losses.values()]
        for name, value in zip(losses, values):
            if name not in self.sums:
                self.sums[name] = torch.zeros_like(value)
        torch._foreach_add_([self.sums[name] for name in losses], values)
