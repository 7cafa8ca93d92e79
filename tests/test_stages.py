"""Systems with stages or several optimisers in the one training loop (Backbone.passes)."""

import numpy as np
import pytest
import torch
from torch import nn

from bench.errors import BenchError
from bench.mixers.base import Mixer
from bench.models.base import Backbone, Encoded, Group, Output, Pass, Update
from bench.registry import load
from bench.train.loop import Streams, fit
from bench.train.protocol import Protocol


class Rows:
    """Twelve rows of two splits, y = 2x."""

    device = torch.device("cpu")
    x = torch.linspace(-1, 1, 12)
    variant = 0

    def size(self, split):
        return 12

    def labels(self, split):
        return 2 * self.x.numpy()

    def begin_epoch(self, epoch):
        pass

    def cut(self, split, rows, keys):
        return ()

    def batch(self, split, rows, cut=()):
        return {"x": self.x[rows], "label": 2 * self.x[rows], "index": rows}


class Toy(Backbone):
    """Prediction a x + b; `helper` belongs to a stage of its own."""

    def __init__(self, *passes: Pass, preparation: int = 0, prepare: tuple[Pass, ...] = ()) -> None:
        super().__init__()
        self.a, self.b, self.helper = (nn.Parameter(torch.zeros(1)) for _ in range(3))
        self.latent_dims, self.label_bound = {"x": (1,)}, 3.0
        self.main, self.preparation, self.prepare = passes, preparation, prepare
        self.seen: list[tuple[int, dict[str, float]]] = []

    def groups(self):
        return [Group("helper", [self.helper]), Group("main", [self.a, self.b])]

    def passes(self, epoch):
        self.seen.append((epoch, {n: float(p.detach()) for n, p in self.named_parameters()}))
        return self.prepare if epoch < 1 else self.main

    def encode(self, batch):
        return Encoded({"x": batch["x"][:, None]}, {})

    def fuse(self, latents):
        return Output(self.a * latents["x"][:, 0] + self.b + 0.0 * self.helper, {})

    def stage(self, batch):
        return {"distance": (self.helper - 1).square().sum() + (self.a - 5).square().sum()}


def trained(model, **train):
    p = Protocol(**{"loss": "mse", "lr": 0.1, "batch_size": 4, "max_epochs": 3, **train})
    none = load("mixers", "none")
    mix: Mixer = none.Mix(none.Params(), model.latent_dims, 3.0)
    streams = Streams(np.random.default_rng(0), np.random.default_rng(1), torch.Generator().manual_seed(0))
    return fit(model, mix, Rows(), p, streams, "msena")


def test_a_stage_steps_only_its_groups():
    model = Toy()
    model.main = (Pass((Update("one", model.stage, ("helper",)),)),)
    found = trained(model)
    after = {n: float(p.detach()) for n, p in model.named_parameters()}
    assert after["a"] == after["b"] == 0 and after["helper"] > 0.2  # a's gradient in the stage's loss is not applied
    assert found.updates == 9 and {"train_one_distance", "train_total"} <= set(found.history[0])


def test_two_passes_train_all_and_share_cuts_the_first():
    model = Toy()
    model.main = (Pass((Update("one", model.stage, ("helper",)),), share=0.5), Pass((Update(groups=("main",)),)))
    found = trained(model)
    assert found.updates == 3 * (1 + 3)  # half of three batches, rounded down
    assert float(model.helper.detach()) == pytest.approx(0.3, abs=0.02)  # three steps of Adam at 0.1
    assert {"train_one_distance", "train_task"} <= set(found.history[0])


def test_preparation_comes_first_is_not_selected_and_leaves_no_moments():
    plain, model = Toy(Pass()), Toy(Pass(), preparation=2)
    model.prepare = (Pass((Update("early", model.stage, ("helper",)),)),)
    a, b = trained(plain), trained(model)
    assert [h["epoch"] for h in b.history] == [-1, 0, 1, 2, 3] and (b.epochs, b.best_epoch) == (3, 3)
    started = [seen for epoch, seen in model.seen if epoch == 1][-1]
    assert started["helper"] > 0.4 and started["a"] == 0
    assert b.best_valid_loss <= min(h["valid_loss"] for h in b.history[2:])
    assert a.updates == 9 and b.updates == 15


def test_a_named_optimiser_has_its_own_rate_and_moments():
    """Adam's first step is its rate, whatever the gradient: two updates on one batch, one optimiser each."""
    model = Toy()
    model.main = (Pass((Update("slow", model.stage, ("main",), "slow"), Update(groups=("main",)))),)
    trained(model, max_epochs=1, batch_size=12, group_lr={"slow.main": 1e-3})
    once = Toy(Pass())
    trained(once, max_epochs=1, batch_size=12)
    assert float(model.a.detach()) == pytest.approx(float(once.a.detach()) + 1e-3, abs=1e-5)


def test_several_updates_a_batch_do_not_accumulate():
    model = Toy()
    model.main = (Pass((Update("one", model.stage), Update())),)
    with pytest.raises(BenchError, match="accumulate=1"):
        trained(model, accumulate=2)
