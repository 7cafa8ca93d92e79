"""MAG-BERT as M-SENA runs it: audio and vision at their own lengths, and the encoder's own pooler."""

import pytest
import torch

from bench.errors import BenchError
from bench.experiments.common import config
from bench.models.base import Inputs
from bench.models.mag import Model, Params

pytest.importorskip("transformers")
SIMS = Inputs(text=(39, 768), audio=(400, 33), vision=(55, 709))


def make_batch(n=3):
    ids = torch.randint(1000, 2000, (n, 39))
    ones = torch.ones_like(ids)
    tokens = torch.stack([ids, ones, 0 * ones], 1)
    return {"text_bert": tokens, "audio": torch.randn(n, 400, 33), "vision": torch.randn(n, 55, 709)}


def test_unaligned_streams_are_pooled_only_where_asked():
    with pytest.raises(BenchError, match="one row of audio and vision per word piece"):
        Model(Params(encoder="tiny"), SIMS)
    with pytest.raises(BenchError, match="align must be one of"):
        Params(align="mean")
    model, batch = Model(Params(encoder="tiny", align="pool"), SIMS).eval(), make_batch()
    before = model(batch).prediction
    batch["audio"][:, :11] += 5.0  # the first of 39 means, of 11 steps
    seen = []
    hook = model.gate.register_forward_hook(lambda module, args, out: seen.append(args[1]))
    after = model(batch).prediction
    hook.remove()
    assert seen[0].shape == (3, 39, 33) and not torch.equal(before, after)
    torch.testing.assert_close(seen[0][:, 0], batch["audio"][:, :11].mean(1))


def test_the_pooler_is_the_encoders_and_learns_with_it():
    model = Model(Params(encoder="tiny", align="pool"), SIMS)
    pooler = {id(p) for p in model.text_encoder.pooler.parameters()}
    encoder = {id(p) for g in model.groups() if g.name.startswith("encoder") for p in g.params}
    assert len(pooler) == 2 and pooler <= encoder
    model(make_batch()).prediction.sum().backward()
    assert all(p.grad is not None and float(p.grad.norm()) > 0 for p in model.text_encoder.pooler.parameters())


def test_powmix_trains_it_as_msena_and_cpsl_as_its_release():
    """PowMix copied M-SENA's numbers (Table 2); CP+SL builds on the release's family."""
    ours, other = config("powmix", "mag", "mosi"), config("cpsl", "mag", "mosi")
    assert (ours.features, ours.train["loss"], ours.train["optimiser"], ours.train["lr"]) == ("aligned", "l1", "adam", 2e-5)
    assert (other.features, other.train["loss"], other.train["optimiser"], other.train["lr"]) == ("word", "mse", "adamw", 1e-5)
    assert config("powmix", "mag", "sims").backbone_params["align"] == "pool"
