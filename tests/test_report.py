"""The report on a results folder whose truth was planted: verdicts, holes, provenance, statistics."""

import json
import logging
import math
import re
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from bench.analysis.grid import make_grid
from bench.analysis.results import DONE, NOT_RUN, PARTIAL, STALE, UNDEFINED, Results
from bench.analysis.stats import paired
from bench.errors import BenchError
from bench.matrix import Column, Config, Experiment, Job, Row, expand, seeds
from bench.report import samples
from bench.report.build import build
from bench.report.flat import frame
from bench.report.sections import _problems
from bench.report.significance import contrasts, family
from bench.report.tables import make_table, number
from bench.report.verdict import BETTER, BEYOND, INSIDE, NEAR, Reported, judge
from bench.store import Store, read_json, write_json
from tests import planted

pytestmark = pytest.mark.usefixtures("no_fsync")

AVG, MAE, CORR = 3, 1, 2  # columns of the planted table


@pytest.fixture(scope="module")
def official(tmp_path_factory) -> SimpleNamespace:
    p = planted.write(tmp_path_factory.mktemp("official"))
    values, runs = p.store.frames(expand([p.experiment]), p.hashes)
    p.table = make_table(p.experiment, Results(values, runs), Reported(p.reported))
    p.out = tmp_path_factory.mktemp("report")
    p.page = build([p.experiment], p.store, p.out, "real", p.hashes, reported=p.reported).read_text()
    return p


def row(table, backbone: str, method: str) -> int:
    return next(i for i, r in enumerate(table.experiment.rows) if (r.backbone, r.method) == (backbone, method))


# --- verdicts -------------------------------------------------------------------------------------------------------

def test_planted_gain_is_found_and_planted_equality_is_not(official):
    lines = family(official.table.grid, official.table.versus["proposed"])
    holm = {(line.block, line.other.method): line.holm for line in lines}
    assert all(holm["TFN", m] < 0.05 for m in planted.METHODS[:-1])
    assert all(p > 0.05 for (block, _), p in holm.items() if block == "LMF")
    assert all(line.rope.inside > 0.9 for line in lines if line.block == "LMF")  # within a point, as planted
    assert all(line.rope.inside < 0.5 for line in lines if line.block == "TFN")
    gains = [line.paired.difference for line in lines if line.block == "TFN"]
    assert np.mean(gains) == pytest.approx(100 * planted.SD, abs=0.35)
    starred = {r.backbone for i, r in enumerate(official.table.experiment.rows) if "*" in official.table.mark((i, AVG))}
    assert starred == {"TFN"}
    assert official.table.mark((row(official.table, "TFN", "MS-Mix"), AVG)) == "°"


@pytest.mark.parametrize("method, verdict", [
    ("plain", INSIDE), ("Manifold Mix", BEYOND), ("MultiMix", BETTER), ("PowMix", NEAR), ("MS-Mix", INSIDE),
])
def test_reported_numbers_get_the_planted_verdict(official, method, verdict):
    judged = official.table.judged[row(official.table, "TFN", method), AVG]
    assert judged.status == verdict
    assert judged.delta == pytest.approx(
        official.table.grid.cells[row(official.table, "TFN", method)][AVG].mean - judged.printed.mean
    )


def test_lower_is_better_for_mae(official):
    judged = official.table.judged[row(official.table, "TFN", "MS-Mix"), MAE]
    assert judged.delta > 0 and judged.status in (NEAR, BEYOND)
    column = replace(official.table.experiment.columns[MAE], higher_is_better=True)
    cell = official.table.grid.cells[row(official.table, "TFN", "MS-Mix")][MAE]
    assert judge(cell, column, judged.printed, [{"provenance": "official"}]).status == BETTER


def test_labels_match_without_case_and_spaces():
    frame = planted.reported().assign(
        backbone=lambda f: " " + f["backbone"].str.lower(), method=lambda f: f["method"].str.replace(" ", "  ")
    )
    e = planted.experiment()
    found = Reported(frame).find(e.id, e.rows[1], e.columns[AVG], ())
    assert found.mean == 71.0


def test_units_are_those_of_the_column():
    line = (
        planted.reported()
        .iloc[[0]]
        .assign(unit="fraction", mean=0.8123, mean_text="0.8123", decimals=4, std=0.01, std_text="0.0100")
    )
    e = planted.experiment()
    found = Reported(line).find(e.id, e.rows[0], e.columns[AVG], ())
    assert (found.mean, found.text, found.std, found.std_text) == (
        pytest.approx(81.23),
        "81.23",
        pytest.approx(1.0),
        "1.00",
    )
    assert found.rounding == pytest.approx(0.005)


# --- holes ----------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("backbone, method, column, state, n", [
    ("TFN", "plain", AVG, DONE, 5), ("MulT", "plain", AVG, PARTIAL, 3), ("MulT", "Manifold Mix", AVG, PARTIAL, 4),
    ("MulT", "MultiMix", AVG, STALE, 0), ("MulT", "PowMix", CORR, UNDEFINED, 4), ("MulT", "PowMix", AVG, DONE, 5),
    ("GLoMo", "plain", AVG, NOT_RUN, 0),
])
def test_cells_show_what_they_are(official, backbone, method, column, state, n):
    cell = official.table.grid.cells[row(official.table, backbone, method)][column]
    assert (cell.state, cell.n) == (state, n)
    if state in (STALE, UNDEFINED, NOT_RUN):
        assert np.isnan(cell.mean) and not cell.best and not cell.second
    line = frame(official.table).query("backbone == @backbone and method == @method").iloc[column]
    assert (line["state"], line["n"]) == (state, n)


def test_every_kind_of_hole_is_on_the_page_and_in_the_files(official):
    tex, md = ((official.out / f"msmix-t1.{kind}").read_text() for kind in ("tex", "md"))
    cells = dict(re.findall(r'<td id="(msmix-t1\.mult\.[^"]+)"[^>]*>(.*?)</td>', official.page))
    assert "3/5" in cells["msmix-t1.mult.plain.mosi.avg"] and ">stale<" in cells["msmix-t1.mult.multimix.mosi.avg"]
    assert "undefined 1/5" in cells["msmix-t1.mult.powmix.mosi.corr"]
    assert "loss is not finite in epoch 3" in official.page and "67 of 75 runs" in official.page
    assert all(word in tex for word in ("(3/5)", "stale", "undefined 1/5", "67 of 75 runs done"))
    assert all(word in md for word in ("(3/5)", "stale", "undefined in 1 of 5"))


def test_a_lucky_few_seeds_win_no_table(official):
    partial = official.table.grid.cells[row(official.table, "MulT", "plain")][0]
    complete = official.table.grid.cells[row(official.table, "MulT", "PowMix")][0]
    assert partial.mean > complete.mean and not partial.best and complete.best


def test_undefined_cells_are_not_tested(official):
    i = row(official.table, "MulT", "PowMix")
    assert (i, CORR) not in official.table.versus["plain"] and (i, AVG) in official.table.versus["plain"]


def test_all_failed_is_failed(tmp_path):
    e = planted.experiment(backbones=("TFN",))
    store = Store(tmp_path)
    for job in expand([e]):
        store.fail(job, "out of memory", "MemoryError")
    grid = make_grid(e, Results(*store.frames(expand([e]))))
    assert {c.state for i, _, c in grid if e.rows[i].backbone == "TFN"} == {"failed"}
    page = build([e], store, tmp_path / "out", "real", reported=planted.reported()).read_text()
    assert '<span class="chip failed">failed</span>' in page and "Nothing has been run yet." in page


# --- provenance -----------------------------------------------------------------------------------------------------

def test_custom_data_show_the_difference_without_a_verdict(tmp_path):
    p = planted.write(tmp_path, "custom", holes=False)
    table = make_table(p.experiment, Results(*p.store.frames(expand([p.experiment]))), Reported(p.reported))
    judged = table.judged[row(table, "TFN", "Manifold Mix"), AVG]
    assert judged.delta < -5 and judged.status == "" and "no verdict" in judged.why
    page = build([p.experiment], p.store, tmp_path / "out", "real", reported=p.reported).read_text()
    assert "CUSTOM DATA" in page and 'class="cell v-' not in page
    assert "no verdict is given" in (tmp_path / "out" / "msmix-t1-reported.tex").read_text()


def test_synthetic_data_show_no_comparison_and_a_banner_everywhere(tmp_path):
    p = planted.write(tmp_path, "synthetic", "synthetic-mosi", holes=False)
    page = build([p.experiment], p.store, tmp_path / "out", "quick", reported=p.reported).read_text()
    assert "<h1>A trial run on generated data</h1>" in page and 'type="button" data-view="reported"' not in page
    assert "<strong>SYNTHETIC</strong>" in page and not re.search(r'class="pr[" ]', page)
    assert "72.00" not in page.split('id="audit"')[0] and '"q":' not in page
    assert not (tmp_path / "out" / "msmix-t1-reported.tex").exists()
    for name in ("msmix-t1.tex", "master.tex", "msmix-t1.md"):
        assert "SYNTHETIC DATA" in (tmp_path / "out" / name).read_text(), name
    assert pd.read_csv(tmp_path / "out" / "msmix-t1.csv")["reported"].isna().all()


def test_the_weakest_run_decides_what_may_be_compared(official):
    cell = official.table.grid.cells[0][AVG]
    printed = official.table.judged[0, AVG].printed
    mixed = [{"provenance": "official"}] * 4 + [{"provenance": "custom"}]
    assert judge(cell, official.table.experiment.columns[AVG], printed, mixed).status == ""
    tested = judge(
        cell, official.table.experiment.columns[AVG], printed, [{"provenance": "official", "test_only": True}]
    )
    assert tested.printed is None and "test-only" in tested.why


def test_runs_of_a_test_only_encoder_are_flagged(tmp_path):
    p = planted.write(tmp_path, holes=False, test_only=True)
    page = build([p.experiment], p.store, tmp_path / "out", "real", reported=p.reported).read_text()
    assert "TEST-ONLY ENCODER" in page and "test-only encoder</span>" in page
    assert page.count('<span class="chip test">test encoder</span>') == 15  # every row that was run
    assert "test-only encoder" in (tmp_path / "out" / "msmix-t1.tex").read_text()


def test_each_cell_carries_its_runs_and_its_command(official):
    data = json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', official.page, re.S)[1])
    columns = len(official.table.experiment.columns)
    record = data["cells"]["msmix-t1"][row(official.table, "MulT", "Manifold Mix") * columns + AVG]
    config = data["configs"][record["c"][0]]
    assert record["s"] == "fdddd" and record["v"][0] is None
    assert config["cmd"] == f"bench run {{artefact}} --suite real --only '{config['id']}-s*' --seeds 5 --data DIR --retry-failed"
    done = dict(zip(data["fields"], config["runs"][1]))
    decoded = {f: data["levels"][f][done[f]] for f in ("commit", "code_hash", "data_sha256", "device", "torch")}
    assert decoded == {"commit": planted.env(1)["commit"], "code_hash": "c0de" * 4, "data_sha256": planted.DATA_HASH,
                       "device": "NVIDIA H200", "torch": "2.9.0"}
    assert done["wall_seconds"] == 12.5 + 1112 % 7
    assert len(pd.read_csv(official.out / "runs.csv")) == 75


def test_reported_numbers_without_a_place_are_listed(official, caplog):
    assert "msmix-t1/mosi/BERT/plain//avg" in official.page
    assert list(pd.read_csv(official.out / "unmatched.csv")["backbone"]) == ["BERT"]
    with caplog.at_level(logging.INFO, "bench.report"):
        Reported(official.reported).unmatched(["msmix-t1"])
    assert "msmix-t1/mosi/BERT/plain//avg" in caplog.text


# --- arithmetic -----------------------------------------------------------------------------------------------------

def test_all_contrasts_at_once_equal_the_paired_test_of_each(official):
    grid = official.table.grid
    found = contrasts(grid, "proposed")
    assert len(found) > 30
    for (i, j), c in found.items():
        one = paired(grid.cells[i][j].by_seed(), grid.cells[grid.baseline(i, "proposed")][j].by_seed())
        assert (c.n, c.difference, c.low, c.high, c.p, c.d_z) == pytest.approx(
            (one.n, one.difference, one.low, one.high, one.p, one.d_z), rel=1e-9), (i, j)


def _filled(tmp_path, e: Experiment, values) -> Results:
    """Every job of an experiment, done; values(config, seed) -> test metrics."""
    store = Store(tmp_path)
    for job in expand([e]):
        planted.finish(store, job, values(job.config, job.seed), planted.env(job.seed))
    return Results(*store.frames(expand([e])))


def test_identical_runs_and_constant_differences(tmp_path):
    column = Column("avg", "Avg.", percent=False)
    rows = tuple(Row("B", m, block="B", baseline="proposed" if m == "new" else "", cells={"": planted.config("B", m)})
                 for m in ("same", "shifted", "new"))
    e = Experiment("x-t1", "x", "x", "table", (column,), rows, primary="avg")
    shift = {"same": 0.0, "shifted": 0.25, "new": 0.0}
    found = contrasts(make_grid(e, _filled(tmp_path, e, lambda c, s: {"avg": s % 10 / 10 + shift[c.mixer]})), "proposed")
    assert (found[0, 0].p, found[0, 0].difference) == (1.0, 0.0)
    assert np.isnan(found[1, 0].p) and found[1, 0].difference == pytest.approx(0.25)


def test_derived_rows_and_columns(tmp_path):
    """Averages over rates, relative changes, p-values, means over sweep points: each from the runs, seed by seed."""
    columns = (Column("acc", "Acc", "MOSI"), Column("acc_change", "change", "MOSI", percent=False),
               Column("acc_p_value", "p", "MOSI", percent=False))
    rows = [
        Row(
            "",
            m,
            v,
            block=v,
            baseline="proposed" if m == "new" else "",
            cells={"MOSI": Config("mosi", "word", m, corruption={"rate": v})},
        )
        for v in ("MR=0.1", "MR=0.3")
        for m in ("old", "new")
    ]
    rows += [Row("", m, "Avg.", block="Avg.", baseline="proposed" if m == "new" else "") for m in ("old", "new")]
    e = Experiment("x-t2", "x", "x", "table", columns, tuple(rows), seeds=3)
    value = {("old", "MR=0.1"): 0.5, ("new", "MR=0.1"): 0.6, ("old", "MR=0.3"): 0.3, ("new", "MR=0.3"): 0.4}
    noise = {("old", s): k / 100 for k, s in enumerate(seeds(3))}
    results = _filled(
        tmp_path, e, lambda c, s: {"acc": value[c.backbone, c.corruption["rate"]] + noise.get((c.backbone, s), 0)}
    )
    table = make_table(e, results, Reported(None))
    cells = table.grid.cells
    assert cells[4][0].mean == pytest.approx(41.0) and cells[4][0].std == pytest.approx(1.0) and cells[5][0].best
    assert cells[0][1].mean == pytest.approx(100 * (0.51 - 0.6) / 0.6)
    assert cells[0][2].mean == pytest.approx(paired([0.6] * 3, [0.5, 0.51, 0.52]).p)
    assert table.pivoted and table.layout.groups == (("old", 3), ("new", 3))
    assert [line.labels for line in table.layout.lines] == [("MOSI", "MR=0.1"), ("MOSI", "MR=0.3"), ("MOSI", "Avg.")]
    assert table.layout.lines[2].cells[3] == (5, 0)


def test_sweep_points_are_averaged_seed_by_seed(tmp_path):
    rows = (Row("B", "m", "p=0.1", cells={"": planted.config("B", "m")}, points=("drop-0.10", "text-0.10")),
            Row("B", "m", "p=0.2", cells={"": planted.config("B", "m")}, points=("drop-0.20",)))
    e = Experiment("x-f1", "x", "x", "figure", (Column("acc", "Acc"),), rows, seeds=2)
    results = _filled(
        tmp_path, e, lambda c, s: {"acc": 0.9, "acc@drop-0.10": 0.5, "acc@text-0.10": 0.7 + (s - 1111) / 10}
    )
    first, second = (line[0] for line in make_grid(e, results).cells)
    assert first.values == pytest.approx((60.0, 65.0)) and second.state == "missing"  # not measured yet


def test_settings_and_costs_are_columns_too(tmp_path):
    columns = (
        Column("lr", "learning rate", percent=False, source="train.lr"),
        Column("params", "parameters", percent=False, decimals=0),
        Column("train_seconds_per_epoch", "s", percent=False),
    )
    e = Experiment("x-t3", "x", "x", "table", columns, (Row("B", "m", cells={"": planted.config("B", "m")}),), seeds=1)
    setting, size, seconds = make_grid(e, _filled(tmp_path, e, lambda c, s: {"acc": 0.9})).cells[0]
    assert (number(setting.mean, columns[0]), number(size.mean, columns[1])) == ("0.001", "1,234,567")
    assert seconds.mean == pytest.approx(11.0 / 15)


@pytest.mark.parametrize("said", [{"alone": False}, {}])
def test_a_time_taken_beside_other_jobs_is_not_shown_and_not_judged(said, tmp_path):
    """Nor one of a run that does not say: results of before do not."""
    columns = (Column("acc", "Acc"), Column("train_seconds_per_epoch", "s", percent=False))
    e = Experiment("x-t3", "x", "x", "table", columns, (Row("B", "m", cells={"": planted.config("B", "m")}),), seeds=1)
    store = Store(tmp_path)
    results = _filled(tmp_path, e, lambda c, s: {"acc": 0.9})
    assert make_grid(e, results).cells[0][1].mean == pytest.approx(11.0 / 15)
    path = next(tmp_path.glob("*/*/*/env.json"))
    write_json(path, {**{k: v for k, v in read_json(path).items() if k != "alone"}, **said})
    acc, seconds = make_grid(e, Results(*store.frames(expand([e])))).cells[0]
    assert acc.state == "done" and seconds.state == "not timed alone" and math.isnan(seconds.mean) and not seconds.shown
    table = make_table(e, Results(*store.frames(expand([e]))), Reported(None))
    lines, _ = _problems(table)
    assert lines == ["1 setting had other jobs beside them on their device, or do not say that they had not: `bench run x-t3 --results DIR`, into an empty folder, times them by themselves"]


@pytest.mark.parametrize("value, sign, text", [
    (-0.001, True, "0.00"), (1.005, True, "+1.00"), (-1.239, False, "−1.24"), (float("nan"), False, ""),
])
def test_numbers_are_printed_as_their_column_says(value, sign, text):
    assert number(value, Column("acc", "Acc"), sign) == text


def test_per_sample_tests_read_the_stored_predictions(tmp_path):
    e = planted.experiment(backbones=("TFN",))
    e = replace(e, rows=tuple(r for r in e.rows if r.baseline and r.backbone == "TFN"), seeds=2, primary="non0_acc2")
    store, rng = Store(tmp_path), np.random.default_rng(0)
    label = rng.normal(0, 1.5, 200).round(1).astype(np.float32)
    for job in expand([e]):
        prediction = label + rng.normal(0, 0.3 if job.config.mixer == "ms-mix" else 2.0, 200).astype(np.float32)
        kept = {"test_id": np.arange(200), "test_prediction": prediction, "test_label": label}
        planted.finish(store, job, planted.metrics(rng, job.seed, 0.0), planted.env(job.seed), kept)
    table = make_table(e, Results(*store.frames(expand([e]))), Reported(None))
    (line,) = samples.section(table, store)["samples"]
    assert line["items"] == 200 and line["difference"].startswith("+") and line["significant"] == "2 of 2"
    assert float(line["interval"].strip("[]").split(",")[0]) > 0


# --- the page as a file ---------------------------------------------------------------------------------------------

def test_the_page_is_one_file_without_network(official):
    assert "default-src 'none'" in official.page
    assert not re.search(r'(?:src|href)="(?:https?:)?//|url\(\s*["\']?(?:https?:)?//|@import', official.page)
    links = set(re.findall(r'href="([^"#][^"]*)"', official.page))
    assert links and all((official.out / link).exists() for link in links)
    assert len(official.page) < 300_000


def test_the_same_results_give_the_same_bytes(official, tmp_path, monkeypatch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "0")
    one, two = (
        build([official.experiment], official.store, tmp_path / d, "real", official.hashes, reported=official.reported)
        for d in "ab"
    )
    assert one.read_bytes() == two.read_bytes()
    assert all((two.parent / f.name).read_bytes() == f.read_bytes() for f in one.parent.iterdir())


def test_labels_cannot_break_the_page(tmp_path):
    nasty = '</script><script>alert("x")</script>&{}'
    e = planted.experiment(backbones=("TFN",))
    e = replace(e, title=nasty, rows=tuple(replace(r, method=nasty) for r in e.rows[:1]), notes=(nasty,))
    page = build([e], Store(tmp_path), tmp_path / "out", "real", reported=planted.reported()).read_text()
    assert "alert(" in page and nasty not in page and "</script><script>alert" not in page


def test_a_report_while_jobs_still_run(tmp_path):
    p = planted.write(tmp_path, holes=False)
    late = expand([p.experiment])[40:]
    for job in late:
        (p.store.folder(job) / "metrics.json").unlink()
    page = build([p.experiment], p.store, tmp_path / "out", "real", reported=p.reported).read_text()
    assert "40 of 75 runs done" in page and "35</b> not run yet" in page
    for job in late:
        planted.finish(p.store, job, planted.metrics(np.random.default_rng(0), job.seed, 0.0), planted.env(job.seed))
    assert (
        "75 of 75 runs done"
        in build([p.experiment], p.store, tmp_path / "out", "real", reported=p.reported).read_text()
    )


def test_nothing_to_report_is_said_in_one_line(tmp_path):
    with pytest.raises(BenchError, match="no artefact to report"):
        build([], Store(tmp_path), tmp_path / "out", "real")
    (tmp_path / "file").write_text("")
    with pytest.raises(BenchError, match="choose another folder with --out"):
        build([planted.experiment()], Store(tmp_path), tmp_path / "file" / "out", "real", reported=planted.reported())


def test_fewer_seeds_than_the_artefact_wants(official, tmp_path):
    table = make_table(official.experiment, official.table.results, Reported(None), 2)
    assert table.grid.seeds == (1111, 1112) and table.grid.cells[0][AVG].wanted == 2
    assert Job(table.grid.cells[0][AVG].configs[0], 1111).id.endswith("-s1111")


# --- trainings that learned nothing ------------------------------------------------------------------------------------

def test_a_training_that_learned_nothing_is_said_of_its_table(tmp_path):
    p = planted.write(tmp_path / "results")
    job = next(j for j in expand([p.experiment]) if j.config.backbone == "lmf" and j.seed == 1112)
    folder = p.store.folder(job)
    metrics = json.loads((folder / "metrics.json").read_text())
    metrics.pop("digests", None)
    metrics["valid"]["loss"] = 1.437
    for constant, said in ((1.4369, True), (1.437 / 0.95 - 1e-9, True), (1.437 / 0.95 + 1e-9, False), (None, False)):
        metrics |= {"constant_loss": constant}
        (folder / "metrics.json").write_text(json.dumps(metrics))
        planted.unseal(p.store, job)
        values, runs = p.store.frames(expand([p.experiment]), p.hashes)
        table = make_table(p.experiment, Results(values, runs), Reported(p.reported))
        lines = table.unlearned
        assert len(lines) == said and all("seed 1112: learned nothing" in line for line in lines)
        out = tmp_path / f"{constant}"
        page = build([p.experiment], p.store, out, "real", p.hashes, reported=p.reported).read_text()
        found = [page, *((out / f"{p.experiment.id}.{kind}").read_text() for kind in ("md", "tex"))]
        assert all(("learned nothing" in text) == said for text in found)
        assert ("Learned nothing: runs of 1 cell" in page) == said
    (folder / "metrics.json").write_text(json.dumps(metrics | {"constant_loss": "much"}))
    _, runs = p.store.frames(expand([p.experiment]), p.hashes)
    assert runs.set_index("job").loc[job.id, "error"].startswith("damaged: metrics.json: validation: constant_loss is no number")
