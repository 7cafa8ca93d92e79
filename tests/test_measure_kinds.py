"""Labels, t-SNE, probes and attention: each number on inputs whose answer is known."""

import numpy as np
import pytest
import torch

from bench.data.dataset import load
from bench.errors import BenchError
from bench.job import assemble
from bench.matrix import Job
from bench.measure import attention, labels, latents, probe, tsne
from bench.measure.trained import Trained
from bench.train.protocol import Protocol
from tests.golden import cell_config

LABELS = {"split": "train", "bins": 13, "range": [-3.0, 3.0], "smoothing": 0.01, "seed": 0}
TSNE = {"modality": "text", "split": "train", "perplexities": [5], "pca": 50, "neighbours": 5, "seed": 0}


def fresh(backbone: str, mixer: str = "none", seed: int = 1111, **params) -> Trained:
    """A cell with initial weights."""
    c = cell_config(backbone, mixer, **params)
    job = Job(c, seed)
    parts = assemble(job, load(c.dataset, c.features))
    parts.model.eval(), parts.mixer.eval()
    return Trained(job, parts, {})


def test_divergence_of_identical_distributions_is_0_whatever_the_number_of_rows():
    x = np.random.default_rng(0).normal(0, 1.5, 400)
    p, q = (labels.histogram(v, 13, (-3.0, 3.0), 0.01) for v in (x, np.concatenate([x, x, x])))
    assert labels.divergence(p, q) == pytest.approx(0, abs=1e-15) and p.sum() == pytest.approx(1)
    r = labels.histogram(0.5 * x, 13, (-3.0, 3.0), 0.01)
    assert labels.divergence(p, r) > 0.05
    half = labels.histogram(np.array([-9.0, 9.0]), 2, (-3.0, 3.0), 0.0)
    assert half.tolist() == [0.5, 0.5], "values outside the range count in the outermost bins"
    assert labels.divergence(np.array([0.75, 0.25]), np.array([0.5, 0.5])) == pytest.approx(0.130812, abs=1e-6)


@pytest.mark.parametrize("mixer, n", [("manifold", None), ("msmix", None), ("powmix", None), ("advmixup", None), ("multimix", None)])
def test_every_mixer_generates_an_epoch_of_labels_inside_the_real_range(mixer, n):
    t = fresh("lmf", mixer)
    numbers, arrays = labels.compute(t, LABELS)
    again, same = labels.compute(t, LABELS)
    assert len(arrays["label"]) == t.data.size("train") and len(arrays["mixed"]) > 100
    assert arrays["label"].min() - 1e-5 <= arrays["mixed"].min() and arrays["mixed"].max() <= arrays["label"].max() + 1e-5
    assert numbers["kl"] > 0 and np.array_equal(arrays["mixed"], same["mixed"])


def test_labels_of_a_job_without_a_mixer_are_one_line():
    with pytest.raises(BenchError, match="trained without a mixer"):
        labels.compute(fresh("lmf"), LABELS)


def test_separation_of_two_far_clouds_is_near_perfect_and_of_one_cloud_near_chance():
    draw = np.random.default_rng(0)
    label = np.repeat([2.0, -1.0, 0.0], 60)
    x = draw.normal(0, 1, (180, 4)) + 20 * label[:, None]
    apart = tsne.separation(x, label, 5)
    assert apart["silhouette"] > 0.9 and apart["knn_accuracy"] == 1
    same = tsne.separation(draw.normal(0, 1, (180, 4)), label, 5)
    assert abs(same["silhouette"]) < 0.05 and 0.35 < same["knn_accuracy"] < 0.65
    assert tsne.knn_accuracy(np.arange(4.0)[:, None], np.array([1.0, -1, 1, -1]), 2) == 0.25, "ties count half"
    assert np.isnan(tsne.separation(x, np.ones(180), 5)["silhouette"])


def test_tsne_draws_the_first_seed_and_scores_all_with_mixtures_beside_the_originals():
    settings = {**TSNE, "originals": 40, "mixed": 30}
    numbers, arrays = tsne.compute(fresh("misa", "powmix"), settings)
    assert arrays["embedding_5"].shape == (70, 2) and arrays["embedding_5"].dtype == np.float32
    assert arrays["mixed"].sum() == 30 and not arrays["mixed"][:40].any() and arrays["label"].dtype == np.float32
    assert set(numbers) == {f"{n}{t}" for n in ("silhouette", "knn_accuracy") for t in ("", "_original", "_mixed")}
    numbers, arrays = tsne.compute(fresh("lmf", seed=1112), {**TSNE, "modality": "fused"})
    assert "embedding_5" not in arrays and not arrays["mixed"].any() and np.isfinite(numbers["silhouette"])
    with pytest.raises(BenchError, match="no latent 'smell'; it has text, audio, vision"):
        tsne.compute(fresh("lmf"), {**TSNE, "modality": "smell"})


def test_a_representation_joins_a_modality_and_averages_over_its_filled_steps():
    z = {"private_text": torch.ones(2, 3), "shared_text": torch.zeros(2, 2), "audio": torch.zeros(2, 4, 2)}
    z["audio"][:, :2] = torch.tensor([1.0, 3.0])  # two filled steps of four
    assert latents.representation(z, "text").tolist() == [[1, 1, 1, 0, 0]] * 2
    assert latents.representation(z, "audio").tolist() == [[1, 3]] * 2
    assert latents.representation(z, "private_text").shape == (2, 3)


def test_a_probe_of_a_linearly_separable_latent_is_near_perfect():
    draw = torch.Generator().manual_seed(0)
    direction = torch.randn(8, generator=draw)
    x = {s: torch.randn(n, 8, generator=draw) for s, n in (("train", 400), ("valid", 100), ("test", 200))}
    y = {s: (v @ direction).numpy() for s, v in x.items()}
    prediction, epoch = probe.fit_probe(x, y, Protocol(batch_size=32, max_epochs=100), 0.02, 0)
    assert ((prediction > 0) == (y["test"] > 0)).mean() > 0.98 and epoch > 5
    y["train"] = np.random.default_rng(0).permutation(y["train"])
    blind, _ = probe.fit_probe(x, y, Protocol(batch_size=32, max_epochs=100), 0.02, 0)
    assert 0.3 < ((blind > 0) == (y["test"] > 0)).mean() < 0.7


def test_probes_score_every_modality_in_the_datasets_metrics():
    numbers, arrays = probe.compute(fresh("misa"), {"lr": 1e-2, "repeats": 2, "seed": 0})
    assert {n.partition(":")[0] for n in numbers} == {"text", "audio", "vision"} and not arrays
    assert {"text:non0_acc2", "audio:mae"} <= set(numbers) and 0 <= numbers["text:non0_acc2"] <= 1


def test_weights_of_a_planted_matrix():
    matrix = np.array([[0.1, 0.5, 0.4], [0.3, 0.5, 0.2]])
    found = attention.weights(matrix, [0, 2])
    assert found["weight_noised"] == pytest.approx(0.25) and found["weight_other"] == pytest.approx(0.5)
    assert found["weight_std"] == pytest.approx(matrix.std())


def test_attention_puts_the_noise_into_the_named_columns_of_a_long_enough_sample():
    t = fresh("samlml")
    settings = {"split": "test", "query": "vision", "key": "text", "noised": "text", "columns": [2, 5, 999], "pieces": 8, "seed": 0}
    numbers, arrays = attention.compute(t, settings)
    row, pieces = attention.sample(t, "test", 8)
    assert pieces >= 8 and arrays["matrix"].shape == (pieces, pieces)
    assert np.flatnonzero(arrays["noised"]).tolist() == arrays["columns"].tolist() == [2, 5]
    assert (arrays["matrix"] > 0).all() and (arrays["matrix"].sum(1) < 1).all(), "the rest lies on the padding, cut off"
    assert numbers["weight_noised"] == pytest.approx(arrays["matrix"][:, [2, 5]].mean())
    clean = t.model(t.data.batch("test", torch.tensor([row]))).features["attention_vision_text"][0, :pieces, :pieces]
    assert not np.allclose(clean.detach().numpy(), arrays["matrix"]), "the hook is gone afterwards"
    _, again = attention.compute(t, settings)
    assert np.array_equal(arrays["matrix"], again["matrix"])


def test_the_noise_hook_changes_only_the_named_steps_of_one_modality():
    u = torch.zeros(2, 6, 3)
    hook = attention.noise_hook("text", [1, 4], 0)
    assert hook("audio", u) is u
    changed = hook("text", u).ne(0).any(-1)
    assert changed.tolist() == [[False, True, False, False, True, False]] * 2


@pytest.mark.parametrize("backbone, changes, line", [
    ("lmf", {}, "has no features that noise could be put into"),
    ("samlml", {"columns": [200]}, "none of the columns"),
    ("samlml", {"noised": "audio"}, "the matrix has columns of text"),
    ("samlml", {"query": "smell"}, "hands out no matrix 'attention_smell_text'"),
])
def test_attention_that_cannot_be_had_is_one_line(backbone, changes, line):
    settings = {"split": "test", "query": "vision", "key": "text", "noised": "text", "columns": [2], "pieces": 8, "seed": 0}
    with pytest.raises(BenchError, match=line):
        attention.compute(fresh(backbone), {**settings, **changes})
