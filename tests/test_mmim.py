"""MMIM: which stage steps what, and the entropy where a covariance does not exist."""

import pytest
import torch

from bench.models.base import Inputs
from bench.models.mmim import Model, Params
from bench.models.parts.entropy import BatchMemory, class_entropy, log_determinant


def make(**params):
    torch.manual_seed(0)
    return Model(Params(encoder="none", **params), Inputs(text=(7, 24), audio=(9, 6), vision=(8, 10)))


def make_batch(n=12):
    g = torch.Generator().manual_seed(1)
    batch = {m: torch.randn(n, *s, generator=g) for m, s in (("text", (7, 24)), ("audio", (9, 6)), ("vision", (8, 10)))}
    batch |= {f"{m}_lengths": torch.randint(1, t, (n,), generator=g) for m, t in (("audio", 10), ("vision", 9))}
    return batch | {"label": torch.randn(n, generator=g), "index": torch.arange(n)}


def test_log_determinant_is_torchs():
    x = torch.randn(9, 4, dtype=torch.float64)
    matrix = (x.t() @ x).requires_grad_()
    assert float(log_determinant(matrix).detach()) == pytest.approx(float(torch.logdet(matrix).detach()), rel=1e-12)
    ours, theirs = (torch.autograd.grad(f(matrix), matrix)[0] for f in (log_determinant, torch.logdet))
    torch.testing.assert_close(ours + ours.t(), theirs + theirs.t())


def test_a_class_without_enough_rows_leaves_entropy_and_gradients_finite():
    rows = torch.randn(8, 4, requires_grad=True)
    value = class_entropy(rows, torch.tensor([1.0, 1, 1, 1, -1, -1, -1, -1]))
    value.backward()
    assert float(value.detach()) == 0 and torch.isfinite(rows.grad).all()


def test_the_entropy_counts_from_the_third_batch_of_an_epoch():
    memory, found = BatchMemory(1), []
    for _ in range(2):
        memory.start_epoch()
        for _ in range(4):
            rows = {"a": torch.randn(40, 3)}
            found.append(float(memory.entropy(rows, torch.randn(40))))
            memory.store(rows, torch.randn(40))
    assert [v != 0 for v in found] == [False, False, True, True] * 2


@pytest.mark.parametrize("learns", [False, True])
def test_stages_step_the_bound_and_the_rest(learns):
    model = make(train_entropy=learns)
    names = {id(p): n for n, p in model.named_parameters()}
    groups = {g.name: {names[id(p)] for p in g.params} for g in model.groups()}
    assert sum(map(len, groups.values())) == len(names)
    assert all(n.startswith("bounds.") for n in groups["mi"])
    assert ("bounds.audio.project.weight" in groups["main"]) is learns
    first, second = model.passes(1)
    assert first.updates[0].groups == ("mi",) and "mi" not in second.updates[0].groups
    model.train(), model.on_epoch_start(1)
    first.updates[0].losses(make_batch())["lld"].backward()
    assert model.bounds["audio"].project.weight.grad is None  # nothing of the entropy is in stage 1


def test_a_bound_with_its_variance_does_not_reward_an_infinite_one():
    model, whole = make(), make(log_variance=True)
    latents = model.encode(make_batch()).latents
    for m in (model, whole):
        for bound in m.bounds.values():
            bound.spread[2].bias.data.fill_(20.0)
    assert float(model.bound(latents).detach()) > -1e-3 and float(whole.bound(latents).detach()) < -100
