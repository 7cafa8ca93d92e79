"""Generated data: the same everywhere, and as hard and as text-dominated as the field's."""

import hashlib
from dataclasses import replace

import numpy as np
import pytest
from sklearn.linear_model import RidgeCV
from sklearn.preprocessing import StandardScaler

from bench import registry
from bench.data import synthetic
from bench.data.dataset import load
from bench.data.vocabulary import WORDS

NAMES = ("mosi", "mosei", "sims")


def spec(name):
    return registry.load("datasets", name).SPEC


def generated(name, features="unaligned", **changes):
    return synthetic.generate(spec(name), features, replace(synthetic.size(spec(name), features), **changes))


def pooled(raw, modality):
    if modality == "text":
        mask = raw["text_bert"][:, 1, :, None]
        return (raw["text"] * mask).sum(1) / mask.sum(1)
    return raw[modality].mean(1)  # padding included, as in M-SENA


def probe(data, modality, balanced=False):
    """non-0 Acc2 of a ridge regression on time-pooled features; balanced: classes weigh the same, in fitting and in
    the accuracy, so that the majority class gives one half."""
    y, truth = (data[s]["regression_labels"] for s in ("train", "test"))
    scale = StandardScaler().fit(pooled(data["train"], modality))
    x, x_test = (scale.transform(pooled(data[s], modality)) for s in ("train", "test"))
    ridge = RidgeCV(alphas=10.0 ** np.arange(0, 6))
    if balanced:
        weight = np.where(y > 0, 1 / (y > 0).sum(), np.where(y < 0, 1 / (y < 0).sum(), 0))
        kept = y != 0
        predicted = ridge.fit(x[kept], np.sign(y[kept]), weight[kept] * len(y)).predict(x_test)
        return ((predicted > 0)[truth > 0].mean() + (predicted < 0)[truth < 0].mean()) / 2
    predicted = ridge.fit(x, y).predict(x_test)
    return ((predicted > 0) == (truth > 0))[truth != 0].mean()


@pytest.mark.parametrize("name", ["mosi", "sims"])
def test_text_dominates_at_the_real_number_of_samples(name):
    data = generated(name, samples=spec(name).sizes, text=24)
    assert 0.76 < probe(data, "text") < 0.84
    assert 0.52 < probe(data, "audio", balanced=True) < 0.60
    assert 0.52 < probe(data, "vision", balanced=True) < 0.60
    if name == "mosi":  # classes are even here, so that plain accuracy says the same
        assert 0.52 < probe(data, "audio") < 0.60 and 0.52 < probe(data, "vision") < 0.60


def test_text_dominates_in_mosei():
    data = generated("mosei", samples={"train": 4000, "valid": 10, "test": 2500}, audio=8, vision=8)
    assert 0.75 < probe(data, "text") < 0.84
    assert 0.51 < probe(data, "audio", balanced=True) < 0.60
    assert 0.51 < probe(data, "vision", balanced=True) < 0.60


@pytest.mark.parametrize(("name", "features"), [(n, f) for n in NAMES for f, file in spec(n).features.items() if file.format == "msena"])
def test_text_dominates_in_the_small_default(name, features):
    data = generated(name, features)
    assert 0.70 < probe(data, "text") < 0.88
    for modality in ("audio", "vision"):
        assert probe(data, modality, balanced=True) < probe(data, "text", balanced=True) - 0.08


@pytest.mark.parametrize("name", NAMES)
def test_labels_have_the_real_histogram(name):
    values, frequencies = synthetic.label_histogram(spec(name))
    labels = generated(name)["train"]["regression_labels"]
    counts = np.array([np.isclose(labels, v).sum() for v in values])
    assert counts.sum() == 240 and np.abs(counts - 240 * frequencies).max() < 1


def test_histogram_totals():
    expected = {"mosi": (1023, 96, 1080), "mosei": (6594, 4998, 11264), "sims": (1238, 345, 698)}
    for name, totals in expected.items():
        values, frequencies = synthetic.label_histogram(spec(name))
        shares = [frequencies[values < 0].sum(), frequencies[values == 0].sum(), frequencies[values > 0].sum()]
        assert np.rint(np.array(shares) * sum(totals)).tolist() == list(totals)


def test_modalities_conflict_in_some_clips():
    train = generated("sims", samples={"train": 2000, "valid": 1, "test": 1}, audio=2, vision=2)["train"]
    text, vision = train["regression_labels_T"], train["regression_labels_V"]
    assert 0.15 < (text * vision < 0).mean() < 0.45
    assert 0.4 < np.corrcoef(text, train["regression_labels"])[0, 1] < 0.8


@pytest.mark.parametrize("name", NAMES)
def test_padding_lengths_tokens_and_words(name):
    raw = generated(name)["test"]
    ids, mask, segments = raw["text_bert"].transpose(1, 0, 2)
    lengths = mask.sum(-1)
    np.testing.assert_array_equal(mask, np.arange(mask.shape[1]) < lengths[:, None])  # right-padded
    assert (ids[:, 0] == 101).all() and (ids[np.arange(len(ids)), lengths - 1] == 102).all()
    assert (ids[mask == 0] == 0).all() and not segments.any() and ids.max() < 21128
    np.testing.assert_array_equal(raw["text"].any(-1), mask.astype(bool))
    vocabulary = {w: i for group in WORDS.values() for w, i in group.items()}
    for words, row, n in zip(raw["raw_text"], ids, lengths):
        assert [vocabulary[w] for w in words.split()] == row[1 : n - 1].tolist()
    for modality in ("audio", "vision"):
        given = np.array(raw[f"{modality}_lengths"])
        used = raw[modality].any(-1)
        np.testing.assert_array_equal(used, np.arange(used.shape[1]) < given[:, None])
        assert given.min() < given.max() <= used.shape[1]


def test_aligned_and_unaligned_files_hold_the_same_clips():
    aligned, unaligned = (generated("mosi", f)["test"] for f in ("aligned", "unaligned"))
    for key in ("id", "raw_text", "text", "text_bert", "regression_labels"):
        np.testing.assert_array_equal(aligned[key], unaligned[key])
    np.testing.assert_array_equal(aligned["audio"].any(-1), aligned["text_bert"][:, 1].astype(bool))
    assert "audio_lengths" not in aligned


def test_the_seed_fixes_every_byte():
    first, second = (generated("mosi") for _ in range(2))
    other = synthetic.generate(spec("mosi"), "unaligned", synthetic.size(spec("mosi"), "unaligned"), seed=1)
    for key in ("text", "audio", "vision"):
        assert first["train"][key].tobytes() == second["train"][key].tobytes()
        assert first["train"][key].tobytes() != other["train"][key].tobytes()


def test_numbers_change_only_with_the_generators_version():
    train = generated("mosi")["train"]
    tokens = hashlib.sha256(np.ascontiguousarray(train["text_bert"].astype("<i4")).data).hexdigest()
    assert (synthetic.GENERATOR, tokens[:16]) == (1, "4c630775e6ec487a")
    sums = [float(np.abs(train[m]).sum(dtype=np.float64)) for m in ("text", "audio", "vision")]
    assert sums == pytest.approx([900858.33680, 36941.87521, 104022.30296], rel=1e-6)


def test_published_widths_and_sizes(tmp_path):
    for name in NAMES:
        for features, file in spec(name).features.items():
            full = synthetic.size(spec(name), features, full=True)
            assert (full.text, full.audio, full.vision) == (file.text[0], file.audio[0], file.vision[0])
            assert full.samples == spec(name).sizes
    ds = load("synthetic-sims", "unaligned", None, tmp_path)
    assert [ds.inputs()[m][1] for m in ("text", "audio", "vision")] == [768, 33, 709]
    assert (ds.provenance, ds.warnings, ds.has_unimodal, ds.has_tokens) == ("synthetic", (), True, True)
