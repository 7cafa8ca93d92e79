"""PowMix against Algorithm 1, its undefined rows, and its switches."""

import pytest
import torch
from torch.testing import assert_close

from bench.errors import BenchError
from bench.experiments.common import config
from bench.mixers import manifold, powmix
from bench.mixers.sampling import redrawn_masks, sparse_masks

DIMS = {"text": (4,), "audio": (3,), "vision": (2, 3)}


def make(**params):
    return powmix.Mix(powmix.Params(**{"n_mixed": 200} | params), DIMS, 3.0)


def batch(size=16, shift=0.0):
    g = torch.Generator().manual_seed(0)
    latents = {k: shift + torch.randn(size, *d, generator=g) for k, d in DIMS.items()}
    return latents, 6 * torch.rand(size, generator=g) - 3


def mix(size=16, shift=0.0, **params):
    return make(**params).mix(*batch(size, shift), torch.Generator().manual_seed(1))


def test_algorithm_1_by_hand():
    latents = {"text": torch.tensor([[1.0, 3.0], [2.0, 0.0]]), "audio": torch.tensor([[-1.0, -1.0], [3.0, 3.0]])}
    mixer = powmix.Mix(powmix.Params(eps=1e-12), {"text": (2,), "audio": (2,)}, 3.0)
    # means 2, 1 and max(-1, 0) = 0, 3: a_text = (1, 1/4), a_audio = (0, 3/4)
    assert_close(powmix.attention_weights(latents, 1e-12), torch.tensor([[1.0, 0.25], [0.0, 0.75]]))
    draws = {"weights": torch.tensor([[[0.5, 0.5]], [[0.2, 0.8]]]), "masks": torch.ones(1, 1, 2)}
    mixed = mixer.apply(latents, torch.tensor([1.0, -2.0]), draws)
    assert_close(mixed.ratios["text"], torch.tensor([[0.8, 0.2]]))  # (0.5, 0.125) / 0.625
    assert_close(mixed.ratios["audio"], torch.tensor([[0.0, 1.0]]))
    assert_close(mixed.latents["text"], torch.tensor([[1.2, 2.4]]))
    assert_close(mixed.latents["audio"], torch.tensor([[3.0, 3.0]]))
    assert_close(mixed.targets, torch.tensor([-0.8]))  # mean of 0.8 - 0.4 and -2


def test_a_mask_selects_columns_before_the_rows_are_normalised():
    masks = torch.tensor([[[1.0, 0.0, 1.0]]])
    weights = torch.tensor([[[0.2, 0.5, 0.3]]])
    rows = powmix.mixing_matrices(torch.tensor([[1.0, 1.0, 2.0]]), masks, weights)
    assert_close(rows, torch.tensor([[[0.25, 0.0, 0.75]]]))


@pytest.mark.parametrize("size", [2, 4, 16])
@pytest.mark.parametrize("shift", [-9.0, 0.0])
def test_rows_are_convex_weights_even_where_no_mean_is_positive(size, shift):
    mixed = mix(size, shift, mask_sharing=False)
    for rows in mixed.ratios.values():
        assert rows.isfinite().all() and (rows >= 0).all()
        assert_close(rows.sum(1), torch.ones(200))
    assert all(v.isfinite().all() for v in mixed.latents.values())


def test_attention_is_uniform_where_no_mean_is_positive():
    assert_close(powmix.attention_weights(batch(shift=-9.0)[0], 1e-4), torch.full((3, 16), 1 / 3))


def test_one_silent_modality_leaves_the_others_weights_alone():
    latents, _ = batch(shift=9.0)
    latents["audio"] = -latents["audio"]
    text, audio, vision = powmix.attention_weights(latents, 1e-4)
    assert audio.max() < 1e-4
    assert_close(text + vision, torch.ones(16), rtol=0, atol=1e-4)


@pytest.mark.parametrize(("size", "interval", "mean"), [(16, (2.0, 4.0), 3.0), (64, (6.0, 8.0), 7.0)])
def test_masks_keep_p_entries_per_row_on_average(size, interval, mean):
    mask = sparse_masks(1, 20_000, size, interval, torch.Generator().manual_seed(0), torch.float32)[0].float()
    repaired = (1 - mean / size) ** size  # an empty row gets one entry
    assert mask.sum(1).min() == 1
    assert mask.sum(1).mean().item() == pytest.approx(mean + repaired, abs=0.05)
    assert mask.mean(0).std() < 0.02 * mean  # no column is preferred


def test_a_batch_of_two_is_never_masked():
    assert sparse_masks(1, 500, 2, (2.0, 4.0), torch.Generator().manual_seed(0), torch.float32).all()


def test_shared_masks_give_every_modality_the_same_pattern():
    text, audio, vision = (r > 0 for r in mix().ratios.values())
    assert torch.equal(text, audio) and torch.equal(text, vision) and text.float().mean() < 0.3


def test_mask_sharing_off_changes_the_later_modalities_only():
    on, off = mix().ratios, mix(mask_sharing=False).ratios
    assert torch.equal(on["text"], off["text"])
    assert not torch.equal(on["audio"] > 0, off["audio"] > 0)


def test_anisotropic_off_gives_every_modality_the_first_matrix():
    on, off = mix(reweight=False).ratios, mix(reweight=False, anisotropic=False).ratios
    assert torch.equal(on["text"], off["text"]) and not torch.equal(on["audio"], on["text"])
    assert torch.equal(off["audio"], off["text"]) and torch.equal(off["vision"], off["text"])


def test_reweight_off_leaves_mask_and_dirichlet_alone():
    mixer = make(reweight=False)
    latents, targets = batch()
    draws = mixer.draw(16, torch.Generator().manual_seed(1), torch.float32)
    product = draws["masks"] * draws["weights"]
    expected = product / product.sum(-1, keepdim=True)
    assert_close(torch.stack(list(mixer.apply(latents, targets, draws).ratios.values())), expected)
    assert not torch.allclose(make().matrices(latents, draws), expected)


def test_dynamic_off_interpolates_the_whole_batch():
    on, off = mix(reweight=False).ratios["text"], mix(reweight=False, dynamic=False).ratios["text"]
    assert (off > 0).all()
    kept = on > 0
    assert_close((off * kept) / (off * kept).sum(1, keepdim=True), on, rtol=1e-4, atol=1e-6)


def test_label_mixing_averages_over_all_modalities_or_takes_the_first():
    targets = batch()[1]
    on, off = mix(), mix(label_mixing=False)
    labels = torch.stack([w @ targets for w in on.ratios.values()])
    assert_close(on.targets, labels.mean(0))
    assert_close(off.targets, labels[0])
    assert torch.equal(on.latents["text"], off.latents["text"])


def test_the_weights_are_detached_unless_asked():
    for detach in (True, False):
        latents, targets = batch()
        latents["text"].requires_grad_()
        mixed = make(detach_weights=detach).mix(latents, targets, torch.Generator().manual_seed(1))
        assert mixed.ratios["text"].requires_grad is not detach
        assert mixed.latents["text"].requires_grad


def test_number_of_mixtures_and_clean_rows():
    assert len(mix(n_mixed=None).targets) == 16 and len(mix().targets) == 200
    assert mix().clean_weight == 0 and mix(clean_plus_mixed=True).clean_weight == 1
    assert torch.equal(mix().targets, mix(clean_plus_mixed=True).targets)


# --- what code found in the open does


@pytest.mark.parametrize("size", [2, 3, 16])
def test_rows_with_no_or_one_entry_are_drawn_again(size):
    g = torch.Generator().manual_seed(1)
    draws = make(mask_rows="redraw", n_mixed=4000).draw(size, g, torch.float32)
    counts = draws["masks"].sum(-1)
    assert counts.min() == 2
    # the law is the Bernoulli's given two entries or more: P = 3 on average over 16 columns
    if size == 16:
        q = 3 / 16
        none, one = (1 - q) ** 16, 16 * q * (1 - q) ** 15
        assert counts.float().mean().item() == pytest.approx((3 - one) / (1 - none - one), rel=0.02)
        kept = make(n_mixed=4000).draw(size, torch.Generator().manual_seed(1), torch.float32)["masks"]
        enough = kept.sum(-1) >= 2
        assert torch.equal(draws["masks"][enough], kept[enough]) and 0.1 < 1 - enough.float().mean() < 0.25


def test_a_row_that_never_comes_out_full_gets_two_columns():
    none = torch.zeros(1, 500, 8, dtype=torch.bool)
    rows = redrawn_masks(none, 2, (1e-9, 1e-9), torch.Generator().manual_seed(0), torch.float32)
    assert (rows.sum(-1) == 2).all() and (rows.sum((0, 1)) > 80).all()  # 125 of 500 rows have each


def test_alpha_per_column_gives_an_example_the_same_expected_weight_in_every_row():
    g = torch.Generator().manual_seed(3)
    by_row = make(n_mixed=6000).draw(4, g, torch.float64)["weights"][0]
    by_column = make(n_mixed=6000, alpha_per="column").draw(4, g, torch.float64)["weights"][0]
    assert_close(by_row.mean(0), torch.full((4,), 0.25, dtype=torch.float64), atol=0.01, rtol=0)
    assert (by_column.mean(0) - 0.25).abs().max() > 0.05  # alpha_j / sum alpha
    mean = by_column.mean(0)
    total = (mean * (1 - mean) / by_column.var(0)).mean() - 1  # of Dirichlet(alpha): the sum of the alphas
    assert 4 * 0.5 < total < 4 * 2


def test_the_open_codes_reading_runs_and_stays_convex():
    mixed = mix(16, mask_rows="redraw", alpha_per="column", eps=1e-5)
    assert all((r > 0).sum(1).min() >= 2 for r in mixed.ratios.values())
    with pytest.raises(BenchError, match="mask_rows must be one of repair, redraw"):
        make(mask_rows="again")


def test_powmix_runs_manifold_with_a_ratio_per_pair_in_halves():
    c = config("powmix", "mult", "mosi", "manifold")
    assert (c.mixer_params["ratio"], c.mixer_params["protocol"]) == ("pair", "halves")
    draws = manifold.Mix(manifold.Params(**c.mixer_params), DIMS, 3.0).draw(16, torch.Generator().manual_seed(0), torch.float32)
    assert draws["ratio"].shape == (8,) and len(draws["ratio"].unique()) == 8
