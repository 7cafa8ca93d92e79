"""IMDer beyond parity: masks of single clips, what is frozen when, draws, a frozen step that samples."""

import pytest
import torch

from bench import registry
from bench.errors import BenchError
from bench.matrix import Job
from bench.models import imder
from bench.models.base import Inputs
from bench.train.capturable import host_reads, replay
from bench.tryout import one_step, stepper
from tests.golden import cell_config

INPUTS = Inputs((10, 12), (10, 5), (10, 7))
SIZES = dict(
    encoder="none", width=8, heads=2, levels=1, channels=(8, 8, 8, 8), groups=(4, 4), time_embed=8, score_heads=2, blocks=1,
    reduction=8, sampling_steps=3,
)


def made(**params):
    torch.manual_seed(0)
    return imder.Model(imder.Params(**{**SIZES, **params}), INPUTS)


def batch_of(n=6):
    g = torch.Generator().manual_seed(1)
    batch = {m: torch.randn(n, *getattr(INPUTS, m), generator=g) for m in imder.MODALITIES}
    keep = torch.tensor([[1, 1, 1], [1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 1, 1], [1, 0, 1]]).bool()
    return batch | {f"keep_{m}": k for m, k in zip(imder.MODALITIES, keep.unbind(1))} | {"label": torch.randn(n, generator=g)}


def test_a_clip_is_recovered_by_what_it_has_alone():
    """Whatever stands in place of a missing modality, the prediction is the same; and so it is in another batch."""
    model, batch = made(sampling_steps=2).eval(), batch_of()
    with torch.no_grad():
        plain = model(batch).prediction
        for m in imder.MODALITIES:
            gone = ~batch[f"keep_{m}"][:, None, None]
            assert torch.allclose(model(batch | {m: batch[m] + 7 * gone}).prediction, plain, atol=1e-5)
            moved = model(batch | {m: batch[m] + 7 * ~gone}).prediction
            assert ((moved - plain).abs() > 1e-5)[batch[f"keep_{m}"]].all()
        assert torch.allclose(model({k: v[3:5] for k, v in batch.items()}).prediction, plain[3:5], atol=1e-5)
        complete = {k: v for k, v in batch.items() if "keep" not in k}
        assert torch.allclose(model(complete).prediction[0], plain[0], atol=1e-5)


def test_a_complete_clip_adds_no_loss():
    model, batch = made().train(), batch_of()
    encoded = model.encode(batch)
    losses = model.aux_losses(batch, encoded, None)
    assert all(float(v.detach()) > 0 for v in losses.values())
    for m in imder.MODALITIES:
        here = batch[f"keep_{m}"]
        for kind in ("score", "rebuilt"):
            found = encoded.side[f"{kind}_{m}"].detach()
            assert (found[here] == 0).all() and (found[~here] > 0).all()
    assert model.aux_losses({"label": batch["label"]}, encoded, None) == {}


def test_random_draws_of_evaluation_are_a_switch():
    batch = batch_of()
    fixed, free = made().eval(), made(evaluation_draws="random").eval()
    with torch.no_grad():
        assert torch.equal(fixed(batch).prediction, fixed(batch).prediction)
        assert not torch.equal(free(batch).prediction, free(batch).prediction)


def test_the_convolutions_learn_before_and_never_after():
    model, batch = made().train(), batch_of()
    model.on_epoch_start(0)
    update = model.passes(0)[0].updates[0]
    update.losses(batch)["task"].backward()
    assert all(q.grad is not None for q in model.mult.convolutions.parameters())
    assert all(q.grad is None for q in model.score.parameters())  # nothing is missing there
    model.zero_grad(), model.on_epoch_start(1)
    encoded = model.encode(batch)
    sum(model.aux_losses(batch, encoded, None).values()).backward()
    assert all(q.grad is None for q in model.mult.convolutions.parameters())
    assert model.passes(1)[0].updates[0].groups == ("main",) and model.passes(0)[0].updates[0].optimiser == "complete"
    named = {id(q) for g in model.groups() for q in g.params}
    assert named == {id(q) for q in model.parameters()}


def test_steps_of_any_number_are_recovered_and_unaligned_data_refused():
    net = imder.Model(imder.Params(**SIZES), Inputs((11, 12), (11, 5), (11, 7))).score["text"]
    x = torch.randn(2, 8, 9)
    assert net(x, torch.rand(2), x).shape == x.shape
    with pytest.raises(BenchError, match="the first the width"):
        imder.Params(width=16)
    with pytest.raises(BenchError, match="aligned"):
        imder.Model(imder.Params(**SIZES), Inputs((10, 12), (20, 5), (10, 7)))


@pytest.mark.slow
def test_a_frozen_step_samples_anew():
    small = registry.constants("models", "imder")["BRIEF"]
    corrupt = {"corruption": {"kind": "missing", "rate": 0.5}}
    make = lambda: stepper(Job(cell_config("imder", "none").with_(fraction=0.3, backbone_params=small, **corrupt), 1111))  # noqa: E731
    eager, frozen = make(), make()
    torch.manual_seed(7)
    for _ in range(5):
        one_step(eager, False)()
    torch.manual_seed(7)
    one_step(frozen, False)()
    assert not host_reads(one_step(frozen, False))
    again, _ = replay(one_step(frozen, False))
    for _ in range(2):
        again()
    assert eager.sums["score"] > 0
    for (name, a), b in zip(eager.model.state_dict().items(), frozen.model.state_dict().values()):
        assert torch.equal(a, b), name
