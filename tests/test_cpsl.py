"""CP+SL: Eq. 1-6 on hand-computed numbers, and switches that change what they name and nothing else. Also its
baselines ITHP and MAG. Encoder: tiny random BERT."""

import math

import pytest
import torch

from bench import registry
from bench.errors import BenchError
from bench.models.base import Inputs
from bench.models.parts import adaptive, modulation, words
from bench.train.loop import criterion, step_losses
from bench.train.optim import build_optimiser
from bench.train.protocol import Protocol, from_params

pytest.importorskip("transformers")

STREAMS = ("audio", "vision")
ROWS = registry.constants("models", "cpsl")["TABLE2_ROWS"]
SWITCHES = ("ame", "gm", "ge", "cp", "sl")
OFF = {"dropout": 0.0, "head_dropout": 0.0, "pooler_dropout": 0.0}
B, L, SHAPES = 6, 9, {"audio": (9, 5), "vision": (9, 7)}
PROTOCOL = from_params(Protocol, {"loss": "mse", "optimiser": "adamw", "lr": 1e-3, "weight_decay": 0.01}, "test")


def make(name: str = "cpsl", **params):
    module = registry.load("models", name)
    small = {"cpsl": {"inter": 8, "fused": 12}, "ithp": {"inter": 8, "b0": 6, "b1": 4}, "mag": {}}[name]
    torch.manual_seed(1)
    inputs = Inputs(text=(L, 64), **SHAPES, label_bound=3.0, train_size=20, aligned=True)
    model = module.Model(module.Params(**{"encoder": "tiny", **small, **params}), inputs)
    if name == "cpsl":  # the tiny encoder has dropout of its own
        for m in model.text_encoder.modules():
            if isinstance(m, torch.nn.Dropout):
                m.p = 0.0
    return model


def make_batch(seed: int = 0) -> dict[str, torch.Tensor]:
    """Word-level rows: zero at [CLS], [SEP] and padding."""
    g = torch.Generator().manual_seed(seed)
    lengths = torch.randint(4, L + 1, (B,), generator=g)
    at = torch.arange(L)
    mask = (at < lengths[:, None]).long()
    ids = torch.randint(1000, 20000, (B, L), generator=g)
    words_only = ((at > 0) & (at < lengths[:, None] - 1))[..., None]
    streams = {m: torch.randn(B, *s, generator=g) * words_only for m, s in SHAPES.items()}
    tokens = torch.stack([ids * mask, mask, 0 * mask], 1)
    label = torch.rand(B, generator=g) * 6 - 3
    return {"text_bert": tokens, **streams, "label": label, "index": torch.arange(B)}


def gradients(model, batch, epoch: int = 1, seed: int = 0) -> tuple[dict, dict]:
    """Losses and, by parameter name, the gradients that the optimiser would see."""
    model.train(), model.zero_grad(), torch.manual_seed(seed)
    model.on_epoch_start(epoch)
    losses, (encoded, output) = step_losses(model, None, batch, criterion(PROTOCOL), None)
    losses["total"].backward()
    model.after_backward(batch, encoded, output)
    grads = {n: q.grad.clone() for n, q in model.named_parameters() if q.grad is not None}
    return {k: v.item() for k, v in losses.items()}, grads


def changed(one: dict, two: dict) -> set[str]:
    assert one.keys() == two.keys()
    return {n for n in one if not torch.equal(one[n], two[n])}


# --- Eq. 5, 6 and GE ---


def scalars(**values):
    return {m: torch.tensor(v, dtype=torch.float64) for m, v in values.items()}


@pytest.mark.parametrize(("audio", "vision", "alpha", "c_audio", "c_vision"), [
    (0.5, 1.0, 1.0, 1 - math.tanh(2.0), 1.0),  # s = 2 and 1: ratio 2
    (1.2, 0.8, 1.0, 1.0, 1 - math.tanh(1.5)),
    (0.5, 1.0, 0.25, 1 - math.tanh(0.5), 1.0),
    (0.9, 0.9, 1.0, 1.0, 1.0),  # tie
])
def test_coefficients_are_eq_5(audio, vision, alpha, c_audio, c_vision):
    c = modulation.coefficients(scalars(audio=audio, vision=vision), alpha)
    assert c["audio"].item() == pytest.approx(c_audio, abs=1e-7)
    assert c["vision"].item() == pytest.approx(c_vision, abs=1e-7)


def test_the_better_modality_is_never_above_a_quarter():
    """With alpha 1 a single step's coefficient is 1 or below 1 - tanh(1) = 0.238."""
    c = modulation.coefficients(scalars(audio=1.0, vision=1.0 + 1e-9), 1.0)
    assert c["audio"].item() == pytest.approx(1 - math.tanh(1), abs=1e-6) and c["vision"].item() == 1


@pytest.mark.parametrize(("mae", "norm", "expected"), [
    ((0.5, 1.0), (2.0, 1.0), (True, False)),  # better and louder
    ((0.5, 1.0), (1.0, 2.0), (False, False)),  # better, but quieter
    ((1.0, 0.5), (2.0, 1.0), (False, False)),  # louder, but worse
    ((1.0, 0.5), (1.0, 2.0), (False, True)),
])
def test_conflict_is_eq_6(mae, norm, expected):
    found = modulation.conflicts(scalars(audio=mae[0], vision=mae[1]), scalars(audio=norm[0], vision=norm[1]))
    assert (found["audio"].item(), found["vision"].item()) == expected


def test_the_norm_is_the_mean_over_tensors():
    assert modulation.mean_norm([torch.tensor([3.0, 4.0]), torch.tensor([[1.0]])]).item() == pytest.approx(3.0)


def fixed_gradients():
    g = torch.Generator().manual_seed(3)
    loud = [torch.randn(200, 300, generator=g) * 5, torch.randn(200, generator=g)]
    return {"audio": loud, "vision": [torch.randn(50, 40, generator=g), torch.randn(50, generator=g)]}


@pytest.mark.parametrize("penalty", (False, True))
def test_only_the_offending_encoder_is_penalised_by_eta(penalty):
    before, after = fixed_gradients(), fixed_gradients()
    p = modulation.Modulation(penalty=penalty, noise=False)
    step = modulation.modulate(after, scalars(audio=0.5, vision=1.0), p)
    c = (1 - math.tanh(2.0)) * (0.5 if penalty else 1.0)
    for old, new in zip(before["audio"], after["audio"]):
        torch.testing.assert_close(new, old * c)
    assert all(torch.equal(o, n) for o, n in zip(before["vision"], after["vision"]))
    assert step.conflict["audio"].item() == penalty and step.conflict["vision"].item() == 0
    assert step.norm["audio"] > step.norm["vision"]


def test_the_norm_after_modulation_is_the_other_reading():
    """Raw norms 4 and 2 are in conflict; scaled by 1 - tanh(2) = 0.036 the louder one is the quieter."""
    both = {"audio": [torch.full((4, 4), 1.0)], "vision": [torch.full((4, 4), 0.5)]}
    for after, expected in ((False, 1.0), (True, 0.0)):
        p = modulation.Modulation(noise=False, penalise_modulated=after)
        grads = {m: [g.clone() for g in gs] for m, gs in both.items()}
        step = modulation.modulate(grads, scalars(audio=0.5, vision=1.0), p)
        assert step.conflict["audio"].item() == expected


def test_enhancement_is_noise_of_the_unmodulated_gradients_spread_on_matrices_alone():
    before, after = fixed_gradients(), fixed_gradients()
    torch.manual_seed(0)
    modulation.modulate(after, scalars(audio=0.5, vision=1.0), modulation.Modulation(penalty=False))
    c, old = 1 - math.tanh(2.0), before["audio"][0]
    noise = after["audio"][0] - c * old
    assert noise.std().item() == pytest.approx(old.std().item(), rel=0.02)
    assert abs(noise.mean().item()) < 4 * old.std().item() / math.sqrt(old.numel())
    assert torch.corrcoef(torch.stack([noise.flatten(), old.flatten()]))[0, 1].abs() < 0.02
    torch.testing.assert_close(after["audio"][1], c * before["audio"][1])
    noise, spread = after["vision"][0] - before["vision"][0], before["vision"][0].std()
    assert noise.std().item() == pytest.approx(spread.item(), rel=0.1)
    assert torch.equal(after["vision"][1], before["vision"][1])


# --- Eq. 1 and 3, entropy ---


def test_the_latent_has_the_encoders_moments():
    mean, variance = torch.full((40, 50, 8), 2.0), torch.full((40, 50, 8), 0.25)
    torch.manual_seed(0)
    z = adaptive.sample(adaptive.Moments(mean, variance))
    assert z.mean().item() == pytest.approx(2.0, abs=0.02) and z.var().item() == pytest.approx(0.25, rel=0.03)


def test_statistical_loss_is_eq_3():
    x = torch.tensor([[[0.0, 1.0], [0.5, 0.5]]])  # B 1, L 2: means 0.5 and 0.5, variances 0.25 and 0
    mean = torch.tensor([[[1.0, 0.0, 0.5], [0.0, 0.0, 0.0]]])  # averages 0.5 and 0
    variance = torch.tensor([[[0.25, 0.25, 0.25], [0.1, 0.2, 0.3]]])  # averages 0.25 and 0.2
    quarter = ((0.0 + 0.25) / 2 + (0.0 + 0.04) / 2) / 2  # of one modality: means, then variances
    both = {m: adaptive.Moments(mean, variance) for m in SHAPES}
    assert adaptive.statistical_loss(dict.fromkeys(SHAPES, x), both).item() == pytest.approx(quarter)
    plain = {m: adaptive.Moments(mean, None) for m in SHAPES}  # feature variances 1/6 and 0
    expected = ((0.0 + 0.25) / 2 + ((1 / 6 - 0.25) ** 2 + 0.0) / 2) / 2
    assert adaptive.statistical_loss(dict.fromkeys(SHAPES, x), plain).item() == pytest.approx(expected)


def test_entropies():
    assert adaptive.softmax_entropy(torch.zeros(2, 3, 8)).item() == pytest.approx(1.0)
    peaked = torch.zeros(2, 3, 8)
    peaked[..., 0] = 50.0
    assert adaptive.softmax_entropy(peaked).item() == pytest.approx(0.0, abs=1e-6)
    unit = adaptive.Moments(torch.zeros(1, 1, 4), torch.ones(1, 1, 4))
    assert adaptive.gaussian_entropy(unit).item() == pytest.approx(0.5 * math.log(2 * math.pi * math.e), abs=1e-5)


def test_scaling_is_over_the_whole_batch_tensor_or_over_training():
    x = torch.tensor([[[0.0, 4.0], [-4.0, 0.0]]])
    torch.testing.assert_close(words.MinMax()(x), (x + 4) / 8)
    assert words.MinMax()(torch.zeros(1, 2, 2)).abs().max() == 0
    scale = words.MinMax("train").train()
    scale(x), scale(x / 4)
    torch.testing.assert_close(scale.eval()(x * 2), (x * 2 + 4) / 8)


# --- the 17 rows ---


def test_rows_are_those_of_table_2():
    """From the printed configurations."""
    printed = {
        "A0": "", "A1": "ame", "A2": "ame gm", "A3": "ame gm ge", "A4": "ame gm ge cp", "A5": "ame gm ge sl",
        "A6": "ame gm ge cp sl", "B1": "ame", "B2": "gm", "B3": "sl", "B4": "gm ge", "B5": "gm cp", "C1": "gm ge cp",
        "C2": "ame sl", "C3": "ame gm", "C4": "ame gm ge sl", "C5": "ame gm cp sl",
    }
    assert ROWS == {row: {s: s in on.split() for s in SWITCHES} for row, on in printed.items()}


@pytest.mark.parametrize("row", ROWS)
def test_every_row_trains_two_steps_and_logs(row):
    model = make(**ROWS[row]).train()
    optimiser = build_optimiser(model, [], PROTOCOL)
    before = {n: q.detach().clone() for n, q in model.named_parameters()}
    model.on_epoch_start(1)
    for seed in (0, 1):
        losses, hooks = step_losses(model, None, make_batch(seed), criterion(PROTOCOL), None)
        losses["total"].backward()
        model.after_backward(make_batch(seed), *hooks)
        optimiser.step(), optimiser.zero_grad()
    assert set(losses) == {"task", "recon", "uni", "div", "total"} | ({"stat"} if ROWS[row]["sl"] else set())
    assert all(v.isfinite() for v in losses.values())
    assert {n for n, q in model.named_parameters() if torch.equal(q, before[n])} == set()
    model.eval()(make_batch())
    noted = model.scalars()
    assert all(math.isfinite(v) for v in noted.values())
    assert {f"valid_{k}" for k in losses if k not in ("task", "total")} <= set(noted) and "entropy" in noted
    assert ("imbalance" in noted) == ROWS[row]["gm"]


def test_rows_start_from_the_same_weights_and_differ_by_the_variance_heads_alone():
    full = dict(make().named_parameters())
    for row, params in ROWS.items():
        own = dict(make(**params).named_parameters())
        assert all(torch.equal(q, full[n]) for n, q in own.items()), row
        missing = {n for n in full.keys() - own.keys()}
        assert missing == (set() if params["ame"] else {n for n in full if ".variance." in n}), row


def test_new_layers_start_as_ithps_do():
    """normal(0, 0.02) with zero bias: "everything unsaid follows ITHP"."""
    model = make(inter=64, fused=64)
    own = [layer for name, layer in model.named_modules() if isinstance(layer, torch.nn.Linear) and "text_encoder" not in name]
    assert len(own) == 2 * 3 + 3 + 1 + 2 + 2 * 2 + 3  # encoders, fusion, W_p, readout, decoders, unimodal heads
    weights = torch.cat([layer.weight.flatten() for layer in own])
    assert weights.std().item() == pytest.approx(0.02, rel=0.02) and abs(weights.mean().item()) < 1e-4
    assert all((layer.bias == 0).all() for layer in own)
    spreads = [layer.weight.std().item() for layer in own if layer.weight.numel() > 1000]
    assert len(spreads) == 11 and spreads == pytest.approx([0.02] * 11, rel=0.06)


@pytest.mark.parametrize(("start", "expected"), [(None, math.log(2)), (0.006, 0.006), (2.0, 2.0)])
def test_the_latents_variance_starts_where_asked(start, expected):
    model, batch = make(initial_variance=start).eval(), make_batch()
    for m in STREAMS:
        variance = model.encoders[m](model.scale[m](batch[m])).variance
        assert variance.mean().item() == pytest.approx(expected, rel=0.03)
        features = batch[m]
        assert start is not None or expected > 50 * model.scale[m](features).var(-1, unbiased=False).mean() > 0


def test_beside_ge_the_penalty_changes_what_the_optimiser_sees_by_two_percent():
    torch.manual_seed(0)
    spread, c = 0.3, 1 - math.tanh(1)
    norms = {}
    for eta in (1.0, 0.5):
        grads = {m: [spread * torch.randn(400, 400)] for m in ("audio", "vision")}
        grads["audio"][0] *= 1.001  # the better one has the larger norm, so that CP applies
        grads["vision"][0] *= 0.9
        step = modulation.modulate(
            grads, scalars(audio=1.0, vision=1.0 + 1e-6), modulation.Modulation(alpha=1.0, eta=eta)
        )
        assert step.conflict == {"audio": 1, "vision": 0}
        norms[eta] = grads["audio"][0].std().item() / spread
    assert norms[1.0] == pytest.approx(math.sqrt(1 + c**2), rel=0.01)  # 1.028
    assert norms[0.5] == pytest.approx(math.sqrt(1 + c**2 / 4), rel=0.01)  # 1.007


LOSSES = {"lambda_recon": "recon", "lambda_uni": "uni", "lambda_div": "div", "lambda_stat": "stat"}


@pytest.mark.parametrize("weight", LOSSES)
def test_a_loss_of_weight_zero_leaves_no_key_no_parameter_and_no_gradient(weight):
    """The gradient that remains is the full one less the loss's own, taken by itself."""
    batch, switches = make_batch(), {"gm": False, "ge": False, "cp": False, **OFF}
    full, g_full = gradients(make(**switches), batch)
    less, g_less = gradients(make(**switches, **{weight: 0.0}), batch)
    assert full.keys() - less.keys() == {LOSSES[weight]}
    assert {k: less[k] for k in less if k != "total"} == {k: full[k] for k in less if k != "total"}
    gone = {"lambda_recon": "decoders.", "lambda_uni": "heads."}.get(weight, "none")
    assert {n for n in g_full if n not in g_less} == {n for n in g_full if n.startswith(gone)}
    model = make(**switches).train()
    torch.manual_seed(0)
    alone = model.aux_losses(batch, model.encode(batch), None)[LOSSES[weight]]
    named = {n: q for n, q in model.named_parameters() if n in g_less}
    own = dict(zip(named, torch.autograd.grad(alone, named.values(), allow_unused=True)))
    assert any(g is not None for g in own.values())
    for n, g in g_less.items():
        torch.testing.assert_close(g + (0 if own[n] is None else own[n]), g_full[n], rtol=1e-4, atol=1e-6)


def encoder_of(name: str) -> str:
    return name.split(".")[1] if name.startswith("encoders.") else ""


def test_gm_scales_the_better_encoder_by_its_coefficient_and_nothing_else():
    batch = make_batch()
    off, on = ({**OFF, "gm": gm, "ge": False, "cp": False} for gm in (False, True))
    losses, plain = gradients(make(**off), batch)
    model = make(**on)
    same, scaled = gradients(model, batch)
    assert losses == same
    noted = model.scalars()
    better = min(("audio", "vision"), key=lambda m: noted[f"uni_mae_{m}"])
    other = "vision" if better == "audio" else "audio"
    ratio = noted[f"uni_mae_{other}"] / noted[f"uni_mae_{better}"]
    assert noted[f"coefficient_{better}"] == pytest.approx(1 - math.tanh(ratio), rel=1e-4)
    assert noted[f"coefficient_{other}"] == 1 and noted["imbalance"] == pytest.approx(math.tanh(ratio), rel=1e-4)
    assert changed(plain, scaled) == {n for n in plain if encoder_of(n) == better}
    for n in changed(plain, scaled):
        torch.testing.assert_close(scaled[n], plain[n] * noted[f"coefficient_{better}"])


def in_conflict(cp: bool, ge: bool = False):
    """A model whose better modality (by its head) also has the larger gradients, and a batch."""
    model, batch = make(gm=True, ge=ge, cp=cp, **OFF), make_batch()
    with torch.no_grad():
        for m in SHAPES:
            model.heads[m][1].weight.zero_()
        model.heads["audio"][1].bias.fill_(batch["label"].median())
        model.heads["vision"][1].bias.fill_(9.0)
        model.fusion.vision.weight.mul_(0.01), model.decoders["vision"][3].weight.mul_(0.01)
    return model, batch


def test_cp_scales_the_offending_encoders_gradient_by_eta_and_nothing_else():
    model, batch = in_conflict(cp=False)
    _, without = gradients(model, batch)
    noted = model.scalars()
    assert noted["uni_mae_audio"] < noted["uni_mae_vision"] and noted["grad_norm_audio"] > noted["grad_norm_vision"]
    assert noted["conflict_audio"] == 0
    model, batch = in_conflict(cp=True)
    _, penalised = gradients(model, batch)
    assert model.scalars()["conflict_audio"] == 1 and model.scalars()["conflict_vision"] == 0
    assert changed(without, penalised) == {n for n in without if encoder_of(n) == "audio"}
    for n in changed(without, penalised):
        torch.testing.assert_close(penalised[n], without[n] * 0.5)


def test_ge_changes_the_weight_matrices_of_both_encoders_and_nothing_else():
    (plain, batch), (noisy, _) = in_conflict(cp=True), in_conflict(cp=True, ge=True)
    (losses, one), (same, two) = gradients(plain, batch), gradients(noisy, batch)
    assert losses == same
    assert changed(one, two) == {n for n in one if encoder_of(n) and one[n].ndim > 1}


def test_sl_adds_its_loss_and_touches_the_encoders_alone():
    batch, base = make_batch(), {"gm": False, "ge": False, "cp": False, **OFF}
    (off, one), (on, two) = (gradients(make(**base, sl=sl), batch) for sl in (False, True))
    assert on.keys() - off.keys() == {"stat"} and all(on[k] == off[k] for k in off if k != "total")
    assert changed(one, two) == {n for n in one if encoder_of(n)}


def test_ame_samples_in_training_and_the_mean_stands_for_the_latent_in_evaluation():
    batch = make_batch()
    cases = (({}, (True, False)), ({"sample_at_test": True}, (True, True)), (ROWS["A0"], (False, False)))
    for params, sampled in cases:
        model = make(**OFF, **params)
        for training, expected in zip((True, False), sampled):
            model.train(training)
            encoded = model.encode(batch)
            for m in SHAPES:
                assert torch.equal(encoded.latents[m], encoded.side[f"mean_{m}"]) != expected
    model = make(**OFF).eval()
    assert torch.equal(model(batch).prediction, model(batch).prediction)


def test_sl_without_ame_has_a_variance_head_only_if_asked():
    losses = {}
    for reading in ("features", "branch"):
        model = make(**ROWS["B3"], **OFF, sl_without_ame=reading)
        losses[reading], grads = gradients(model, make_batch())
        assert any(".variance." in n for n in grads) == (reading == "branch")
    assert losses["features"]["stat"] != losses["branch"]["stat"]
    assert losses["features"]["task"] == losses["branch"]["task"]


def test_losses_and_prediction_are_eq_2_and_4_sample_by_sample():
    """Computed again with loops over samples, each cut to its own word pieces."""
    model, batch = make(beta=0.7).eval(), make_batch()
    with torch.no_grad():
        encoded = model.encode(batch)
        prediction, losses = model.fuse(encoded.latents).prediction, model.aux_losses(batch, encoded, None)
        z, y, lengths = encoded.latents, batch["label"], batch["text_bert"][:, 1].sum(1)
        error = {m: 0.0 for m in ("text", "audio", "vision")}
        for i, n in enumerate(lengths):
            text, audio, vision = (z[m][i : i + 1, :n] for m in error)
            g = model.fusion.gate(torch.cat([audio, vision], -1)).sigmoid()
            fused = g * model.fusion.audio(audio).tanh() + (1 - g) * model.fusion.vision(vision).tanh()
            h = model.readout.norm(text + 0.7 * model.inject(fused).tanh())
            score = model.readout.score(model.readout.pooler(h.mean(1)).tanh()).squeeze()
            assert prediction[i].item() == pytest.approx(score.item(), abs=1e-5)
            pooled = {"text": text[:, 0], "audio": audio.mean(1), "vision": vision.mean(1)}
            error = {m: e + (model.heads[m][1](pooled[m]).item() - y[i].item()) ** 2 / B for m, e in error.items()}
        recon = sum((model.decoders[m](z[m]) - encoded.side[m]).square().mean().item() for m in SHAPES)
        entropy = sum(adaptive.softmax_entropy(z[m]).item() for m in SHAPES) / 2
    assert losses["uni"].item() == pytest.approx(0.5 * sum(error.values()) / 3, rel=1e-4)
    assert losses["recon"].item() == pytest.approx(0.5 * recon, rel=1e-4)
    assert losses["div"].item() == pytest.approx(0.1 * (1 - entropy), rel=1e-3)


def test_gaussian_diversity_is_minus_the_entropy_of_the_latents_normal():
    model, batch = make(diversity="gaussian").train(), make_batch()
    encoded = model.encode(batch)
    variance = torch.stack([encoded.side[f"variance_{m}"] for m in SHAPES])
    entropy = (0.5 * (2 * math.pi * math.e * variance).log()).mean().item()
    assert model.aux_losses(batch, encoded, None)["div"].item() == pytest.approx(-0.1 * entropy, rel=1e-4)
    assert model.scalars()["entropy"] == pytest.approx(entropy, rel=1e-4)


def test_modulation_stops_after_its_window():
    """Epochs 0 to 25 counted from 0 are the loop's 1 to 26."""
    batch = make_batch()
    _, plain = gradients(make(**{**ROWS["A1"], **OFF, "sl": True}), batch)
    model = make(**OFF)
    for epoch, active in ((1, True), (26, True), (27, False), (30, False)):
        _, now = gradients(model, batch, epoch)
        assert bool(changed(plain, now)) == active, epoch
        assert (model.scalars()["imbalance"] > 0) == active
    later = make(**OFF, modulate_from=3, modulate_to=4)
    assert [bool(changed(plain, gradients(later, batch, e)[1])) for e in (3, 4, 5, 6)] == [False, True, True, False]


# --- the rest of the model ---


def test_a_samples_audio_reaches_its_prediction_unless_cls_is_pooled():
    """[CLS] has no acoustic row, so that pooling it leaves audio out; see the module's docstring."""
    batch = make_batch()
    other = {**batch, "audio": batch["audio"].clone()}
    inner = other["audio"][0, 1:3]
    inner.copy_(inner.flip(0))  # within the batch's extremes, so that the scaling stays
    for pool, reaches in (("mean", True), ("first", False)):
        model = make(pool=pool).eval()
        with torch.no_grad():
            for _, q in model.own_named_parameters():  # initial weights would pass 1e-9 of it on
                q.mul_(20)
            one, two = model(batch).prediction, model(other).prediction
        assert bool((one[0] - two[0]).abs() > 1e-6) == reaches
        torch.testing.assert_close(one[1:], two[1:], rtol=1e-5, atol=1e-6)


def test_padding_is_attended_as_in_ithp_unless_switched_off():
    batch = make_batch()
    row = int(batch["text_bert"][:, 1].sum(1).argmin())
    other = {**batch, "text_bert": batch["text_bert"].clone()}
    other["text_bert"][row, 0, -1] = 4321  # an id behind the end
    for attended in (True, False):
        model = make(attend_padding=attended).eval()
        with torch.no_grad():
            moved = (model(batch).prediction - model(other).prediction).abs()
        assert bool(moved[row] > 1e-6) == attended and moved.sum() == moved[row]


@pytest.mark.parametrize("name", ("cpsl", "ithp", "mag"))
def test_a_permuted_batch_gives_permuted_predictions(name):
    model, batch, order = make(name).eval(), make_batch(), torch.randperm(B)
    if name == "ithp":
        model.first.sample_at_test = model.second.sample_at_test = False
    with torch.no_grad():
        straight, permuted = model(batch).prediction, model({k: v[order] for k, v in batch.items()}).prediction
    assert straight.shape == (B,) and straight.std() > 0
    torch.testing.assert_close(permuted, straight[order], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ("cpsl", "ithp", "mag"))
def test_groups_hold_every_parameter_once_and_decay_spares_vectors(name):
    model = make(name)
    groups = {g.name: g for g in model.groups()}
    assert set(groups) == {"encoder", "encoder-no-decay", "main", "main-no-decay"}
    held = [id(q) for g in groups.values() for q in g.params]
    assert len(held) == len(set(held)) == len(list(model.parameters()))
    assert all(g.decay == all(q.ndim > 1 for q in g.params) for g in groups.values())


@pytest.mark.parametrize("mixer", registry.names("mixers"))
@pytest.mark.parametrize("name", ("cpsl", "ithp", "mag"))
def test_every_mixer_trains_and_latents_are_as_declared(name, mixer):
    model, batch = make(name).train(), make_batch()
    module = registry.load("mixers", mixer)
    mix = module.Mix(module.Params(), model.latent_dims, model.label_bound)
    latents = model.encode(batch).latents
    assert [(k, tuple(v.shape[1:])) for k, v in latents.items()] == list(model.latent_dims.items())
    model.on_epoch_start(5)
    generator = torch.Generator().manual_seed(0)
    losses, hooks = step_losses(model, None if mixer == "none" else mix, batch, criterion(PROTOCOL), generator)
    losses["total"].backward()
    model.after_backward(batch, *hooks)
    assert losses["total"].isfinite()
    assert [n for n, q in model.named_parameters() if q.grad is None or not q.grad.isfinite().all()] == []


def test_training_twice_gives_the_same_numbers():
    runs = []
    for _ in range(2):
        model = make().train()
        optimiser = build_optimiser(model, [], PROTOCOL)
        torch.manual_seed(7)
        for seed in range(3):
            losses, hooks = step_losses(model, None, make_batch(seed), criterion(PROTOCOL), None)
            losses["total"].backward()
            model.after_backward(make_batch(seed), *hooks)
            optimiser.step(), optimiser.zero_grad()
        runs.append({n: q.detach().clone() for n, q in model.named_parameters()})
    assert changed(*runs) == set()


def test_a_job_leaves_the_columns_of_the_papers_figures(tmp_path):
    """Fig. 2: every loss in training and validation; Fig. 3: coefficients and imbalance, per epoch."""
    from bench.job import run
    from bench.matrix import Config, Job
    from bench.store import Store

    small = {"encoder": "tiny", "inter": 8, "fused": 8, "modulate_to": 0}
    train = {"loss": "mse", "optimiser": "adamw", "lr": 1e-3, "batch_size": 8, "max_epochs": 2}
    job = Job(Config("synthetic-mosi", "aligned", "cpsl", backbone_params=small, train=train, fraction=0.2), 1111)
    store = Store(tmp_path)
    run(job, store)
    history = store.history(job)
    for loss in ("recon", "uni", "div", "stat"):
        assert (history[f"train_{loss}"] > 0).all() and (history[f"valid_{loss}"] > 0).all()
    assert history[["entropy", "valid_entropy"]].gt(0).all(axis=None)
    first, second = history.to_dict("records")
    assert first["imbalance"] == pytest.approx(abs(first["coefficient_audio"] - first["coefficient_vision"]))
    assert 0 < min(first["coefficient_audio"], first["coefficient_vision"]) < 1
    assert second["coefficient_audio"] == second["coefficient_vision"] == 1 and second["imbalance"] == 0


def test_scaling_by_the_training_extremes_is_kept_with_the_weights():
    model = make(scale="train").train()
    model.encode(make_batch())
    assert "scale.audio.low" in model.state_dict() and "scale.audio.low" not in make().state_dict()
    batch = make_batch(1)
    alone = {k: v[:1] for k, v in batch.items()}
    with torch.no_grad():
        torch.testing.assert_close(model.eval()(batch).prediction[:1], model(alone).prediction, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("params", "words_of_it"), [
    ({"pool": "last"}, "pool must be one of"),
    ({"scale": "z"}, "scale must be one of"),
    ({"diversity": "none"}, "diversity must be one of"),
    ({"sl_without_ame": "no"}, "sl_without_ame must be one of"),
    ({"conflict_norm": "no"}, "conflict_norm must be one of"),
    ({"gm": False}, "set gm to true"),
    ({"lambda_uni": 0.0}, "unimodal heads"),
    ({"ame": False, "diversity": "gaussian"}, "variances of ame"),
    ({"inter": 1}, "inter must be at least 2"),
    ({"initial_variance": 0.0}, "initial_variance must be above 0"),
])
def test_unusable_parameters_are_named_in_one_line(params, words_of_it):
    with pytest.raises(BenchError, match=words_of_it):
        make(**params)


def test_unaligned_features_are_refused_in_one_line():
    module = registry.load("models", "cpsl")
    with pytest.raises(BenchError, match="9, 14 and 9 steps"):
        module.Model(module.Params(encoder="tiny"), Inputs(text=(9, 64), audio=(14, 5), vision=(9, 7)))


# --- baselines ---


def test_ithp_reads_text_alone_and_adds_two_bottlenecks():
    model, batch = make("ithp", sample_at_test=False).eval(), make_batch()
    with torch.no_grad():
        one = model(batch).prediction
        assert torch.equal(one, model({**batch, "audio": 0 * batch["audio"], "vision": 0 * batch["vision"]}).prediction)
    code, kl = model.first(torch.randn(2, 3, 64))
    mean, log_variance = torch.zeros(2, 3, 6), torch.full((2, 3, 6), math.log(4.0))
    model.first.encoder = torch.nn.Linear(64, 12)
    with torch.no_grad():
        model.first.encoder.weight.zero_()
        model.first.encoder.bias.copy_(torch.cat([mean[0, 0], log_variance[0, 0]]))
    code, kl = model.first(torch.randn(2, 3, 64))
    assert torch.equal(code, mean) and kl.item() == pytest.approx(-0.5 * (1 + math.log(4) - 4), rel=1e-5)
    encoded = model.encode(batch)
    losses = model.aux_losses(batch, encoded, None)
    audio = (model.first.decoder(encoded.side["b0"]) - encoded.side["audio"]).square().mean()
    assert losses["bottleneck0"].item() == pytest.approx(0.05 * (kl + 8 * audio).item(), rel=1e-5)


def test_mags_shift_is_bounded_by_the_embedding():
    gate = make("mag").eval().gate
    gate.norm, gate.dropout = torch.nn.Identity(), torch.nn.Identity()
    e, audio, vision = torch.randn(2, 3, 64), torch.randn(2, 3, 5) * 1e4, torch.randn(2, 3, 7) * 1e4
    shift = (gate(e, audio, vision) - e).norm(dim=-1)
    torch.testing.assert_close(shift, e.norm(dim=-1), rtol=1e-2, atol=0)
    nothing = gate(e, 0 * audio, 0 * vision)
    torch.testing.assert_close(nothing, e)


def test_mag_lets_audio_into_the_encoder_and_forgets_the_batch():
    model, batch = make("mag").eval(), make_batch()
    with torch.no_grad():
        one, two = model(batch).prediction, model({**batch, "audio": batch["audio"].flip(1)}).prediction
    assert (one - two).abs().max() > 1e-7 and model._streams is None


def test_mag_needs_an_encoder():
    with pytest.raises(BenchError, match="cannot be 'none'"):
        make("mag", encoder="none")
