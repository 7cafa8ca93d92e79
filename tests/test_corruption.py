"""Corruptions: what falls and how often, and what a model sees of it (jobs: test_corruption_jobs.py)."""

import math
from functools import lru_cache

import numpy as np
import pytest
import torch
from torch import nn

from bench import registry
from bench.data.corruption import VERSION, frames, missing, noise, parse
from bench.data.corruption.corrupted import Corrupted
from bench.data.corruption.spec import KINDS, Part
from bench.data.dataset import load
from bench.draws import Draws, _mix, _unit
from bench.errors import BenchError
from bench.job import build_data, build_model
from bench.matrix import Job
from bench.models.base import Inputs
from bench.plan import overridden
from tests.golden import cell_config

MODALITIES = ("text", "audio", "vision")
EXAMPLES = {
    "occlusion": {"kind": "occlusion", "rate": 0.3},
    "frame_drop": {"kind": "frame_drop", "mode": "correlated", "rate": 0.3},
    "text_drop": {"kind": "text_drop", "rate": 0.3},
    "text_mean": {"kind": "text_mean", "rate": 0.3},
    "missing": {"kind": "missing", "rate": 0.5},
    "missing noise": {"kind": "missing", "rate": 0.5, "fill": "noise"},
    "feature_noise": {"kind": "feature_noise", "rate": 0.3, "noise": "drawn3"},
}


@lru_cache
def parts_of(backbone, dataset="mosi", features="unaligned", fraction=1.0, seed=1111):
    """(job, dataset, clean resident data) of a cell, made once."""
    c = cell_config(backbone, "none", dataset).with_(features=features, fraction=fraction)
    job, data = Job(c, seed), load(c.dataset, features)
    return job, data, build_data(job, data, registry.load("models", backbone).Model, "cpu")


def fresh_model(backbone, dataset="mosi", features="unaligned"):
    job, data, resident = parts_of(backbone, dataset, features)
    mean = registry.load("models", backbone).Model.time_mean
    return build_model(job, Inputs(**{**data.inputs(mean), "train_size": resident.size("train")}))


class Reads(nn.Module):
    """Stands for a model that reads what the resident data hold."""

    def __init__(self, time_mean=False, **attributes):
        super().__init__()
        self.time_mean = time_mean
        for name, value in attributes.items():
            setattr(self, name, value)


def corrupted(corruption, backbone="mult", features="unaligned", fraction=1.0, seed=5, model=None):
    """Data of mult (whole sequences) or lmf (means over time) under a corruption."""
    _, data, resident = parts_of(backbone, features=features, fraction=fraction)
    return Corrupted(resident, data, parse(corruption), seed, model or Reads(backbone == "lmf"))


def whole(data, split):
    return data.batch(split, torch.arange(data.size(split)))


def zero_steps(x):
    return (x == 0).all(-1)


# --- draws ----------------------------------------------------------------------------------------------------------

def test_splitmix64_gives_its_published_numbers():
    state, found = 1234567, []
    for _ in range(3):
        state = (state + 0x9E3779B97F4A7C15) % 2**64
        found.append(int(_mix(torch.tensor([state - 2**64 if state >= 2**63 else state]))) % 2**64)
    assert found == [6457827717110365317, 3203168211198807973, 9817491932198370423]


def test_uniforms_stay_inside_the_open_interval_at_both_ends():
    ends = _unit(torch.tensor([0, -1]))
    assert 0 < ends[0] < 1e-6 and 1 - 1e-6 < ends[1] < 1
    assert torch.isfinite(torch.erfinv(2 * ends - 1)).all()


def test_draws_are_uniform_and_independent_of_each_other():
    rows = torch.arange(2000)
    u = Draws(1, "train", 1, rows).entries("a", (50,))
    assert abs(float(u.mean()) - 0.5) < 4 * math.sqrt(1 / 12 / u.numel())
    counts = torch.histc(u, 20, 0, 1)
    assert float(((counts - u.numel() / 20) ** 2 / (u.numel() / 20)).sum()) < 43.8  # chi-square, 19 d.f., p = 0.001
    others = [
        Draws(1, "train", 1, rows).entries("b", (50,)), Draws(1, "train", 2, rows).entries("a", (50,)),
        Draws(2, "train", 1, rows).entries("a", (50,)), Draws(1, "test", 1, rows).entries("a", (50,)),
        u.roll(1, 0), u.roll(1, 1),
    ]
    for other in others:
        assert abs(float(torch.corrcoef(torch.stack([u.flatten(), other.flatten()]))[0, 1])) < 4 / math.sqrt(u.numel())


def test_a_draw_depends_on_its_row_and_not_on_the_batch():
    u = Draws(1, "train", 1, torch.arange(10)).entries("a", (3, 4))
    some = torch.tensor([7, 2, 2])
    assert torch.equal(Draws(1, "train", 1, some).entries("a", (3, 4)), u[some])


# --- spec -----------------------------------------------------------------------------------------------------------

def test_parse_tells_fixed_parts_from_sweeps_and_names_points():
    c = parse({"parts": [
        {"kind": "missing", "rate": 0.3}, {"kind": "frame_drop", "mode": "independent", "rates": [0.05, 0.1]},
        {"kind": "text_drop", "rates": [0.125]},
    ]})
    assert c.parts == (Part("missing", 0.3, "zero"),)
    names = ["frame_drop-independent-0.05", "frame_drop-independent-0.10", "text_drop-0.125"]
    assert [p.name for p in c.sweep] == names
    assert [len(c.on(s)) for s in ("train", "valid", "test")] == [1, 1, 1]
    assert c.on("test", c.sweep[0]) == (c.parts[0], c.sweep[0]) and c.on("valid", c.sweep[0]) == c.parts
    assert not parse({})


def test_a_point_replaces_the_fixed_part_of_its_kind():
    c = parse({"parts": [{"kind": "missing", "rate": 0.3}, {"kind": "missing", "rates": [0.6]}]})
    assert c.on("test", c.sweep[0]) == c.sweep and c.on("train") == c.parts


@pytest.mark.parametrize(("given", "says"), [
    ({"kind": "oclusion", "rate": 0.1}, "unknown corruption kind 'oclusion'; known: occlusion, "),
    ({"rate": 0.1}, "a corruption has a kind and a rate"),
    ({"kind": "occlusion"}, "takes either a rate or, as a sweep, rates"),
    ({"kind": "occlusion", "rate": 0.1, "rates": [0.1]}, "takes either a rate or"),
    ({"kind": "occlusion", "rate": 0}, r"lies in \(0, 1\], not 0"),
    ({"kind": "text_drop", "rates": 0.1}, "rates is a list of numbers, not 0.1"),
    ({"kind": "text_drop", "rates": [0.1, "x"]}, "not 'x'"),
    ({"kind": "frame_drop", "mode": "both", "rate": 0.1}, "mode is one of correlated, independent, not 'both'"),
    ({"kind": "frame_drop", "fill": "zero", "rate": 0.1}, "unknown option 'fill' of corruption 'frame_drop'; known: "),
    ({"parts": [{"kind": "missing", "rate": 0.1}] * 2}, "kind 'missing' is given twice"),
    ({"parts": [{"kind": "text_drop", "rates": [0.1, 0.1]}]}, "sweep point 'text_drop-0.10' is given twice"),
    ({"parts": [], "kind": "missing"}, "nothing beside it"),
])
def test_a_wrong_corruption_is_one_line(given, says):
    with pytest.raises(BenchError, match=says) as error:
        parse(given)
    assert "\n" not in str(error.value)


def test_the_version_is_in_the_identity_of_corrupted_jobs_alone():
    clean = cell_config("lmf", "none")
    assert "corruption" not in clean.versions
    assert cell_config("lmf", "none", corruption=EXAMPLES["missing"]).versions["corruption"] == VERSION
    by_hand = overridden(clean, ["corruption.kind=occlusion", "corruption.rate=0.2"])
    assert by_hand == cell_config("lmf", "none", corruption={"kind": "occlusion", "rate": 0.2})


# --- frames ---------------------------------------------------------------------------------------------------------

def test_mean_with_fallen_frames_by_hand():
    x = torch.tensor([[[2.0, 1.0], [4.0, 1.0], [6.0, 1.0], [0.0, 0.0]]])  # the last step is padding
    assert frames.mean_over_time(x, torch.tensor([[False, True, False, False]])).tolist() == [[[2.0, 0.5]]]
    assert frames.mean_over_time(x, torch.zeros(1, 4, dtype=torch.bool)).tolist() == [[[3.0, 0.75]]]
    x[0, 0, 0] = torch.nan
    assert frames.mean_over_time(x, torch.tensor([[False, True, False, False]])).tolist() == [[[0.0, 0.5]]]


def test_models_that_average_read_the_mean_of_what_whole_sequences_keep():
    corruption = {"kind": "occlusion", "rate": 0.3}
    mean, sequence = corrupted(corruption, "lmf"), corrupted(corruption, "mult")
    mean.begin_epoch(2), sequence.begin_epoch(2)
    a, b = whole(mean, "train"), whole(sequence, "train")
    assert torch.equal(a["text"], b["text"])
    for m in ("audio", "vision"):
        assert a[m].shape[1] == 1
        torch.testing.assert_close(a[m], b[m].mean(1, keepdim=True), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("given", [
    {"kind": "occlusion"}, {"kind": "frame_drop", "mode": "correlated"}, {"kind": "frame_drop", "mode": "independent"},
])
def test_frames_fall_at_the_rate_in_every_modality(given):
    split = KINDS[given["kind"]].splits[0]
    _, data, clean = parts_of("mult")
    spans = int(data.splits[split]["text_bert"][:, 1].sum())  # independent draws where frames fall together
    for rate in (0.05, 0.4):
        batch = whole(corrupted({**given, "rate": rate}), split)
        for m in MODALITIES:
            valid = ~zero_steps(clean.tensors[split][m])
            fallen = zero_steps(batch[m])[valid]
            n = spans if "correlated" in given.values() else fallen.numel()
            assert abs(float(fallen.float().mean()) - rate) < 4 * math.sqrt(rate * (1 - rate) / n), (m, rate)
            kept = valid & ~zero_steps(batch[m])
            assert torch.equal(batch[m][kept], clean.tensors[split][m][kept])


def test_what_falls_at_a_low_rate_falls_at_a_high_one():
    low, high = (zero_steps(whole(corrupted({"kind": "frame_drop", "rate": r}), "test")["audio"]) for r in (0.1, 0.2))
    assert not (low & ~high).any() and high.sum() > low.sum()


def test_modalities_fall_together_or_on_their_own():
    """Aligned data: "correlated" takes the same steps, "independent" agrees by chance alone."""
    _, _, clean = parts_of("mult", features="aligned")
    valid = ~zero_steps(clean.tensors["test"]["audio"]) & ~zero_steps(clean.tensors["test"]["vision"])
    for mode, together in (("correlated", True), ("independent", False)):
        batch = whole(corrupted({"kind": "frame_drop", "mode": mode, "rate": 0.3}, features="aligned"), "test")
        audio, vision, text = (zero_steps(batch[m])[valid] for m in ("audio", "vision", "text"))
        if together:
            assert torch.equal(audio, vision) and torch.equal(audio, text)
        else:
            for other in (vision, text):
                agree, n = float((audio == other).float().mean()), audio.numel()
                assert abs(agree - (0.3**2 + 0.7**2)) < 4 * math.sqrt(0.25 / n)


def test_correlated_frames_of_unequal_sequences_share_relative_time():
    part, rows = Part("frame_drop", 0.5, "correlated"), torch.arange(50)
    draws, spans = Draws(3, "test", 0, rows), torch.full((50,), 4)
    text = frames.fallen(part, draws, "text", 4, spans, spans)
    vision = frames.fallen(part, draws, "vision", 16, torch.full((50,), 12), spans)  # 4 of the 16 steps are padding
    assert torch.equal(vision[:, :12], text.repeat_interleave(3, 1))
    one = frames.fallen(part, draws, "audio", 1, torch.ones(50, dtype=torch.int64), spans)
    assert torch.equal(one[:, 0], text[:, 2])  # the middle of the only frame begins the third quarter


def test_occlusion_is_redrawn_every_epoch_and_training_only():
    data = corrupted(EXAMPLES["occlusion"])
    seen = []
    for epoch in (1, 2, 1):
        data.begin_epoch(epoch)
        seen.append(whole(data, "train")["vision"])
    assert not torch.equal(seen[0], seen[1]) and torch.equal(seen[0], seen[2])
    for split in ("valid", "test"):
        batch = whole(data, split)
        assert all(torch.equal(batch[k], t) for k, t in data.tensors[split].items())


@pytest.mark.parametrize("kind", ["frame_drop", "text_drop", "text_mean"])
def test_test_time_corruptions_leave_training_and_validation_alone(kind):
    data = corrupted(EXAMPLES[kind])
    data.begin_epoch(3)
    for split in ("train", "valid"):
        batch = whole(data, split)
        assert all(torch.equal(batch[k], t) for k, t in data.tensors[split].items())
    assert not torch.equal(whole(data, "test")["text"], data.tensors["test"]["text"])


def test_a_sample_is_corrupted_alike_in_any_batch_and_at_any_training_fraction():
    all_rows, part = corrupted(EXAMPLES["occlusion"]), corrupted(EXAMPLES["occlusion"], fraction=0.3)
    all_rows.begin_epoch(1), part.begin_epoch(1)
    rows = torch.as_tensor(part.train_index)
    assert len(rows) < all_rows.size("train")
    expected = whole(all_rows, "train")["audio"][rows]
    assert torch.equal(whole(part, "train")["audio"], expected)
    assert torch.equal(part.batch("train", torch.tensor([9, 4]))["audio"], expected[[9, 4]])


def test_tensors_of_the_dataset_are_never_written_to():
    _, _, clean = parts_of("mult")
    before = {k: t.clone() for k, t in clean.tensors["train"].items()}
    for name in ("occlusion", "missing noise", "feature_noise"):
        whole(corrupted(EXAMPLES[name]), "train")
    assert all(torch.equal(clean.tensors["train"][k].nan_to_num(), t.nan_to_num()) for k, t in before.items())


# --- text -----------------------------------------------------------------------------------------------------------

def test_fallen_word_pieces_become_mask_between_cls_and_sep():
    tokens = torch.tensor([[[101, 7, 8, 9, 102, 0], [1, 1, 1, 1, 1, 0], [0] * 6]])
    steps = torch.tensor([[True, True, False, True, True, True]])
    ids, *rest = frames.masked_words(tokens, steps, 103)[0].tolist()
    assert ids == [101, 103, 8, 103, 102, 0] and rest == tokens[0, 1:].tolist()


def test_token_models_lose_the_words_that_feature_models_lose():
    tokens, features = corrupted(EXAMPLES["frame_drop"], "misa"), corrupted(EXAMPLES["frame_drop"], "mult")
    batch, clean = whole(tokens, "test")["text_bert"], tokens.tensors["test"]["text_bert"]
    masked = batch[:, 0] == 103
    assert torch.equal(batch[:, 1:], clean[:, 1:]) and torch.equal(batch[:, 0][~masked], clean[:, 0][~masked])
    fallen = zero_steps(whole(features, "test")["text"])
    length = clean[:, 1].sum(1, keepdim=True)
    order = torch.arange(clean.shape[2])
    assert torch.equal(masked, fallen & (order > 0) & (order < length - 1))


def test_text_drop_and_mean_take_the_same_samples_at_the_rate():
    data = corrupted({"parts": [{"kind": k, "rates": [0.4]} for k in ("text_drop", "text_mean")]})
    clean = data.tensors["test"]["text"]
    with data.at("text_drop-0.40"):
        dropped = whole(data, "test")
    with data.at("text_mean-0.40"):
        replaced = whole(data, "test")["text"]
    gone = (dropped["text"] == 0).all(-1).all(-1)
    assert abs(float(gone.float().mean()) - 0.4) < 4 * math.sqrt(0.24 / len(gone)) and gone.any() and not gone.all()
    assert torch.equal(dropped["text"][~gone], clean[~gone])
    assert torch.equal(dropped["audio"], data.tensors["test"]["audio"])
    mean = data.tensors["train"]["text"].double().mean(0).float()
    torch.testing.assert_close(replaced[gone], mean.expand(int(gone.sum()), -1, -1))
    assert torch.equal(replaced[~gone], clean[~gone])
    assert torch.equal(whole(data, "test")["text"], clean)  # the sweep is over


def test_token_models_read_the_mean_hidden_state_of_the_training_texts():
    _, data, resident = parts_of("misa")
    model = fresh_model("misa").eval()
    tokens = resident.tensors["train"]["text_bert"]
    with torch.no_grad():
        hidden, mask = model.text_encoder(tokens).last.double(), tokens[:, 1, :, None].double()
        clean = model.text_encoder(resident.tensors["test"]["text_bert"]).last
        clean_valid = model.text_encoder(resident.tensors["valid"]["text_bert"]).last
        mean = ((hidden * mask).sum(0) / mask.sum(0).clamp(min=1)).float()  # (L, d)
        view = Corrupted(resident, data, parse(EXAMPLES["text_mean"]), 5, model)
        seen = model.text_encoder(whole(view, "test")["text_bert"]).last
        assert torch.equal(model.text_encoder(whole(view, "valid")["text_bert"]).last, clean_valid)
    gone = whole(corrupted(EXAMPLES["text_drop"]), "test")["text"].eq(0).flatten(1).all(1)  # same seed, same samples
    torch.testing.assert_close(seen[gone], mean.expand(int(gone.sum()), -1, -1), rtol=1e-4, atol=1e-5)
    assert torch.equal(seen[~gone], clean[~gone])


# --- missing modalities ---------------------------------------------------------------------------------------------

@pytest.mark.parametrize("modalities", [2, 3, 4])
def test_missing_rate_of_the_drawn_masks(modalities):
    """Eq. 34, exact up to rounding one cell, at least one modality each, no modality favoured."""
    n = 4000
    for rate in np.arange(0.1, 0.75, 0.1):
        if rate > 1 - 1 / modalities + 0.05:
            continue
        keep = missing.draw_kept(n, modalities, rate, np.random.default_rng(1))
        assert keep.any(1).all()
        wanted = min(rate, 1 - 1 / modalities)  # 0.7 of three modalities is 2/3
        assert abs(missing.missing_rate(keep) - wanted) <= 0.5 / keep.size + 1e-12
        assert np.abs(keep.mean(0) - (1 - wanted)).max() < 4 * math.sqrt(0.25 / n)


def test_higher_missing_rates_only_take_away():
    low, high = (missing.draw_kept(200, 3, r, np.random.default_rng(1)) for r in (0.2, 0.5))
    assert not (high & ~low).any()


def test_an_impossible_missing_rate_is_one_line():
    with pytest.raises(BenchError, match="0.8: each sample keeps one of 3 modalities, so it is 0.667 at most"):
        whole(corrupted({"kind": "missing", "rate": 0.8}), "valid")


@pytest.mark.parametrize("backbone", ["lmf", "mult", "misa"])
def test_missing_modalities_are_zeroed_and_named_in_the_batch(backbone):
    _, _, clean = parts_of(backbone)
    data = corrupted(EXAMPLES["missing"], backbone)
    for split, rate in data.missing_rates().items():
        assert rate == pytest.approx(0.5, abs=0.5 / (3 * data.size(split)) + 1e-9)
        batch = whole(data, split)
        keep = torch.stack([batch[f"keep_{m}"] for m in MODALITIES], 1)
        assert keep.dtype == torch.bool and keep.any(1).all()
        assert missing.missing_rate(keep.numpy()) == pytest.approx(rate)
        for m in (k for k in MODALITIES if k in batch):
            assert not batch[m][~batch[f"keep_{m}"]].any()
            assert torch.equal(batch[m][batch[f"keep_{m}"]], clean.tensors[split][m][batch[f"keep_{m}"]])
        if backbone == "misa":
            ids, valid = batch["text_bert"][~batch["keep_text"]][:, 0], batch["text_bert"][~batch["keep_text"]][:, 1]
            assert set(ids[valid.bool()].tolist()) == {101, 102, 103}


def test_missing_masks_are_redrawn_for_training_and_fixed_elsewhere():
    data, again, other = (corrupted(EXAMPLES["missing"], seed=s) for s in (5, 5, 6))
    train = []
    for epoch in (1, 2):
        data.begin_epoch(epoch)
        train.append(whole(data, "train")["keep_text"])
        assert torch.equal(whole(data, "test")["keep_audio"], whole(again, "test")["keep_audio"])
    assert not torch.equal(*train)
    assert not torch.equal(whole(data, "test")["keep_audio"], whole(other, "test")["keep_audio"])


def test_missing_modalities_may_be_noise():
    data = corrupted(EXAMPLES["missing noise"], "lmf")
    batch = whole(data, "test")
    filled = batch["audio"][~batch["keep_audio"]]
    error = 4 / math.sqrt(filled.numel())
    assert abs(float(filled.mean())) < error and abs(float(filled.std()) - 1) < error
    assert torch.equal(filled, whole(data, "test")["audio"][~batch["keep_audio"]])


def test_a_model_that_reads_the_keys_gets_its_inputs_untouched():
    data = corrupted(EXAMPLES["missing noise"], model=Reads(reads_keep=True))
    batch = whole(data, "train")
    assert all(torch.equal(batch[m], data.tensors["train"][m]) for m in MODALITIES) and not batch["keep_text"].all()


# --- noise ----------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("kind", "kurtosis"), [("gaussian", 3.0), ("laplace", 6.0)])
def test_noise_enters_as_equation_35(kind, kurtosis):
    u, part = torch.full((500, 20, 10), 2.0), Part("feature_noise", 0.3, kind)
    draws = Draws(1, "train", 1, torch.arange(500))
    n = (noise.noisy(part, draws, "text", u) - 0.7 * u) / 0.3
    assert abs(float(n.mean())) < 0.02 and abs(float(n.var()) - 1) < 0.03
    assert abs(float(n.pow(4).mean()) - kurtosis) < 0.06 * kurtosis
    assert not torch.equal(noise.noisy(part, draws, "audio", u), noise.noisy(part, draws, "text", u))


def test_erasing_zeroes_a_share_and_rescales_nothing():
    part, draws = Part("feature_noise", 0.3, "erasing"), Draws(1, "test", 0, torch.arange(500))
    out = noise.noisy(part, draws, "x", torch.ones(500, 200))
    assert set(out.unique().tolist()) == {0.0, 1.0} and abs(float((out == 0).float().mean()) - 0.3) < 0.006


@pytest.mark.parametrize(("kind", "shares"), [("drawn", (1 / 2, 1 / 2)), ("drawn3", (2 / 3, 1 / 3))])
def test_one_kind_of_noise_is_drawn_per_sample_for_all_modalities(kind, shares):
    part, draws = Part("feature_noise", 0.5, kind), Draws(1, "test", 0, torch.arange(2000))
    erased = [(noise.noisy(part, draws, m, torch.ones(2000, 30)) == 0).any(1) for m in ("text", "audio")]
    assert torch.equal(*erased)
    assert abs(float(erased[0].float().mean()) - shares[1]) < 4 * math.sqrt(0.25 / 2000)


def test_noise_goes_to_the_features_of_a_model_that_has_a_hook():
    model = Reads(feature_hook=None)
    data = corrupted({"kind": "feature_noise", "rate": 0.5}, model=model)
    u = torch.zeros(4, 6, 3)
    for split in ("train", "test"):
        batch = data.batch(split, torch.arange(4))
        assert all(torch.equal(batch[m], data.tensors[split][m][:4]) for m in MODALITIES)
        assert model.feature_hook("text", u).std() > 0.3
        assert torch.equal(model.feature_hook("text", u), model.feature_hook("text", u))


def test_noise_goes_to_the_encoder_output_of_token_models_and_to_other_inputs():
    _, data, resident = parts_of("misa")
    model = fresh_model("misa").eval()
    rows = torch.arange(4)
    clean = model.text_encoder(resident.tensors["test"]["text_bert"][rows]).last
    view = Corrupted(resident, data, parse({"kind": "feature_noise", "rate": 0.25}), 5, model)
    batch = view.batch("test", rows)
    assert torch.equal(batch["text_bert"], resident.tensors["test"]["text_bert"][rows])
    n = (model.text_encoder(batch["text_bert"]).last - 0.75 * clean) / 0.25
    assert abs(float(n.detach().var()) - 1) < 0.05
    assert abs(float(((batch["audio"] - 0.75 * resident.tensors["test"]["audio"][rows]) / 0.25).var()) - 1) < 0.1


def test_noise_without_a_place_to_act_is_one_line():
    with pytest.raises(BenchError, match="Reads reads word pieces and has no text_encoder"):
        corrupted(EXAMPLES["feature_noise"], "misa")
