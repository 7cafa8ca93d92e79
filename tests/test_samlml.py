"""SAM-LML: its losses against hand-computed numbers, its switches, its four modalities, what missing modalities leave
out. Encoder: tiny random BERT. Legend: B batch, L steps."""

from dataclasses import dataclass, replace
from itertools import islice

import pytest
import torch
from torch import nn

from bench import registry
from bench.errors import BenchError
from bench.models import samlml
from bench.models.base import Inputs
from bench.models.parts import cost, ranking, sequence_nets
from bench.models.parts.supervised_attention import Attention, Decomposition, information_loss
from bench.models.samlml import MODALITIES, TABLE4_ROWS, TABLE12_ROWS, Model, Params
from bench.train.loop import criterion, step_losses
from bench.train.optim import build_optimiser
from bench.train.protocol import Protocol

pytest.importorskip("transformers")

B, L = 5, 9
SHAPES = {"words": ((L, 5), (L, 7)), "unaligned": ((14, 5), (11, 7))}
SMALL = {"encoder": "tiny", "d": 20, "predictor_width": 10, "layers": (1, 1, 1)}
DECOMPOSITION = {"replacement", "orthogonality", "closeness", "reconstruction", "information"}
INTRA = DECOMPOSITION | {"noise_intra", "variance_intra", "context"}
INTER = {"noise_inter", "mixing", "variance_inter"}
GONE = {  # row of Table 4 -> losses it lacks
    "W/O Supervised Learning": INTRA | INTER,
    "Unsupervised Intra-Modal Attention": INTRA,
    "Unsupervised Inter-Modal Attention": INTER,
    "W/O Noise Addition Operation": {"noise_intra", "noise_inter"},
    "W/O Modality Mixing Operation": {"mixing"},
    "W/O Modality Decomposition Replacement": DECOMPOSITION,
    "W/O Variance Constraint": {"variance_intra", "variance_inter"},
    "W/O Context Constraint": {"context"},
    "SAM-LML": set(),
}
UR_FUNNY = dict(
    d=150, order="transformer-conv", blocks="hkt", layers=(8, 7, 3), heads=(3, 3, 2), feed_forward=(256, 128, 128),
    scale="none", loss="bce",
)
MUSTARD = {**UR_FUNNY, "d": 48, "layers": (1, 8, 8), "heads": (3, 4, 4), "feed_forward": (512, 1024, 128)}


@dataclass(frozen=True)
class Humour(Inputs):
    """Inputs of a dataset with the four human-centric features."""

    hcf: tuple[int, int] = (L, 4)


def make(features: str = "words", **params) -> Model:
    audio, vision = SHAPES[features]
    inputs = Inputs(text=(L, 64), audio=audio, vision=vision, aligned=features == "words")
    torch.manual_seed(1)
    return Model(Params(**{**SMALL, **params}), inputs)


def make_humour(**params) -> Model:
    torch.manual_seed(1)
    small = {"d": 20, "layers": (1, 1, 1), "predictor_width": 10}
    inputs = Humour(text=(L, 64), audio=(L, 60), vision=(L, 36), aligned=True)
    return Model(Params(**{**UR_FUNNY, "encoder": "tiny", **small, **params}), inputs)


def make_batch(features: str = "words", seed: int = 0, size: int = B, humour: bool = False) -> dict[str, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    lengths = torch.randint(4, L + 1, (size,), generator=g)
    mask = (torch.arange(L) < lengths[:, None]).long()
    ids = torch.randint(1000, 20000, (size, L), generator=g)
    batch = {"text_bert": torch.stack([ids * mask, mask, 0 * mask], 1)}
    shapes = dict(zip(("audio", "vision"), SHAPES[features]))
    if humour:
        shapes = {"audio": (L, 60), "vision": (L, 36), "hcf": (L, 4)}
    for m, (steps, d) in shapes.items():
        own = lengths if steps == L else torch.randint(1, steps + 1, (size,), generator=g)
        valid = (torch.arange(steps) < own[:, None])[..., None]
        batch |= {m: torch.randn(size, steps, d, generator=g) * valid, f"{m}_lengths": own}
    label = torch.rand(size, generator=g) * 6 - 3
    return batch | {"label": (label > 0).float() if humour else label, "index": torch.randperm(20, generator=g)[:size]}


def losses_of(model: Model, batch: dict[str, torch.Tensor], seed: int = 0) -> dict[str, torch.Tensor]:
    torch.manual_seed(seed)
    encoded = model.encode(batch)
    return model.aux_losses(batch, encoded, model.fuse(encoded.latents))


def near(found: torch.Tensor, *expected: float) -> None:
    torch.testing.assert_close(found, torch.tensor(expected, dtype=found.dtype), rtol=1e-5, atol=1e-6)


# --- the losses, by hand ---------------------------------------------------------------------------------------------

A = torch.tensor([[[1.0, 2.0], [0.0, -1.0]]])  # (1, 2, 2)
N = torch.tensor([[[0.5, 3.0], [-2.0, -1.0]]])


def test_rankings_by_hand():
    # N - A = [[-0.5, 1], [-2, 0]]; plus margin 1 and ReLU: [[0.5, 2], [0, 1]]
    near(ranking.ranking(N, A, 1.0), 3.5 / 4)
    # with lambda = 0.5: 0.5 (N - A) + 1 = [[0.75, 1.5], [0, 1]]
    near(ranking.noise_ranking(A, N, torch.tensor(0.5), 1.0), (3.5 + 3.25) / 4)
    # (1 - 0.25) (scores - own) + 1 = 0.75 [1, -2] + 1 = [1.75, -0.5]
    scores, own = torch.tensor([[2.0, 0.0]]), torch.tensor([[1.0, 2.0]])
    near(ranking.mixing_ranking(scores, own, torch.tensor(0.25), 1.0), 1.75 / 2)


def test_spread_by_hand():
    weights = torch.tensor([[[0.5, 0.5, 0.0, 0.0], [0.25] * 4]])  # deviations 0.25 and 0
    near(ranking.spread(weights, 0.3), (0.05 + 0.3) / 2)
    near(ranking.spread(weights, 0.2), (0.0 + 0.2) / 2)
    weights = weights.requires_grad_()
    ranking.spread(weights, 0.3).sum().backward()
    assert weights.grad[0, 0].abs().sum() > 0 and not weights.grad[0, 1].any()  # a uniform row is 0, not NaN


def test_context_by_hand():
    band = ranking.diagonal_band(5, 3, A)
    assert band.tolist() == [[1, 1, 0, 0, 0], [1, 1, 1, 0, 0], [0, 1, 1, 1, 0], [0, 0, 1, 1, 1], [0, 0, 0, 1, 1]]
    assert ranking.diagonal_band(8, 6, A)[4].tolist() == [0, 1, 1, 1, 1, 1, 1, 0]  # 3 before, 2 after
    scores = torch.diag(torch.tensor([4.0, 0.0, 0.0]))[None]  # (1, 3, 3)
    # row means 4/3, 0, 0; means near the diagonal (rho 3, clipped) 2, 0, 0; margin 0.5
    near(ranking.context(scores, 3, 0.5), (0.0 + 0.5 + 0.5) / 3)
    near(ranking.context(scores, 3, 1.0), (1 / 3 + 1 + 1) / 3)


def test_absolute_labels_by_hand():
    own, other = torch.zeros(1, 1, 2), torch.tensor([[[0.0, torch.log(torch.tensor(3.0))]]])
    # joint softmax of [0, 0, 0, log 3] = [1, 1, 1, 3] / 6
    near(ranking.joint_label(own, other, 0.0), ((1 / 6) ** 2 + (1 / 2) ** 2) / 2)
    near(ranking.joint_label(own, other, 0.5), (1 / 3) ** 2 / 2)
    mixed = torch.tensor([[[0.0, 0.0], [torch.log(torch.tensor(3.0)), 0.0]]])  # diagonal weights 1/2, 1/4
    near(ranking.slice_label(mixed, 0.1), (0.4**2 + 0.15**2) / 2)


def test_masks_leave_padding_out_of_every_mean():
    g = torch.Generator().manual_seed(0)
    scores, noisy = (torch.randn(2, 4, 4, generator=g) for _ in range(2))
    mask = torch.tensor([[1.0, 1, 1, 0], [1, 1, 1, 0]])
    weights = ranking.masked(scores, mask).softmax(-1)
    cut, cut_noisy = scores[:, :3, :3], noisy[:, :3, :3]
    pairs = [
        (ranking.ranking(noisy, scores, 1.0, mask, mask), ranking.ranking(cut_noisy, cut, 1.0)),
        (ranking.spread(weights, 0.3, mask, mask), ranking.spread(cut.softmax(-1), 0.3)),
        (ranking.context(scores, 3, 0.5, mask, mask), ranking.context(cut, 3, 0.5)),
        (ranking.joint_label(scores, noisy, 0.1, mask, mask), ranking.joint_label(cut, cut_noisy, 0.1)),
        (ranking.slice_label(scores, 0.1, mask, mask), ranking.slice_label(cut, 0.1)),
    ]
    for masked, plain in pairs:
        torch.testing.assert_close(masked, plain)


def test_unequal_lengths_meet_at_equal_relative_time():
    assert ranking.time_slices(4, 4, "cpu").tolist() == [0, 1, 2, 3]
    assert ranking.time_slices(2, 6, "cpu").tolist() == [1, 4]
    assert ranking.time_slices(6, 2, "cpu").tolist() == [0, 0, 0, 1, 1, 1]
    near(ranking.at_slices(A), [1.0, -1.0])


# --- the short cuts, directly ----------------------------------------------------------------------------------------

@pytest.fixture
def parts(monkeypatch):
    """An attention, X_1 and X_2 [3, L, 8], and the noise and lambda that the next loss will draw."""
    torch.manual_seed(0)
    attention, x1, x2, noise = Attention(8), torch.randn(3, L, 8), torch.randn(3, L, 8), torch.randn(3, L, 8)
    monkeypatch.setattr(torch, "randn_like", lambda x: noise)
    monkeypatch.setattr(torch, "rand", lambda *size, **kw: torch.tensor(0.3))
    return attention, x1, x2, noise


def direct(attention: Attention, x1: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
    return x1 @ attention.query.weight.T @ (keys @ attention.key.weight.T).transpose(1, 2) / 8**0.5


def test_the_noise_loss_equals_equations_3_to_6(parts):
    attention, x1, x2, noise = parts
    a, a_n = direct(attention, x1, x2), direct(attention, x1, noise)
    augmented = direct(attention, x1, 0.3 * x2 + 0.7 * noise)
    expected = (a_n - a + 1).relu().mean((1, 2)) + (a_n - augmented + 1).relu().mean((1, 2))
    found = attention.noise_loss("ranking", 1.0, attention.query(x1), a, x2, None, None)
    torch.testing.assert_close(found, expected)


def test_the_mixing_loss_equals_equations_26_to_28(parts):
    attention, x1, x2, _ = parts
    a, mixed = direct(attention, x1, x2), direct(attention, x1, 0.3 * x2 + 0.7 * x1)
    found = attention.mixing_loss("ranking", 1.0, attention.query(x1), a, x1, None, None)
    torch.testing.assert_close(found, (a - mixed + 1).relu().diagonal(dim1=1, dim2=2).mean(1))
    labelled = attention.mixing_loss("deterministic", 1.0, attention.query(x1), a, x1, None, None)
    torch.testing.assert_close(labelled, (mixed.softmax(-1).diagonal(dim1=1, dim2=2) - 0.1).square().mean(1))


def test_attention_is_plain_attention(parts):
    attention, x1, x2, _ = parts
    weights = direct(attention, x1, x2).softmax(-1)
    found = attention(attention.query(x1), x2)
    torch.testing.assert_close(found.weights, weights)
    torch.testing.assert_close(found.value, nn.functional.layer_norm(weights @ x2 @ attention.value.weight.T, (8,)))


def test_decomposition_losses_by_norms(parts):
    _, u, _, noise = parts
    split = Decomposition(8)
    irrelevant, relevant = split(u)
    found = split.losses(u, irrelevant, relevant, 0.1, None)
    composed = split.compose(torch.cat([irrelevant, relevant], -1))
    frobenius = torch.linalg.matrix_norm(relevant @ irrelevant.transpose(1, 2)) / L
    torch.testing.assert_close(found["orthogonality"], frobenius)
    torch.testing.assert_close(found["reconstruction"], torch.linalg.matrix_norm(u - composed) / (8 * L) ** 0.5)
    torch.testing.assert_close(found["closeness"], ((u - irrelevant) ** 2).mean((1, 2)) - 0.1)
    assert not split.losses(u, u, relevant, 0.1, None)["closeness"].any()
    predictor = nn.Linear(8, 1)
    gap = (predictor(irrelevant) - predictor(noise)).squeeze(-1)
    information = information_loss(predictor, irrelevant, None, detach=False)
    torch.testing.assert_close(information, gap.square().mean(1))
    assert torch.autograd.grad(information.sum(), predictor.weight, retain_graph=True)[0].any()
    detached = information_loss(predictor, irrelevant, None, detach=True)
    torch.testing.assert_close(detached, information)
    assert torch.autograd.grad(detached.sum(), predictor.weight, allow_unused=True)[0] is None


# --- the switches ----------------------------------------------------------------------------------------------------

def without_chance(monkeypatch):
    """The same noise and lambda whatever was drawn before."""
    table = torch.randn(B, 64, 20, generator=torch.Generator().manual_seed(3))
    monkeypatch.setattr(torch, "randn_like", lambda x: table[:, : x.shape[1], : x.shape[2]])
    monkeypatch.setattr(torch, "rand", lambda *size, **kw: torch.tensor(0.6))


@pytest.mark.parametrize("row", TABLE4_ROWS)
def test_a_row_of_table_4_lacks_exactly_its_losses(row, monkeypatch):
    """The other losses keep their values, and the gradient is that of the full model without the missing losses."""
    full, ablated, batch = make().eval(), make(**TABLE4_ROWS[row]).eval(), make_batch()
    without_chance(monkeypatch)
    everything, left = losses_of(full, batch), losses_of(ablated, batch)
    assert set(everything) == {"cross"} | INTRA | INTER
    assert set(left) == set(everything) - GONE[row]
    for name, value in left.items():
        assert value > 0 and torch.equal(value, everything[name]), name
    sum(everything[name] for name in left).backward()
    sum(left.values()).backward()
    theirs = dict(full.named_parameters())
    for name, q in ablated.named_parameters():
        if q.grad is None:
            assert theirs[name].grad is None or not theirs[name].grad.any(), name
        else:
            torch.testing.assert_close(q.grad, theirs[name].grad, rtol=1e-4, atol=1e-9)
    if GONE[row] & DECOMPOSITION:  # and its networks are not there at all
        assert not any(n.startswith("decompositions") for n, _ in ablated.named_parameters())


@pytest.mark.parametrize("row", TABLE12_ROWS)
def test_a_row_of_table_12_changes_only_the_named_loss(row, monkeypatch):
    models, batch = (make().eval(), make(**TABLE12_ROWS[row]).eval()), make_batch()
    without_chance(monkeypatch)
    full, other = (losses_of(model, batch) for model in models)
    named = {"NAL-v2": {"noise_intra", "noise_inter"}, "MML-v2": {"mixing"}, "MDRL-v2": {"replacement"}}
    assert set(full) == set(other)
    assert {k for k in full if not torch.equal(full[k], other[k])} == named.get(row, set())


def test_weights_follow_equation_29(monkeypatch):
    batch, weights = make_batch(), dict(alpha=0.3, alpha_de=0.7, alpha_mix=0.2, alpha_c=0.4, alpha_p=0.9)
    models = make(**dict.fromkeys(weights, 1.0)).eval(), make(**weights).eval()
    without_chance(monkeypatch)
    unit, found = (losses_of(model, batch) for model in models)
    expected = {"cross": 0.9, "noise_intra": 0.3, "noise_inter": 0.3, "replacement": 0.3, "mixing": 0.2, "context": 0.4}
    expected |= {"variance_intra": 0.4, "variance_inter": 0.4, "closeness": 0.3 * 0.7 * 0.3}
    expected |= dict.fromkeys(("orthogonality", "reconstruction", "information"), 0.3 * 0.7)
    for name, weight in expected.items():
        torch.testing.assert_close(found[name], weight * unit[name])


def test_rows_are_readable_without_importing_torch():
    constants = registry.constants("models", "samlml")
    assert constants["TABLE4_ROWS"] == TABLE4_ROWS and constants["TABLE12_ROWS"] == TABLE12_ROWS
    assert list(TABLE4_ROWS) == list(GONE) and constants["VERSION"] == samlml.VERSION


@pytest.mark.parametrize("features", SHAPES)
@pytest.mark.parametrize("changes", [*islice(TABLE4_ROWS.values(), 8), *TABLE12_ROWS.values()], ids=str)
def test_two_training_steps(changes, features):
    """Losses stay finite, and every parameter of the groups moves, once in a group."""
    model = make(features, **changes).train()
    p = Protocol(loss="mse", optimiser="adamw", lr=1e-3)
    optimiser = build_optimiser(model, [], p)
    grouped = [q for g in optimiser.param_groups for q in g["params"]]
    assert len(grouped) == len({id(q) for q in grouped}) == len(list(model.parameters()))
    before = {n: q.detach().clone() for n, q in model.named_parameters()}
    torch.manual_seed(0)
    for seed in (1, 2):
        losses, _ = step_losses(model, None, make_batch(features, seed), criterion(p), None)
        losses["total"].backward()
        optimiser.step(), optimiser.zero_grad()
        assert all(torch.isfinite(v) for v in losses.values()), losses
    assert [n for n, q in model.named_parameters() if torch.equal(q, before[n])] == []


# --- the whole model -------------------------------------------------------------------------------------------------

def test_a_step_is_reproducible_and_evaluation_draws_nothing():
    runs = []
    for _ in range(2):
        model = make().train()
        runs.append({k: v.detach() for k, v in losses_of(model, make_batch()).items()})
    assert all(torch.equal(runs[0][k], runs[1][k]) for k in runs[0])
    model.eval()
    batch = make_batch() | {"keep_text": torch.tensor([True, False, True, True, False])}
    state = torch.get_rng_state()
    first, second = model(batch).prediction, model(batch).prediction
    assert torch.equal(first, second) and torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("features", SHAPES)
def test_a_permuted_batch_gives_permuted_predictions(features):
    model, order = make(features).eval(), torch.randperm(B)
    batch = make_batch(features) | {"keep_audio": torch.tensor([True, True, False, False, True])}
    with torch.no_grad():
        straight, permuted = model(batch).prediction, model({k: v[order] for k, v in batch.items()}).prediction
    assert straight.shape == (B,) and straight.std() > 0
    torch.testing.assert_close(permuted, straight[order], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("features", SHAPES)
def test_attention_matrices_are_exported(features):
    model, batch = make(features).eval(), make_batch(features)
    steps = dict(zip(MODALITIES, (L, *(shape[0] for shape in SHAPES[features]))))
    found = model(batch).features
    for query in MODALITIES:
        for key in MODALITIES:
            name = query if query == key else f"{query}_{key}"
            weights, scores = found[f"attention_{name}"], found[f"scores_{name}"]
            assert weights.shape == scores.shape == (B, steps[query], steps[key])
            torch.testing.assert_close(weights, scores.softmax(-1))
    assert found["attention_fusion"].shape == (B, 3)
    torch.testing.assert_close(found["attention_fusion"].sum(1), torch.ones(B))
    latents = model.encode(batch).latents
    assert {k: tuple(v.shape[1:]) for k, v in latents.items()} == model.latent_dims
    assert list(latents) == list(MODALITIES)


def test_a_missing_modality_is_noise_of_its_sample_and_nothing_else():
    model, batch = make(missing_level="unimodal").eval(), make_batch()
    batch["keep_vision"] = torch.tensor([False, True, True, True, True])
    alone = {k: v[:1] for k, v in batch.items()}
    with torch.no_grad():
        first = model.encode(batch).side["features_vision"]
        other = model.encode(batch | {"vision": batch["vision"] * 2 + 1}).side["features_vision"]
        assert torch.equal(first[0], other[0]) and torch.equal(model.encode(alone).side["features_vision"][0], first[0])
        assert abs(float(first[0].mean())) < 0.3 and 0.7 < float(first[0].std()) < 1.3
    model.train()
    one, two = (model.encode(batch).side["features_vision"][0] for _ in range(2))
    assert not torch.equal(one, two)  # fresh in training


def test_missing_audio_and_vision_are_noise_at_the_input_as_sec_3_has_it():
    model, batch = make().eval(), make_batch()
    batch |= {f"keep_{m}": torch.tensor([False, True, True, False, True]) for m in MODALITIES}
    seen = {}
    for m in ("audio", "vision"):
        model.sequences[m].register_forward_pre_hook(lambda module, args, m=m: seen.update({m: args[0]}))
    with torch.no_grad():
        found = model.encode(batch).side
    for m in ("audio", "vision"):
        noise, rest = seen[m][[0, 3]], seen[m][[1, 2, 4]]
        assert abs(noise.mean().item()) < 0.3 and 0.7 < noise.std().item() < 1.3
        assert rest.min() >= 0 and rest.max() <= 1  # scaled inputs
        torch.testing.assert_close(found[f"features_{m}"], model.sequences[m](seen[m]))  # U_m is the network's
    text = found["features_text"][[0, 3]]
    assert abs(text.mean().item()) < 0.3 and 0.7 < text.std().item() < 1.3  # word pieces have no Gaussian: at U_l


@pytest.mark.parametrize("level", ["input", "unimodal"])
@pytest.mark.parametrize("humour", [False, True])
def test_what_is_missing_moves_no_other_row_of_the_batch(level, humour):
    """Not through the scaling over the batch either, and NaN there reaches neither predictions nor gradients."""
    model = (make_humour if humour else make)(missing_level=level, scale="batch")
    batch = make_batch(humour=humour)
    keep = {f"keep_{m}": torch.tensor([True, False, True, True, True]) for m in MODALITIES if m != "vision"}
    keep["keep_vision"] = torch.tensor([True, True, False, True, True])
    batch |= keep
    spoilt = dict(batch)
    for m, row in (("audio", 1), ("vision", 2), *((("hcf", 1),) if humour else ())):
        for value in (1e4, float("nan")):
            spoilt[m] = spoilt[m].clone()
            spoilt[m][row] = value
            with torch.no_grad():
                assert torch.equal(model.eval()(batch).prediction, model(spoilt).prediction)
    torch.manual_seed(0)
    sum(losses_of(model.train(), spoilt).values()).backward()
    assert all(q.grad is None or q.grad.isfinite().all() for q in model.parameters())


def test_pairs_with_a_missing_query_or_key_are_left_out():
    """Eq. 28 with a noise query would rank a key mixed with that noise above the key."""
    model, batch = make(noise="off", missing_level="unimodal").eval(), make_batch()
    here = torch.tensor([True, False, True, False, True])
    side = model.encode(batch).side
    p, total = model.params, 0.0
    for m in MODALITIES:
        for s in (s for s in MODALITIES if s != m):
            torch.manual_seed(len(m) * len(s))
            loss = ranking.spread(side[f"attention_{m}_{s}"], p.beta)
            total = total + (loss[here].mean() if "text" in (m, s) else loss.mean())
    found = losses_of(model, batch | {"keep_text": here})["variance_inter"]
    torch.testing.assert_close(found, p.alpha_c * total)


def test_hkts_layer_drops_its_attentions_output_and_its_positions_are_standard_normal():
    torch.manual_seed(0)
    stack = sequence_nets.Stack("hkt", 1, 3, 16, 0.0, 0.0)
    encoder = sequence_nets.HktTransformer(stack, 12).train()
    assert encoder.positions.std().item() == pytest.approx(1, abs=0.02) and encoder.positions.shape == (5000, 12)
    layer, x = encoder.layers[0], torch.randn(2, 7, 12)
    layer.dropout.p = 1.0  # nothing of either output is left
    expected = layer.feed_forward_norm(layer.attention_norm(x))
    torch.testing.assert_close(layer(x), expected)
    layer.dropout.p = 0.1
    assert not torch.equal(layer(x), layer(x)) and torch.equal(layer.eval()(x), layer(x))


def test_losses_of_a_missing_modality_are_left_out():
    """Intra-modal losses of it, and losses of pairs that it is in; at U_m no gradient reaches its network."""
    model, batch = make(missing_level="unimodal").eval(), make_batch()
    gone = batch | {"keep_vision": torch.zeros(B, dtype=torch.bool)}
    losses = losses_of(model, gone)
    sum(losses.values()).backward()
    assert all(q.grad is None or not q.grad.any() for q in model.sequences["vision"].parameters())
    assert all(q.grad is None or not q.grad.any() for q in model.decompositions["vision"].parameters())
    assert model.decompositions["audio"].trunk[0].weight.grad.any()
    # half the samples missing: the context loss is the mean over the others, whose scores the missing ones leave alone
    half = batch | {"keep_text": torch.tensor([True, False, True, False, True])}
    side = model.encode(batch).side
    text = ranking.context(side["scores_text"], 5, 0.5)[half["keep_text"]].mean()
    rest = sum(ranking.context(side[f"scores_{m}"], 5, 0.5).mean() for m in ("audio", "vision"))
    torch.testing.assert_close(losses_of(model, half)["context"], model.params.alpha_c * (text + rest))


def test_the_feature_hook_sees_every_modality_once():
    model, batch, seen = make_humour().eval(), make_batch(humour=True), []
    clean = model(batch).prediction

    def hook(m: str, u: torch.Tensor) -> torch.Tensor:
        seen.append((m, tuple(u.shape)))
        return u * 0.5

    model.feature_hook = hook
    assert not torch.allclose(model(batch).prediction, clean)
    assert sorted(seen) == sorted((m, (B, L, 20)) for m in MODALITIES)


def test_mask_padding_makes_padded_steps_of_u_irrelevant():
    model = make("unaligned", mask_padding=True).eval()
    batch = make_batch("unaligned")
    clean, clean_losses = model(batch).prediction, losses_of(model, batch)
    lengths = {"text": batch["text_bert"][:, 1].sum(1)} | {m: batch[f"{m}_lengths"] for m in ("audio", "vision")}

    def spoil(m: str, u: torch.Tensor) -> torch.Tensor:
        padded = torch.arange(u.shape[1]) >= lengths[m][:, None]
        return torch.where(padded[..., None], u * 3 + 1, u)

    model.feature_hook = spoil
    torch.testing.assert_close(model(batch).prediction, clean)
    spoiled = losses_of(model, batch)
    for name, value in clean_losses.items():
        torch.testing.assert_close(spoiled[name], value)
    plain = make("unaligned").eval()
    before = plain(batch).prediction
    plain.feature_hook = spoil
    assert not torch.allclose(plain(batch).prediction, before)


def test_attend_padding_and_scaling_are_what_they_say():
    batch = make_batch()
    longer = {**batch, "text_bert": batch["text_bert"].clone()}
    longer["text_bert"][:, 0] += 7 * (1 - batch["text_bert"][:, 1])  # other ids at padded steps
    padded = batch["text_bert"][:, 1] == 0
    for attend in (True, False):
        model = make(attend_padding=attend, scale="none").eval()
        one, two = (model.encode(b).side["features_text"] for b in (batch, longer))
        assert torch.allclose(one[~padded], two[~padded], atol=1e-6) is not attend
    tripled = batch | {m: 3 * batch[m] + 2 for m in ("audio", "vision")}
    torch.testing.assert_close(make().eval()(tripled).prediction, make().eval()(batch).prediction)
    unscaled = make(scale="none").eval()
    assert not torch.allclose(unscaled(tripled).prediction, unscaled(batch).prediction)


# --- four modalities, size and cost ----------------------------------------------------------------------------------

def test_hcf_is_a_fourth_modality_that_joins_the_text():
    model, batch = make_humour().train(), make_batch(humour=True)
    p = Protocol(loss="bce")
    losses, (_, output) = step_losses(model, None, batch, criterion(p), None)
    losses["total"].backward()
    assert set(model.latent_dims) == set(MODALITIES)
    assert [n for n, q in model.named_parameters() if q.grad is None or not q.grad.any()] == []
    model.eval()
    encoded = model.encode(batch)
    bce = nn.functional.binary_cross_entropy_with_logits
    each = [bce(model.predictor(z).squeeze(1), batch["label"]) for z in encoded.latents.values()]
    torch.testing.assert_close(model.aux_losses(batch, encoded, output)["cross"], torch.stack(each).mean())
    changed = batch | {"hcf": batch["hcf"] + 1}
    assert not torch.allclose(model.encode(changed).side["features_text"], encoded.side["features_text"])
    assert torch.equal(model.encode(changed).side["features_audio"], encoded.side["features_audio"])


ALBERT = 11_683_584  # albert-base-v2 with its pooler


@pytest.mark.parametrize(("name", "params", "own", "printed", "gap"), [
    ("UR-FUNNY", UR_FUNNY, 2_039_285, 14_809_023, -0.0733),
    ("MUStARD", MUSTARD, 1_366_977, 13_589_833, -0.0397),
])
def test_parameter_totals_against_the_printed_ones(name, params, own, printed, gap):
    """Figure 5's networks and the encoders' sizes are not in the text: ours are 7 % and 4 % smaller in total."""
    inputs = Humour(text=(L, 768), audio=(L, 60), vision=(L, 36), hcf=(L, 4))
    model = Model(Params(encoder="none", **params), inputs)
    assert cost.parameters(model) == cost.Parameters(own, own, 0)
    assert (own + ALBERT) / printed - 1 == pytest.approx(gap, abs=1e-4)


def test_parameters_of_attention_and_decomposition():
    """d 120: seven attentions of 3 d^2 + 2 d, the query, the predictor; three decompositions of 6 d^2 + 5 d."""
    d, named = 120, dict(make(d=120, predictor_width=100).named_parameters())
    kinds = ("intra", "inter", "pool", "decom", "pred")
    count = {k: sum(q.numel() for n, q in named.items() if n.startswith(k)) for k in kinds}
    assert count["intra"] == count["inter"] == 3 * (3 * d * d + 2 * d)
    assert count["pool"] == 3 * d * d + 2 * d + d and count["decom"] == 3 * (6 * d * d + 5 * d)
    assert count["pred"] == d * 100 + 100 + 100 + 1


def test_supervision_costs_nothing_in_evaluation():
    batch = make_batch()
    full, plain = cost.gflops(make(), batch), cost.gflops(make(**TABLE4_ROWS["W/O Supervised Learning"]), batch)
    assert full == plain > 0
    assert cost.parameters(make()).own > cost.parameters(make(**TABLE4_ROWS["W/O Supervised Learning"])).own


def test_cost_of_a_known_network():
    batch, model = {"x": torch.zeros(4, 6)}, nn.Linear(6, 5)
    model.forward = lambda b: nn.functional.linear(b["x"], model.weight)  # no bias: 2 * 6 * 5 operations a sample
    assert cost.gflops(model, batch) * 1e9 == pytest.approx(60)
    assert cost.parameters(nn.Linear(6, 5)) == cost.Parameters(35, 35, 0)
    tiny = make(finetune=False)
    counted = cost.parameters(tiny)
    assert counted.trained == counted.own == counted.total - counted.encoder and counted.encoder > 0
    calls = []
    assert cost.seconds(calls.append, [1, 2], steps=100, warmup=1) >= 0 and calls == [1, 1, 2]
    with pytest.raises(ValueError, match="no batches"):
        cost.seconds(calls.append, [])


@pytest.mark.parametrize(("params", "message"), [
    ({"noise": "loud"}, "noise must be one of 'ranking'"),
    ({"order": "x"}, "order must be"),
    ({"layers": (3, 3)}, "layers needs one number each for audio, vision, hcf"),
    ({"heads": (3, 3, 3)}, "width 20 cannot have 3 heads"),
    ({"blocks": "lstm"}, "blocks must be 'mult' or 'hkt'"),
])
def test_wrong_parameters_are_one_clear_line(params, message):
    with pytest.raises(BenchError, match=message):
        make(**params)


def test_the_defaults_are_table_7s_column_for_mosi():
    p = Params()
    column = dict(d=120, rho=5, beta=0.1, gamma=0.5, gamma_1=1.0, alpha_p=1.0, alpha_de=0.01, alpha=0.005,
                  alpha_mix=0.01, alpha_c=0.005, encoder="deberta-v3-base", loss="mse")
    assert replace(p, **column) == p
