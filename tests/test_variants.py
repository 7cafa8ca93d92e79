"""Runs with other settings than an experiment's: beside the default, badged, outside every verdict, and run again by the
command that the page prints."""

import json
import re
import shlex
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from bench import api
from bench.analysis.results import Results
from bench.cli import main
from bench.errors import BenchError
from bench.experiments import select
from bench.manifest import read_manifest, write_manifest
from bench.matrix import Config, Job, expand, seeds
from bench.plan import make_plan
from bench.report.build import build, tidy
from bench.report.latex import _variants
from bench.report.layout import layout_of
from bench.report.significance import family
from bench.report.tables import make_table
from bench.report.verdict import Reported
from bench.settings import current, difference, full, short_name, variant_name
from bench.store import Store
from bench.suites import suite
from tests import planted

pytestmark = pytest.mark.usefixtures("no_fsync")
CELL = "synthetic-mosi/lmf+none"
DEFAULTS = len(select(["msmix-t1"])[0].rows)
LMF = sum(r.backbone == "LMF" for r in select(["msmix-t1"])[0].rows)
TINY = ["--only", CELL, "--seeds", "1", "--workers", "1", "--set", "train.max_epochs=1"]


def record(store, *settings, only=CELL, name="", n=None):
    plan = make_plan(select(["msmix-t1"]), suite("quick"), store, seeds=n, only=only, settings=settings, variant=name)
    write_manifest(plan, store, n)
    return plan


def done(store, jobs, value=0.8):
    """Finished jobs with planted values."""
    for k, job in enumerate(jobs):
        metrics = dict.fromkeys(("non0_acc2", "has0_acc2", "non0_f1", "has0_f1", "acc5", "acc7", "mae", "avg"), value + k / 1000)
        planted.finish(store, job, metrics, planted.env(job.seed, "synthetic"))


def rows(store, every=False):
    e = read_manifest(select(["msmix-t1"]), store, suite("quick"), every)[0][0]
    return {(r.backbone, r.method, r.departs): r for r in e.rows}


# --- the record -----------------------------------------------------------------------------------------------------

def test_a_variant_never_takes_the_place_of_the_default(tmp_path):
    store = Store(tmp_path)
    done(store, record(store).jobs)
    done(store, record(store, "backbone.rank=8").jobs, 0.9)
    found = rows(store)
    assert found["LMF", "plain", ""].cells["MOSI"].backbone_params["rank"] != 8
    assert ("LMF", "plain", "rank=8") not in found, "the default has runs: a variant without a name is shown when asked"
    assert rows(store, every=True)["LMF", "plain", "rank=8"].cells["MOSI"].backbone_params["rank"] == 8
    done(store, record(store).jobs)
    assert ("LMF", "plain", "rank=8") in rows(store, every=True), "running the default again forgets no variant"


def test_a_named_variant_is_always_shown_and_its_default_stays(tmp_path):
    store = Store(tmp_path)
    done(store, record(store).jobs)
    record(store, "backbone.rank=8", name="rank8", n=3)
    found = rows(store)
    assert found["LMF", "plain", "rank8"].seeds == 3 and ("LMF", "plain", "") in found and len(found) == DEFAULTS + 1
    with pytest.raises(BenchError, match="rank8: msmix-t1 has a variant of that name .* backbone.rank=8; choose another"):
        record(store, "backbone.rank=16", name="rank8")


def test_where_only_a_variant_ran_it_is_shown_and_said(tmp_path):
    store = Store(tmp_path)
    done(store, record(store, "backbone.rank=8", "train.lr=0.01", n=1).jobs)
    found, lines = read_manifest(select(["msmix-t1"]), store, suite("quick"))
    assert [r.departs for r in found[0].rows if r.departs] == ["lr=0.01, rank=8"]
    assert [x for x in lines if "other settings" in x] == [
        "msmix-t1, lmf: 1 cell ran with other settings, backbone.rank=8 train.lr=0.01: rows of their own, outside every verdict"
    ]


def test_a_record_of_an_earlier_version_is_read(tmp_path):
    """Version 1 wrote what --set changed in the default's place: it is told apart by the experiment's definition."""
    store = Store(tmp_path)
    plan = record(store, "train.max_epochs=2", "features=aligned", n=1)
    done(store, plan.jobs)
    path = tmp_path / "plans" / "quick.json"
    new = json.loads(path.read_text())["artefacts"]["msmix-t1"]
    variant = new["variants"].pop("features=aligned, max_epochs=2")["cells"][0]
    old = {"seeds": new["seeds"], "cells": [variant if c[:4] == variant[:4] else c for c in new["cells"]]}
    path.write_text(json.dumps({"artefacts": {"msmix-t1": old, "gone-t1": old}, "adapted": ["a line"]}))
    found = rows(store)
    assert found["LMF", "plain", "features=aligned, max_epochs=2"].cells["MOSI"].features == "aligned"
    assert found["LMF", "plain", ""].cells["MOSI"].train["max_epochs"] == 5
    lines = read_manifest(select(["msmix-t1"]), store, suite("quick"))[1]
    assert "a line" in lines and "gone-t1 was run, but is not known here" in lines


def test_runs_of_another_version_are_shown_and_said(tmp_path):
    store = Store(tmp_path)
    record(store)
    path = tmp_path / "plans" / "quick.json"
    stored = json.loads(path.read_text())
    for *_, c in stored["artefacts"]["msmix-t1"]["cells"]:
        c["versions"]["train"], c["a field of another time"] = 999, 1
    path.write_text(json.dumps(stored))
    found, lines = read_manifest(select(["msmix-t1"]), store, suite("quick"))
    assert len(found[0].rows) == DEFAULTS and any("train ran as version 999, the code here is version" in x for x in lines)
    assert all(current(c).versions["train"] != 999 for c in found[0].configs())


# --- outside of every verdict ---------------------------------------------------------------------------------------

@pytest.fixture
def official(tmp_path):
    """The planted table, with a variant of TFN + plain that beats everything."""
    p = planted.write(tmp_path, holes=False)
    rows_ = list(p.experiment.rows)
    c = rows_[0].cells["MOSI"].with_(train={"lr": 0.5})
    rows_.insert(1, replace(rows_[0], cells={"MOSI": c}, baseline="", departs="hot", settings=("train.lr=0.5",), seeds=3))
    for s in seeds(3):
        planted.finish(p.store, Job(c, s), planted.metrics(np.random.default_rng(s), s, 9.0), planted.env(s))
    p.with_variant = replace(p.experiment, rows=tuple(rows_))
    return p


def tables(p, e):
    values, runs = p.store.frames(expand([e]))
    return make_table(e, Results(values, runs), Reported(p.reported))


def test_a_variant_changes_no_mark_test_claim_or_verdict(official):
    alone, beside = tables(official, official.experiment), tables(official, official.with_variant)
    of = {i if i == 0 else i + 1: i for i in range(len(official.experiment.rows))}
    for new, old in of.items():
        for j in range(4):
            a, b = beside.grid.cells[new][j], alone.grid.cells[old][j]
            assert (a.best, a.second, a.values) == (b.best, b.second, b.values)
            assert beside.judged[new, j].status == alone.judged[old, j].status
            assert [beside.versus[k].get((new, j)) for k in ("proposed", "plain")] == [alone.versus[k].get((old, j)) for k in ("proposed", "plain")]
    lines = [family(t.grid, t.versus["proposed"]) for t in (alone, beside)]
    assert [(x.holm, x.other) for x in lines[0]] == [(x.holm, x.other) for x in lines[1]]
    pd.testing.assert_frame_equal(tidy([alone]), tidy([beside]))


def test_a_variant_shows_its_difference_and_says_why_there_is_no_verdict(official):
    t = tables(official, official.with_variant)
    judged, cell = t.judged[1, 3], t.grid.cells[1][3]
    assert cell.n == cell.wanted == 3 and not cell.best and t.mark((1, 3)) == ""
    assert judged.delta == pytest.approx(cell.mean - 65.0) and judged.status == "" and "other settings (hot)" in judged.why
    against = t.versus["default"][1, 3]
    assert against.n == 3 and against.difference == pytest.approx(cell.mean - np.mean(t.grid.cells[0][3].values[:3]))


def test_page_and_csv_give_every_setting_with_its_source(official, tmp_path):
    page = build([official.with_variant], official.store, tmp_path / "out", "real", reported=official.reported).read_text()
    assert page.count(' title="train.lr=0.5">hot</span>') == 1 and 'id="msmix-t1.tfn.plain.hot.mosi.avg"' in page
    c = official.with_variant.rows[1].cells["MOSI"]
    said = pd.read_csv(tmp_path / "out" / "settings.csv").query("config == @c.id").set_index("setting")
    assert said.loc["train.lr", ["value", "source"]].tolist() == ["0.5", "--set"]
    assert said.loc["train.batch_size", ["value", "source"]].tolist() == ["32", "default, bench/train/protocol.py"]
    runs = pd.read_csv(tmp_path / "out" / "runs.csv")
    assert runs.loc[runs["config"] == c.id, "settings"].str.contains("train.lr=0.5; ").all()
    cells = pd.read_csv(tmp_path / "out" / "msmix-t1.csv")
    assert (cells["settings"] == "hot").sum() == 4


def test_rates_as_rows_get_a_group_of_their_own():
    e = next(e for e in select([]) if e.rows and layout_of(e).stubs[0] == "Dataset")
    layout = layout_of(replace(e, rows=(*e.rows, replace(e.rows[0], departs="mine", settings=("train.lr=1",)))))
    before, (name, width) = layout_of(e), layout.groups[-1]
    assert name == f"{e.rows[0].method} [mine]" and layout.groups[:-1] == before.groups and len(layout.lines) == len(before.lines)
    cells = [at for line in layout.lines for at in line.cells[-width:] if at]
    assert {i for i, _ in cells} == {len(e.rows)} and len(cells) == len(e.columns)


# --- the command line -----------------------------------------------------------------------------------------------

def command_of(page, settings):
    """The rerun command of the cell with these settings, as the page's button copies it."""
    data = json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page).group(1))
    return next(c["cmd"] for c in data["configs"] if settings in c["cmd"]).replace("{artefact}", "msmix-t1")


def test_the_printed_command_of_a_changed_cell_works(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["run", "msmix-t1", *TINY, "--set", "backbone.rank=2", "--as", "rank 2"]) == 0
    assert main(["report"]) == 0
    page = (tmp_path / "reports" / "quick" / "index.html").read_text()
    command = command_of(page, "backbone.rank=2")
    assert "--as 'rank 2'" in command and "--results again" in command
    assert main(shlex.split(command)[1:] + ["--workers", "1"]) == 0
    first, again = (Store(tmp_path / root).scan() for root in ("results", "again"))
    assert [j.id for j in first] == [j.id for j in again] and again[0].config.backbone_params["rank"] == 2
    row = re.search(r'<tr class="departs [^>]*>.*?</tr>', page, re.S).group()
    assert "rank 2" in row and re.search(r'data-copy="([^"]*)"', row).group(1).replace("&#39;", "'") == command


def test_names_are_checked():
    with pytest.raises(BenchError, match="--as x names a run with other settings; say which with --set"):
        variant_name("x", [])
    with pytest.raises(BenchError, match="up to 40 letters"):
        variant_name("a/b", ["train.lr=1"])
    assert variant_name("", ["train.lr=1", "backbone.rank=3"]) == "lr=1, rank=3"
    long = {f"backbone.name{k}": "value" * 4 for k in range(5)}
    assert len(short_name(long)) < 80 and short_name(long) != short_name({**long, "backbone.name4": "other" * 4})


def test_settings_are_compared_with_the_defaults_of_the_code():
    c = Config("mosi", "unaligned", "lmf", train={"lr": 1e-3})
    assert full(c)["backbone.rank"] == 3 and difference(c.with_(backbone_params={"rank": 3}), c) == {}
    assert difference(c.with_(backbone_params={"rank": 4}), c) == {"backbone.rank": 4}


# --- what a report takes --------------------------------------------------------------------------------------------

def test_report_shows_a_part_or_says_why_not(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    store = Store("results")
    done(store, record(store, only=None).jobs)
    chosen, _ = api.as_run(only="*/lmf+*")
    assert {r.backbone for r in chosen[0].rows} == {"LMF"} and len(chosen[0].rows) == LMF
    page = api.report(seeds=1, only="*/lmf+*").read_text()
    assert f"{LMF} of {LMF} runs" in page and 'data-backbone="TFN"' not in page
    assert main(["report", "--set", "train.lr=1"]) == 2 and "--set belongs to `bench run`" in capsys.readouterr().err
    assert main(["report", "--only", "nothing/*"]) == 2 and "no cell that was run into results matches" in capsys.readouterr().err
    assert main(["report", "powmix-t2"]) == 2 and "powmix-t2: nothing of it was run into results" in capsys.readouterr().err


def test_job_folders_without_a_plan_are_sorted_into_their_tables(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    store = Store("results")
    jobs = record(store, only="*/lmf+*").jobs
    done(store, jobs)
    done(store, record(store, "backbone.rank=2").jobs)
    done(store, [Job(jobs[0].config.with_(train={"lr": 9.0}), 101)])  # a trial of a search
    (store.root / "plans" / "quick.json").unlink()
    (store.root / "plans").rmdir()
    chosen, lines = api.as_run()
    main_table = next(e for e in chosen if e.id == "msmix-t1")
    assert {c for c in main_table.configs()} >= {j.config for j in jobs} and not any(r.departs for r in main_table.rows)
    assert any("no record" in x for x in lines) and any("backbone.rank=2" in x and "--variants" in x for x in lines)
    shown = next(e for e in api.as_run(variants=True)[0] if e.id == "msmix-t1")
    assert [(r.backbone, r.method, r.departs) for r in shown.rows if r.departs] == [("LMF", "plain", "rank=2")]
    assert main(["report"]) == 0 and f"{2 * LMF} of {2 * DEFAULTS} runs" in (tmp_path / "reports" / "quick" / "index.html").read_text()


def test_looking_at_other_results_never_takes_the_place_of_ones_own_report(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for root in ("results", "a/reference", "b/reference"):
        store = Store(root)
        done(store, record(store, n=1).jobs)
    pages = [api.report(results=root) for root in ("results", "a/reference", "b/reference", "results")]
    assert pages[0] == pages[3] and str(pages[0]) == "reports/quick/index.html" and len(set(pages)) == 3
    assert str(pages[1]) == "reports/reference-quick/index.html"
    assert api.report(results="a/reference") == pages[1] and api.report(results="b/reference") == pages[2]


# --- bench show -----------------------------------------------------------------------------------------------------

def test_show_prints_a_job(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    store = Store("results")
    jobs = record(store, "backbone.rank=8", name="rank8").jobs
    done(store, jobs)
    assert main(["show", jobs[0].id]) == 0
    out = capsys.readouterr().out
    assert f"{jobs[0].id}: lmf + none on synthetic-mosi (unaligned), seed 1111: done" in out
    assert re.search(r"backbone\.rank +8 +--set", out) and re.search(r"train\.max_epochs +5 +suite quick", out)
    assert re.search(r"backbone\.text_hidden +\d+ +msena\.toml", out) and re.search(r"avg +0\.8000 +0\.8000", out)
    assert "metrics.json" in out and "msmix-t1 (suite quick): LMF + plain [rank8]" in out
    assert main(["show", str(store.folder(jobs[0]))]) == 0 and main(["show", jobs[0].id[:5]]) == 2
    assert "begin with" in capsys.readouterr().err and main(["show", "zzz"]) == 2


# --- the other split ------------------------------------------------------------------------------------------------

def test_validation_values_stand_in_csv_and_drawer_and_fill_the_tables_when_asked(tmp_path):
    p = planted.write(tmp_path / "results", holes=False)
    job = Job(p.experiment.rows[0].cells["MOSI"], 1111)
    stored = p.store.metrics(job)
    stored["valid"] = {k: v + 0.1 for k, v in stored["test"].items()}
    p.store.begin(job)
    p.store.finish(job, stored, pd.DataFrame({"epoch": [0]}), {"test_id": np.arange(3)}, planted.env(1111), ["done"])
    pages = {s: build([p.experiment], p.store, tmp_path / s, "real", reported=p.reported, split=s).read_text() for s in ("test", "valid")}
    first = {s: pd.read_csv(tmp_path / s / "msmix-t1.csv").iloc[0] for s in pages}
    assert first["valid"]["mean"] == pytest.approx(first["test"]["valid_mean"]) == pytest.approx(first["test"]["mean"] + 100 * 0.1 / 5)
    data = json.loads(re.search(r'id="data">(.*?)</script>', pages["test"]).group(1))
    record_ = data["cells"]["msmix-t1"][0]
    assert record_["u"][0] == pytest.approx(record_["v"][0] + 10, abs=1e-3)
    assert "<strong>VALIDATION</strong>" in pages["valid"] and '<span class="pr' not in pages["valid"] and '<span class="pr' in pages["test"]


def test_latex_and_markdown_mark_a_variant(official, tmp_path):
    build([official.with_variant], official.store, tmp_path / "out", "real", reported=official.reported)
    for name in ("msmix-t1.tex", "msmix-t1-reported.tex"):
        tex = (tmp_path / "out" / name).read_text()
        assert tex.count(r"$^{\ddagger}$") == 2 and r"ran with other settings than the experiment's (hot)" in tex
    assert "[hot]" in (tmp_path / "out" / "msmix-t1.md").read_text()


def test_latex_tells_several_variants_apart():
    lines = [SimpleNamespace(row=SimpleNamespace(departs=name)) for name in ("hot", "", "cold", "hot")]
    assert _variants(lines[:2]) == {"hot": r"$^{\ddagger}$"}
    assert _variants(lines) == {"hot": r"$^{\ddagger1}$", "cold": r"$^{\ddagger2}$"}
