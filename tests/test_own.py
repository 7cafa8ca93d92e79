"""A user's own data set from a folder with one file: what is inferred, said, refused, and run."""

import os
import subprocess
import sys

import numpy as np
import pytest

from bench import registry
from bench.data import own
from bench.data.dataset import load
from bench.errors import BenchError, DataError
from tests.conftest import ROOT
from tests.formats import put
from tests.test_data import content


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """Writes a file into a folder called My-Data and registers the data set."""
    monkeypatch.setattr(registry, "_ADDED", {})
    folder = tmp_path / "My-Data"

    def registered(change=lambda part: None, said="", file="Processed/features.pkl"):
        data = content()
        for part in data.values():
            change(part)
        put(folder / file, data)
        if said:
            (folder / "dataset.toml").write_text(said)
        own._look.cache_clear()
        return own.register(folder)

    registered.folder = folder
    return registered


def test_what_a_file_is_follows_from_what_is_in_it(mine, tmp_path):
    found = mine()
    spec = found.spec
    assert (spec.name, spec.metrics, spec.label_bound, spec.nearest) == ("my_data", "msena", 3.0, "mosi")
    assert list(spec.features) == ["unaligned"] and spec.features["unaligned"].audio == (7, 3)
    assert found.inferred[0].endswith("features.pkl: 6 / 3 / 4 samples; text 5 x 8, audio 7 x 3, vision 9 x 2")
    ds = load("my_data", "unaligned", mine.folder, tmp_path / "cache")
    assert ds.size("test") == 4 and not any("official" in w for w in ds.warnings)
    assert registry.version("datasets", "my_data") == 1 and "my_data" in registry.names("datasets")


@pytest.mark.parametrize(
    ("labels", "family", "bound", "nearest"),
    [
        (lambda n: np.linspace(-1, 1, n), "sims", 1, "sims"), (lambda n: np.arange(n) % 2, "binary", 1, "mustard"),
        (lambda n: np.linspace(-4.5, 5, n), "msena", 5, "mosi"),
    ],
)  # fmt: skip
def test_the_metrics_follow_from_the_labels(mine, labels, family, bound, nearest):
    spec = mine(lambda p: p.update(regression_labels=labels(len(p["id"])))).spec
    assert (spec.metrics, spec.label_bound, spec.nearest) == (family, bound, nearest)


def test_dataset_toml_overrules(mine):
    spec = mine(said='name = "film"\ntitle = "Films"\nnearest = "mosei"\nlabel_bound = 4\n').spec
    assert (spec.name, spec.title, spec.nearest, spec.label_bound) == ("film", "Films", "mosei", 4.0)


@pytest.mark.parametrize(
    ("said", "line"),
    [
        ("colour = 1", "unknown key 'colour'; known: file, label_bound"), ("name = ", "dataset.toml: cannot be read"),
        ('name = "9"', "'9' is no name for a dataset"), ('name = "mosi"', "'mosi' is the name of a dataset that is here"),
        ('metrics = "f1"', "metrics is msena, sims, binary, got 'f1'"), ('file = "../x.pkl"', "no file '../x.pkl' in it"),
        ("label_bound = -1", "label_bound is a number above 0"),
    ],
)  # fmt: skip
def test_a_wrong_dataset_toml_is_one_line(mine, said, line):
    with pytest.raises(BenchError, match=line):
        mine(said=said)


def test_what_is_no_data_set_is_one_line(mine, tmp_path):
    with pytest.raises(BenchError, match="no such folder"):
        own.register(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(BenchError, match="no .pkl in it or in its folder Processed"):
        own.register(tmp_path / "empty")
    with pytest.raises(DataError, match="labels lie in 1 to 5, not around 0; subtract their middle"):
        mine(lambda p: p.update(regression_labels=np.linspace(1, 5, len(p["id"]))))
    mine()
    with pytest.raises(BenchError, match=r"several files \(b.pkl, features.pkl\); say file ="):
        mine(file="b.pkl")


def test_plans_know_it_and_other_commands_do_not_break(tmp_path):
    put(tmp_path / "mine/features.pkl", content())
    environment = {k: v for k, v in os.environ.items() if k != own.FROM} | {"BENCH_CACHE": str(tmp_path / "cache")}
    bench = lambda *a: subprocess.run(
        [sys.executable, "-m", "bench", *a], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    done = bench("plan", "own-t1", "--suite", "real", "--dataset-from", str(tmp_path / "mine"), "--results", str(tmp_path / "r"))
    assert done.returncode == 0 and "suite real: 180 jobs" in done.stdout, done.stderr
    assert "dataset 'mine' from" in done.stderr and "hyperparameters of mosi" in done.stderr
    (tmp_path / "mine/features.pkl").write_bytes(b"<html>")
    done = bench("plan", "own-t1", "--dataset-from", str(tmp_path / "mine"))
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "a web page" in done.stderr
    assert "unknown artefact 'own-t1'" in bench("plan", "own-t1").stderr
