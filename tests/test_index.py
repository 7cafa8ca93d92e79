"""The index beside the results saves reading, and never changes what is read."""

import multiprocessing
import os
import sqlite3

import pandas as pd
import pytest

from bench import index, records
from bench.matrix import Config, Job
from bench.measure.needs import Measure
from bench.measure.spec import load_numbers, seal
from bench.store import Store, write_json
from tests.test_store import finish

JOBS = [Job(Config("mosi", "unaligned", "lmf", train={"lr": k + 1}), seed) for k in range(4) for seed in (1111, 1112, 1113)]
FAILED, CUT, ABSENT = JOBS[9:]


@pytest.fixture
def results(tmp_path, monkeypatch):
    """A folder with nine results, a failed job, a damaged one and one that was never run; every entry is worth keeping."""
    monkeypatch.setattr(index, "FEW", 1)
    monkeypatch.setattr(index, "_SETTLED", -10**12)
    store = Store(tmp_path / "results")
    for k, j in enumerate([*JOBS[:9], CUT]):
        finish(store, j, 0.7 + k / 100)
    store.fail(FAILED, "boom", "ValueError")
    (store.folder(CUT) / "metrics.json").write_text("{")
    return tmp_path / "results"


def read(results, indexed=True):
    return Store(results, indexed=indexed).frames(JOBS)


def same(a, b):
    for one, other in zip(a, b):
        pd.testing.assert_frame_equal(one, other)


def unread(monkeypatch):
    def refuse(folder, job_id):
        raise AssertionError(f"{folder} was read")

    monkeypatch.setattr(records, "read_entry", refuse)


def test_what_was_read_once_is_looked_up(results, monkeypatch):
    truth = read(results, indexed=False)
    assert not (results / index.NAME).exists()
    same(read(results), truth)
    assert (results / index.NAME).exists()
    unread(monkeypatch)
    same(read(results), truth)
    assert list(truth[1].status) == ["done"] * 9 + ["failed", "failed", "missing"]
    assert [Store(results, indexed=True).status(j) for j in JOBS] == ["done"] * 9 + ["failed", "damaged", "missing"]


def test_a_change_of_any_file_is_seen(results):
    read(results)
    store, j = Store(results), JOBS[0]
    finish(store, j, 0.99)
    assert float(read(results)[0].query(f"job == '{j.id}' and metric == 'non0_acc2'").value.iloc[0]) == 0.99
    for name in ("metrics.json", "history.csv", "predictions.npz", "job.json"):
        read(results)
        path = store.folder(JOBS[1]) / name
        before, content = path.stat(), path.read_bytes()
        path.write_bytes(content[:-3] + b"xyz")  # of the same size, in place, and with its old time
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        assert "damaged" in read(results)[1].error[1], name
        path.write_bytes(content)
        assert read(results)[1].error[1] == "", name
    write_json(store.folder(JOBS[2]) / "env.json", {"data_sha256": "other"})
    assert Store(results, indexed=True).status(JOBS[2], {("mosi", "unaligned"): "aa"}) == "stale"
    store.forget_failure(FAILED)
    assert Store(results, indexed=True).status(FAILED) == "missing"


def _cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _noise(path):
    path.write_bytes(b"no database" * 500)


def _empty(path):
    path.write_bytes(b"")


def _flipped(path):
    data = bytearray(path.read_bytes())
    for k in range(100, len(data), 97):
        data[k] ^= 1
    path.write_bytes(bytes(data))


def _foreign(path):
    path.unlink()
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE entries (x)")
    db.close()


def _forged(path):
    with sqlite3.connect(path) as db:
        db.execute("UPDATE entries SET content = replace(content, '0.7', '0.9')")
    db.close()


def _swapped(path):
    with sqlite3.connect(path) as db:
        rows = db.execute("SELECT state, content, seal FROM entries ORDER BY name").fetchall()
        for name, row in zip([r[0] for r in db.execute("SELECT name FROM entries ORDER BY name DESC").fetchall()], rows):
            db.execute("UPDATE entries SET state = ?, content = ?, seal = ? WHERE name = ?", (*row, name))
    db.close()


def _folder(path):
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("harm", [_cut, _noise, _empty, _flipped, _foreign, _forged, _swapped, _folder])
def test_a_damaged_index_changes_nothing_and_is_made_anew(results, monkeypatch, harm):
    truth = read(results)
    harm(results / index.NAME)
    same(read(results), truth)
    same(read(results), truth)
    if harm is not _folder:
        unread(monkeypatch)
        same(read(results), truth)


def test_other_rules_read_everything_anew(results, monkeypatch):
    truth = read(results)
    monkeypatch.setattr(index, "_rules", lambda: "other rules")
    seen = []
    real = records.read_entry
    monkeypatch.setattr(records, "read_entry", lambda folder, job_id: seen.append(job_id) or real(folder, job_id))
    same(read(results), truth)
    assert len(seen) == 11
    same(read(results), truth)
    assert len(seen) == 11


def test_a_folder_that_cannot_be_written_or_locked_is_read_without(results, monkeypatch):
    truth = read(results, indexed=False)
    real = sqlite3.connect

    def closed(database, **how):
        if "mode=rwc" in database:
            raise sqlite3.OperationalError("unable to open database file")
        return real(database, **how)

    monkeypatch.setattr(sqlite3, "connect", closed)
    same(read(results), truth)
    assert not (results / index.NAME).exists()
    monkeypatch.setattr(sqlite3, "connect", real)
    read(results)
    monkeypatch.setattr(index, "_PATIENCE", 0.05)
    with sqlite3.connect(results / index.NAME, isolation_level=None) as db:
        db.execute("BEGIN EXCLUSIVE")
        same(read(results), truth)
    db.close()
    monkeypatch.setattr(index, "sqlite3", None)  # a Python without it
    same(read(results), truth)


def test_what_is_fresh_or_could_not_be_read_is_not_kept(results, monkeypatch):
    monkeypatch.setattr(index, "_SETTLED", 3600 * 10**9)  # however long this machine takes
    read(results)
    assert not (results / index.NAME).exists(), "files of a moment ago may change again within one tick of the clock"
    monkeypatch.setattr(index, "_SETTLED", -10**12)
    real = records.read_json

    def failing(path):
        if path.name == "metrics.json" and JOBS[0].id in str(path):
            raise OSError(5, "Input/output error")
        return real(path)

    monkeypatch.setattr(records, "read_json", failing)
    assert "cannot be read: input/output error" in read(results)[1].error[0]
    monkeypatch.setattr(records, "read_json", real)
    assert read(results)[1].status[0] == "done"


def test_every_file_of_a_folder_is_read_once(results, monkeypatch):
    seen = []
    real = records.read_json
    monkeypatch.setattr(records, "read_json", lambda path: seen.append(path) or real(path))
    store = Store(results)
    for j in JOBS:
        store.status(j), store.status(j, {("mosi", "unaligned"): "aa"}), store.time_limit(j), store.entry(j).env, seal(store, j)
    store.frames(JOBS)
    for name in ("env.json", "metrics.json", "failed.json"):
        assert sum(p.name == name for p in seen) == 11, name


def test_few_results_begin_no_index(results, monkeypatch):
    monkeypatch.setattr(index, "FEW", 200)
    read(results)
    assert not (results / index.NAME).exists()


def test_numbers_of_measures_are_those_of_the_result_as_it_is(results, monkeypatch):
    store, j, m = Store(results), JOBS[0], Measure("labels", {"bins": 3})
    write_json(store.folder(j) / f"{m.stem}.json", {"numbers": {"kl": 0.5}, "seal": seal(store, j)})

    def numbers():
        one = Store(results, indexed=True)
        found = load_numbers(one, j, m)
        one.keep_index()
        return found

    assert numbers() == {"kl": 0.5} == numbers()
    finish(store, j, 0.8)  # trained again: the measure is of another training
    assert numbers() is None
    write_json(store.folder(j) / f"{m.stem}.json", {"numbers": {"kl": 0.25}, "seal": seal(Store(results), j)})
    assert numbers() == {"kl": 0.25}


def _reader(results, truth, rounds):
    for k in range(rounds):
        if k % 5 == 4:
            (results / index.NAME).unlink(missing_ok=True)
        same(read(results), truth)


def test_processes_that_use_it_at_once_read_the_truth(results):
    truth = read(results, indexed=False)
    fork = multiprocessing.get_context("fork")
    readers = [fork.Process(target=_reader, args=(results, truth, 15)) for _ in range(3)]
    for p in readers:
        p.start()
    for p in readers:
        p.join(60)
    assert [p.exitcode for p in readers] == [0, 0, 0]
