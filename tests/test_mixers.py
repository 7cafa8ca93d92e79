"""What every mixer must do, and Manifold Mixup, MultiMix and AdvMixUp in particular."""

import pytest
import torch
from scipy import stats
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close

from bench import registry
from bench.errors import BenchError
from bench.mixers import advmixup, manifold, msmix, multimix, none, powmix, sampling
from bench.mixers.base import Mixer
from bench.train.capturable import host_reads

SIX = ("private_text", "private_vision", "private_audio", "shared_text", "shared_vision", "shared_audio")
DIMS = {
    "vectors": {"text": (6,), "audio": (3,), "vision": (5,)},
    "tokens": {"text": (3, 8), "audio": (3, 8), "vision": (3, 8)},
    "six": dict.fromkeys(SIX, (4,)),
}
MIXERS = {
    "manifold halves": (manifold, {}),
    "manifold joint": (manifold, {"protocol": "joint", "ratio": "pair", "criterion": "mse", "alpha": 2.0}),
    "multimix": (multimix, {"n_mixed": 20}),
    "multimix anisotropic": (multimix, {"n_mixed": 20, "anisotropic": True, "alpha_per_row": False}),
    "powmix": (powmix, {"n_mixed": 20}),
    "powmix as many": (powmix, {"n_mixed": None, "detach_weights": False, "mask_sharing": False}),
    "powmix of the open code": (powmix, {"n_mixed": 20, "mask_rows": "redraw", "alpha_per": "column", "eps": 1e-5}),
    "advmixup": (advmixup, {}),
    "advmixup ungrouped": (advmixup, {"group": False}),
    "msmix": (msmix, {}),
    "msmix six heads over the batch": (msmix, {"heads": 6, "attend": "batch", "salience": "printed"}),
    "msmix linear": (msmix, {"sig": "linear", "similarity": "minmax", "mix_loss": "eq14"}),
    "msmix ground-truth": (msmix, {"sig": "ground-truth", "sal": False}),
    "msmix ungrouped": (msmix, {"group": False, "sal_labels": "bounded"}),
    "msmix release": (msmix, {"variant": "release"}),
}


def make(module, dims, **params) -> Mixer:
    torch.manual_seed(0)
    return module.Mix(module.Params(**params), dims, 3.0)


def batch(dims, size, seed=0):
    g = torch.Generator().manual_seed(seed)
    latents = {k: torch.randn(size, *d, generator=g).requires_grad_() for k, d in dims.items()}
    return latents, 6 * torch.rand(size, generator=g) - 3


def generator(seed=1):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("kind", DIMS)
@pytest.mark.parametrize("name", MIXERS)
def test_no_mixer_reads_the_host_whatever_its_switches(name, kind):
    module, params = MIXERS[name]
    mixer, (latents, targets) = make(module, DIMS[kind], **params), batch(DIMS[kind], 16)

    def step():
        mixed = mixer.mix(latents, targets, g)
        loss = mixed.loss(mixed.targets.detach()) if mixed.loss else mixed.targets.sum()
        (loss + sum(v.square().mean() for v in mixed.latents.values()) + sum(mixed.losses.values())).backward()

    g = generator()
    step()  # what is made lazily is made
    assert not host_reads(step)


@pytest.mark.parametrize("size", [2, 3, 16])
@pytest.mark.parametrize("kind", DIMS)
@pytest.mark.parametrize("name", MIXERS)
def test_mixtures_are_convex_finite_and_differentiable(name, kind, size):
    module, params = MIXERS[name]
    if name == "msmix release" and kind == "tokens":
        pytest.skip("the released ratios of token latents leave [0, 1]")
    mixer = make(module, DIMS[kind], **params)
    latents, targets = batch(DIMS[kind], size)
    mixed = mixer.mix(latents, targets, generator())
    n = len(mixed.targets)
    slack = 1e-5
    assert mixed.targets.min() >= targets.min() - slack and mixed.targets.max() <= targets.max() + slack
    assert list(mixed.latents) == list(latents)
    for key, values in mixed.latents.items():
        assert values.shape == (n, *DIMS[kind][key])
        assert (values >= latents[key].amin(0) - slack).all() and (values <= latents[key].amax(0) + slack).all()
    if "first" in mixed.ratios:  # a mixture of two stays between its two parents
        first, second = targets[mixed.ratios["first"]], targets[mixed.ratios["second"]]
        assert (mixed.targets >= torch.minimum(first, second) - slack).all()
        assert (mixed.targets <= torch.maximum(first, second) + slack).all()
        assert ((mixed.ratios["label"] >= 0) & (mixed.ratios["label"] <= 1)).all()
    prediction = sum(v.flatten(1).square().sum(1) for v in mixed.latents.values())
    loss = (mixed.loss or (lambda p: F.l1_loss(p, mixed.targets)))(prediction) + sum(mixed.losses.values())
    loss.backward()
    for v in latents.values():
        assert v.grad.isfinite().all() and v.grad.abs().sum() > 0
    assert all(p.grad is None or p.grad.isfinite().all() for p in mixer.parameters())


@pytest.mark.parametrize("name", MIXERS)
def test_same_generator_same_mixture_and_no_global_draws(name):
    module, params = MIXERS[name]
    mixer = make(module, DIMS["vectors"], **params)
    latents, targets = batch(DIMS["vectors"], 8)
    before = torch.get_rng_state()
    one, same, other = (mixer.mix(latents, targets, generator(seed)) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(one.latents["text"], same.latents["text"]) and torch.equal(one.targets, same.targets)
    assert not torch.equal(one.targets, other.targets)


@pytest.mark.parametrize("name", MIXERS)
def test_constant_labels_stay_constant(name):
    module, params = MIXERS[name]
    latents, _ = batch(DIMS["six"], 8)
    mixed = make(module, DIMS["six"], **params).mix(latents, torch.full((8,), 1.7), generator())
    assert_close(mixed.targets, torch.full_like(mixed.targets, 1.7))


@pytest.mark.parametrize("name", ["multimix", "powmix", "manifold joint", "msmix"])
def test_autocast_does_not_round_labels_or_ratios(name):
    module, params = MIXERS[name]
    latents, targets = batch(DIMS["vectors"], 8)
    mixer = make(module, DIMS["vectors"], **params)
    plain = mixer.mix(latents, targets, generator())
    with torch.autocast("cpu", torch.bfloat16):
        cast = mixer.mix(latents, targets, generator())
    assert torch.equal(plain.targets, cast.targets)


@pytest.mark.parametrize("name", [n for n in MIXERS if "advmixup" not in n])
def test_a_stack_of_seeds_mixes_as_each_seed_alone(name):
    module, params = MIXERS[name]
    dims = DIMS["tokens"]
    mixer = make(module, dims, **params).double()
    both = [batch(dims, 8, seed) for seed in (3, 4)]
    drawn = [mixer.draw(8, generator(seed), torch.float64) for seed in (5, 6)]

    def results(latents, targets, draws):
        mixed = mixer.apply(latents, targets, draws)
        loss = mixed.loss or (lambda p: F.l1_loss(p, mixed.targets))
        return mixed.latents, mixed.targets, loss(torch.zeros_like(mixed.targets)) + sum(mixed.losses.values())

    stacked = torch.vmap(results)(
        {k: torch.stack([b[0][k].double() for b in both]) for k in dims},
        torch.stack([b[1].double() for b in both]),
        {k: torch.stack([d[k] for d in drawn]) for k in drawn[0]},
    )
    for i, ((latents, targets), draws) in enumerate(zip(both, drawn, strict=True)):
        alone = results({k: v.double() for k, v in latents.items()}, targets.double(), draws)
        assert_close([stacked[0][k][i] for k in dims], [alone[0][k] for k in dims], rtol=0, atol=1e-12)
        assert_close([stacked[1][i], stacked[2][i]], [alone[1], alone[2]], rtol=1e-12, atol=1e-12)


def test_ratio_one_is_the_identity():
    dims = DIMS["tokens"]
    latents, targets = batch(dims, 6)
    order, one = torch.tensor([3, 3, 0, 5, 1, 2]), torch.ones(6)

    joint = make(manifold, dims, protocol="joint")
    multi, pow_ = make(multimix, dims), make(powmix, dims, reweight=True)
    chosen = F.one_hot(order, 6).float()[None]
    adv = make(advmixup, dims)
    ms = make(msmix, dims, sig="off", sal=False)
    truth = make(msmix, dims, sig="ground-truth", sal=False)
    weakest = targets.abs().argmin().expand(6)
    strong = torch.tensor([i for i in range(6) if i != weakest[0]])
    for mixed, rows in (
        (joint.apply(latents, targets, {"first": order, "second": order.flip(0), "ratio": one}), order),
        (multi.apply(latents, targets, {"weights": chosen}), order),
        (pow_.apply(latents, targets, {"weights": chosen.expand(3, -1, -1), "masks": torch.ones(1, 6, 6)}), order),
        (adv.blend(latents, targets, order, {k: torch.ones(6, 24) for k in dims}), torch.arange(6)),
        (ms.blend(latents, targets, order, order.flip(0), one), order),
        (truth.blend(latents, targets, strong, weakest[:5], one[:5]), strong),
    ):
        assert_close(mixed.targets, targets[rows], rtol=0, atol=1e-6)
        for k in dims:
            assert_close(mixed.latents[k], latents[k][rows], rtol=0, atol=1e-6)


def test_the_registry_finds_the_mixers_and_not_their_shared_modules():
    assert set(registry.names("mixers")) >= {"none", "manifold", "multimix", "powmix", "advmixup", "msmix"}
    assert not {"sampling", "combine", "intensity", "options", "msmix_release"} & set(registry.names("mixers"))


def test_none_never_mixes():
    assert make(none, DIMS["vectors"]).probability == 0


@pytest.mark.parametrize(
    ("module", "params", "message"),
    [
        (manifold, {"protocol": "half"}, "protocol must be one of halves, joint"),
        (multimix, {"p_mix": 1.5}, "p_mix must lie in"),
        (powmix, {"mask_range": (4.0, 2.0)}, "mask_range must be two numbers"),
        (powmix, {"n_mixed": 0}, "n_mixed must be at least 1"),
        (advmixup, {"alpha": 0.0}, "alpha must be greater than 0"),
        (msmix, {"sig": "off"}, "sal needs a predictor"),
        (msmix, {"variant": "release", "sig": "linear"}, "the release has no sig"),
    ],
)
def test_wrong_parameters_say_so(module, params, message):
    with pytest.raises(BenchError, match=message):
        module.Params(**params)


def test_latents_group_by_what_follows_the_last_underscore():
    assert sampling.modality_groups(SIX) == {
        "text": ("private_text", "shared_text"),
        "vision": ("private_vision", "shared_vision"),
        "audio": ("private_audio", "shared_audio"),
    }
    assert sampling.modality_groups(("text", "audio")) == {"text": ("text",), "audio": ("audio",)}


@pytest.mark.parametrize("alpha", [0.2, 1.0, 2.0])
def test_beta_draws_follow_the_beta_distribution(alpha):
    drawn = sampling.beta(alpha, 20_000, generator(), torch.float64)
    assert stats.kstest(drawn.numpy(), stats.beta(alpha, alpha).cdf).pvalue > 1e-3


def test_dirichlet_rows_follow_the_dirichlet_distribution():
    b, alpha = 8, 2.0
    rows = sampling.dirichlet(1, 40_000, b, (alpha, alpha), generator(), torch.float64)[0]
    assert_close(rows.sum(1), torch.ones(40_000, dtype=torch.float64))
    marginal = stats.beta(alpha, alpha * (b - 1))  # of every entry
    assert stats.kstest(rows[:, 3].numpy(), marginal.cdf).pvalue > 1e-3


def test_dirichlet_concentration_is_per_row_or_per_step():
    def between_row_spread(per_row):
        w = sampling.dirichlet(1, 2000, 256, (0.5, 2.0), generator(), torch.float32, per_row)[0]
        return w.std(1).std() / w.std(1).mean()

    assert between_row_spread(True) > 0.2 > 0.1 > between_row_spread(False)  # a row's std is 1 / (B sqrt(alpha))


def test_permutation_is_uniform():
    counts = torch.zeros(4, 4)
    g = generator()
    for _ in range(3000):
        counts[torch.arange(4), sampling.permutation(4, g)] += 1
    assert (counts - 750).abs().max() < 110  # 4.6 standard deviations


# --- Manifold Mixup


def test_halves_mix_row_k_of_one_half_with_row_k_of_the_other():
    mixer = make(manifold, {"text": (1,)})
    x = torch.arange(8.0)
    mixed = mixer.mix({"text": x[:, None]}, x, generator())
    ratio = mixed.ratios["label"][0]
    assert mixer.batch_multiplier == 2 and mixed.clean_weight == 0
    assert_close(mixed.targets, ratio * x[:4] + (1 - ratio) * x[4:])
    assert_close(mixed.latents["text"][:, 0], mixed.targets)


def test_halves_of_an_odd_batch_use_every_row():
    draws = make(manifold, {"text": (1,)}).draw(5, generator(), torch.float32)
    assert draws["first"].tolist() == [0, 1, 2] and draws["second"].tolist() == [2, 3, 4]


def test_ratio_per_step_is_one_number_and_per_pair_is_many():
    def ratios(per):
        return make(manifold, {"text": (1,)}, ratio=per).draw(32, generator(), torch.float32)["ratio"]

    assert len(ratios("step").unique()) == 1 and len(ratios("pair").unique()) == 16


@pytest.mark.parametrize("mix_loss", ["eq13", "eq14"])
def test_joint_manifold_is_msmix_with_every_module_off(mix_loss):
    dims = DIMS["six"]
    base = make(manifold, dims, protocol="joint", ratio="pair", criterion="mse", alpha=2.0, weight=0.7)
    bare = make(msmix, dims, sass=False, sig="off", sal=False, mix_loss=mix_loss)
    latents, targets = batch(dims, 16)
    a, b = (m.mix(latents, targets, generator()) for m in (base, bare))
    assert torch.equal(a.targets, b.targets) and all(torch.equal(a.latents[k], b.latents[k]) for k in dims)
    assert (a.clean_weight, a.mixed_weight, dict(b.losses)) == (b.clean_weight, b.mixed_weight, {})
    p = torch.randn(16, generator=generator()).requires_grad_()
    gradients = [torch.autograd.grad(m.loss(p), p)[0] for m in (a, b)]
    assert_close(*gradients)  # the two printed losses differ by a constant here
    if mix_loss == "eq14":
        assert torch.equal(a.loss(p), b.loss(p))
    assert not list(bare.parameters())


# --- MultiMix


def test_multimix_shares_one_matrix_over_latents_and_label():
    latents, targets = batch(DIMS["vectors"], 6)
    latents["text"] = torch.stack([targets] * 6, 1)
    mixed = make(multimix, DIMS["vectors"], n_mixed=50).mix(latents, targets, generator())
    assert_close(mixed.latents["text"][:, 2], mixed.targets)
    assert len({w.data_ptr() for w in mixed.ratios.values()}) == 1 and mixed.clean_weight == 0


def test_anisotropic_multimix_averages_the_labels_of_the_modalities():
    latents, targets = batch(DIMS["vectors"], 6)
    latents = {k: targets[:, None] for k in latents}
    mixer = make(multimix, dict.fromkeys(latents, (1,)), n_mixed=50, anisotropic=True)
    mixed = mixer.mix(latents, targets, generator())
    of_modality = torch.cat(list(mixed.latents.values()), 1)  # (n, M), here Lambda_m y
    assert_close(mixed.targets, of_modality.mean(1))
    assert of_modality.std(1).min() > 0


# --- AdvMixUp


class Fusion(nn.Module):
    def __init__(self, dims):
        super().__init__()
        width = sum(torch.Size(d).numel() for d in dims.values())
        self.net = nn.Sequential(nn.Linear(width, 16), nn.Tanh(), nn.Linear(16, 1))

    def forward(self, latents):
        return self.net(torch.cat([v.flatten(1) for v in latents.values()], 1)).squeeze(1)


@pytest.fixture(params=DIMS)
def adversarial(request):
    dims = DIMS[request.param]
    mixer, fusion = make(advmixup, dims, inner_steps=3), Fusion(dims)
    latents, targets = batch(dims, 16)
    return mixer, fusion, latents, targets


def test_inner_steps_raise_the_mixed_loss_and_leave_the_backbone_alone(adversarial):
    mixer, fusion, latents, targets = adversarial
    frozen = {k: v.detach() for k, v in latents.items()}
    draws = mixer.draw(16, generator(), torch.float32)

    def mixed_loss():
        with torch.no_grad():
            mixed = mixer.blend(frozen, targets, draws["second"], mixer.masks(frozen, draws))
            return F.l1_loss(fusion(mixed.latents), mixed.targets).item()

    losses = [mixed_loss()]
    for _ in range(3):
        mixer.adversary(frozen, targets, fusion, F.l1_loss, generator())
        losses.append(mixed_loss())
    assert losses == sorted(losses) and losses[-1] > losses[0] + 1e-3
    assert all(p.grad is None for p in fusion.parameters()) and all(v.grad is None for v in latents.values())


def test_mix_uses_the_adversarys_draws_and_trains_no_generator(adversarial):
    mixer, fusion, latents, targets = adversarial
    frozen = {k: v.detach() for k, v in latents.items()}
    stream = generator()
    mixer.adversary(frozen, targets, fusion, F.l1_loss, stream)
    expected = mixer.draw(16, generator(), torch.float32)
    mixed = mixer.mix(latents, targets, stream)
    assert torch.equal(mixed.ratios["second"], expected["second"])
    F.l1_loss(fusion(mixed.latents), mixed.targets).backward()
    assert all(p.grad is None for p in mixer.parameters()) and mixer.own_parameters() == []
    assert all(v.grad.abs().sum() > 0 for v in latents.values())
    assert mixer.held is None


def test_untrained_masks_are_flat_at_the_drawn_ratio(adversarial):
    mixer, _, latents, targets = adversarial
    draws = mixer.draw(16, generator(), torch.float32)
    masks = mixer.masks(latents, draws)
    for mask in masks.values():
        assert_close(mask, draws["ratio"][:, None].expand_as(mask))
    mixed = mixer.blend(latents, targets, draws["second"], masks)
    assert_close(mixed.ratios["label"], draws["ratio"])
    assert masks["text"].requires_grad and not mixed.targets.requires_grad
