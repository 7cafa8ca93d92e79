"""What two devices would not draw alike has no part in the trainings that compare them."""

import random

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from bench import lexicon
from bench.job import settle
from bench.matrix import Job
from benchmarks import gpu_correct
from benchmarks.gpu_silence import silenced
from tests import golden

DRAWING = [("mcl", "none"), ("mo_sarcation", "none"), ("unimse", "none"), ("glomo", "none"), ("lmf", "msmix")]


def spread(cell, monkeypatch):
    """How far two short trainings of a cell are apart that differ in nothing but the process's own generators."""
    found = []
    monkeypatch.setattr(gpu_correct, "STEPS", 2)
    for seed in (1, 2):
        def seeded(model, seed=seed):
            torch.manual_seed(seed), np.random.seed(seed), random.seed(seed)
            return silenced(model)

        monkeypatch.setattr(gpu_correct, "silenced", seeded)
        found.append(gpu_correct.short_training(Job(golden.cell_config(*cell), 1111), "cpu", torch.float64))
    return gpu_correct.apart(*found)[0]


@pytest.mark.parametrize("cell", DRAWING, ids="+".join)
def test_a_compared_training_draws_nothing_of_its_own(cell, monkeypatch):
    pytest.importorskip("transformers")
    settle("cpu")
    assert spread(cell, monkeypatch) == 0.0


@pytest.mark.slow
@pytest.mark.parametrize("cell", [
    *((b, "none") for b in ("atcaf", "cmff", "hkt", "mgcl", "misa", "mmml", "mult", "samlml", "slad")),  # dropout and noise in many forms
    *(c for c in golden.cells() if c[0] == "lmf"),
], ids="+".join)
def test_no_form_of_draw_is_left(cell, monkeypatch):
    pytest.importorskip("transformers")
    settle("cpu")
    assert spread(cell, monkeypatch) == 0.0


class Noisy(nn.Module):
    def __init__(self):
        super().__init__()
        self.drop, self.attend = nn.Dropout(0.5), nn.MultiheadAttention(8, 2, dropout=0.5, batch_first=True)

    def forward(self, x):
        x = self.drop(F.alpha_dropout(F.dropout(x, 0.5), 0.5, training=True))
        x = F.scaled_dot_product_attention(x, x, x, None, 0.5, True) + F.scaled_dot_product_attention(x, x, x, dropout_p=0.5)
        return self.attend(x, x, x, need_weights=False)[0]


def test_no_form_of_dropout_is_left_and_the_rest_stays():
    x, model = torch.randn(3, 5, 8), Noisy()
    with silenced(model):
        y = model.train()(x)
    causal = F.scaled_dot_product_attention(x, x, x, is_causal=True) + F.scaled_dot_product_attention(x, x, x)
    assert torch.equal(y, model.attend.eval()(causal, causal, causal, need_weights=False)[0])


def test_draws_are_one_sequence_whatever_draws_beside_them():
    def drawn(seed):
        torch.manual_seed(seed)
        x = torch.ones(6, dtype=torch.float64)
        with silenced(nn.Identity()):
            mine = [torch.rand(3), torch.randn_like(x), torch.empty(4).exponential_(), torch.randperm(9), torch.randint(9, (5,)),
                    torch.bernoulli(x / 2), F.gumbel_softmax(torch.zeros(4)), torch.rand(2, generator=torch.Generator().manual_seed(seed))]
        return mine, torch.rand(1)

    (one, after), (other, later) = drawn(1), drawn(2)
    assert all(torch.equal(a, b) for a, b in zip(one, other)) and not torch.equal(after, later)
    assert torch.equal(after, torch.rand(1, generator=torch.Generator().manual_seed(1)))  # the process's generator was not touched
    assert one[1].dtype == torch.float64 and one[1].unique().numel() == 6


def agreeing(monkeypatch, device, shaken):
    """What `agree_cell` finds where float32 is off by `device`, and by `shaken` where the CPU's weights are shaken."""
    asked = []

    def training(job, where, dtype, shake=0):
        asked.append(shake)
        off = shaken if shake else device if where == "other" and dtype == torch.float32 else 0.0
        return {"w": torch.tensor([1.0 + off, 0.5], dtype=torch.float64)}

    monkeypatch.setattr(gpu_correct, "short_training", training)
    entry = gpu_correct.agree_cell("other", ("lmf", "none"))
    return entry, max(asked), list(gpu_correct.wrong({"graphs": {"same": True}, "agree": entry}))


def test_rounding_is_asked_for_and_allowed_only_where_float32_is_far_off(monkeypatch):
    entry, asked, wrong = agreeing(monkeypatch, 1e-3, 1.0)
    assert asked == 0 and "float32_rounding" not in entry and not wrong
    entry, asked, wrong = agreeing(monkeypatch, 2e-2, 5e-3)
    assert asked == 1 and entry["float32_rounding"] == pytest.approx(5e-3) and not wrong
    entry, asked, wrong = agreeing(monkeypatch, 2e-2, 1e-3)
    assert asked == gpu_correct.SHAKES and entry["float32"] == pytest.approx(2e-2) and "rounding" in wrong[0] and len(wrong) == 1
    assert agreeing(monkeypatch, float("nan"), 1e-3)[2]


def test_a_cell_whose_package_is_not_there_is_skipped(monkeypatch):
    pytest.importorskip("transformers")
    lexicon.strongest_first.cache_clear()
    monkeypatch.setattr(lexicon, "PACKAGE", "no_such_package")
    found = gpu_correct.check("cpu", True, ("skeafn", "none"))
    assert found == "skipped: sentiment words need the package no_such_package; run 'pip install no_such_package'"
    assert not list(gpu_correct.wrong(found))
