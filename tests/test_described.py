"""Systems that were built from a description: what it says of each of them, and what is chosen here."""

import pytest
import torch
from torch.nn import functional as F

from bench import registry
from bench.cli import main
from bench.experiments import all_experiments
from bench.experiments.common import config
from bench.models import mboost, mgcl
from bench.models.base import Inputs

INPUTS = Inputs((7, 8), (7, 5), (7, 6))
SMALL = {"encoder": "none", "d": 10, "layers": (1, 1, 1)}
BUILT = ("mboost", "mgcl")


def batch(n: int = 6) -> dict[str, torch.Tensor]:
    g = torch.Generator().manual_seed(3)
    text, audio, vision = (torch.randn((n, 7, d), generator=g) for d in (8, 5, 6))
    return {"text": text, "audio": audio, "vision": vision, "label": torch.linspace(-3, 3, n), "index": torch.arange(n)}


def test_their_rows_are_marked_and_their_files_name_the_gaps(capsys):
    rows = [r for e in all_experiments().values() for r in e.rows]
    for name in BUILT:
        said = registry.constants("models", name)["DESCRIPTION"]
        mine = [r for r in rows if any(c is not None and c.backbone == name for c in r.cells.values())]
        assert mine and all(said in r.described for r in mine)
        doc = registry.load("models", name).__doc__
        assert "Built from the description" in doc and "leave open" in doc and "(ours)" in doc
    assert main(["list", "--backbones"]) == 0
    listed = [line for line in capsys.readouterr().out.replace("\u00a7 built", "").splitlines() if "\u00a7" in line]
    assert len(listed) == len(BUILT)
    marked = {c.backbone for r in rows if r.described for c in r.cells.values() if c is not None}
    assert marked == set(BUILT)


@pytest.mark.parametrize("module", [mboost, mgcl])
def test_noise_reaches_the_unimodal_features_of_every_modality(module):
    torch.manual_seed(0)
    model, seen = module.Model(module.Params(**SMALL), INPUTS).eval(), {}
    before = model.encode(batch()).latents
    model.feature_hook = lambda m, u: seen.setdefault(m, u) + 1
    after = model.encode(batch()).latents
    assert {m: tuple(u.shape) for m, u in seen.items()} == dict.fromkeys(before, (6, 7, 10))
    for m, x in before.items():
        torch.testing.assert_close(after[m], x + 1)


# --- Multimodal Boosting ----------------------------------------------------------------------------------------------

@pytest.fixture
def boosting() -> mboost.Model:
    torch.manual_seed(0)
    return mboost.Model(mboost.Params(**SMALL), INPUTS).eval()


def test_the_prediction_weighs_the_learners_by_their_contributions(boosting):
    output = boosting(batch())
    f = output.features
    assert f["predictions"].shape == f["contributions"].shape == (6, len(mboost.LEARNERS))
    assert 0 < f["contributions"].min() and f["contributions"].max() < 1
    torch.testing.assert_close(output.prediction, (f["contributions"] * f["predictions"]).sum(1) / f["contributions"].sum(1))


def test_contributions_learn_from_the_transformed_losses_alone(boosting):
    b = batch()
    encoded = boosting.encode(b)
    output = boosting.fuse(encoded.latents)
    F.mse_loss(output.prediction, b["label"]).backward(retain_graph=True)
    assert all(p.grad is None for p in boosting.contribution.parameters())
    losses = boosting.aux_losses(b, encoded, output)
    each = (output.features["predictions"] - b["label"][:, None]).square()
    torch.testing.assert_close(losses["contribution"], F.mse_loss(output.features["contributions"], (-each).exp()))
    boosting.zero_grad(set_to_none=True)
    losses["contribution"].backward()
    assert {n.split(".")[0] for n, p in boosting.named_parameters() if p.grad is not None} == {"contribution"}


def test_a_learner_looks_at_what_the_others_get_wrong(boosting):
    each = torch.tensor([[1.0, 0.0, 0.0, 2.0], [0.0, 0.0, 3.0, 0.0]])
    torch.testing.assert_close(boosting.weights(each), torch.tensor([[0.8, 1.0, 2.0, 0.5], [1.2, 1.0, 0.0, 1.5]]))
    assert boosting.weights(torch.zeros(2, 4)).isfinite().all()
    plain = mboost.Model(mboost.Params(**SMALL, complementary=False), INPUTS).eval()
    plain.load_state_dict(boosting.state_dict())
    b = batch()
    (on, off), label = ([m.aux_losses(b, m.encode(b), None)["learners"] for m in (boosting, plain)], b["label"])
    each = (plain(b).features["predictions"] - label[:, None]).square()
    torch.testing.assert_close(off, each.mean(0).sum())
    torch.testing.assert_close(on, (boosting.weights(each) * each).mean(0).sum())


# --- MGCL -------------------------------------------------------------------------------------------------------------

@pytest.fixture
def contrastive() -> mgcl.Model:
    torch.manual_seed(0)
    return mgcl.Model(mgcl.Params(**SMALL), INPUTS).eval()


@pytest.mark.parametrize("dataset, length, printed", [("ur_funny", 64, 14_062_342), ("mustard", 77, 14_282_000)])
def test_its_parameters_are_six_per_cent_below_the_printed(dataset, length, printed):
    c = config("samlml", "mgcl", dataset)
    params = mgcl.Params(**{k: v for k, v in c.backbone_params.items() if k != "encoder"}, encoder="none")
    model = mgcl.Model(params, Inputs((length, 768), (length, 60), (length, 36), hcf=(length, 4)))
    albert = 11_683_584  # albert-base-v2, with its pooler
    assert round(100 * (1 - (sum(p.numel() for p in model.parameters()) + albert) / printed)) == 6


def test_partners_are_the_most_and_the_least_similar_labels(contrastive):
    near, far, differs = contrastive.partners(torch.tensor([-3.0, -2.5, 1.0, 1.2, 3.0]))
    assert near.tolist() == [1, 0, 3, 2, 3] and far.tolist() == [4, 4, 0, 0, 0] and differs.tolist() == [1.0] * 5
    near, far, differs = contrastive.partners(torch.tensor([0.0, 1.0, 0.0, 1.0]))
    assert near.tolist() == [2, 3, 0, 1] and all(f % 2 != k % 2 for k, f in enumerate(far.tolist()))
    near, _, differs = contrastive.partners(torch.ones(3))
    assert differs.tolist() == [0.0] * 3 and all(n != k for k, n in enumerate(near.tolist()))


def test_a_negative_has_one_modality_of_the_least_similar_sample(contrastive):
    x = torch.randn(3, 4, 10)
    z, far = contrastive.fusion(x), torch.tensor([3, 2, 1, 0])
    made = contrastive.negatives(x, z, far)
    assert made.shape == (4, 4, 10)
    torch.testing.assert_close(made[0], z[far])
    for m in range(3):
        y = x.clone()
        y[m] = x[m][far]
        torch.testing.assert_close(made[1 + m], contrastive.fusion(y))


def test_a_positive_is_a_mixture_or_another_order_by_one_of_the_networks(contrastive):
    x = torch.randn(3, 4, 10)
    z, near = contrastive.fusion(x), torch.tensor([1, 0, 3, 2])
    candidates = [network(x[list(order)]) for network in contrastive.contrastive for order in contrastive.orders.tolist()]
    assert [0, 1, 2] not in contrastive.orders.tolist() and len(candidates) == 15
    seen = set()
    for _ in range(60):
        mixed, drawn = contrastive.positives(x, z, near)
        moved = (mixed - z).norm(dim=1) / (z[near] - z).norm(dim=1)
        assert ((0 <= moved) & (moved <= 0.5 + 1e-6)).all()
        seen |= {k for k, c in enumerate(candidates) if torch.allclose(drawn, c)}
    assert len(seen) > 8


def test_the_contrast_is_the_cross_entropy_of_each_positive_against_the_negatives(contrastive):
    z, positives, negatives = torch.randn(4, 10), torch.randn(2, 4, 10), torch.randn(4, 4, 10)
    wanted = 0.0
    for p in positives:
        scores = torch.stack([F.cosine_similarity(p, z), *(F.cosine_similarity(n, z) for n in negatives)], 1) / 0.1
        wanted = wanted + F.cross_entropy(scores, torch.zeros(4, dtype=torch.long), reduction="none") / 2
    torch.testing.assert_close(contrastive.contrast(z, positives, negatives), wanted)
    b = batch() | {"label": torch.ones(6)}
    assert contrastive.aux_losses(b, contrastive.encode(b), None)["contrast"] == 0.0
