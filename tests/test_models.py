"""TFN, LMF and MulT beyond parity: sizes, options, speed-ups that must change no number, and errors."""

from dataclasses import replace

import pytest
import torch
from torch.func import functional_call, stack_module_state

from bench.errors import BenchError
from bench.models import lmf, mult, tfn
from bench.models.base import Inputs
from bench.models.parts import outer
from bench.models.parts.layers import dropout, local_maxima, prepend_one, sinusoid
from bench.models.parts.lstm import LSTM, unroll, use_unrolled
from bench.models.parts.towers import Fold, Towers

POOLED = Inputs(text=(7, 24), audio=(1, 6), vision=(1, 10))
ALIGNED = Inputs(text=(11, 24), audio=(11, 6), vision=(11, 10), aligned=True)
RAGGED = Inputs(text=(7, 24), audio=(12, 6), vision=(10, 10))
NEARLY = Inputs(text=(22, 24), audio=(22, 6), vision=(22, 10), aligned=True)  # kernels 3, 1, 2: lengths 20, 22, 21

TFN = tfn.Params(text_hidden=8, audio_hidden=4, vision_hidden=6, text_out=5, post_fusion=7)
LMF = lmf.Params(text_hidden=10, audio_hidden=4, vision_hidden=6)
MULT = mult.Params(width=12, heads=3, levels=2, text_kernel=3, audio_kernel=1, vision_kernel=2)

CASES = {
    "tfn": (tfn, TFN, POOLED),
    "tfn-one": (tfn, replace(TFN, include_one=True), POOLED),
    "tfn-valid": (tfn, replace(TFN, text_state="valid"), POOLED),
    "lmf": (lmf, LMF, POOLED),
    "lmf-corrected": (lmf, replace(LMF, train_fusion_weights=True, include_one=True), POOLED),
    "mult-aligned": (mult, MULT, ALIGNED),
    "mult-unaligned": (mult, MULT, RAGGED),
    "mult-position": (mult, replace(MULT, position=True), NEARLY),
    "mult-valid": (mult, replace(MULT, last_step="valid"), RAGGED),
}


def build(case, dtype=torch.float32, **options):
    module, params, inputs = CASES[case]
    torch.manual_seed(1111)
    return module.Model(params, inputs, **options).to(dtype)


def batch_of(inputs, size=6, dtype=torch.float32, seed=0):
    """Random features, zero behind each row's own length."""
    g = torch.Generator().manual_seed(seed)
    batch = {"label": torch.rand(size, generator=g, dtype=dtype) * 6 - 3, "index": torch.arange(size)}
    for m in ("text", "audio", "vision"):
        steps, width = getattr(inputs, m)
        lengths = torch.randint((steps + 1) // 2, steps + 1, (size,), generator=g)
        if inputs.aligned and m != "text":
            lengths = batch["text_lengths"]
        x = torch.randn(size, steps, width, generator=g, dtype=dtype)
        batch |= {m: x * (torch.arange(steps) < lengths[:, None])[..., None], f"{m}_lengths": lengths}
    return batch


def rows(batch, index):
    return {k: v[index] for k, v in batch.items()}


PUBLISHED = {  # the reference modules' counts; TFN's have two constants among them
    "tfn-mosi": (tfn.Params(), Inputs((50, 768), (1, 5), (1, 20)), 9_497_045 - 2),
    "tfn-mosei": (
        tfn.Params(audio_hidden=16, text_out=128, post_fusion=16), Inputs((50, 768), (1, 74), (1, 35)), 5_042_541 - 2,
    ),
    "tfn-sims": (tfn.Params(text_out=256, post_fusion=32), Inputs((39, 768), (1, 33), (1, 709)), 35_632_079 - 2),
    "lmf-mosi": (lmf.Params(), Inputs((50, 768), (1, 5), (1, 20)), 505_071),
    "lmf-mosei": (lmf.Params(rank=4), Inputs((50, 768), (1, 74), (1, 35)), 508_475),
    "lmf-sims": (
        lmf.Params(text_hidden=64, vision_hidden=64, rank=4), Inputs((39, 768), (1, 33), (1, 709)), 272_381,
    ),
    "mult-mosi": (mult.Params(), Inputs((50, 768), (375, 5), (500, 20)), 2_571_551),
    "mult-mosei": (
        mult.Params(width=30, heads=6, audio_kernel=1, vision_kernel=3), Inputs((50, 768), (50, 74), (50, 35)), 982_951,
    ),
    "mult-sims": (
        mult.Params(levels=2, audio_kernel=1, vision_kernel=1), Inputs((39, 768), (400, 33), (55, 709)), 1_870_701,
    ),
}


@pytest.mark.parametrize("case", PUBLISHED)
def test_parameter_count_is_the_references(case):
    params, inputs, count = PUBLISHED[case]
    module = {"tfn": tfn, "lmf": lmf, "mult": mult}[case.split("-")[0]]
    with torch.device("cpu" if module is mult else "meta"):
        model = module.Model(params, inputs)
    assert sum(p.numel() for p in model.parameters()) == count


@pytest.mark.parametrize("case", CASES)
class TestEveryBackbone:
    def test_latents_have_the_declared_names_order_and_shapes(self, case):
        model, batch = build(case), batch_of(CASES[case][2])
        latents = model.encode(batch).latents
        assert list(latents) == ["text", "audio", "vision"] == list(model.latent_dims)
        assert {m: tuple(x.shape[1:]) for m, x in latents.items()} == model.latent_dims
        assert model.fuse({m: torch.cat([x, x]) for m, x in latents.items()}).prediction.shape == (12,)

    def test_permuted_batch_gives_permuted_predictions_and_one_row_is_enough(self, case):
        model, batch = build(case, torch.float64).eval(), batch_of(CASES[case][2], dtype=torch.float64)
        order = torch.tensor([3, 0, 5, 1, 4, 2])
        whole = model(batch).prediction
        torch.testing.assert_close(model(rows(batch, order)).prediction, whole[order])
        torch.testing.assert_close(model(rows(batch, slice(2, 3))).prediction, whole[2:3])

    def test_gradient_reaches_exactly_the_trained_parameters(self, case):
        model, batch = build(case, torch.float64), batch_of(CASES[case][2], dtype=torch.float64)
        (model(batch).prediction - batch["label"]).square().mean().backward()
        trained = [p for group in model.groups() for p in group.params]
        assert len({id(p) for p in trained}) == len(trained)
        left = {n for n, p in model.named_parameters() if all(p is not q for q in trained)}
        assert left == ({"fusion_weights", "fusion_bias"} if case == "lmf" else set())
        for name, p in model.named_parameters():
            assert (p.grad is None) if name in left else bool(p.grad.abs().max() > 0), name

    def test_seeds_stack_under_vmap(self, case):
        """Two seeds in one vmapped call give the two solo predictions and gradients in double precision."""
        batch = batch_of(CASES[case][2], dtype=torch.float64)
        models = [build(case, torch.float64).eval() for _ in range(2)]
        with torch.no_grad():
            for p in models[1].parameters():
                p.add_(0.01)
        solo = []
        for model in models:
            loss = (model(batch).prediction - batch["label"]).abs().mean()
            loss.backward()
            solo.append(loss.detach())
        use_unrolled(models[0])
        params, buffers = stack_module_state(models)

        def losses(params, buffers):
            return (functional_call(models[0], (params, buffers), (batch,)).prediction - batch["label"]).abs().mean()

        stacked = torch.vmap(losses)(params, buffers)
        torch.testing.assert_close(stacked.detach(), torch.stack(solo), rtol=1e-12, atol=0)
        stacked.sum().backward()
        for name, p in params.items():
            if models[0].get_parameter(name).requires_grad:
                grads = torch.stack([m.get_parameter(name).grad for m in models])
                torch.testing.assert_close(p.grad, grads, rtol=1e-9, atol=1e-12)


    def test_training_mode_works_under_vmap_and_seeds_draw_apart(self, case):
        batch = batch_of(CASES[case][2])
        models = [build(case).train() for _ in range(2)]  # equal weights: only the draws can differ
        use_unrolled(models[0])
        models[0].store_product = True  # TFN; the others do not look at it
        params, buffers = stack_module_state(models)

        def predict(params, buffers):
            return functional_call(models[0], (params, buffers), (batch,)).prediction

        first, second = torch.vmap(predict, randomness="different")(params, buffers)
        assert not torch.equal(first, second)


# --- LSTM -----------------------------------------------------------------------------------------------------------


def test_unrolled_lstm_is_torchs_with_its_gradients():
    torch.manual_seed(0)
    lstm, x = LSTM(24, 9), torch.randn(5, 13, 24)
    found = []
    for unrolled in (False, True):
        use_unrolled(lstm, unrolled)
        lstm.zero_grad()
        states, last = lstm.all_states(x), lstm.last_state(x)
        (states.square().sum() + last.sum()).backward()
        found.append([states.detach(), last.detach(), *(p.grad / p.grad.abs().max() for p in lstm.parameters())])
    for ours, torchs in zip(*found, strict=True):
        assert (ours - torchs).abs().max() < 1e-6


def test_unrolled_backward_direction():
    torch.manual_seed(0)
    rnn, x = torch.nn.LSTM(6, 4, batch_first=True, bidirectional=True), torch.randn(3, 8, 6)
    ours = torch.stack(unroll(x, rnn, reverse=True), 1)
    assert (ours - rnn(x)[0][..., 4:]).abs().max() < 1e-6


# --- TFN and LMF ----------------------------------------------------------------------------------------------------


def test_tfn_outer_product_of_zero_latents_is_one_at_the_front():
    model = build("tfn").eval()
    fused = model.fuse({m: torch.zeros(2, *d) for m, d in model.latent_dims.items()}).features["fusion"]
    assert fused[:, 0].tolist() == [1, 1] and fused.count_nonzero() == 2


@pytest.mark.parametrize("rate", [0.0, 0.5, 0.3])
def test_tfn_product_in_chunks_equals_the_stored_product(rate, monkeypatch):
    monkeypatch.setattr(outer, "_CHUNK", 100)  # of the 5 * 21 * 6 entries: several chunks, the last one short
    torch.manual_seed(0)
    shapes = ((5, 21), (5, 6), (7, 126), (7,))
    tensors = [torch.randn(s, dtype=torch.float64, requires_grad=True) for s in shapes]
    target = torch.randn(5, 7, dtype=torch.float64)

    def stored(pair, text, weight, bias):
        mask, keep = outer.keep_mask(21 * 5 * 6, rate)
        product = pair[:, :, None] * text[:, None] * mask.view(21, 5, 6).transpose(0, 1) / keep
        return torch.nn.functional.linear(product.flatten(1), weight, bias)

    found = []
    for form in (lambda *t: outer.outer_linear(*t, rate), stored):
        torch.manual_seed(1)  # the same mask
        y = form(*tensors)
        found.append([y.detach(), *torch.autograd.grad((y * target).sum(), tensors)])
    for ours, plain in zip(*found, strict=True):
        torch.testing.assert_close(ours, plain, rtol=1e-12, atol=1e-12)


def test_tfn_uses_chunks_in_training_with_the_same_gradients():
    batch, models = batch_of(POOLED, dtype=torch.float64), []
    for store in (False, True):
        torch.manual_seed(0)
        model = tfn.Model(replace(TFN, audio_dropout=0.0, vision_dropout=0.0, post_dropout=0.0), POOLED).double()
        model.store_product = store
        model(batch).prediction.square().sum().backward()
        models.append(model)
    for (name, p), q in zip(models[0].named_parameters(), models[1].parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad, rtol=1e-10, atol=1e-12, msg=name)


@pytest.mark.parametrize(("output_range", "bound"), [("fixed", 3.0), ("label", 1.0)])
def test_tfn_predictions_fill_the_chosen_range(output_range, bound):
    model = tfn.Model(replace(TFN, output_range=output_range), replace(POOLED, label_bound=1.0)).eval()
    with torch.no_grad():
        model.post3.bias.fill_(30.0)
        high = model(batch_of(POOLED)).prediction
        model.post3.bias.fill_(-30.0)
        low = model(batch_of(POOLED)).prediction
    torch.testing.assert_close(high, torch.full_like(high, bound))
    torch.testing.assert_close(low, torch.full_like(low, -bound))


def test_lmf_is_the_trilinear_form_of_its_factors():
    model = build("lmf", torch.float64).eval()
    latents = {m: torch.randn(4, *d, dtype=torch.float64) for m, d in model.latent_dims.items()}
    f = model.factors
    form = torch.einsum("r,rt,ra,rv->tav", model.fusion_weights[0], f["text"], f["audio"], f["vision"])
    ones = {m: prepend_one(x) for m, x in latents.items()}
    full = torch.einsum("tav,bt,ba,bv->b", form, ones["text"], ones["audio"], ones["vision"]) + model.fusion_bias
    torch.testing.assert_close(model.fuse(latents).prediction, full)


@pytest.mark.parametrize("case", ["tfn", "lmf"])
def test_valid_text_state_does_not_depend_on_the_padding(case):
    module, params, inputs = CASES[case]
    batch = batch_of(inputs)
    batch["text"][0, 4:] = 0.0
    longer = {**batch, "text": torch.nn.functional.pad(batch["text"], (0, 0, 0, 5))}
    for state, changes in (("padded", True), ("valid", False)):
        model = module.Model(replace(params, text_state=state), inputs).eval()
        assert torch.allclose(model(batch).prediction, model(longer).prediction, atol=1e-6) is not changes


@pytest.mark.parametrize("case", ["tfn", "lmf"])
def test_include_one_hands_the_constant_to_the_mixer_and_changes_no_prediction(case):
    module, params, inputs = CASES[case]
    batch, plain = batch_of(inputs), build(case).eval()
    model = module.Model(replace(params, include_one=True), inputs).eval()
    model.load_state_dict(plain.state_dict())
    latents = model.encode(batch).latents
    assert all((x[:, 0] == 1).all() for x in latents.values())
    assert torch.equal(model.fuse(latents).prediction, plain(batch).prediction)


def test_lmf_groups_have_the_factors_apart():
    factors, main = build("lmf").groups()
    assert (factors.name, main.name) == ("factors", "main") and factors.decay and main.decay
    assert sorted(p.shape[1] for p in factors.params) == [5, 6, 7]


# --- MulT -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("inputs", [ALIGNED, RAGGED, NEARLY], ids=["aligned", "unaligned", "nearly-aligned"])
@pytest.mark.parametrize("options", [{}, {"position": True, "last_step": "valid"}, {"causal": False}], ids=str)
def test_folded_towers_equal_single_ones(inputs, options):
    params, batch = replace(MULT, **options), batch_of(inputs, dtype=torch.float64)
    torch.manual_seed(0)
    folded = mult.Model(params, inputs).double().eval()
    single = mult.Model(params, inputs, fold=False).double().eval()
    single.load_state_dict(folded.state_dict())
    torch.testing.assert_close(folded(batch).prediction, single(batch).prediction, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("inputs", [ALIGNED, RAGGED, NEARLY], ids=["aligned", "unaligned", "nearly-aligned"])
def test_attention_in_turns_equals_attention_at_once(inputs):
    """The CPU's and CUDA's order of work."""
    model, batch = mult.Model(MULT, inputs).double().eval(), batch_of(inputs, dtype=torch.float64)
    in_turns = model(batch).prediction
    Towers.together, before = True, Towers.together
    try:
        torch.testing.assert_close(model(batch).prediction, in_turns, rtol=1e-12, atol=1e-12)
        assert model.train()(batch).prediction.isfinite().all()  # rates differ between towers
    finally:
        Towers.together = before


def test_folding_follows_the_lengths():
    def groups(inputs, **kernels):
        model = mult.Model(replace(MULT, **kernels), inputs)
        return sorted(len(f.towers) for f in model.cross_folds), sorted(len(f.towers) for f in model.memory_folds)

    assert groups(NEARLY) == ([6], [3])
    assert groups(replace(RAGGED, vision=(13, 10))) == ([2, 2, 2], [1, 2])
    assert groups(RAGGED, text_kernel=1, audio_kernel=1, vision_kernel=1) == ([1] * 6, [1] * 3)


@pytest.mark.parametrize("case", ["mult-aligned", "mult-unaligned", "mult-position", "mult-valid"])
def test_last_step_alone_equals_the_full_memory(case):
    model, batch = build(case, torch.float64).eval(), batch_of(CASES[case][2], dtype=torch.float64)
    with torch.no_grad():
        for p in model.memory.parameters():  # biases start at 0, where their part in the shortcut could not be seen
            p.add_(0.1 * torch.randn_like(p))
    sequences, last = model.cross_modal(model.project(batch)), model.last_steps(batch)
    full, short = model.memorise(sequences, None), model.memorise(sequences, last)
    for m in mult.MODALITIES:
        wanted = full[m][torch.arange(6), last[m]]
        torch.testing.assert_close(short[m], wanted, rtol=1e-10, atol=1e-12)


def test_attention_is_causal_with_the_length_difference_as_head_start():
    model, batch = build("mult-unaligned", torch.float64).eval(), batch_of(RAGGED, dtype=torch.float64)
    sequences = model.project(batch)  # 5 text, 12 audio, 9 vision steps
    before = model.cross_modal(sequences)["text"]
    j = 9
    bump = torch.randn(6, 1, 12, dtype=torch.float64)
    sequences["audio"] = sequences["audio"].index_add(1, torch.tensor([j]), bump)
    moved = (model.cross_modal(sequences)["text"] - before).abs().amax((0, 2)) > 1e-9
    assert moved.tolist() == [i + (12 - 5) >= j for i in range(5)]


def test_padding_is_read_by_default_and_not_with_the_valid_step():
    batch = batch_of(ALIGNED)
    batch["text"][0, 6:], batch["audio_lengths"][0], batch["vision_lengths"][0] = 0.0, 6, 6
    touched = {**batch, "audio": batch["audio"].clone()}
    touched["audio"][0, 8:] += 1.0
    for last_step, changes in (("padded", True), ("valid", False)):
        model = mult.Model(replace(MULT, last_step=last_step), ALIGNED).eval()
        gap = (model(batch).prediction - model(touched).prediction)[0].abs()
        assert bool(gap > 1e-6) is changes, last_step


def test_valid_step_is_the_last_whole_window():
    model, batch = build("mult-valid"), batch_of(RAGGED)
    batch["text"][0, 4:] = 0.0
    batch["audio_lengths"][0], batch["vision_lengths"][0] = 1, 9
    steps = {m: int(x[0]) for m, x in model.last_steps(batch).items()}
    assert steps == {"text": 4 - 3, "audio": 0, "vision": 9 - 2}


def test_positions_are_missing_where_channel_zero_is_zero():
    towers = Towers(1, 6, 2, 1, embed_dropout=0.0, relu_dropout=0.0, residual_dropout=0.0, positions=4)
    x = torch.zeros(1, 1, 3, 6)
    x[0, 0, 1, 0] = 1.0
    added = towers._embed(x) - x * 6**0.5
    angle = 2 * torch.tensor([1.0, 1e-2, 1e-4])  # the second step; frequencies 10000^(-k/2)
    torch.testing.assert_close(added[0, 0, 1], torch.cat([angle.sin(), angle.cos()]))
    assert added[0, 0, [0, 2]].count_nonzero() == 0
    assert sinusoid(4, 7).shape == (4, 7) and sinusoid(4, 7)[:, 6].count_nonzero() == 0


def test_width_equal_to_the_models_skips_the_convolution():
    inputs = replace(ALIGNED, audio=(11, 12))
    model = mult.Model(replace(MULT, audio_kernel=5), inputs)
    assert set(model.convolutions) == {"text", "vision"} and model.steps["audio"] == 11
    assert model(batch_of(inputs)).prediction.shape == (6,)


def test_convolution_is_torchs():
    torch.manual_seed(0)
    ours, theirs, x = mult.Convolution(6, 4, 3), torch.nn.Conv1d(6, 4, 3, bias=False), torch.randn(2, 9, 6)
    theirs.load_state_dict(ours.state_dict())
    torch.testing.assert_close(ours(x), theirs(x.transpose(1, 2)).transpose(1, 2))


def test_initialisation_is_xavier_per_layer():
    torch.manual_seed(0)
    towers = Towers(6, 50, 10, 4, embed_dropout=0.0, relu_dropout=0.0, residual_dropout=0.0)
    for name, bound in {"qkv": (6 / 200) ** 0.5, "out": (6 / 100) ** 0.5, "fc1": (6 / 250) ** 0.5}.items():
        weight = getattr(towers, f"{name}_weight").detach()
        assert 0.999 * bound < weight.abs().max() <= bound
        assert abs(float(weight.std()) - bound / 3**0.5) < 0.005 * bound
    assert torch.equal(towers.norm_weight, torch.ones(6, 4, 2, 50)) and not towers.qkv_bias.any()


@pytest.mark.parametrize("rates", [(0.3, 0.3, 0.2, 0.0), (0.3,) * 4], ids=["each", "one"])
def test_dropout_draws_for_each_tower_at_its_own_rate(rates):
    torch.manual_seed(0)
    fold = Fold(range(4), [5] * 4, [5] * 4, rates, causal=True)
    x = dropout(torch.ones(4, 50, 40, 40), fold.rate, training=True)
    kept = (x > 0).float().mean((1, 2, 3))
    torch.testing.assert_close(kept, 1 - torch.tensor(rates), atol=0.01, rtol=0)
    torch.testing.assert_close(x.mean((1, 2, 3)), torch.ones(4), atol=0.01, rtol=0)
    assert not torch.equal(x[0], x[1])


def test_training_drops_out_and_evaluation_does_not():
    model, batch = build("mult-aligned"), batch_of(ALIGNED)
    assert not torch.equal(model(batch).prediction, model(batch).prediction)
    model.eval()
    assert torch.equal(model(batch).prediction, model(batch).prediction)


@pytest.mark.parametrize(
    ("build_it", "words"),
    [
        (lambda: mult.Model(mult.Params(), Inputs((50, 768), (1, 5), (500, 20))), "audio has 1 time step.*aligned"),
        (lambda: mult.Model(replace(MULT, heads=5), ALIGNED), "width 12 is not a multiple of 5 heads"),
        (lambda: mult.Model(replace(MULT, last_step="first"), ALIGNED), "last_step is 'padded' or 'valid'"),
        (lambda: tfn.Model(replace(TFN, output_range="wide"), POOLED), "output_range is 'fixed' or 'label'"),
        (lambda: lmf.Model(replace(LMF, text_state="last"), POOLED), "text_state is 'padded' or 'valid'"),
    ],
)
def test_unusable_parameters_are_named_in_one_line(build_it, words):
    with pytest.raises(BenchError, match=words) as error:
        build_it()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("steps", "n"), [(100, 3), (7, 3), (3, 3), (50, 4), (2, 3), (1, 3), (5, 7)])
def test_local_maxima_are_adaptive_poolings_with_its_gradient_bit_for_bit(steps, n):
    x = torch.randn(4, 6, steps, generator=torch.Generator().manual_seed(n)).relu().requires_grad_()  # zeros tie
    weight = torch.randn(4, 6, n, generator=torch.Generator().manual_seed(steps))
    pooled, ours = torch.nn.functional.adaptive_max_pool1d(x, n), local_maxima(x, n)
    assert torch.equal(pooled, ours)
    wanted, found = (torch.autograd.grad((v * weight).sum(), x)[0] for v in (pooled, ours))
    assert torch.equal(wanted, found)


def test_an_outer_product_of_rounded_vectors_is_multiplied_in_the_weights_precision():
    """bf16 autocast rounds the vectors of LMIB before they meet."""
    draw = torch.Generator().manual_seed(0)
    pair, text = (torch.randn(4, n, generator=draw).bfloat16().requires_grad_() for n in (6, 5))
    weight, bias = torch.randn(3, 30, generator=draw), torch.randn(3, generator=draw)
    with torch.autocast("cpu", torch.bfloat16):
        y = outer.outer_linear(pair, text, weight, bias, 0.0)
    wanted = torch.nn.functional.linear((pair.float()[:, :, None] * text.float()[:, None]).flatten(1), weight, bias)
    assert y.dtype == torch.float32
    torch.testing.assert_close(y, wanted)
    y.sum().backward()
    assert pair.grad.dtype == torch.bfloat16 and pair.grad.abs().sum() > 0
