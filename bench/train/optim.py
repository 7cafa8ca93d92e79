"""Optimisers and schedules from a Protocol."""

import math
from collections.abc import Mapping

import torch
from torch import nn

from bench.models.base import Backbone, Update
from bench.train.protocol import Protocol


def build_optimiser(
    model: Backbone, extra: list[nn.Parameter], p: Protocol, name: str = "", capturable: bool | None = None
) -> torch.optim.Optimizer:
    """One optimiser over the model's groups; `extra` (a mixer's parameters) joins the group "main". `name`: where a
    system has several, rates of "<name>.<group>" go before the group's.

    Parameters that no group names are never trained (LMF's fusion weights, as in M-SENA). Fused: one kernel a step.
    `capturable`, by default on a GPU: rates are tensors on the device and nothing is read back, so that a captured step
    follows the schedule.
    """
    groups = []
    for g in model.groups():
        params = [q for q in g.params if q.requires_grad] + (extra if g.name == "main" else [])
        if not params:
            continue
        decay = p.group_weight_decay.get(g.name, p.weight_decay) if g.decay else 0.0
        lr = p.group_lr.get(f"{name}.{g.name}", p.group_lr.get(g.name, p.lr))
        groups.append({"params": params, "lr": lr, "weight_decay": decay, "name": g.name})
    if extra and not any(g["name"] == "main" for g in groups):
        groups.append({"params": extra, "lr": p.lr, "weight_decay": p.weight_decay, "name": "main"})
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[p.optimiser]
    if capturable is None:
        capturable = groups[0]["params"][0].is_cuda
    for g in groups:
        g["base"] = g["lr"]
        if capturable:
            g["lr"] = torch.tensor(g["lr"], dtype=torch.float32, device=g["params"][0].device)
    return kind(groups, eps=p.eps, fused=True, capturable=capturable)


def forget_moments(optimiser: torch.optim.Optimizer) -> None:
    """The optimiser as it was before its first step; in place, as a captured step knows the moments by their address."""
    for state in optimiser.state.values():
        for moment in state.values():
            moment.zero_()


class Schedule:
    """Learning-rate schedule stepped once per epoch (per update for "warmup-linear" and "warmup-cosine-step").

    step: base x 0.1^k in epoch e, k the number of milestones that are at most e (GLoMo: 80 and 100).

    warmup-cosine, epoch e from 1, base b, warm-up W = warmup * E: e <= W + 1: b (e - 1) / W; then cosine from b to 0
    over (1 - warmup) E epochs counted from e = W + 2 (ALMT's rule: the first epoch runs at rate 0).
    """

    def __init__(self, optimiser: torch.optim.Optimizer, p: Protocol, updates_per_epoch: float) -> None:
        self.optimiser, self.p = optimiser, p
        self.base = [g.get("base", g["lr"]) for g in optimiser.param_groups]
        self.rates = list(self.base)  # of the groups, now
        self.epochs = p.schedule_epochs or p.max_epochs
        self.total = max(round(self.epochs * updates_per_epoch), 1)
        self.updates = 0
        self.factor = 1.0
        self.bad, self.best = 0, math.inf

    def _apply(self, factor: float) -> None:
        self.factor = factor
        self.rates = [base * factor for base in self.base]
        for g, rate in zip(self.optimiser.param_groups, self.rates):
            if isinstance(g["lr"], torch.Tensor):
                g["lr"].fill_(rate)
            else:
                g["lr"] = rate

    def before_epoch(self, epoch: int) -> None:
        if self.p.reset_optimiser:
            forget_moments(self.optimiser)
        if self.p.scheduler == "step":
            self._apply(0.1 ** sum(epoch >= m for m in self.p.milestones))
        if self.p.scheduler == "warmup-cosine":
            warm = self.p.warmup * self.epochs
            if epoch <= warm + 1:
                self._apply((epoch - 1) / warm if warm else 1.0)
            else:
                progress = min(max(epoch - warm - 2, 0) / max(self.epochs - warm, 1), 1.0)
                self._apply(0.5 * (1 + math.cos(math.pi * progress)))

    def before_update(self) -> None:
        if self.p.scheduler in ("warmup-linear", "warmup-cosine-step"):
            warm = self.p.warmup * self.total
            if self.updates < warm:
                self._apply(self.updates / warm)
            else:
                progress = min((self.updates - warm) / max(self.total - warm, 1), 1.0)
                linear = self.p.scheduler == "warmup-linear"
                self._apply(1 - progress if linear else 0.5 * (1 + math.cos(math.pi * progress)))
        self.updates += 1

    def after_epoch(self, valid_loss: float) -> None:
        """Plateau: rate times 0.1 after more than `scheduler_patience` epochs without a relative gain of 1e-4."""
        if self.p.scheduler != "plateau":
            return
        if valid_loss < self.best * (1 - 1e-4):
            self.best, self.bad = valid_loss, 0
        else:
            self.bad += 1
            if self.bad > self.p.scheduler_patience:
                self._apply(self.factor * 0.1)
                self.bad = 0


class Steps:
    """Gradients into updates: accumulation, clipping, and the optimiser and schedule of each kind of update.

    Every optimiser holds all groups; what an update does not step has no gradient when it is made. Methods say whether
    they are for the host, between steps, or for the device, within one (step.py).
    """

    def __init__(
        self, model: Backbone, extra: list[nn.Parameter], p: Protocol, updates: Mapping[str, float],
        capturable: bool | None = None,
    ) -> None:
        """`updates`: optimiser -> updates of an epoch."""
        self.p, self.model, self.extra, self.updates, self._capturable = p, model, extra, updates, capturable
        self.optimisers: dict[str, torch.optim.Optimizer] = {}
        self.schedules: dict[str, Schedule] = {}
        for name in updates:
            self._add(name)
        self.parameters = [q for g in next(iter(self.optimisers.values())).param_groups for q in g["params"]]
        self.pending: Update | None = None
        self.gradients = 0
        self.epoch = 1

    def _add(self, name: str) -> None:
        self.optimisers[name] = build_optimiser(self.model, self.extra, self.p, name, self._capturable)
        self.schedules[name] = Schedule(self.optimisers[name], self.p, self.updates.get(name, 1))

    @property
    def rate(self) -> float:
        """Of the last group of the first optimiser."""
        return next(iter(self.schedules.values())).rates[-1]

    # --- on the host -------------------------------------------------------------------------------------------------

    def before_epoch(self, epoch: int) -> None:
        if epoch == 1 and self.epoch < 1:  # what prepared the model was another training
            for optimiser in self.optimisers.values():
                forget_moments(optimiser)
        self.epoch = epoch
        for schedule in self.schedules.values():
            if epoch >= 1:
                schedule.before_epoch(epoch)
        self.forget()

    def after_epoch(self, valid_loss: float) -> None:
        for schedule in self.schedules.values():
            schedule.after_epoch(valid_loss)

    def due(self, update: Update) -> bool:
        """A gradient for `update` comes next; whether the optimiser's step follows it. Then its rate is set."""
        if update.optimiser not in self.optimisers:
            self._add(update.optimiser)
        self.pending, self.gradients = update, self.gradients + 1
        return self.gradients == self.p.accumulate and self._set_rate(update)

    def left_over(self) -> Update | None:
        """At the end of a pass: the update that what is left of an accumulation still makes, if any."""
        update = self.pending if self.gradients and not self.p.drop_remainder else None
        if update is None:
            self.forget()
        else:
            self._set_rate(update)
        return update

    def _set_rate(self, update: Update) -> bool:
        self.pending, self.gradients = None, 0
        if self.epoch >= 1:
            self.schedules[update.optimiser].before_update()
        return True

    def forget(self) -> None:
        """No gradient waits."""
        self.pending, self.gradients = None, 0
        for q in self.parameters:
            q.grad = None

    # --- on the device -----------------------------------------------------------------------------------------------

    def clip(self) -> None:
        """What is done to the running sum of gradients at every micro-batch (M-SENA)."""
        if self.p.clip_value is not None:
            torch.nn.utils.clip_grad_value_(self.parameters, self.p.clip_value)

    def step(self, update: Update) -> None:
        """Clip the waiting gradients, take the optimiser's step, forget them."""
        optimiser = self.optimisers[update.optimiser]
        if self.p.clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(self.parameters, self.p.clip_norm)
        if update.groups is not None:
            for g in optimiser.param_groups:
                if g["name"] not in update.groups:
                    for q in g["params"]:
                        q.grad = None
        optimiser.step()
        for q in self.parameters:
            q.grad = None
