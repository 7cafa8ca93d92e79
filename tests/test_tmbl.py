"""TMBL: what a prediction depends on along the batch and along a sample; limits; positions; its cheap difference loss."""

import math

import pytest
import torch

from bench.errors import BenchError
from bench.models import misa, tmbl
from bench.models.base import Inputs
from bench.models.parts.binding import orthogonality, waves


def model_of(**changes) -> tmbl.Model:
    torch.manual_seed(3)
    sizes = dict(encoder="none", hidden=8, layers=2, inner=6, heads=2, k=4, out=6, batch_size=6)
    return tmbl.Model(tmbl.Params(**sizes | changes), Inputs(text=(7, 12), audio=(9, 3), vision=(8, 4)))


def latents_of(n: int) -> dict[str, torch.Tensor]:
    g = torch.Generator().manual_seed(1)
    return {m: torch.randn((n, d), generator=g) for m, d in (("text", 12), ("audio", 12), ("vision", 16))}


@pytest.mark.parametrize("along", ["sample", "batch"])
def test_only_along_a_sample_is_a_prediction_its_own(along):
    model, latents = model_of(along=along).eval(), latents_of(6)
    with torch.no_grad():
        found = model.fuse(latents).prediction
        turned = model.fuse({m: x.flip(0) for m, x in latents.items()}).prediction.flip(0)
        fewer = model.fuse({m: x[:5] for m, x in latents.items()}).prediction
    assert torch.allclose(found, turned, atol=1e-5) == (along == "sample")
    assert torch.allclose(found[:5], fewer, atol=1e-5) == (along == "sample")
    assert len(found.unique()) == 6


def test_more_rows_than_a_full_batch_are_refused_in_one_line():
    model = model_of(along="batch").eval()
    assert model.eval_batch == 6 and model_of().eval_batch is None
    with pytest.raises(BenchError, match="takes 6 rows at once, not 7"):
        model.fuse(latents_of(7))


@pytest.mark.parametrize("along", ["sample", "batch"])
def test_every_weight_has_a_gradient_and_the_losses_are_finite(along):
    model = model_of(along=along, batch_size=4, k=4).train()  # four rows: queries and keys are mixed
    batch = {"label": torch.randn(4)}
    output = model.fuse({m: x.requires_grad_() for m, x in latents_of(4).items()})
    losses = model.aux_losses(batch, tmbl.Encoded({}, {}), output)
    (output.prediction.square().mean() + sum(losses.values())).backward()
    without = [n for n, q in model.named_parameters() if q.grad is None and not n.startswith("utterances.")]
    assert without == [] and all(torch.isfinite(q.grad).all() for q in model.parameters() if q.grad is not None)


def test_the_difference_loss_is_misas():
    torch.manual_seed(0)
    for n, d in ((2, 30), (7, 4)):
        x, z = (torch.randn(n, d, dtype=torch.float64, requires_grad=True) for _ in range(2))
        ours, theirs = orthogonality(x, z), misa.difference(x, z)
        torch.testing.assert_close(ours, theirs)
        for a, b in zip(torch.autograd.grad(ours, (x, z)), torch.autograd.grad(theirs, (x, z))):
            torch.testing.assert_close(a, b)


def test_positions_begin_at_zero_and_alternate():
    table = waves(3, 4)
    assert table[0].tolist() == [0.0, 1.0, 0.0, 1.0]
    wanted = [math.sin(2), math.cos(2), math.sin(0.02), math.cos(0.02)]
    torch.testing.assert_close(table[2], torch.tensor(wanted))
