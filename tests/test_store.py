"""Job folders: done means metrics.json, failed is never aggregated, nothing is left half-written."""

import errno
import os

import numpy as np
import pandas as pd
import pytest

from bench import folder_swap
from bench.errors import BenchError
from bench.matrix import Config, Job
from bench.store import Store, read_json, write_atomic


def job(seed=1111, **changes):
    return Job(Config(**{"dataset": "mosi", "features": "unaligned", "backbone": "lmf", **changes}), seed)


def finish(store, j, value=0.8, sha="aa"):
    store.begin(j)
    split = {"non0_acc2": value, "mae": 1.0, "corr": float("nan")}
    store.finish(
        j, {"valid": split, "test": split, "best_epoch": 3, "epochs": 9, "n": {"test": 2}},
        pd.DataFrame([{"epoch": 1, "valid_loss": 0.5}]), {"test_prediction": np.zeros(2)}, {"data_sha256": sha}, ["log"],
    )


def test_status_follows_the_files(tmp_path):
    store, j = Store(tmp_path), job()
    assert store.status(j) == "missing"
    store.begin(j)
    assert store.status(j) == "missing"
    store.fail(j, "boom", "ValueError", ["trace"])
    assert store.status(j) == "failed"
    finish(store, j)
    assert store.status(j) == "done" and not (store.folder(j) / "failed.json").exists()
    assert sorted(p.name for p in store.folder(j).iterdir()) == [
        "env.json", "history.csv", "job.json", "log.txt", "metrics.json", "predictions.npz"]


def test_results_on_other_data_are_stale_and_not_aggregated(tmp_path):
    store, j = Store(tmp_path), job()
    finish(store, j, sha="aa")
    at_hand = {("mosi", "unaligned"): "bb"}
    assert store.status(j, at_hand) == "stale" and store.status(j, {("mosi", "unaligned"): "aa"}) == "done"
    values, runs = store.frames([j], at_hand)
    assert values.empty and list(runs.status) == ["stale"]


def test_a_result_that_lost_its_env_is_not_taken_for_one_of_the_file_at_hand(tmp_path):
    store, j = Store(tmp_path), job()
    finish(store, j, sha="aa")
    (store.folder(j) / "env.json").unlink()
    at_hand = {("mosi", "unaligned"): "aa"}
    assert store.status(j, at_hand) == "stale" and list(store.frames([j], at_hand)[1].status) == ["stale"]
    assert store.status(j) == "done", "where no file is at hand, none is another"


def test_results_of_two_data_files_are_never_in_one_frame(tmp_path):
    store, jobs = Store(tmp_path), [job(1111 + i) for i in range(5)]
    for j, sha in zip(jobs, ("bb", "aa", "bb", "aa", "aa")):
        finish(store, j, sha=sha)
    data, lines = store.one_file(jobs)
    assert data == {("mosi", "unaligned"): "aa"} and len(lines) == 1 and "2 data files; the 3 of aa count" in lines[0] and "the other 2 are stale" in lines[0]
    assert list(store.frames(jobs, data)[1].status) == ["stale", "done", "stale", "done", "done"]
    (store.folder(jobs[1]) / "env.json").unlink()
    assert store.one_file(jobs)[0] == {("mosi", "unaligned"): "aa"}, "as many of either: the same at every look"
    assert store.one_file(jobs, {("mosi", "unaligned"): "bb"}) == ({("mosi", "unaligned"): "bb"}, []), "the file at hand decides"
    finish(store, jobs[1]), finish(store, jobs[0]), finish(store, jobs[2])
    assert store.one_file(jobs) == ({}, [])


def test_frames_hold_done_jobs_only_and_name_the_others(tmp_path):
    store = Store(tmp_path)
    jobs = [job(1111), job(1112), job(1113)]
    finish(store, jobs[0], 0.75)
    store.fail(jobs[1], "out of memory", "RuntimeError")
    values, runs = store.frames(jobs)
    test = values[(values.split == "test")].set_index("metric").value
    assert test["non0_acc2"] == 0.75 and np.isnan(test["corr"])
    assert set(values.seed) == {1111}
    assert list(runs.status) == ["done", "failed", "missing"] and runs.error[1] == "out of memory"
    assert {j.id for j in store.scan()} == {jobs[0].id, jobs[1].id}


def test_full_disk_is_one_line_and_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "metrics.json"
    write_atomic(path, b"old")

    def full(*a):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(BenchError, match="disk full while writing .*metrics.json"):
        write_atomic(path, b"new")
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_damaged_json_is_named(tmp_path):
    (tmp_path / "env.json").write_text('{"a": ')
    with pytest.raises(BenchError, match="env.json is damaged"):
        read_json(tmp_path / "env.json")


def test_an_attempt_lies_beside_the_job_and_a_finished_result_is_replaced_by_rename(tmp_path):
    store, j = Store(tmp_path), job()
    finish(store, j, 0.75)
    folder = store.folder(j)
    before = {p.name: p.read_bytes() for p in folder.iterdir()}
    (folder / "probe-0123.json").write_text("{}")
    attempt = store.begin(j)
    assert attempt.parent == folder.parent and store.checkpoint(j).parent == attempt
    store.fail(j, "boom", "ValueError", ["trace"])
    store.drop(j)
    assert store.status(j) == "done" and not attempt.exists(), "a failed repetition costs nothing"
    assert {n: (folder / n).read_bytes() for n in before} == before
    assert store.status(j, {("mosi", "unaligned"): "bb"}) == "failed", "on the data at hand it has failed"
    finish(store, j, 0.5)
    assert Store(tmp_path).metrics(j)["test"]["non0_acc2"] == 0.5
    assert {p.name for p in folder.iterdir()} == {*before, "probe-0123.json"}, "measures go with the job"
    assert [p.name for p in folder.parent.iterdir()] == [folder.name]


def test_without_an_exchange_of_names_a_kill_between_the_renames_is_mended(tmp_path, monkeypatch):
    monkeypatch.setattr(folder_swap, "_exchange", lambda a, b: False)
    store, j = Store(tmp_path), job()
    finish(store, j, 0.75)
    finish(store, j, 0.5)
    folder = store.folder(j)
    assert store.metrics(j)["test"]["non0_acc2"] == 0.5 and len(list(folder.parent.iterdir())) == 1
    rename, calls = os.rename, []

    def killed(a, b):
        calls.append(a)
        if len(calls) == 2:
            raise KeyboardInterrupt
        rename(a, b)

    monkeypatch.setattr(os, "rename", killed)
    with pytest.raises(KeyboardInterrupt):
        finish(store, j, 0.25)
    assert store.status(j) == "missing"
    monkeypatch.setattr(os, "rename", rename)
    folder_swap.recover(folder)
    assert Store(tmp_path).metrics(j)["test"]["non0_acc2"] == 0.5
