"""`bench check` on every component that is shipped: what is asked of users' components holds for all of them."""

import pytest

from bench import contract, registry, tryout


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "name"), [(k, n) for k in ("models", "mixers") for n in registry.names(k)])
def test_a_shipped_component_keeps_the_contract(kind, name):
    assert {f.check: f.problem for f in contract.check(kind, name) if f.problem} == {}


def test_what_only_a_preparation_trains_must_learn_too(monkeypatch):
    """A head that no stage of a preparation trains is found; one that the preparation alone trains is not complained of."""
    from bench.models import momke

    whole = momke.Model.stage1
    assert contract._parameters_learn("momke") == ""
    monkeypatch.setattr(momke.Model, "stage1", lambda self, batch: {m: loss for m, loss in whole(self, batch).items() if m != "audio"})
    assert "'heads.audio.weight'" in contract._parameters_learn("momke")


@pytest.mark.parametrize(("name", "dataset"), [("lmf", "synthetic-mosi"), ("hkt", "synthetic-mustard")])
def test_a_component_is_tried_on_data_that_it_can_read(name, dataset):
    assert tryout.cell(name).dataset == dataset and tryout.cell(name, dataset="mosei").dataset == "synthetic-mosei"
