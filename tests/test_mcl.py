"""MCL beyond parity: which triples count."""

import torch

from bench.models import mcl
from bench.models.base import Inputs


def test_triples_are_of_three_samples_and_as_many_as_the_ratio_allows():
    torch.manual_seed(0)
    model = mcl.Model(mcl.Params(encoder="none", d=10, ratio=2), Inputs((6, 12), (6, 5), (6, 7)))
    rows, counts = model.triples(50, torch.device("cpu"))
    t, v, a = (rows[m][counts > 0] for m in mcl.ORDER)
    assert len(t) == 100 and not ((t == v) | (t == a) | (v == a)).any()


def test_rows_that_do_not_count_change_nothing(monkeypatch):
    model = mcl.Model(mcl.Params(encoder="none", d=10), Inputs((6, 12), (6, 5), (6, 7))).eval()
    batch = {"text": torch.randn(5, 6, 12), "audio": torch.randn(5, 6, 5), "vision": torch.randn(5, 6, 7)}
    batch["label"] = torch.randn(5)
    rows = {m: torch.tensor(i) for m, i in zip(mcl.ORDER, ([0, 1], [2, 1], [3, 1]))}
    monkeypatch.setattr(model, "triples", lambda n, device: (rows, torch.tensor([1.0, 0.0])))
    score, target = model.scores(model.encode(batch).latents, batch["label"], {m: r[:1] for m, r in rows.items()})
    assert torch.allclose(model.correlation(batch)["distance"], (score - target).abs().mean())
