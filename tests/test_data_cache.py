"""The cache cannot lie: what it remembers of a file, and the arrays it keeps, are what the file holds."""

import json
import os
import shutil
from dataclasses import replace

import numpy as np
import pytest

from bench.data import cache, dataset
from bench.data.dataset import load
from tests.formats import put, table, write_wav
from tests.test_cases import ROWS
from tests.test_data import content

FILE = "data/MOSI/Processed/unaligned_50.pkl"


@pytest.fixture(autouse=True)
def a_new_process(monkeypatch):
    """Nothing has been verified in this process yet."""
    monkeypatch.setattr(cache, "_verified", set())


def read(tmp_path, features="unaligned"):
    return load("mosi", features, tmp_path / "data", tmp_path / "cache")


def test_content_that_changes_behind_size_and_time_is_another_file(tmp_path):
    data = content()
    path = put(tmp_path / FILE, data)
    first, before = read(tmp_path), path.stat()
    data["train"]["text"][0, 0, 0] = 42
    put(path, data)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size and path.stat().st_mtime_ns == before.st_mtime_ns
    second = read(tmp_path)
    assert second.sha256 != first.sha256 and second.splits["train"]["text"][0, 0, 0] == 42


def test_an_edited_array_is_noticed_and_made_anew(tmp_path, monkeypatch):
    put(tmp_path / FILE, content())
    text = read(tmp_path).splits["train"]["text"].copy()
    file = next(tmp_path.glob("cache/mosi-*/train-text.npy"))
    raw = bytearray(file.read_bytes())
    raw[-1] ^= 1
    file.chmod(0o644)
    file.write_bytes(raw)  # in place, of the same length
    monkeypatch.setattr(cache, "_verified", set())
    np.testing.assert_array_equal(read(tmp_path).splits["train"]["text"], text)


def test_a_note_makes_no_file_official(tmp_path, monkeypatch):
    put(tmp_path / FILE, content())
    ds, published = read(tmp_path), "ab" * 32
    known = dataset.spec("mosi")
    features = {**known.features, "unaligned": replace(known.features["unaligned"], sha256=published)}
    monkeypatch.setattr(dataset, "spec", lambda name: replace(known, features=features))
    [note] = (tmp_path / "cache" / ".sha256").iterdir()
    note.write_text(json.dumps(json.loads(note.read_text()) | {"sha256": published}))
    shutil.copytree(ds.folder, tmp_path / "cache" / ds.folder.name.replace(ds.sha256[:24], published[:24]))
    monkeypatch.setattr(cache, "_verified", set())
    again = read(tmp_path)
    assert again.sha256 == ds.sha256 and again.provenance != "official"


def test_sound_counts_wherever_links_lead(tmp_path):
    top, away = tmp_path / "data/MOSI", tmp_path / "elsewhere"
    for video, clip, *_ in ROWS:
        write_wav(away / video / f"{clip}.wav", np.full(200, 7, np.int16) + clip)
    (top / "wav").mkdir(parents=True)
    for video in {r[0] for r in ROWS}:
        (top / "wav" / video).symlink_to(away / video)
    (top / "label.csv").write_text(table(ROWS))
    first = read(tmp_path, "audio")
    write_wav(away / "test0000" / "0.wav", np.full(200, 9, np.int16))
    second = read(tmp_path, "audio")
    assert second.sha256 != first.sha256 and second.splits["test"]["wave"][0] == 9


def test_a_refusal_is_remembered_for_that_content_only(tmp_path, monkeypatch):
    data = content()
    data["train"]["text"][0, 0, 0] = np.nan
    path = put(tmp_path / FILE, data)
    with pytest.raises(dataset.DataError, match="of NaN"):
        read(tmp_path)
    monkeypatch.setattr(dataset, "load_pickle", lambda path: pytest.fail("read again"))
    with pytest.raises(dataset.DataError, match=f"{path}: train/text has 1 value .* of NaN"):
        read(tmp_path)
    monkeypatch.undo()
    put(path, content())
    assert read(tmp_path).size("train") == 6


def test_what_leaks_is_kept_with_a_job(tmp_path, monkeypatch):
    from bench.job import run
    from bench.matrix import Config, Job
    from bench.store import Store, read_json

    data = content()
    data["test"]["id"][0] = data["train"]["id"][5]
    put(tmp_path / FILE, data)
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv(dataset.ALLOW_LEAK, "1")
    store, job = Store(tmp_path / "results"), Job(Config("mosi", "unaligned", "lmf", train={"max_epochs": 1}), 1111)
    run(job, store, tmp_path / "data")
    notes = read_json(store.folder(job) / "env.json")["data_notes"]
    assert notes == ["1 id of test occurs in train too, first 'train$_$5'"]


def test_a_plan_says_what_leaks_among_its_departures(tmp_path, monkeypatch):
    from bench import api

    data = content()
    data["test"]["id"][0] = data["train"]["id"][5]
    put(tmp_path / FILE, data)
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))
    make = lambda: api.plan(["msmix-t1"], "real", tmp_path / "data", tmp_path / "results", 1, "mosi/lmf+none", [])
    assert any("say --allow-leak to go on" in reason for reason in make().blocked.values())
    monkeypatch.setenv(dataset.ALLOW_LEAK, "1")
    plan, line = make(), "mosi/unaligned: 1 id of test occurs in train too, first 'train$_$5' (--allow-leak)"
    assert line in plan.adapted
