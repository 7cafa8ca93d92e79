"""Kept weights: what is stored, scores of a file of one's own, an export that loads without the store."""

import json
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from bench import weights
from bench.cli import main
from bench.data.tools import write_synthetic
from bench.errors import BenchError
from bench.job import run
from bench.matrix import Job
from bench.store import Store
from tests.golden import cell_config


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """(store, job, data folder) of LMF + MS-Mix on generated MOSI files, weights kept."""
    folder = tmp_path_factory.mktemp("predict")
    write_synthetic(folder / "data", ["mosi"])
    store, job = Store(folder / "results"), Job(cell_config("lmf", "msmix").with_(dataset="mosi"), 1111)
    run(job, store, folder / "data", keep=("checkpoint",))
    return store, job, folder / "data"


def file_of(data):
    return next(p for p in data.rglob("*unaligned*.pkl"))


def score(trained, file, tmp_path, *more):
    store, job, _ = trained
    out = tmp_path / "scores.csv"
    code = main(["predict", "--job", job.id, "--results", str(store.root), "--data", str(file), "--out", str(out), *more])
    return code, pd.read_csv(out) if code == 0 else None


def test_scores_of_the_training_file_are_those_that_the_job_stored(trained, tmp_path):
    store, job, data = trained
    code, found = score(trained, file_of(data), tmp_path)
    assert code == 0 and list(found.columns) == ["split", "id", "prediction", "label"]
    stored = store.predictions(job)
    test = found[found.split == "test"]
    assert list(test.id) == list(stored["test_id"])
    assert np.allclose(test.prediction, stored["test_prediction"], atol=1e-6)
    assert np.allclose(test.label, stored["test_label"], atol=1e-6)


def test_a_job_that_trained_on_a_part_scores_the_whole_file(trained, tmp_path):
    _, _, data = trained
    store, job = Store(tmp_path / "part"), Job(cell_config("lmf", "none").with_(dataset="mosi", fraction=0.1), 1111)
    run(job, store, data, keep=("checkpoint",))
    code, found = score((store, job, data), file_of(data), tmp_path)
    assert code == 0 and (found.split == "train").sum() == len(pickle.loads(file_of(data).read_bytes())["train"]["id"])


def test_clips_of_ones_own_need_no_labels_and_no_splits(trained, tmp_path):
    store, job, data = trained
    content = pickle.loads(file_of(data).read_bytes())["test"]
    own = {k: np.asarray(content[k])[:5] for k in ("raw_text", "text", "text_bert", "audio", "vision", "id")}
    file = tmp_path / "mine.pkl"
    file.write_bytes(pickle.dumps(own))
    code, found = score(trained, file, tmp_path)
    assert code == 0 and len(found) == 5 and found.label.isna().all()
    assert np.allclose(found.prediction, store.predictions(job)["test_prediction"][:5], atol=1e-6)
    assert list(found.id) == list(store.predictions(job)["test_id"][:5])


def test_a_file_that_does_not_fit_is_one_line(trained, tmp_path, capsys):
    content = pickle.loads(file_of(trained[2]).read_bytes())["test"]
    narrow = {k: np.asarray(content[k]) for k in ("raw_text", "text_bert", "audio", "vision", "id")}
    narrow["text"] = np.asarray(content["text"])[:, :, :100]
    file = tmp_path / "narrow.pkl"
    file.write_bytes(pickle.dumps(narrow))
    assert score(trained, file, tmp_path)[0] == 2
    err = capsys.readouterr().err
    assert "text has 100 columns, the model was trained on 768" in err and err.count("\n") == 1
    assert score(trained, tmp_path / "absent.pkl", tmp_path)[0] == 2


def test_a_place_that_cannot_be_written_is_one_line_with_its_own_flag(trained, tmp_path, capsys):
    (tmp_path / "file").touch()
    store, job, data = trained
    named = ["--results", str(store.root), "--out", str(tmp_path / "file" / "x")]
    for verb in (["predict", "--job", job.id, "--data", str(file_of(data))], ["export", job.id]):
        assert main([*verb, *named]) == 2
        err = capsys.readouterr().err
        assert err.startswith("bench: cannot write ") and err.endswith("choose another with --out\n") and err.count("\n") == 1
    assert main(["predict", "--job", job.id, "--data", str(file_of(data)), *named[:2], "--out", str(tmp_path / "new" / "scores.csv")]) == 0
    assert (tmp_path / "new" / "scores.csv").is_file()  # its folder is made


def test_export_loads_elsewhere_without_the_store(trained, tmp_path):
    store, job, data = trained
    code = main(["export", job.id[:8], "--results", str(store.root), "--out", str(tmp_path / "card")])
    assert code == 0 and {p.name for p in (tmp_path / "card").iterdir()} == {"weights.safetensors", "config.json", "README.md"}
    card = (tmp_path / "card" / "README.md").read_text()
    assert "lmf + msmix on mosi" in card and "non0_acc2" in card and "synthetic" in card
    example = (
        "from bench.weights import build\nimport torch\n"
        "model = build('weights.safetensors')\n"
        "shapes = {'text': (3, 16, 768), 'audio': (3, 1, 5), 'vision': (3, 1, 20)}\n"
        "print(model({k: torch.zeros(s) for k, s in shapes.items()}).prediction.shape)\n"
    )
    root = Path(__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", example], cwd=tmp_path / "card", env={"PYTHONPATH": str(root), "PATH": "/usr/bin:/bin"},
                          capture_output=True, text=True)
    assert done.stdout.strip() == "torch.Size([3])", done.stderr


def test_weights_come_back_bit_for_bit_and_name_their_job(trained):
    store, job, _ = trained
    found = weights.load(store.checkpoint(job))
    assert found.job == job and found.inputs.text == (16, 768)
    model = weights.build(store.checkpoint(job))
    assert not model.training
    assert all(torch.equal(v, found.tensors[f"model.{k}"]) for k, v in model.state_dict().items())


@pytest.mark.parametrize("content", [b"", b"not weights", b"\x08\x00\x00\x00\x00\x00\x00\x00{}      "])
def test_damaged_weights_are_one_line(content, tmp_path):
    (tmp_path / "w.safetensors").write_bytes(content)
    with pytest.raises(BenchError) as e:
        weights.load(tmp_path / "w.safetensors")
    assert "\n" not in str(e.value)


def test_a_job_without_weights_says_how_to_keep_them(tmp_path, capsys):
    store, job = Store(tmp_path), Job(cell_config("lmf", "none"), 1111)
    run(job, store)
    assert main(["export", job.id, "--results", str(tmp_path), "--out", str(tmp_path / "x")]) == 2
    assert "--keep-checkpoints" in capsys.readouterr().err
    assert main(["export", "ffffffff", "--results", str(tmp_path), "--out", str(tmp_path / "x")]) == 2
    assert "no job 'ffffffff'" in capsys.readouterr().err
    assert json.loads((store.folder(job) / "metrics.json").read_text())  # and nothing is lost
