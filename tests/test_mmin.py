"""MMIN: what evaluation may see of a missing modality, what the preparation leaves, and which weights move when."""

import pytest
import torch

from bench.data.dataset import load
from bench.experiments.common import config
from bench.job import assemble
from bench.matrix import Job
from bench.models import mmin
from bench.models.base import Inputs

SHAPES = {"text": (9, 12), "audio": (9, 4), "vision": (9, 5)}


def model_of(**changes) -> mmin.Model:
    torch.manual_seed(3)
    sizes = dict(embedding=6, channels=4, classifier=(8,), autoencoder=(8, 5), blocks=2, start="default")
    return mmin.Model(mmin.Params(**sizes | changes), Inputs(**SHAPES))


def batch_of(n=6) -> dict[str, torch.Tensor]:
    g = torch.Generator().manual_seed(1)
    found = {m: torch.randn((n, *s), generator=g) for m, s in SHAPES.items()}
    found |= {f"{m}_lengths": torch.arange(n) % 5 + 4 for m in ("audio", "vision")}
    keep = torch.tensor([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0], [1, 0, 1], [0, 1, 1]], dtype=torch.bool)[:n]
    return found | {f"keep_{m}": keep[:, i] for i, m in enumerate(mmin.MODALITIES)} | {
        "label": torch.randn(n, generator=g), "index": torch.arange(n),
    }


@pytest.mark.parametrize("inputs", ["utterance", "sequence"])
def test_a_prediction_knows_nothing_of_what_is_missing_nor_of_the_rest_of_the_batch(inputs):
    model, batch = model_of(inputs=inputs).eval(), batch_of()
    changed = dict(batch)
    for m in mmin.MODALITIES:
        changed[m] = torch.where(batch[f"keep_{m}"][:, None, None], batch[m], 7.0)
    with torch.no_grad():
        found = model(batch).prediction
        assert torch.equal(found, model(changed).prediction)
        alone = torch.cat([model({k: v[i : i + 1] for k, v in batch.items()}).prediction for i in range(6)])
    torch.testing.assert_close(found, alone)
    assert len(found.unique()) == 6


def test_evaluation_has_no_losses_that_read_complete_input():
    model, batch = model_of().eval(), batch_of()
    encoded = model.encode(batch)
    assert encoded.side == {} and model.aux_losses(batch, encoded, None) == {}


def test_the_target_of_what_is_there_is_the_teachers_embedding_of_zeros():
    batch, x = batch_of(), {m: torch.ones(6, s[1]) for m, s in SHAPES.items()}
    for target in ("release", "zero"):
        model = model_of(target=target).train()
        found = model.target_of(x, batch).split(6, 1)  # by modality
        for (m, encoder), z in zip(model.teacher.encoders.items(), found, strict=True):
            there = batch[f"keep_{m}"]
            at_zero = encoder(torch.zeros(1, SHAPES[m][1]))
            wanted = at_zero if target == "release" else torch.zeros_like(at_zero)
            torch.testing.assert_close(z[there], wanted.expand(int(there.sum()), -1))
            torch.testing.assert_close(z[~there], encoder(x[m][~there]))


def test_the_encoders_begin_where_the_preparation_ended_and_leave_the_teacher_behind():
    model, batch = model_of(dropout=0.5), batch_of()
    model.train(), model.on_epoch_start(0)
    assert model.teacher.training
    stage = model.passes(0)[0].updates[0]
    assert stage.groups == ("teacher",)
    sum(stage.losses(batch).values()).backward()
    assert all(q.grad is not None for q in model.teacher.parameters())
    with torch.no_grad():
        for q in model.teacher.parameters():
            q -= q.grad
    model.zero_grad(set_to_none=True)

    model.train(), model.on_epoch_start(1)
    assert not model.teacher.training and model.student.encoders.training
    for name, value in model.teacher.encoders.state_dict().items():
        assert torch.equal(value, model.student.encoders.state_dict()[name])
    encoded = model.encode(batch)
    sum(model.aux_losses(batch, encoded, model.fuse(encoded.latents)).values()).backward()
    assert all(q.grad is None for q in model.teacher.parameters())
    assert {g.name for g in model.groups()} == {"teacher", "main"} and model.passes(1)[0].updates[0].groups == ("main",)


def test_gradients_are_clipped_network_by_network():
    model, batch = model_of(clip=1e-3).train(), batch_of()
    encoded = model.encode(batch)
    output = model.fuse(encoded.latents)
    (output.prediction.square().mean() * 100 + sum(model.aux_losses(batch, encoded, output).values())).backward()
    model.after_backward(batch, encoded, output)
    norms = [torch.stack([q.grad.norm() for q in network.parameters()]).norm() for network in model.networks()]
    assert len(norms) == 6
    torch.testing.assert_close(torch.stack(norms), torch.full((6,), 1e-3), rtol=1e-2, atol=0)


def test_missing_modalities_are_drawn_in_every_epoch_of_a_preparation():
    c = config("samlml", "mmin", "mosi", corruption={"kind": "missing", "rate": 0.4}).with_(dataset="synthetic-mosi")
    data = assemble(Job(c, 1111), load(c.dataset, c.features)).data
    rows, drawn = torch.arange(data.size("train")), {}
    for epoch in (-2, -1, 0, 1, -2):
        data.begin_epoch(epoch)
        batch = data.batch("train", rows)
        keep = torch.stack([batch[f"keep_{m}"] for m in mmin.MODALITIES], 1)
        assert keep.any(1).all() and abs(1 - keep.float().mean() - 0.4) < 0.01
        assert torch.equal(drawn.setdefault(epoch, keep), keep)
    assert len({tuple(k.flatten().tolist()) for k in drawn.values()}) == 4
