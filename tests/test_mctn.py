"""MCTN: a prediction reads the text alone and no other row; which translations count where modalities are missing."""

import pytest
import torch

from bench.models import mctn
from bench.models.base import Inputs

SHAPES = {"text": (7, 12), "audio": (7, 4), "vision": (7, 5)}


def model_of(**changes) -> mctn.Model:
    torch.manual_seed(3)
    return mctn.Model(mctn.Params(**{"hidden": 4, "steps": 5} | changes), Inputs(**SHAPES))


def batch_of(n=5) -> dict[str, torch.Tensor]:
    g = torch.Generator().manual_seed(1)
    found = {m: torch.randn((n, *s), generator=g) for m, s in SHAPES.items()}
    return found | {"label": torch.randn(n, generator=g), "index": torch.arange(n)}


@pytest.mark.parametrize("along", ["time", "batch"])
def test_only_along_time_is_a_prediction_its_rows_own(along):
    model, batch = model_of(along=along).eval(), batch_of()
    turned = {k: v.flip(0) for k, v in batch.items()}
    with torch.no_grad():
        found, other = model(batch).prediction, model(turned).prediction.flip(0)
        assert torch.equal(found, model(batch | {m: batch[m] + 1 for m in ("audio", "vision")}).prediction)
    assert torch.allclose(found, other, atol=1e-6) == (along == "time")
    assert len(found.unique()) == 5


def test_a_translation_counts_where_both_of_its_ends_are_there():
    model, batch = model_of(), batch_of(3)
    keep = {"keep_text": torch.tensor([True, True, False]), "keep_vision": torch.tensor([True, False, True]), "keep_audio": torch.tensor([False, True, True])}

    def terms(rows, given):
        part = {k: v[rows] for k, v in (batch | given).items()}
        return model.terms(part, model.translate(part, model.encode(part)))

    found = terms([0, 1, 2], keep)
    for m, row in {"vision": 0, "text": 0, "audio": 1}.items():
        torch.testing.assert_close(found[m], terms([row], {})[m])
    none = terms([0, 1, 2], {k: torch.zeros(3, dtype=torch.bool) for k in keep})
    assert {m: v.item() for m, v in none.items()} == dict.fromkeys(mctn.MODALITIES, 0.0)


def test_an_input_wider_than_the_text_widens_all():
    model = mctn.Model(mctn.Params(hidden=4), Inputs(text=(7, 3), audio=(7, 8), vision=(20, 5)))
    batch = {"text": torch.ones(2, 7, 3), "audio": torch.ones(2, 7, 8), "vision": torch.ones(2, 20, 5), "label": torch.zeros(2)}
    found = model.translate(batch, model.encode(batch))
    assert model.width == 8 and {tuple(x.shape) for x in found.values()} == {(2, 7, 8)}
