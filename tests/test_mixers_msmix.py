"""MS-Mix's equations against numbers worked out by hand, its pair selection, and its switches."""

import math

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from bench.data.dataset import load
from bench.data.datasets import mosi
from bench.data.synthetic import label_histogram
from bench.job import assemble
from bench.matrix import Job
from bench.mixers import msmix, msmix_release
from bench.mixers.intensity import AttentionIntensity, ReleaseIntensity
from bench.mixers.sampling import pair_draws, pairs_above
from bench.train import loop, probe
from bench.train.engine import Eager
from bench.train.loop import criterion
from tests import golden
from tests.golden import cell_config

DIMS = {"text": (6,), "audio": (3,), "vision": (2, 4)}


def generator(seed=1):
    return torch.Generator().manual_seed(seed)


def make(dims=DIMS, bound=3.0, **params):
    torch.manual_seed(0)
    return msmix.Mix(msmix.Params(**params), dims, bound)


def batch(size=12, dims=DIMS):
    g = generator(0)
    latents = {k: torch.randn(size, *d, generator=g).requires_grad_() for k, d in dims.items()}
    return latents, 6 * torch.rand(size, generator=g) - 3


# --- equations


def test_eq_3_and_4_mean_of_cosines():
    text = torch.tensor([[3.0, 0.0], [0.0, 2.0], [1.0, 1.0]])
    audio = torch.tensor([[1.0], [-4.0], [2.0]])
    s = msmix.mean_cosine([text, audio])
    assert_close(s[0], torch.tensor([1.0, (0 - 1) / 2, (math.sqrt(0.5) + 1) / 2]))


def test_eq_9_min_max_of_the_magnitude_or_as_printed():
    intensity = torch.tensor([-0.9, 0.5, 0.1])
    assert_close(msmix.salience(intensity), torch.tensor([1.0, 0.5, 0.0]))
    assert_close(msmix.salience(intensity, printed=True), torch.tensor([1.8, 1.4, 1.0]) / 1.4)


def test_eq_10_and_the_pair_of_two_weakest():
    first, second, base = torch.tensor([0.5, 0.0]), torch.tensor([1.0, 0.0]), torch.tensor([0.4, 0.4])
    assert_close(msmix.mixing_ratio(first, second, base), torch.tensor([(1 / 3 + 0.4) / 2, 0.45]))


def test_eq_11_label_ratio_is_the_mean_over_the_modalities():
    latents, targets = batch()
    mixed = make().mix(latents, targets, generator())
    ratios = torch.stack([mixed.ratios[m] for m in DIMS])
    assert_close(mixed.ratios["label"], ratios.mean(0))
    assert ratios.std(0).max() > 0.01
    first, second, r = mixed.ratios["first"], mixed.ratios["second"], mixed.ratios["text"][:, None]
    assert_close(mixed.latents["text"], r * latents["text"][first] + (1 - r) * latents["text"][second])  # Eq. 2


def test_eq_13_by_hand_and_its_distance_from_eq_14():
    p, yi, yj, r = (torch.tensor([x]) for x in (1.0, 2.0, -1.0, 0.25))
    eq13 = msmix.mixed_loss(p, yi, yj, r)
    eq14 = (p - (r * yi + (1 - r) * yj)).square().mean()
    assert (eq13.item(), eq14.item()) == (3.25, 1.5625)
    assert eq13 - eq14 == r * (1 - r) * (yi - yj) ** 2


def test_eq_13_pushes_the_ratio_and_eq_14_does_not_share_that_gradient():
    def ratio_gradient(mix_loss):
        latents, targets = batch()
        mixer = make(mix_loss=mix_loss, sal=False)
        mixed = mixer.mix(latents, targets, generator())
        (g,) = torch.autograd.grad(mixed.loss(mixed.targets.detach()), mixer.predictors["text"].head.weight)
        return g.norm()

    assert ratio_gradient("eq13") > 1e-4 > 1e-9 > ratio_gradient("eq14")  # at p = y^ only Eq. 13 has a slope


def test_eq_15_to_17_by_hand():
    targets = torch.tensor([0.0, math.log(3)])  # P^L = (1/4, 3/4)
    flat = torch.zeros(2)  # P^m = (1/2, 1/2)
    kl = (0.25 * math.log(0.5) + 0.75 * math.log(1.5)) / 2
    assert msmix.alignment([flat], targets).item() == pytest.approx(kl, rel=1e-5)
    assert make().alignment({"a": flat, "b": flat}, targets).item() == pytest.approx(2000 * kl, rel=1e-5)
    assert msmix.alignment([targets - 0.7], targets).abs() < 1e-7  # softmax knows no offset


def test_bounded_labels_can_be_matched():
    targets = torch.tensor([-3.0, 0.0, 1.5])
    assert make(sal_labels="bounded").alignment({"text": targets / 3}, targets).abs() < 1e-4
    assert make(sal_labels="raw").alignment({"text": targets / 3}, targets) > 1
    assert make(sal_labels="bounded", bound=1.0).alignment({"t": targets}, targets).abs() < 1e-4


def test_equal_intensities_give_half_the_base_plus_a_quarter():
    latents, targets = batch()
    mixer, rows = make(sig="ground-truth", sal=False), torch.arange(12)
    mixed = mixer.blend(latents, torch.full((12,), 2.0), rows, rows.flip(0), torch.full((12,), 0.3))
    assert_close(mixed.ratios["label"], torch.full((12,), 0.4))


def test_ground_truth_intensity_is_the_labels_magnitude():
    latents, _ = batch(3)
    targets = torch.tensor([-2.0, 0.0, 1.0])  # omega = 1, 0, 0.5
    mixed = make(sig="ground-truth", sal=False).blend(
        latents, targets, torch.tensor([0]), torch.tensor([2]), torch.tensor([0.5])
    )
    assert_close(mixed.ratios["audio"], torch.tensor([(2 / 3 + 0.5) / 2]))


# --- SASS


def similarity_with(passing, size):
    s = torch.full((size, size), -1.0)
    for i, j in passing:
        s[i, j] = s[j, i] = 0.5
    return s


def select(similarity, threshold=0.2, seed=1):
    first, second = pairs_above(similarity, threshold, pair_draws(len(similarity), generator(seed)))
    return list(zip(first.tolist(), second.tolist(), strict=True))


def test_pairs_pass_the_threshold_without_repetition_where_enough_do():
    passing = {(i, j) for i in range(8) for j in range(i + 1, 8) if (i + j) % 2}
    chosen = select(similarity_with(passing, 8))
    assert set(chosen) <= passing and len(set(chosen)) == 8


def test_every_passing_pair_is_equally_likely():
    passing = [(0, 1), (0, 2), (1, 3), (2, 3), (1, 2)]
    s = similarity_with(passing, 4)
    counts = dict.fromkeys(passing, 0)
    for seed in range(2000):
        for pair in select(s, seed=seed):
            counts[pair] += 1
    assert all(abs(n - 1600) < 80 for n in counts.values())  # 4 of 5 each time: 4.5 standard deviations


def test_too_few_pairs_are_drawn_with_replacement():
    passing = {(0, 3), (2, 5)}
    seen = [select(similarity_with(passing, 6), seed=s) for s in range(40)]
    assert all(set(chosen) <= passing and len(chosen) == 6 for chosen in seen)
    assert set().union(*seen) == passing


def test_where_no_pair_passes_each_row_takes_its_nearest():
    s = torch.tensor([[1.0, -0.3, -0.9], [-0.3, 1.0, -0.2], [-0.9, -0.2, 1.0]])
    assert select(s) == [(0, 1), (1, 2), (2, 1)]


@pytest.mark.parametrize("value", [0.9, -0.9])
def test_a_batch_of_two_has_one_pair(value):
    chosen = select(torch.tensor([[1.0, value], [value, 1.0]]))
    assert chosen == ([(0, 1), (0, 1)] if value > 0.2 else [(0, 1), (1, 0)])


@pytest.mark.parametrize("variant", ["paper", "release"])
def test_selected_pairs_are_similar_and_never_a_row_with_itself(variant):
    latents, targets = batch(24)
    mixer = make(variant=variant)
    draws = mixer.draw(24, generator(), torch.float32)
    first, second = mixer.pairs(mixer.similarity(latents), draws)
    s = msmix.mean_cosine(v.flatten(1) for v in latents.values())
    if variant == "release":
        s = msmix_release.scaled_similarity(s)
    assert (s[first, second] > mixer.delta).all() and (first != second).all()
    assert mixer.delta == {"paper": 0.2, "release": 0.4}[variant]
    assert len(set(zip(first.tolist(), second.tolist(), strict=True))) == 24


def test_sass_off_pairs_by_a_permutation():
    latents, targets = batch()
    mixed = make(sass=False).mix(latents, targets, generator())
    assert mixed.ratios["first"].tolist() == list(range(12))
    assert sorted(mixed.ratios["second"].tolist()) == list(range(12))


def test_threshold_and_scaling_change_the_candidates():
    latents, targets = batch(24)
    draws = make().draw(24, generator(), torch.float32)
    s = msmix.mean_cosine(v.flatten(1) for v in latents.values())
    scaled = msmix_release.scaled_similarity(s)
    for params, measure in (({"delta": 0.3}, s), ({"similarity": "minmax", "delta": 0.7}, scaled)):
        mixer = make(**params)
        first, second = mixer.pairs(mixer.similarity(latents), draws)
        assert (measure[first, second] > params["delta"]).all()


def test_grouped_latents_share_one_ratio():
    dims = {f"{part}_{m}": (3,) for part in ("private", "shared") for m in ("text", "audio")}
    latents, targets = batch(dims=dims)
    grouped, apart = make(dims), make(dims, group=False)
    assert list(grouped.predictors) == ["text", "audio"] and list(apart.predictors) == list(dims)
    mixed = grouped.mix(latents, targets, generator())
    first, second, r = mixed.ratios["first"], mixed.ratios["second"], mixed.ratios["text"][:, None]
    for key in ("private_text", "shared_text"):
        assert_close(mixed.latents[key], r * latents[key][first] + (1 - r) * latents[key][second])


# --- SIG and SAL


@pytest.mark.parametrize(("width", "heads"), [(5, 4), (5, 6), (8, 4)])
@pytest.mark.parametrize("tokens", [1, 3])
def test_intensities_are_bounded_and_a_samples_own(width, heads, tokens):
    torch.manual_seed(0)
    f = AttentionIntensity(width, heads, "tokens")
    x = torch.randn(7, tokens, width)
    i = f(x)
    assert i.shape == (7,) and i.abs().max() < 1
    order = torch.randperm(7)
    assert_close(f(x[order]), i[order])
    y = x.clone()
    y[3] += 1
    assert_close(f(y)[:3], i[:3], rtol=0, atol=1e-6)
    assert (f(y)[3] - i[3]).abs() > 1e-4


def test_attention_over_the_batch_and_the_released_tokens_see_other_samples():
    torch.manual_seed(0)
    x = torch.randn(7, 3, 8)
    y = x.clone()
    y[3] += 1
    for f in (AttentionIntensity(8, 4, "batch"), ReleaseIntensity(8, 4)):
        assert (f(y) - f(x))[0].abs() > 1e-4


def test_a_single_token_attends_to_itself():
    torch.manual_seed(0)
    f = AttentionIntensity(8, 4, "tokens")
    x = torch.randn(5, 1, 8)
    value = f.qkv(x)[..., 16:]
    assert_close(f(x), torch.tanh(f.head(f.norm(f.out(value) + x)))[:, 0, 0])


def test_sal_off_sends_the_predictors_no_gradient_of_its_own():
    latents, targets = batch()
    off = make(sal=False, detach_ratios=True).mix(latents, targets, generator())
    assert not off.losses and not off.ratios["label"].requires_grad
    mixer = make(detach_ratios=True)
    on = mixer.mix(latents, targets, generator())
    on.losses["alignment"].backward()
    for f in mixer.predictors.values():
        assert f.head.weight.grad.abs().sum() > 0
    assert all(v.grad.abs().sum() > 0 for v in latents.values())
    assert torch.equal(on.targets, off.targets)


def test_the_weights_of_the_losses():
    latents, targets = batch()
    full, half = (make(**p).mix(latents, targets, generator()) for p in ({}, {"xi2": 0.25, "xi1": 0.1, "beta": 500.0}))
    assert full.mixed_weight == 0.7 and half.mixed_weight == 0.1 and full.clean_weight == 1
    assert_close(full.losses["alignment"], 4 * half.losses["alignment"])


# --- what the printed equations come to


@pytest.mark.parametrize(("size", "expected"), [(64, 16.3), (16, 62.3)])
def test_the_alignment_loss_falls_with_the_batch_and_outweighs_a_task_loss_of_one(size, expected):
    """xi_2 L_SAL of intensities that say nothing yet, on whole labels with the histogram of all of MOSI. The labels of its
    training split lie closer together, and finer: 14.7 and 56.9 there."""
    values, frequencies = label_histogram(mosi.SPEC)
    drawn = np.random.default_rng(0).choice(values, 2000 * size, p=frequencies / frequencies.sum())
    y = torch.from_numpy(drawn.astype(np.float32))
    mixer = make()
    flat = dict.fromkeys(DIMS, torch.zeros(size))
    mean = torch.stack([mixer.params.xi2 * mixer.alignment(flat, rows) for rows in y.split(size)]).mean()
    assert mean.item() == pytest.approx(expected, rel=0.05)
    p = torch.softmax(y[:size].double(), 0)
    kl = (p * (p * size).log()).sum() / size  # Eq. 16 with P^m = 1 / B
    assert_close((0.5 * 1000 * 3 * kl).float(), mixer.params.xi2 * mixer.alignment(flat, y[:size]))


def test_a_step_notes_the_pairs_that_pass_and_the_spread_of_lambda():
    assert make(delta=0.2).passing(similarity_with({(0, 1), (2, 3)}, 4)) == torch.tensor(2 / 6)
    latents, targets = batch(24)
    mixed = make().mix(latents, targets, generator())
    s = msmix.mean_cosine(v.flatten(1) for v in latents.values())
    rows, columns = torch.triu_indices(24, 24, 1)
    assert_close(mixed.noted["pairs_passing"], (s[rows, columns] > 0.2).float().mean())
    spread = torch.stack([mixed.ratios[m].std(correction=0) for m in DIMS]).mean()
    assert_close(mixed.noted["lambda_std"], spread.detach())
    alone = make(sass=False, sig="off", sal=False).mix(*batch(24), generator())
    assert set(alone.noted) == {"lambda_std"}


def test_half_of_beta_2_2_is_what_lambda_varies_by_at_least():
    latents, targets = batch(3000, {"a": (4,)})
    mixed = make({"a": (4,)}, sig="off", sal=False, sass=False).mix(latents, targets, generator())
    assert mixed.noted["lambda_std"].item() == pytest.approx(0.05**0.5, rel=0.03)  # sd of Beta(2, 2), 0.224


@pytest.mark.parametrize("backbone", ["tfn", "lmf"])
def test_history_shows_that_every_pair_passes_and_what_the_alignment_weighs(backbone):
    row = golden_history(backbone)
    assert row["train_mix_pairs_passing"] == 1 and 0.1 < row["train_mix_lambda_std"] < 0.25
    assert row["alignment_loss_share"] == pytest.approx(row["train_alignment"] / row["train_total"])
    assert row["alignment_gradient_share"] > 0.8 > 0.1 > golden_history(backbone, beta=1.0)["alignment_gradient_share"]
    assert "alignment_gradient_share" not in golden_history(backbone, sal=False)


def test_the_gradient_share_is_that_of_the_latents_and_changes_no_training(monkeypatch):
    job = Job(cell_config("lmf", "msmix").with_(fraction=0.2), 1111)
    parts = assemble(job, load(job.config.dataset, job.config.features))
    task = criterion(parts.protocol)
    before = torch.get_rng_state(), {k: v.clone() for k, v in parts.model.state_dict().items()}
    found = probe.Probe(parts.model.eval(), parts.mixer, parts.data, task, 16)
    found.run(Eager())
    norms = dict(zip(found.names, found.norms.tolist(), strict=True))
    found.run(Eager())
    assert norms == dict(zip(found.names, found.norms.tolist(), strict=True)), "the same draws in every epoch"
    assert torch.equal(before[0], torch.get_rng_state())
    assert all(torch.equal(v, before[1][k]) for k, v in parts.model.state_dict().items())
    model, mixer = parts.model.eval(), parts.mixer.eval()
    rows = parts.data.batch("train", torch.arange(16))
    z = {k: v.detach().requires_grad_() for k, v in model.encode(rows).latents.items()}
    grads = torch.autograd.grad(task(model.fuse(z).prediction, rows["label"]), list(z.values()))
    assert norms["task"] == pytest.approx(math.sqrt(sum(g.square().sum().item() for g in grads)), rel=1e-5)
    sal = 0.5 * mixer.alignment(mixer.intensities(z, rows["label"]), rows["label"])
    grads = torch.autograd.grad(sal, list(z.values()))
    assert norms["alignment"] == pytest.approx(math.sqrt(sum(g.square().sum().item() for g in grads)), rel=1e-5)
    with_probe = golden_history("lmf")
    monkeypatch.setattr(probe.Probe, "run", lambda self, engine: None)
    without = golden_history("lmf")
    assert {k: v for k, v in with_probe.items() if "_share" not in k} == without


def golden_history(backbone, **mixing):
    """The first epoch's line of history.csv of a golden cell with MS-Mix."""
    found = []

    def spy(*args, **kwargs):
        found.append(loop.fit(*args, **kwargs))
        return found[0]

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(golden, "fit", spy)
        golden.short_run(backbone, "msmix", mixing=mixing)
    return found[0].history[0]
