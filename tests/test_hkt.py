"""HKT: the printed sizes, the encoders' training alone, and what its groups train at."""

import pytest
import torch

from bench.errors import BenchError
from bench.experiments.common import settings
from bench.models.base import Inputs
from bench.models.hkt import STREAMS, Model, Params
from bench.models.parts.cost import operations, parameters_by_paper
from bench.models.parts.text import Hidden
from bench.train.optim import build_optimiser
from bench.train.protocol import Protocol, from_params


def make(dataset="ur_funny", length=64, **params):
    given = settings("samlml", "hkt", dataset)["params"]
    inputs = Inputs(
        text=(length, 768), audio=(length, 60), vision=(length, 36), hcf=(length, 4), task="binary", label_bound=1.0
    )
    return Model(from_params(Params, {**given, "encoder": "none", **params}, "hkt"), inputs)


@pytest.mark.parametrize(("dataset", "printed"), [("ur_funny", 17_066_564), ("mustard", 17_101_372)])
def test_parameters_are_the_printed_numbers(dataset, printed):
    """SAM-LML Tables 2 and 3; ALBERT base with its pooler."""
    transformers = pytest.importorskip("transformers")
    sizes = dict(hidden_size=768, num_hidden_layers=12, num_attention_heads=12, intermediate_size=3072)
    albert = transformers.AlbertModel(transformers.AlbertConfig(**sizes))
    count = sum(p.numel() for module in (make(dataset), albert) for p in module.parameters())
    assert count == printed and Model.with_pooler


@pytest.mark.parametrize(("dataset", "length", "printed"), [("ur_funny", 64, 5.27), ("mustard", 77, 6.36)])
def test_the_papers_counting_rules_give_the_printed_numbers(dataset, length, printed):
    """SAM-LML Table 9, and Tables 2 and 3 again with a model that leaves the pooler out."""
    transformers = pytest.importorskip("transformers")
    sizes = dict(hidden_size=768, num_hidden_layers=12, num_attention_heads=12, intermediate_size=3072)
    model = make(dataset, length).eval()
    model.albert = transformers.AlbertModel(transformers.AlbertConfig(**sizes, attn_implementation="eager"), False).eval()

    def forward(batch):
        last = model.albert(batch["ids"]).last_hidden_state
        return model.fuse(model.encode_hidden(Hidden(last, last, torch.ones(2, length)), batch).latents)

    model.forward = forward
    batch = {m: torch.randn(2, length, d) for m, d in (("audio", 60), ("vision", 36), ("hcf", 4))}
    found = operations(model, {**batch, "ids": torch.ones(2, length, dtype=torch.long)})
    assert round(found.paper, 2) == printed and found.gflops > 2 * found.paper
    model.text_encoder = model.albert
    assert parameters_by_paper(model) == {"ur_funny": 17_066_564, "mustard": 17_101_372}[dataset]


def test_the_preparation_trains_each_encoder_by_its_own_loss_alone():
    model = make(length=9, prepare=2)
    batch = {m: torch.randn(4, 9, d) for m, d in (("audio", 60), ("vision", 36), ("hcf", 4))}
    batch["label"] = torch.tensor([0.0, 1.0, 1.0, 0.0])
    losses = model.alone_losses(batch)
    losses["audio"].backward()
    touched = {n for n, p in model.named_parameters() if p.grad is not None and float(p.grad.norm()) > 0}
    assert touched and all(n.startswith(("streams.audio.", "alone.audio.")) for n in touched)
    assert model.preparation == 2 and set(losses) == set(STREAMS)
    (early,), (late,) = model.passes(0), model.passes(1)
    assert set(early.updates[0].groups) == {n for m in STREAMS for n in (m, f"{m}-no-decay")}
    assert late.updates[0].losses is None and late.updates[0].groups is None


def test_groups_have_the_released_rates_and_decays():
    p = from_params(Protocol, settings("samlml", "hkt", "mustard")["train"], "protocol")
    model = make("mustard", 77)
    found = {g["name"]: (g["lr"], g["weight_decay"]) for g in build_optimiser(model, [], p).param_groups}
    assert found["main"] == (5e-6, 0.01) and found["main-no-decay"] == (5e-6, 0.0)
    assert found["audio"] == found["vision"] == (3e-3, 0.01) and found["hcf"] == (3e-4, 0.01)
    assert found["audio-no-decay"] == (3e-3, 0.0)
    grouped = [id(q) for g in model.groups() for q in g.params]
    assert sorted(grouped) == sorted(id(q) for q in model.parameters())


def test_data_without_human_centric_features_is_refused():
    with pytest.raises(BenchError, match="hcf"):
        Model(Params(encoder="none"), Inputs(text=(9, 8), audio=(9, 60), vision=(9, 36)))
