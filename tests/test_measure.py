"""The loss around trained weights: directions, batched points, curvature, and the same numbers after an interruption."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from bench import weights
from bench.data.dataset import load
from bench.errors import BenchError
from bench.job import assemble, run
from bench.matrix import Job
from bench.measure import landscape
from bench.measure.directions import directions, inner, trained_parameters
from bench.measure.needs import Measure
from bench.measure.run import run as measure
from bench.measure.spec import load as load_measure
from bench.measure.surface import Surface
from bench.measure.trained import Trained, restore
from bench.models.base import Backbone, Encoded, Inputs, Output
from bench.store import Store, read_json, write_json
from tests.golden import cell_config

SETTINGS = {
    "normalise": "filter", "vectors": "fixed", "range": [-1.0, 1.0], "points": 5, "samples": None, "split": "test",
    "loss": "task", "radius": 0.5, "step": 0.1, "seed": 0,
}
SHAPES = {"a": (6, 5), "b": (7,), "c": (3, 2, 4), "d": ()}
WEIGHTS = {n: torch.randn(s, generator=torch.Generator().manual_seed(len(n) + sum(s))) for n, s in SHAPES.items()}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A finished LMF + MS-Mix job with its weights: (store, job)."""
    store, job = Store(tmp_path_factory.mktemp("measured")), Job(cell_config("lmf", "msmix"), 1111)
    run(job, store, keep=("checkpoint",))
    return store, job


def fresh(backbone: str) -> Trained:
    """An untrained cell, which is all that comparing two ways of evaluating it needs."""
    c = cell_config(backbone, "none")
    job = Job(c, 1111)
    parts = assemble(job, load(c.dataset, c.features))
    parts.model.eval()
    return Trained(job, parts, {})


class Quadratic(Backbone):
    """Prediction [B] = the weights' values at the batch's index, so that an MSE to 0 is a mean of squares."""

    def __init__(self, scales: torch.Tensor) -> None:
        super().__init__()
        self.w, self.scales = nn.Parameter(torch.zeros(len(scales), 1)), scales
        self.label_bound, self.latent_dims = 3.0, {"text": (1,)}

    def encode(self, batch):
        return Encoded({"text": batch["index"]}, {})

    def fuse(self, latents):
        return Output((self.w[:, 0] * self.scales)[latents["text"]], {})


def quadratic(scales):
    n = len(scales)
    model = Quadratic(torch.tensor(scales))
    d1 = {"w": torch.eye(n)[:, :1]}
    d2 = {"w": torch.eye(n)[:, 1:2]}
    batch = {"index": torch.arange(n), "label": torch.zeros(n)}
    return Surface(model, [batch], d1, d2, nn.functional.mse_loss)


def test_the_landscape_of_a_quadratic_is_a_paraboloid_of_the_right_curvature():
    scales = [2.0, 3.0, 1.0, 1.0]  # loss = (4 a^2 + 9 b^2) / 4: second derivatives 2 and 4.5
    s = quadratic(scales)
    a, b = np.meshgrid(np.linspace(-1, 1, 5), np.linspace(-1, 1, 5), indexing="ij")
    points = torch.from_numpy(np.stack([a.ravel(), b.ravel()], 1))
    assert s.losses(points).numpy() == pytest.approx(((4 * a**2 + 9 * b**2) / 4).ravel(), rel=1e-6, abs=1e-9)
    found = landscape.around(s, 0.0, {"radius": 0.5, "step": 0.1})
    assert found["curvature"] == pytest.approx((2 + 4.5) / 2, rel=1e-5)
    assert found["rise_at_radius"] == pytest.approx(0.25 * (4 + 9) / 8, rel=1e-5)


@pytest.mark.parametrize("vectors, moved", [("moved", set(SHAPES)), ("fixed", {"a", "c"})])
def test_directions_are_orthonormal_after_gram_schmidt(vectors, moved):
    first, second = directions(WEIGHTS, 3, "none", vectors)
    assert set(first) == set(second) == moved
    assert float(inner(first, first)) == pytest.approx(1, abs=1e-6) == float(inner(second, second))
    assert abs(float(inner(first, second))) < 1e-7
    again, _ = directions({n: w + 1 for n, w in WEIGHTS.items()}, 3, "none", vectors)
    assert all(torch.equal(first[n], again[n]) for n in first), "directions depend on the seed and the shapes alone"
    other, _ = directions(WEIGHTS, 4, "none", vectors)
    assert not torch.equal(first["a"], other["a"])


def test_filters_of_the_normalised_directions_are_as_long_as_those_of_the_weights():
    for d in directions(WEIGHTS, 0, "filter", "moved"):
        for n, w in WEIGHTS.items():
            rows = len(w) if w.dim() > 1 else 1
            lengths = [x.reshape(rows, -1).norm(dim=1) for x in (d[n], w)]
            torch.testing.assert_close(*lengths)
    plain, scaled = (directions(WEIGHTS, 0, kind, "moved")[0] for kind in ("none", "weights"))
    length = float(inner(WEIGHTS, WEIGHTS)) ** 0.5
    assert all(torch.allclose(scaled[n], plain[n] * length, rtol=1e-5) for n in plain)
    with pytest.raises(BenchError, match="normalise none, weights or filter"):
        directions(WEIGHTS, 0, "layer")


@pytest.mark.parametrize("backbone", ["lmf", "misa", "almt"])
def test_points_together_give_what_they_give_one_by_one(backbone):
    t = fresh(backbone)
    settings = {**SETTINGS, "samples": 24, "vectors": "moved"}
    before = {n: p.clone() for n, p in t.model.named_parameters()}
    points = torch.tensor([[0.0, 0.0], [0.3, -0.2], [1.0, 0.5], [-0.7, 0.1]], dtype=torch.float64)
    together = landscape.surface(t, settings)
    one_by_one = landscape.surface(t, settings, batched=False)
    together.chunk = 3  # a full chunk and a rest
    a, b = together.losses(points), one_by_one.losses(points)
    assert together.batched and any(s.kept for s in together.shared), "the first layers are computed three times only"
    torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)
    assert len(set(a.tolist())) == 4
    assert all(torch.equal(before[n], p) for n, p in t.model.named_parameters()), "the weights are left as they were"


def test_a_model_that_cannot_be_vmapped_runs_point_by_point():
    s = quadratic([2.0, 3.0])
    plain = s.model.fuse
    s.model.fuse = lambda z: (float(s.model.w.sum()), plain(z))[1]  # reads a value: impossible under vmap
    points = torch.tensor([[1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    assert s.losses(points).tolist() == pytest.approx([2.0, 4.5]) and not s.batched


def test_points_that_do_not_fit_beside_other_jobs_are_taken_in_smaller_chunks(monkeypatch):
    s, asked, real = quadratic([2.0, 3.0]), [], Surface._together

    def crowded(self, points):
        asked.append(len(points))
        if len(points) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(self, points)

    monkeypatch.setattr(Surface, "_together", crowded)
    points = torch.tensor([[1.0, 0.0], [0.0, 1.0]], dtype=torch.float64).repeat(4, 1)
    s.chunk = 5
    assert s.losses(points).tolist() == pytest.approx([2.0, 4.5] * 4) and s.batched
    assert asked == [5, 2, 2, 1, 2, 1] and s.chunk == 2
    monkeypatch.setattr(Surface, "_together", lambda self, points: crowded(self, points.repeat(3, 1)))
    with pytest.raises(torch.OutOfMemoryError):  # not even one: whoever runs the measure runs it again alone
        s.losses(points)


def test_a_job_that_trained_leniently_is_measured_leniently(trained, tmp_path, monkeypatch):
    """A model that has no deterministic form on its GPU has none in evaluation either."""
    from bench.measure import trained as module

    store, job = trained
    seen = []
    monkeypatch.setattr(module, "determinism", lambda lenient: seen.append(lenient))
    restore(job, store)
    assert not seen
    other = Store(tmp_path)
    run(job, other, keep=("checkpoint",))
    path = other.folder(job) / "env.json"
    write_json(path, {**read_json(path), "not_deterministic": "an_operation"})
    restore(job, Store(tmp_path))
    assert seen == [True]


@pytest.mark.parametrize("samples", [None, 20])
def test_the_centre_is_the_stored_loss(trained, samples):
    store, job = trained
    t, settings = restore(job, store), {**SETTINGS, "samples": samples}
    middle = landscape.centre(t, settings)
    metrics, stored = read_json(store.folder(job) / "metrics.json"), store.predictions(job)
    if samples is None:
        assert middle == pytest.approx(metrics["test"]["loss"], rel=1e-6)
    rows = t.rows("test", samples, 0).numpy()
    assert len(rows) == (samples or len(stored["test_label"]))
    assert middle == pytest.approx(np.abs(stored["test_prediction"] - stored["test_label"])[rows].mean(), rel=1e-6)
    grid = landscape.surface(t, settings).losses(torch.zeros(1, 2, dtype=torch.float64))
    assert float(grid) == pytest.approx(middle, rel=1e-6)


def test_weights_of_another_training_are_refused(trained):
    store, job = trained
    t = restore(job, store)
    t.predictions["test_prediction"] = t.predictions["test_prediction"] + 0.5
    with pytest.raises(BenchError, match="run the job again"):
        landscape.centre(t, SETTINGS)


def test_an_interrupted_landscape_goes_on_and_ends_the_same(trained, tmp_path, monkeypatch):
    store, job = trained
    t = restore(job, store)
    whole, arrays = landscape.compute(t, SETTINGS)
    partial, calls = tmp_path / "x.partial.npz", []
    plain = Surface.losses

    def killed(self, points):
        calls.append(len(points))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return plain(self, points)

    monkeypatch.setattr(Surface, "losses", killed)
    with pytest.raises(KeyboardInterrupt):
        landscape.compute(t, SETTINGS, partial)
    calls.clear()
    monkeypatch.setattr(Surface, "losses", lambda self, points: (calls.append(len(points)), plain(self, points))[1])
    numbers, resumed = landscape.compute(t, SETTINGS, partial)
    assert len(calls) == 5 - 2 + 1, "two of five rows were there; one more call is the circle"
    assert numbers == whole and np.array_equal(arrays["loss"], resumed["loss"])
    assert whole["loss_rise"] == pytest.approx(arrays["loss"].mean() - whole["centre"])
    assert whole["evaluations"] == 25 + 16 + 5 and np.isfinite(arrays["loss"]).all()


def test_only_trained_parameters_move():
    t = fresh("lmf")
    names = set(trained_parameters(t.model))
    assert "fusion_weights" not in names and "factors.text" in names
    assert not names & {n for n, _ in t.model.named_buffers()}


def test_a_measure_is_stored_once_and_counts_for_this_training_only(trained):
    store, job = trained
    m = Measure("landscape", {**SETTINGS, "points": 3})
    assert load_measure(store, job, m) is None
    numbers, arrays = measure(job, m, store)
    found, again = load_measure(store, job, m)
    assert found == numbers and all(np.array_equal(arrays[k], again[k]) for k in arrays)
    record = read_json(store.folder(job) / f"{m.stem}.json")
    assert record["kind"] == "landscape" and record["settings"]["points"] == 3 and record["env"]["torch"]
    assert not list(store.folder(job).glob("*.partial.npz"))
    metrics = store.folder(job) / "metrics.json"
    kept = metrics.read_bytes()
    write_json(metrics, {**read_json(metrics), "epochs": 99})
    assert load_measure(store, job, m) is None, "a measure of another training of the job does not count"
    metrics.write_bytes(kept)
    assert load_measure(store, job, m) is not None


def test_ids_depend_on_kind_settings_and_version_only(monkeypatch):
    one = Measure("labels", {"bins": 61, "range": [-3.0, 3.0]})
    assert one.id == Measure("labels", {"range": (-3, 3), "bins": 61}).id
    assert one.id != Measure("labels", {"bins": 60, "range": [-3.0, 3.0]}).id
    assert one.id != Measure("tsne", dict(one.settings)).id
    from bench.measure import needs

    monkeypatch.setitem(needs.VERSIONS, "labels", 2)
    assert Measure("labels", one.settings).id != one.id


def test_missing_weights_are_one_line(trained, tmp_path):
    store, job = trained
    with pytest.raises(BenchError, match="holds no finished job; run it first"):
        restore(job, Store(tmp_path))
    other = Job(job.config, 1112)
    run(other, store)
    with pytest.raises(BenchError, match="no weights in .*trains the job again") as e:
        restore(other, store)
    assert "\n" not in str(e.value)


def test_a_checkpoint_that_does_not_fit_is_one_line(trained, tmp_path):
    path, t = tmp_path / "weights.safetensors", fresh("tfn")
    weights.save(path, t.job, Inputs(**t.data.inputs()), t.model, t.mixer)
    with pytest.raises(BenchError, match="weights do not fit tfn") as e:
        weights.restore(weights.load(path), fresh("lmf").model)
    assert "\n" not in str(e.value)
    path.write_bytes(b"half a file")
    with pytest.raises(BenchError, match="damaged weights"):
        weights.load(path)


def test_undefined_numbers_come_back_as_nan(trained):
    store, job = trained
    m = Measure("tsne", {
        "modality": "text", "split": "test", "perplexities": [5], "pca": 2, "neighbours": 400, "seed": 0,
    })
    numbers, _ = measure(job, m, store)
    assert math.isnan(numbers["knn_accuracy"]) and math.isnan(load_measure(store, job, m)[0]["knn_accuracy"])
