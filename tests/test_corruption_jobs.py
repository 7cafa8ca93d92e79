"""Corruptions in jobs: every kind with several backbones and datasets, sweeps, determinism, and clean jobs left alone."""

import pickle

import numpy as np
import pandas as pd
import pytest
import torch

from bench.analysis.grid import Results, make_grid
from bench.data.corruption import parse
from bench.data.corruption.corrupted import Corrupted
from bench.data.dataset import load
from bench.job import assemble, corrupt, run
from bench.matrix import Column, Experiment, Job, Row
from bench.measure import numbers
from bench.measure.needs import sweeps
from bench.measure.run import run as measured
from bench.store import Store, read_json
from bench.train.capturable import host_reads, replay
from bench.train.loop import predict
from tests.golden import cell_config
from tests.test_corruption import EXAMPLES, Reads, fresh_model, parts_of, whole


@pytest.mark.parametrize("name", EXAMPLES)
@pytest.mark.parametrize("dataset", ["mosi", "mosei", "sims"])
@pytest.mark.parametrize("backbone", ["lmf", "mult", "misa"])
def test_two_training_steps_and_a_prediction_under_every_corruption(backbone, dataset, name):
    features = "aligned" if backbone == "mult" and dataset != "sims" else "unaligned"
    job, data, resident = parts_of(backbone, dataset, features)
    job = Job(job.config.with_(corruption=EXAMPLES[name]), job.seed)
    model = fresh_model(backbone, dataset, features).train()
    view = corrupt(job, resident, data, model)
    optimiser = torch.optim.SGD([q for q in model.parameters() if q.requires_grad], 1e-3)
    for epoch in (1, 2):
        view.begin_epoch(epoch)
        batch = view.batch("train", torch.arange(4 * epoch, 4 * epoch + 4))
        encoded = model.encode(batch)
        output = model.fuse(encoded.latents)
        loss = (output.prediction - batch["label"]).abs().mean()
        loss = loss + sum(model.aux_losses(batch, encoded, output).values())
        loss.backward()
        optimiser.step(), optimiser.zero_grad()
        assert torch.isfinite(loss)
    model.eval()
    with torch.no_grad():
        assert torch.isfinite(model(view.batch("test", torch.arange(4))).prediction).all()


SWEEP = {"parts": [
    {"kind": "frame_drop", "mode": "correlated", "rates": [0.1, 0.4]},
    {"kind": "frame_drop", "mode": "independent", "rates": [0.1, 0.4]}, {"kind": "text_mean", "rates": [0.4]},
]}


def job(corruption, backbone="lmf", **changes):
    plain = cell_config(backbone, "none")  # a test-time corruption inside a job exists only here, to compare a measure with
    return Job(plain.with_(train={"max_epochs": 2}, corruption=corruption, **changes), 1111)


POINTS = tuple(p.name for p in parse(SWEEP).sweep)


def swept(store, j, points=POINTS, data_dir=None):
    """point -> metrics of a job trained with its weights kept, by its measures."""
    run(j, store, data_dir, keep=("checkpoint",))
    e = Experiment("x-f1", "x", "x", "figure", rows=(Row("LMF", cells={"": j.config}, points=points),), seeds=1)
    found: dict[str, dict[str, float]] = {}
    for config, measure in sweeps(e):
        assert config == j.config
        for name, value in measured(j, measure, store, data_dir)[0].items():
            found.setdefault(name.partition(":")[0], {})[name.partition(":")[2]] = value
    return found, e


@pytest.mark.parametrize("backbone", ["lmf", "misa"])
def test_a_sweep_measures_the_plain_job_as_a_corrupted_test_split_would(tmp_path, backbone):
    store, clean = Store(tmp_path), job({}, backbone, fraction=0.3)
    found, _ = swept(store, clean)
    assert sorted(found) == sorted(POINTS)
    test = read_json(store.folder(clean) / "metrics.json")["test"]
    assert len({test["loss"], *(p["loss"] for p in found.values())}) == 6
    fixed = run(job({"kind": "frame_drop", "mode": "independent", "rate": 0.4}, backbone, fraction=0.3), store)
    assert fixed["test"] == found["frame_drop-independent-0.40"]


def test_a_point_joins_the_fixed_corruption_of_the_training(tmp_path):
    store, j = Store(tmp_path), job(EXAMPLES["missing"], fraction=0.3)
    found, _ = swept(store, j, ("text_drop-0.40",))
    both = run(job({"parts": [EXAMPLES["missing"], {"kind": "text_drop", "rate": 0.4}]}, fraction=0.3), store)
    assert found["text_drop-0.40"] == both["test"]


def test_rows_read_points_of_a_sweep_and_average_them(tmp_path):
    store, j = Store(tmp_path), job({})
    found, e = swept(store, j)
    metrics = read_json(store.folder(j) / "metrics.json")
    values, runs = store.frames([j])
    values = pd.concat([values, numbers.values([e], store)])
    names = ("frame_drop-correlated-0.10", "frame_drop-independent-0.10")
    at = values.set_index(["split", "metric"]).value
    assert at["test", f"mae@{names[0]}"] == found[names[0]]["mae"]
    assert at["test", "mae"] == metrics["test"]["mae"]
    rows = [
        Row("LMF", "plain", variant, cells={"": j.config}, points=points)
        for variant, points in (("p=0", ()), ("p=0.1", names))
    ]
    column = Column("mae", "MAE", percent=False, higher_is_better=False)
    grid = make_grid(Experiment("f", "powmix", "t", "figure", (column,), tuple(rows), seeds=1), Results(values, runs))
    clean, noisy = (line[0] for line in grid.cells)
    assert clean.mean == metrics["test"]["mae"] and noisy.configs == (j.config,)
    assert noisy.mean == pytest.approx(np.mean([found[n]["mae"] for n in names]), abs=1e-15)


def test_a_corrupted_job_twice_is_byte_identical(tmp_path):
    names = ("missing noise", "occlusion", "feature_noise", "frame_drop")
    j = job({"parts": [EXAMPLES[n] for n in names]}, fraction=0.2)
    folders = []
    for name in ("a", "b"):
        torch.rand(3)
        run(j, Store(tmp_path / name))
        folders.append(Store(tmp_path / name).folder(j))
    for file in ("metrics.json", "history.csv"):
        assert (folders[0] / file).read_bytes() == (folders[1] / file).read_bytes()


def test_methods_meet_the_same_corruption():
    """The stream is the dataset's, the backbone's and the seed's, not the mixer's."""
    _, data, resident = parts_of("lmf")
    views = []
    for mixer, seed in (("none", 1111), ("msmix", 1111), ("none", 1112)):
        c = cell_config("lmf", mixer, corruption=EXAMPLES["occlusion"])
        views.append(whole(corrupt(Job(c, seed), resident, data, Reads(True)), "train")["text"])
    assert torch.equal(views[0], views[1]) and not torch.equal(views[0], views[2])


def test_poisoned_test_labels_reach_nothing_under_corruption(tmp_path):
    from bench.data.tools import write_synthetic

    corruption = {"parts": [EXAMPLES["missing"], EXAMPLES["feature_noise"]]}
    j = job(corruption, dataset="mosi", fraction=0.2)
    found = []
    for name in ("clean", "poisoned"):
        write_synthetic(tmp_path / name, ["mosi"], False, ["msena"])
        if name == "poisoned":
            for path in (tmp_path / name).rglob("*.pkl"):
                content = pickle.loads(path.read_bytes())
                labels = np.asarray(content["test"]["regression_labels"])
                content["test"]["regression_labels"] = (-labels[::-1]).astype(labels.dtype)
                path.write_bytes(pickle.dumps(content))
        store = Store(tmp_path / f"results-{name}")
        metrics = run(j, store, tmp_path / name)
        found.append((metrics, store.predictions(j), (store.folder(j) / "history.csv").read_bytes()))
    (a, p, history), (b, q, other_history) = found
    assert a["test"]["mae"] != b["test"]["mae"]
    assert np.array_equal(p["test_prediction"], q["test_prediction"])
    assert history == other_history and a["valid"] == b["valid"]


def test_a_job_without_corruption_gets_the_very_same_data():
    job_, data, resident = parts_of("lmf")
    assert corrupt(job_, resident, data, Reads(True)) is resident


def test_predictions_under_a_sweep_do_not_depend_on_the_evaluation_batch(monkeypatch):
    _, data, resident = parts_of("lmf")
    model, found = fresh_model("lmf"), []
    view = Corrupted(resident, data, parse(SWEEP), 5, model)
    for size in (256, 7):
        monkeypatch.setattr("bench.train.scores.EVAL_BATCH", size)
        with view.at("frame_drop-independent-0.40"):
            found.append(predict(model, view, "test"))
    np.testing.assert_allclose(*found, rtol=1e-5, atol=1e-6)


def corrupted_view(backbone, corruption, seed=1111, features="word"):
    """The data of a job of some backbone under a corruption, on small generated data."""
    c = cell_config(backbone, "none", corruption=corruption).with_(features=features)
    j = Job(c, seed)
    parts = assemble(j, load(c.dataset, features))
    return parts.data


@pytest.mark.parametrize("rate", [0.3, 0.7])
def test_two_systems_miss_the_same_modalities_of_the_same_samples(rate):
    """SAM-LML and ITHP, as Tables 5 and 10 compare systems; 14 % of the cells agreed by chance before."""
    missing = {"kind": "missing", "fill": "noise", "rate": rate}
    views = {b: corrupted_view(b, missing) for b in ("samlml", "ithp", "cpsl")}
    for split in ("train", "valid", "test"):
        masks = []
        for view in views.values():
            view.begin_epoch(3)
            batch = view.batch(split, torch.arange(view.size(split)))
            masks.append(torch.stack([batch[f"keep_{m}"] for m in ("text", "audio", "vision")], 1))
        assert torch.equal(masks[0], masks[1]) and torch.equal(masks[0], masks[2])
        other = corrupted_view("samlml", missing, seed=1112)
        other.begin_epoch(3)
        batch = other.batch(split, torch.arange(other.size(split)))
        assert not torch.equal(masks[0], torch.stack([batch[f"keep_{m}"] for m in ("text", "audio", "vision")], 1))


def test_two_backbones_lose_the_same_frames_of_one_file():
    fallen = {}
    for backbone in ("mult", "lmf"):  # LMF reads means of audio and vision, and the same text steps
        view = corrupted_view(backbone, {"kind": "occlusion", "rate": 0.3}, features="unaligned")
        view.begin_epoch(2)
        fallen[backbone] = (view.batch("train", torch.arange(50))["text"] == 0).all(-1)
    assert torch.equal(fallen["mult"], fallen["lmf"]) and 0.2 < fallen["mult"].float().mean() < 0.95


def test_a_step_reads_its_epoch_from_the_device_so_that_a_replay_sees_the_next_one():
    """The tensors that a captured step would read are the same objects in every epoch, with other values."""
    view = corrupted_view("mult", {"parts": [{"kind": "occlusion", "rate": 0.4}, {"kind": "missing", "rate": 0.4}]}, features="unaligned")
    rows = torch.arange(8)
    view.begin_epoch(1)
    first = view.batch("train", rows)
    assert not host_reads(lambda: view.batch("train", rows))
    held = {k: torch.empty_like(v) for k, v in first.items()}
    replayed, _ = replay(lambda: [held[k].copy_(v) for k, v in view.batch("train", rows).items()])
    for epoch in (1, 2, 3):
        view.begin_epoch(epoch)
        eager = view.batch("train", rows)
        replayed()
        assert all(torch.equal(eager[k], held[k]) for k in eager)
        assert epoch == 1 or not torch.equal(eager["audio"], first["audio"])
