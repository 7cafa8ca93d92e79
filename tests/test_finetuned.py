"""MISA, Self-MM, ALMT and GLoMo: what training, mixing and data may and may not change. Encoder: tiny random BERT."""

import pytest
import torch
from torch import nn

from bench import registry
from bench.experiments.common import settings
from bench.models.base import Inputs
from bench.train.loop import criterion, step_losses
from bench.train.optim import build_optimiser
from bench.train.protocol import Protocol, from_params

pytest.importorskip("transformers")

BACKBONES = ("misa", "self_mm", "almt", "glomo")
SMALL = {  # widths that a test can afford
    "misa": {"hidden_size": 12},
    "self_mm": {},
    "almt": {"d": 16, "tokens": 4, "proj_mlp": 16, "language_mlp": 16, "fusion_mlp": 16},
    "glomo": {"d": 16, "layers": 2},
}
B, L = 6, 9
SHAPES = {"unaligned": {"audio": (14, 5), "vision": (11, 7)}, "aligned": {"audio": (L, 5), "vision": (L, 7)}}


def make(name: str, features: str = "unaligned", **params):
    module = registry.load("models", name)
    inputs = Inputs(text=(L, 64), **SHAPES[features], label_bound=3.0, train_size=20, aligned=features == "aligned")
    torch.manual_seed(1)
    return module.Model(module.Params(**{"encoder": "tiny", **SMALL[name], **params}), inputs)


def make_batch(features: str = "unaligned", seed: int = 0, size: int = B) -> dict[str, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    lengths = torch.randint(3, L + 1, (size,), generator=g)
    ids = torch.randint(1000, 20000, (size, L), generator=g)
    mask = (torch.arange(L) < lengths[:, None]).long()
    batch = {"text_bert": torch.stack([ids * mask, mask, 0 * mask], 1)}
    for m, (steps, d) in SHAPES[features].items():
        own = lengths if features == "aligned" else torch.randint(1, steps + 1, (size,), generator=g)
        valid = (torch.arange(steps) < own[:, None])[..., None]
        batch |= {m: torch.randn(size, steps, d, generator=g) * valid, f"{m}_lengths": own}
    batch["label"] = torch.rand(size, generator=g) * 6 - 3
    batch["index"] = torch.randperm(20, generator=g)[:size]
    return batch


def train_step(model, mixer, optimiser, batch, p, generator):
    losses, (encoded, output) = step_losses(model, mixer, batch, criterion(p), generator)
    losses["total"].backward()
    model.after_backward(batch, encoded, output)
    optimiser.step()
    optimiser.zero_grad()
    return losses


def build_mix(name: str, model):
    module = registry.load("mixers", name)
    return module.Mix(module.Params(), model.latent_dims, model.label_bound)


@pytest.mark.parametrize("features", SHAPES)
@pytest.mark.parametrize("mixer", registry.names("mixers"))
@pytest.mark.parametrize("backbone", BACKBONES)
def test_two_training_steps_with_every_mixer(backbone, mixer, features):
    """Losses stay finite and the weights move, of the encoder and of the rest."""
    model = make(backbone, features)
    p = from_params(Protocol, settings("powmix", backbone, "mosi")["train"], backbone)
    mix = None if mixer == "none" else build_mix(mixer, model)
    optimiser = build_optimiser(model, mix.own_parameters() if mix else [], p)
    before = {n: q.detach().clone() for n, q in model.named_parameters()}
    model.train(), torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    for epoch in (1, 2):
        model.on_epoch_start(epoch)
        losses = train_step(model, mix, optimiser, make_batch(features, epoch), p, generator)
        assert all(torch.isfinite(v) for v in losses.values()), losses
    moved = {n for n, q in model.named_parameters() if not torch.equal(q, before[n])}
    assert any(n.startswith("text_encoder.") for n in moved)
    assert any(not n.startswith("text_encoder.") for n in moved)


@pytest.mark.parametrize("features", SHAPES)
@pytest.mark.parametrize("backbone", BACKBONES)
def test_a_permuted_batch_gives_permuted_predictions(backbone, features):
    model, batch, order = make(backbone, features).eval(), make_batch(features), torch.randperm(B)
    with torch.no_grad():
        straight, permuted = model(batch).prediction, model({k: v[order] for k, v in batch.items()}).prediction
    assert straight.shape == (B,) and straight.std() > 0
    torch.testing.assert_close(permuted, straight[order], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_the_latents_are_what_the_model_says(backbone):
    model = make(backbone)
    latents = model.encode(make_batch()).latents
    assert {k: tuple(v.shape[1:]) for k, v in latents.items()} == model.latent_dims
    assert list(latents) == list(model.latent_dims)


def test_misas_six_codes_are_six_modalities_in_the_order_of_its_tokens():
    kinds = [f"{kind}_{m}" for kind in ("private", "shared") for m in ("text", "vision", "audio")]
    assert list(make("misa").latent_dims) == kinds


@pytest.mark.parametrize("backbone", BACKBONES)
def test_a_gradient_reaches_every_parameter_of_the_groups_once(backbone):
    model, batch = make(backbone).train(), make_batch()
    grouped = [q for g in model.groups() for q in g.params]
    assert len(grouped) == len({id(q) for q in grouped}) == len(list(model.parameters()))
    model.on_epoch_start(2)
    if backbone == "self_mm":  # labels that differ, or the unimodal heads learn nothing
        for m in ("text", "audio", "vision"):
            model.memory.fill(torch.zeros(20)), model.memory.get("label", m).uniform_(-1, 1)
    encoded = model.encode(batch)
    output = model.fuse(encoded.latents)
    loss = output.prediction.square().mean() + sum(model.aux_losses(batch, encoded, output).values())
    loss.backward()
    assert [n for n, q in model.named_parameters() if q.grad is None] == []


@pytest.mark.parametrize(("backbone", "expected"), [
    ("misa", {"encoder", "main"}),
    ("almt", {"encoder", "main"}),
    ("self_mm", {"encoder", "encoder-no-decay", "audio", "vision", "main"}),
    ("glomo", {"encoder", "encoder-no-decay", "main", "main-no-decay"}),
])
def test_groups_are_those_of_the_recipe(backbone, expected):
    model = make(backbone)
    groups = {g.name: g for g in model.groups()}
    assert set(groups) == expected
    names = {id(q): n for n, q in model.named_parameters()}
    for name, g in groups.items():
        assert g.decay != name.endswith("no-decay")
        if name == "encoder-no-decay":
            assert all("bias" in names[id(q)] or "LayerNorm" in names[id(q)] for q in g.params)
    frozen = make(backbone, finetune=False)
    assert {g.name for g in frozen.groups()} == {n for n in expected if not n.startswith("encoder")}


CHECKSUMS = {  # facts of the reference modules; the second number counts parameters they build and never use
    ("misa", "mosi"): (1_138_033, 516 + 3072), ("misa", "mosei"): (1_435_105, 516 + 3072),
    ("misa", "sims"): (21_664_749, 516 + 3072),
    ("self_mm", "mosi"): (159_332, 0), ("self_mm", "mosei"): (165_668, 0), ("self_mm", "sims"): (381_380, 0),
    ("almt", "mosi"): (2_603_649, 0), ("almt", "mosei"): (3_223_041, 0), ("almt", "sims"): (3_232_897, 0),
    ("glomo", "mosi"): (927_239, 0), ("glomo", "mosei"): (7_057_799, 0),
}
WIDTHS = {
    "mosi": {"text": (50, 768), "audio": (375, 5), "vision": (500, 20)},
    "mosei": {"text": (50, 768), "audio": (500, 74), "vision": (500, 35)},
    "sims": {"text": (39, 768), "audio": (400, 33), "vision": (55, 709)},
}


@pytest.mark.parametrize(("backbone", "dataset"), CHECKSUMS)
def test_parameter_counts_are_the_references(backbone, dataset):
    """Without the text encoder, with the settings of experiments/hyperparameters."""
    module = registry.load("models", backbone)
    shapes = dict(WIDTHS[dataset])
    if backbone == "glomo":  # its reference reads the word-level files: 74 acoustic, 47 or 35 visual features
        shapes |= {"audio": (50, 74), "vision": (50, 47 if dataset == "mosi" else 35)}
    params = settings("powmix", backbone, dataset)["params"]
    model = module.Model(from_params(module.Params, {**params, "encoder": "none"}, backbone), Inputs(**shapes))
    total, unused = CHECKSUMS[backbone, dataset]
    assert sum(q.numel() for q in model.parameters()) == total - unused


def test_without_an_encoder_the_frozen_features_are_read():
    """Features cached from an encoder stand for the encoder itself."""
    torch.manual_seed(0)
    with_encoder = make("misa", finetune=False).eval()
    without = make("misa", encoder="none").eval()
    assert without.needs_tokens is False and with_encoder.needs_tokens
    own = {k: v for k, v in with_encoder.state_dict().items() if not k.startswith("text_encoder.")}
    without.load_state_dict(own)
    batch = make_batch()
    text = torch.from_numpy(with_encoder.text_encoder.encode_all(batch["text_bert"].numpy()))
    torch.testing.assert_close(
        without({**batch, "text": text}).prediction, with_encoder(batch).prediction, rtol=1e-4, atol=1e-5
    )


# --- MISA ---


def later_frames_replaced(batch):
    """The batch with every audio and vision frame behind the text's length replaced."""
    length = batch["text_bert"][:, 1].sum(1)
    changed = dict(batch)
    for m in ("audio", "vision"):
        late = (torch.arange(batch[m].shape[1]) >= length[:, None])[..., None]
        changed[m] = torch.where(late, torch.full_like(batch[m], 9.0), batch[m])
        changed[f"{m}_lengths"] = batch[f"{m}_lengths"].clamp(min=L + 1)
    return changed


def test_misa_with_the_texts_lengths_ignores_later_frames_exactly():
    batch = make_batch()
    changed = later_frames_replaced(batch)
    for lengths, same in (("text", True), ("own", False)):
        model = make("misa", lengths=lengths).eval()
        with torch.no_grad():
            difference = (model(batch).prediction - model(changed).prediction).abs().max()
        assert bool(difference == 0) == same


def test_misa_with_own_lengths_reads_nothing_behind_them():
    batch = make_batch()
    changed = dict(batch)
    for m in ("audio", "vision"):
        padding = (torch.arange(batch[m].shape[1]) >= batch[f"{m}_lengths"][:, None])[..., None]
        changed[m] = torch.where(padding, torch.full_like(batch[m], 9.0), batch[m])
    model = make("misa", lengths="own").eval()
    with torch.no_grad():
        assert torch.equal(model(batch).prediction, model(changed).prediction)


# --- Self-MM ---


def run_self_mm(mixer: str | None, epochs: int = 3):
    """Label tables after some epochs over 20 samples, and the unimodal loss at the end of each; without dropout and
    with weights that stay as they are, so that mixing is all that can differ."""
    off = {f"post_{m}_dropout": 0.0 for m in ("fusion", "text", "audio", "vision")}
    model = make("self_mm", finetune=False, **off).train()
    generator, uni = torch.Generator().manual_seed(0), []
    data = make_batch(size=20)
    for epoch in range(1, epochs + 1):
        model.on_epoch_start(epoch)
        for rows in torch.arange(20).split(5):
            batch = {k: v[rows] for k, v in data.items()}
            mix = build_mix(mixer, model) if mixer and epoch > 1 else None
            losses, (encoded, output) = step_losses(model, mix, batch, nn.functional.l1_loss, generator)
            losses["total"].backward()
            model.after_backward(batch, encoded, output)
        uni.append(float(sum(v.detach() for k, v in losses.items() if k.startswith("uni_"))))
    return {m: model.memory.get("label", m).clone() for m in ("fusion", "text", "audio", "vision")}, data, uni


def test_self_mm_learns_nothing_unimodal_in_epoch_1_and_moves_labels_from_epoch_2():
    tables, data, uni = run_self_mm(None)
    assert uni[0] == 0.0 and uni[2] > 0
    truth = torch.zeros(20).index_copy(0, data["index"], data["label"])
    assert torch.equal(tables["fusion"], truth)
    for m in ("text", "audio", "vision"):
        assert (tables[m] - truth).abs().max() > 1e-3 and tables[m].abs().max() <= 3.0
    first, _, _ = run_self_mm(None, epochs=1)
    assert all(torch.equal(t, truth) for t in first.values())


@pytest.mark.parametrize("mixer", [m for m in registry.names("mixers") if m != "none"])
def test_self_mm_label_memory_is_untouched_by_mixing(mixer):
    clean, mixed = run_self_mm(None)[0], run_self_mm(mixer)[0]
    for m in clean:
        torch.testing.assert_close(mixed[m], clean[m], rtol=1e-5, atol=1e-6)


def test_self_mm_memory_is_no_part_of_the_weights():
    assert not [k for k in make("self_mm").state_dict() if k.startswith("memory.")]


# --- ALMT ---


def test_almt_hyper_modality_is_renormalised_at_every_layer():
    """A constant added to the hyper query changes nothing: the residual stream is its LayerNorm."""
    model, batch = make("almt").eval(), make_batch()
    with torch.no_grad():
        before = model(batch).prediction
        model.hyper.add_(3.0)
        torch.testing.assert_close(model(batch).prediction, before, rtol=1e-4, atol=1e-5)
