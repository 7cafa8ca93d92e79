"""What the host decides between steps: batches, texts cut at their longest, and a pass that leaves nothing behind."""

import numpy as np
import pytest
import torch

from bench.data.dataset import load
from bench.data.resident import Resident
from bench.matrix import Job
from bench.mixers import advmixup, manifold
from bench.train.loop import planned
from bench.train.probe import gradient_norms
from bench.train.protocol import Protocol
from bench.train.step import noiseless
from bench.tryout import one_step, stepper
from tests.golden import cell_config

DIMS = {"text": (8,), "audio": (4,)}


def mixer(**params):
    return manifold.Mix(manifold.Params(**params), DIMS, 3.0)


def batches(n, mix, epoch=1, seed=0, **protocol):
    return list(planned(n, Protocol(batch_size=8, **protocol), mix, epoch, np.random.default_rng(seed)))


def test_a_clean_step_never_takes_the_doubled_batch_of_a_mixer():
    late = mixer(protocol="halves", start_epoch=3)
    assert batches(40, late, epoch=2) == [(8, False)] * 5
    assert batches(40, late, epoch=3) == [(16, True), (16, True), (8, True)]
    some = batches(4000, mixer(protocol="halves", p_mix=0.5))
    assert {size for size, mixing in some[:-1] if mixing} == {16} and {size for size, mixing in some[:-1] if not mixing} == {8}
    assert sum(size for size, _ in some) == 4000
    assert 0.4 < np.mean([mixing for _, mixing in some]) < 0.6


def test_a_mixer_of_the_usual_batch_changes_no_batch():
    for n in (40, 41, 42):
        sizes = [size for size, _ in batches(n, mixer(protocol="joint", p_mix=0.3))]
        assert sizes == [8] * 5 + ([2] if n == 42 else [])  # a last batch of one row is dropped
    assert [size for size, _ in batches(42, mixer(protocol="joint"), drop_last=True)] == [8] * 5
    assert [size for size, _ in batches(42, mixer(protocol="halves"), drop_last=True)] == [16] * 2
    assert batches(1, mixer(protocol="joint")) == [(1, False)]


def test_a_pass_in_which_nothing_mixes_draws_no_decision():
    assert list(planned(20, Protocol(batch_size=8), mixer(), 1, None)) == [(8, False), (8, False), (4, False)]


def test_the_inner_pass_of_an_adversary_moves_no_stream_and_no_running_mean():
    """Dropout of the fusion network and its batch statistics are as if AdvMixUp's inner step had not been."""
    fusion = torch.nn.Sequential(torch.nn.Linear(12, 6), torch.nn.BatchNorm1d(6), torch.nn.Dropout(0.5), torch.nn.Linear(6, 1))
    mix = advmixup.Mix(advmixup.Params(), DIMS, 3.0)
    latents = {"text": torch.randn(16, 8), "audio": torch.randn(16, 4)}
    targets = torch.randn(16)
    before, mean = torch.get_rng_state(), fusion[1].running_mean.clone()
    generator = torch.Generator().manual_seed(1)
    masks = [p.clone() for p in mix.parameters()]

    def fuse(z):
        with noiseless(fusion):
            return fusion(torch.cat(list(z.values()), 1)).squeeze(1)

    mix.adversary(latents, targets, fuse, torch.nn.functional.l1_loss, generator)
    assert any(not torch.equal(a, b) for a, b in zip(masks, mix.parameters()))
    assert torch.equal(before, torch.get_rng_state()) and torch.equal(mean, fusion[1].running_mean)
    assert fusion.training and all(m.training for m in fusion)


def as_cudnn(monkeypatch):
    """Recurrent layers whose pass in evaluation mode cannot be differentiated, as cuDNN has them."""
    real = torch.nn.LSTM.forward

    def forward(self, *arguments):
        out = real(self, *arguments)
        if out[0].requires_grad and not self.training:
            def refuse(gradient):
                raise RuntimeError("cudnn RNN backward can only be called in training mode")
            out[0].register_hook(refuse)
        return out

    monkeypatch.setattr(torch.nn.LSTM, "forward", forward)


@pytest.mark.parametrize("mixer", ["msmix", "advmixup"])
def test_a_fusion_network_that_recurs_can_be_differentiated_without_its_noise(mixer, monkeypatch):
    """MCTN: AdvMixUp's inner step and the probe of MS-Mix's losses go through its LSTM in what is else evaluation mode."""
    steps = stepper(Job(cell_config("mctn", mixer).with_(fraction=0.3), 1111))
    model = steps.model
    model.eval()
    batch = steps.data.batch("train", torch.arange(4))

    def gradients():
        return gradient_norms(model, steps.mixer.eval(), batch, steps.task, torch.Generator().manual_seed(0))

    plain = gradients()
    as_cudnn(monkeypatch)
    assert all(torch.equal(v, plain[k]) for k, v in gradients().items()) and not any(m.training for m in model.modules())
    with pytest.raises(RuntimeError, match="training mode"):
        model(batch).prediction.sum().backward()
    model.train(), steps.mixer.train()
    before = {m: m.training for m in model.modules()}
    one_step(steps, True)()
    assert before == {m: m.training for m in model.modules()} and before[model.lstm]


def test_a_layer_that_drops_out_by_itself_stays_quiet():
    rnn = torch.nn.LSTM(3, 3, num_layers=2, dropout=0.5)
    with noiseless(rnn):
        assert not rnn.training
    assert rnn.training


def test_masks_follow_their_generators_under_autocast():
    """A cast of the weights from before the inner step must not be used after it."""
    mix = advmixup.Mix(advmixup.Params(lr=1.0), DIMS, 3.0)
    latents = {"text": torch.randn(16, 8), "audio": torch.randn(16, 4)}
    draws = mix.draw(16, torch.Generator().manual_seed(0), torch.float32)
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        mix.masks(latents, draws)
        for p in mix.parameters():
            p.add_(0.5)
        inside = mix.masks(latents, draws)
    for name, mask in mix.masks(latents, draws).items():
        assert torch.equal(mask, inside[name])


@pytest.fixture(scope="module")
def tokens():
    return Resident(load("synthetic-mosi", "unaligned"), tokens=True)


def test_a_batch_is_cut_at_its_longest_text_and_nothing_else_of_it(tokens):
    rows = np.argsort(tokens.filled("train", "text_bert"))[[2, 0, 1]]
    index = torch.from_numpy(rows)
    whole = tokens.batch("train", index)
    longest = int(whole["text_bert"][:, 1].sum(1).max())
    cut = tokens.cut("train", rows, ("text_bert", "context_text_bert"))
    assert cut == (("text_bert", longest),) and longest < whole["text_bert"].shape[2]
    short = tokens.batch("train", index, cut)
    assert torch.equal(short["text_bert"], whole["text_bert"][..., :longest])
    assert all(torch.equal(short[k], whole[k]) for k in whole if k != "text_bert")


def test_text_that_noise_may_fill_is_never_cut():
    from bench.job import assemble
    from tests.test_job import job

    j = job(backbone="lmf", mixer="none", max_epochs=1)
    noisy = type(j)(j.config.with_(corruption={"kind": "feature_noise", "rate": 0.3, "noise": "gaussian"}), 1111)
    clean, corrupted = (assemble(x, load("synthetic-mosi", "unaligned")).data for x in (j, noisy))
    rows = np.arange(2)
    assert clean.cut("train", rows, ("text",)) and not corrupted.cut("train", rows, ("text",))
