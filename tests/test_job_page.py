"""Curves of trainings: the page of one job, and what the watched report shows of jobs that are being trained."""

import os
import re
import time

import pytest

from bench.cli import main
from bench.matrix import Job
from bench.report.curves import in_training, scatter, svg, told
from bench.store import LIVE, Store
from tests.golden import cell_config

LINES = ["mosi (custom) lmf+none seed 1111", "epoch 1 train 1.5000 valid 1.4000 avg 0.1", "epoch 2 train 1.2000 valid nan avg nan",
         "epoch 3 train 1.0000 valid 1.1000 avg 0.3"]


def test_lines_of_a_training_are_points():
    assert told(LINES)["train"] == [(1, 1.5), (2, 1.2), (3, 1.0)] and told(["epoch x train", ""]) == {"train": [], "valid": []}


def test_a_curve_has_its_points_and_leaves_gaps():
    drawn = svg(told(LINES), "loss", mark=3)
    assert re.findall(r'<path class="(\w+)"', drawn) == ["thin", "strong"] and 'class="zero"' in drawn
    assert drawn.count("L") == 3 and "nan" not in drawn  # two lines of training, one of validation
    assert svg({"a": []}, "nothing") == "" and "circle" in svg({"a": [(1, 2.0)]}, "one") and scatter([], [], "none") == ""
    assert "&lt;b&gt;" in svg({"a": [(1, 1.0)]}, "<b>")


def test_the_report_shows_what_is_in_training_and_not_what_was_killed_long_ago(tmp_path):
    from bench import api

    store, job = Store(tmp_path / "results"), Job(cell_config("lmf", "none"), 1111)
    store.begin(job)
    for line in LINES:
        store.tell(job, line)
    assert store.told() == {job.id: LINES}
    (shown,) = in_training(store, [job, Job(cell_config("lmf", "manifold"), 1111)])
    assert shown["epochs"] == 3 and shown["seed"] == 1111 and shown["line"] == LINES[-1] and shown["svg"].startswith("<svg")

    plan = api.plan(["msmix-t1"], "quick", results=store.root, only="*/lmf+none", seeds=1)
    (wanted,) = plan.jobs
    store.begin(wanted)
    store.tell(wanted, LINES[1])
    from bench.manifest import write_manifest

    write_manifest(plan, store, 1)
    page = api.report(["msmix-t1"], store.root, "quick", out=tmp_path / "page", only="*/lmf+none", seeds=1).read_text(encoding="utf-8")
    assert "In training" in page and LINES[1] in page
    store.drop(wanted)
    page = api.report(["msmix-t1"], store.root, "quick", out=tmp_path / "page", only="*/lmf+none", seeds=1).read_text(encoding="utf-8")
    assert "In training" not in page

    (live,) = store.root.glob(f"*/*/.*/{LIVE}")
    os.utime(live, (time.time() - 2 * 3600,) * 2)
    assert store.told() == {} and in_training(store, [job]) == []


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """(store, job, its page) of a short training that stands in a table."""
    from bench import api
    from bench.job import run
    from bench.manifest import write_manifest

    out = tmp_path_factory.mktemp("page")
    store = Store(out / "results")
    plan = api.plan(["msmix-t1"], "quick", results=store.root, only="*/lmf+none", seeds=1)
    write_manifest(plan, store, 1)
    run(plan.jobs[0], store)
    assert main(["show", plan.jobs[0].id, "--results", str(store.root), "--html", str(out / "job.html")]) == 0
    return store, plan.jobs[0], (out / "job.html").read_text(encoding="utf-8")


def test_a_page_of_one_job(page):
    store, job, text = page
    metrics, history = store.metrics(job), store.history(job)
    assert job.id in text and f"best epoch {metrics['best_epoch']} of {metrics['epochs']}" in text
    assert f">{metrics['test']['mae']:.4f}<" in text and f">{metrics['valid']['mae']:.4f}<" in text
    (path,) = re.findall(r'<path class="strong" d="([^"]+)"><title>valid_loss', text)
    assert len(path.split("L")) == len(history)
    n = sum(metrics["n"][s] for s in ("valid", "test"))
    assert sum(cloud.count("<circle") for cloud in re.findall(r'<svg class="curves cloud".*?</svg>', text, re.S)) == n
    assert "train.lr" in text and "suite quick" in text and "msmix-t1" in text and "SYNTHETIC" in text


def test_the_page_is_self_contained(page):
    assert not re.search(r'(?:src|href)="(?!#|data:)|url\(|@import|<script', page[2])


def test_a_page_that_cannot_be_written_is_one_line(page, tmp_path, capsys):
    (tmp_path / "file").touch()
    assert main(["show", page[1].id, "--results", str(page[0].root), "--html", str(tmp_path / "file" / "x.html")]) == 2
    assert capsys.readouterr().err.endswith("choose another with --html\n")


def test_a_job_that_is_not_there_is_one_line(tmp_path, capsys):
    (tmp_path / "none").mkdir()
    assert main(["show", "0123", "--results", str(tmp_path / "none"), "--html", str(tmp_path / "x.html")]) == 2
    assert capsys.readouterr().err.count("\n") == 1 and not (tmp_path / "x.html").exists()
