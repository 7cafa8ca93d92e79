"""One job, end to end: determinism, pairing, selection that cannot see the test split, clear failures."""

import pickle

import numpy as np
import pytest
import torch

from bench import registry
from bench.data.dataset import load
from bench.errors import BenchError
from bench.experiments.common import settings
from bench.job import build_mixer, build_model, run
from bench.matrix import Job
from bench.models.base import Inputs
from bench.store import Store, read_json
from bench.train.loop import Diverged, epoch_batches, step_losses
from bench.train.protocol import Protocol
from bench.train.step import stage_losses
from tests.golden import cell_config, cells

DATASETS = ("mosi", "mosei", "sims")
MIXERS = registry.names("mixers")


def job(backbone="lmf", mixer="msmix", seed=1111, **train):
    return Job(cell_config(backbone, mixer).with_(train={"max_epochs": 3, **train}), seed)


def files(store, j):
    return {n: (store.folder(j) / n).read_bytes() for n in ("metrics.json", "history.csv", "job.json")}


@pytest.mark.parametrize("mixer", MIXERS)
def test_same_job_twice_is_byte_identical(tmp_path, mixer):
    j = job(mixer=mixer)
    first, second = Store(tmp_path / "a"), Store(tmp_path / "b")
    run(j, first)
    torch.rand(7)  # whatever happened in the process before must not matter
    np.random.rand(3)
    run(j, second)
    assert files(first, j) == files(second, j)
    a, b = first.predictions(j), second.predictions(j)
    assert all(np.array_equal(a[k], b[k]) for k in a)


def test_another_seed_gives_other_numbers(tmp_path):
    store = Store(tmp_path)
    a, b = (run(job(seed=s), store)["test"]["loss"] for s in (1111, 1112))
    assert a != b


def test_methods_under_one_seed_start_from_the_same_weights_and_batches(tmp_path):
    data = load("synthetic-mosi", "unaligned")
    inputs = Inputs(**data.inputs(True))
    models = [build_model(job(mixer=m), inputs) for m in MIXERS]
    for m, mixer in zip(models, MIXERS):
        build_mixer(job(mixer=mixer), m)
    states = [m.state_dict() for m in models]
    assert all(torch.equal(states[0][k], s[k]) for s in states[1:] for k in s)
    from bench.seeds import numpy_stream

    orders = [epoch_batches(50, Protocol(batch_size=8), 1, numpy_stream("mosi", "lmf", 1111, "order")) for _ in MIXERS]
    assert all(np.array_equal(np.concatenate(orders[0]), np.concatenate(o)) for o in orders)


def test_env_and_predictions_are_complete(tmp_path):
    store, j = Store(tmp_path), job()
    metrics = run(j, store)
    env = read_json(store.folder(j) / "env.json")
    assert {"commit", "dirty", "code_hash", "torch", "python", "device", "data_sha256", "provenance", "wall_seconds",
            "train_seconds", "peak_memory_mb", "parameters", "test_only"} <= set(env)
    assert env["provenance"] == "synthetic" and len(env["data_sha256"]) == 64
    p = store.predictions(j)
    assert len(p["test_id"]) == len(p["test_prediction"]) == metrics["n"]["test"]
    history = store.history(j)
    assert list(history.epoch) == [1, 2, 3] and {"lr", "train_total", "train_task", "train_mixed", "valid_loss"} <= set(history)
    best = history.loc[history.epoch == metrics["best_epoch"], "valid_loss"].item()
    assert best == pytest.approx(history.valid_loss.min()) and best == pytest.approx(metrics["valid"]["loss"], abs=1e-6)


def test_poisoned_test_labels_change_no_prediction(tmp_path):
    """Nothing computed from test labels may reach training or selection."""
    from bench.data.tools import write_synthetic

    clean_dir, poisoned_dir = tmp_path / "clean", tmp_path / "poisoned"
    for folder in (clean_dir, poisoned_dir):
        write_synthetic(folder, ["mosi"], False, ["msena"])
    for path in poisoned_dir.rglob("*.pkl"):
        content = pickle.loads(path.read_bytes())
        labels = np.asarray(content["test"]["regression_labels"])
        content["test"]["regression_labels"] = (-labels[::-1]).astype(labels.dtype)
        path.write_bytes(pickle.dumps(content))
    j = job()
    j = Job(j.config.with_(dataset="mosi"), j.seed)
    clean, poisoned = Store(tmp_path / "a"), Store(tmp_path / "b")
    first, second = run(j, clean, clean_dir), run(j, poisoned, poisoned_dir)
    assert first["test"]["mae"] != second["test"]["mae"]
    assert np.array_equal(clean.predictions(j)["test_prediction"], poisoned.predictions(j)["test_prediction"])
    assert (clean.folder(j) / "history.csv").read_bytes() == (poisoned.folder(j) / "history.csv").read_bytes()
    assert first["valid"] == second["valid"] and first["best_epoch"] == second["best_epoch"]


def known(backbone, dataset):
    try:
        settings("msmix", backbone, dataset)
    except BenchError:
        return False
    return True


LEAST = {"imder": 0.03}  # share of parameters that move: its score networks learn where a modality is missing, none here
CELLS = [(b, m, d) for b, m in cells() for d in DATASETS if known(b, d)]


def test_every_backbone_has_settings_for_every_dataset_of_its_papers():
    assert {(b, d) for b, _, d in CELLS} >= {(b, d) for b in ("tfn", "lmf", "mult", "misa", "self_mm", "almt", "glomo") for d in DATASETS}


@pytest.mark.parametrize(("backbone", "mixer", "dataset"), CELLS)
def test_two_training_steps_of_every_cell(backbone, mixer, dataset):
    """Finite losses; every trained parameter moves."""
    from bench.job import build_data
    from bench.train.optim import build_optimiser

    c = cell_config(backbone, mixer, dataset)
    j = Job(c, 1111)
    data = build_data(j, load(c.dataset, c.features), registry.load("models", backbone).Model, "cpu")
    model = build_model(j, Inputs(**data.inputs())).train()
    mix = build_mixer(j, model).train()
    optimiser = build_optimiser(model, mix.own_parameters(), Protocol(lr=1e-3))
    before = [q.detach().clone() for g in optimiser.param_groups for q in g["params"]]
    generator = torch.Generator().manual_seed(0)
    rows = torch.arange(24 * mix.batch_multiplier).split(12 * mix.batch_multiplier)
    update = model.passes(3)[-1].updates[-1]
    for epoch, r in enumerate(rows, start=3):  # past every mixer's start epoch
        model.on_epoch_start(epoch)
        batch = data.batch("train", r)
        task = torch.nn.functional.l1_loss
        if update.losses is None:
            losses, hooks = step_losses(model, mix if mix.probability else None, batch, task, generator)
        else:  # its own, of the words that it writes
            losses, hooks = stage_losses(update, batch), (None, None)
        losses["total"].backward()
        model.after_backward(batch, *hooks)
        optimiser.step()
        optimiser.zero_grad()
        assert all(torch.isfinite(v).all() for v in losses.values()), losses
    moved = [not torch.equal(b, q) for b, q in zip(before, (q for g in optimiser.param_groups for q in g["params"]))]
    assert sum(moved) >= LEAST.get(backbone, 0.5) * len(moved)


def test_divergence_is_a_failure_never_a_number(tmp_path):
    store, j = Store(tmp_path), job(lr=1e30, mixer="none")
    with pytest.raises(Diverged, match="training diverged in epoch"):
        run(j, store)
    assert store.status(j) == "failed" and "diverged" in read_json(store.folder(j) / "failed.json")["error"]


def test_missing_data_is_one_line(tmp_path):
    j = Job(cell_config("lmf", "none").with_(dataset="mosi"), 1111)
    with pytest.raises(BenchError, match="mosi"):
        run(j, Store(tmp_path), tmp_path)


def test_last_batch_of_one_row_is_dropped_and_short_batches_kept():
    sizes = lambda n, **k: [len(b) for b in epoch_batches(n, Protocol(batch_size=8, **k), 1, np.random.default_rng(0))]
    assert sizes(17) == [8, 8] and sizes(18) == [8, 8, 2] and sizes(18, drop_last=True) == [8, 8]
    seen = np.concatenate(epoch_batches(18, Protocol(batch_size=8), 1, np.random.default_rng(0)))
    assert sorted(seen) == list(range(18))


def test_accumulation_with_too_few_batches_is_refused(tmp_path):
    with pytest.raises(BenchError, match="fewer than accumulate=99"):
        run(job(accumulate=99), Store(tmp_path))


def test_what_has_no_deterministic_form_on_a_gpu_trains_all_the_same_and_is_named(tmp_path, monkeypatch):
    from bench import environment
    from bench import job as jobs
    from bench.train.turns import drive

    attempts = []

    def training(j, store, data_dir, device, keep, log, env, *rest):
        attempts.append(env.get("not_deterministic"))
        yield False
        if len(attempts) == 1:
            raise RuntimeError("cumsum_cuda_kernel does not have a deterministic implementation, but you set ...")
        return {"env": dict(env), "log": list(log)}

    monkeypatch.setattr(environment, "device", lambda name: {"device": name})
    monkeypatch.setattr(jobs, "_run", training)
    found = drive(jobs.running(job(), Store(tmp_path), device="cuda"))
    assert attempts == [None, "cumsum_cuda_kernel"] and found["env"]["not_deterministic"] == "cumsum_cuda_kernel"
    assert found["log"] == ["begins again: cumsum_cuda_kernel has no deterministic form on this device, runs may differ in rounding"]
    attempts.clear()
    with pytest.raises(RuntimeError, match="cumsum"):  # a CPU has deterministic forms of everything
        drive(jobs.running(job(), Store(tmp_path), device="cpu"))


def test_a_job_asks_for_deterministic_operators_or_an_error():
    from bench.job import settle
    from bench.train.engine import Eager

    settle("cpu")
    assert torch.are_deterministic_algorithms_enabled() and not torch.is_deterministic_algorithms_warn_only_enabled()
    lenient = Eager()
    lenient.lenient = True
    with lenient.context():
        assert torch.is_deterministic_algorithms_warn_only_enabled()
    with Eager().context():  # the next job of the process
        assert not torch.is_deterministic_algorithms_warn_only_enabled()


def test_a_constant_prediction_is_what_a_training_has_to_beat(tmp_path):
    from bench.train.loop import constant_loss

    y = np.array([-2.0, 0.0, 0.5, 1.0, 3.0])
    assert constant_loss(y, Protocol(loss="l1")) == pytest.approx((2.5 + 0.5 + 0 + 0.5 + 2.5) / 5)
    assert constant_loss(y, Protocol(loss="mse")) == pytest.approx(y.var())
    share = 0.25
    entropy = -(share * np.log(share) + (1 - share) * np.log(1 - share))
    assert constant_loss(np.array([1.0, 0, 0, 0]), Protocol(loss="bce")) == pytest.approx(entropy)
    assert constant_loss(np.zeros(4), Protocol(loss="bce")) == pytest.approx(0, abs=1e-5)  # one class alone
    store, j = Store(tmp_path), job("lmf", "none", max_epochs=1)
    run(j, store)
    labels = store.predictions(j)["valid_label"]
    assert read_json(store.folder(j) / "metrics.json")["constant_loss"] == pytest.approx(np.abs(labels - np.median(labels)).mean(), rel=1e-6)
