"""Measures as jobs: planned, made beside the training, failing alone, resumed, and read as cells of a table."""

import json
import re

import numpy as np
import pandas as pd
import pytest

from bench.analysis.grid import make_grid
from bench.analysis.results import Results
from bench.cli import main
from bench.experiments import all_experiments, select
from bench.experiments.common import computed
from bench.launch import worker
from bench.launch.local import run_jobs
from bench.manifest import read_manifest, write_manifest
from bench.matrix import Experiment, Job, Row, expand
from bench.measure import numbers
from bench.measure.needs import Measure, measure_of, measures, point
from bench.measure.spec import fail, load, load_numbers
from bench.plan import make_plan
from bench.report.build import tidy
from bench.report.tables import make_table
from bench.report.verdict import Reported
from bench.store import Store, read_json
from bench.suites import suite
from tests.golden import cell_config

LABELS = {"split": "train", "bins": 13, "range": [-3.0, 3.0], "smoothing": 0.01, "seed": 0}
FIGURES = {i: e for i, e in all_experiments().items() if e.kind == "figure"}


def figure(**figure):
    """Two methods, two seeds, one figure; small enough to be trained here."""
    rows = tuple(Row("LMF", m, cells={"MOSI": cell_config("lmf", m).with_(fraction=0.3)}, block="LMF") for m in ("manifold", "msmix"))
    panel = {"title": "labels", "rows": {}, "group": "MOSI", "x": "label"}
    spec = {"kind": "density", "metrics": ["kl"], "computed": ["kl"], "panels": [panel], "settings": LABELS, **figure}
    return Experiment("x-f1", "x", "x", "figure", computed("MOSI", {"kl": "KL"}), rows, seeds=1, figure=spec)


def plan_of(e, store, **changes):
    return make_plan([e], suite("real"), store, **changes)


def launch(plan, store):
    jobs = [*plan.todo(), *plan.figures.to_measure()]
    return run_jobs(jobs, store, ("",), measures=plan.figures.lacking)


@pytest.fixture
def work(monkeypatch):
    """What a worker does with a plan's jobs, in this process: (plan, store, keep) -> outcomes."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")

    def run(plan, store, keep=()):
        return [
            worker.run_task(worker.Task(j, str(store.root), keep=keep, measures=plan.figures.lacking(j)))
            for j in (*plan.todo(), *plan.figures.to_measure())
        ]

    return run


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The figure's jobs, trained and measured by the launcher."""
    store, e = Store(tmp_path_factory.mktemp("figure")), figure()
    plan = plan_of(e, store)
    assert (len(plan.todo()), plan.figures.summary()["to_make"]) == (2, 2)
    outcomes = launch(plan, store)
    assert [o.status for o in outcomes] == ["done", "done"]
    return store, plan.experiments[0]  # with what the file asks for, as it ran


def test_every_figure_says_what_it_needs_and_every_computed_metric_has_a_column():
    kinds = {i: {n.measure.kind for n in measures(e)} for i, e in FIGURES.items()}
    expected = {
        "msmix-f1": {"labels"}, "msmix-f3": {"tsne"}, "msmix-f4": {"landscape"}, "powmix-f5": {"probe"},
        "samlml-f3": {"attention"}, "samlml-f6": {"attention"}, "slad-f5": {"tsne"},
    }
    assert {i: k for i, k in kinds.items() if k} == expected
    for e in FIGURES.values():
        names = {c.metric for c in e.columns}
        assert set(e.figure.get("computed", ())) <= names and set(e.figure["metrics"]) <= names, e.id
        for row in e.rows:
            for column in e.columns:
                where = point(e, row, column)
                late = column.metric in e.figure.get("computed", ()) and not (e.id == "powmix-f5" and row.variant == "F")
                assert bool(where) == (late and column.group in row.cells), (e.id, row.key, column.metric)


def test_rows_of_probes_read_the_probe_of_their_modality_and_row_f_the_run():
    e = FIGURES["powmix-f5"]
    points = {r.variant: point(e, r, e.columns[0]) for r in e.rows if r.key[:2] == ("MulT", "PowMix")}
    assert points["F"] is None and [points[v].partition(":")[2] for v in "TAV"] == ["text", "audio", "vision"]
    config, m = measure_of(e, e.rows[0], e.figure["panels"][0])
    assert points["T"].startswith(m.stem) and config == e.rows[0].cells["MOSEI"]


def test_quick_settings_are_smaller_and_the_report_finds_them(tmp_path):
    store, chosen = Store(tmp_path), select(["msmix-f4"])
    plan = make_plan(chosen, suite("quick"), store)
    small = measures(plan.experiments[0])[0].measure
    assert small.settings["points"] < measures(chosen[0])[0].measure.settings["points"]
    write_manifest(plan, store, None)
    assert measures(read_manifest(chosen, store, suite("quick"))[0][0])[0].measure == small
    names = {c.backbone_params.get("encoder") for e in make_plan(FIGURES.values(), suite("quick"), store).experiments for c in e.configs()}
    assert names <= {None, "tiny-words", "none"}, "the quick suite downloads nothing"


def test_measures_are_made_with_the_training_and_the_weights_removed(finished):
    store, e = finished
    plan = plan_of(e, store)
    assert plan.figures.summary() == {
        "wanted": 2, "done": 2, "failed": 0, "to_make": 0, "jobs_trained_again": 0, "checkpoints": 0,
        "largest_checkpoint_mb": 0.0, "all_checkpoints_gb": 0.0,
    }
    for need in measures(e):
        found, arrays = load(store, Job(need.config, 1111), need.measure)
        assert found["kl"] > 0 and len(arrays["label"]) >= len(arrays["mixed"]) > 30
    assert not [j for j in plan.jobs if store.checkpoint(j).exists()] and not plan.figures.to_measure()


def test_their_numbers_are_cells_of_the_table_and_of_the_claims_frame(finished):
    store, e = finished
    jobs = expand([e])
    values, runs = store.frames(jobs)
    late = numbers.values([e], store)
    assert len(late) == 2
    results = Results(pd.concat([values, late]), runs)
    grid = make_grid(e, results)
    want = [load(store, Job(n.config, 1111), n.measure)[0]["kl"] for n in measures(e)]
    assert [line[0].mean for line in grid.cells] == pytest.approx(want) and want[0] != want[1]
    without = make_grid(e, Results(values, runs))
    assert {line[0].state for line in without.cells} == {"missing"}, "done, but not measured: not run yet"
    table = make_table(e, Results(pd.concat([values, late]), runs.assign(provenance="custom", dataset="mosi")), Reported(None))
    object.__setattr__(table, "provenance", "custom")
    frame = tidy([table])
    assert frame["metric"].tolist() == ["kl", "kl"] and frame["value"].tolist() == pytest.approx(want)


def test_another_figure_of_finished_jobs_trains_them_again_and_the_plan_says_so(finished, work):
    store, e = finished
    other = figure(settings={**LABELS, "bins": 7})
    plan = plan_of(other, store)
    assert not plan.todo() and len(plan.figures.to_retrain()) == 2
    assert any(re.match("2 finished jobs are trained again", line) for line in plan.figures.lines())
    before = {j.id: (store.folder(j) / "metrics.json").read_bytes() for j in plan.jobs}
    assert [o.status for o in work(plan, store)] == ["done", "done"]
    for j in plan.jobs:
        assert (store.folder(j) / "metrics.json").read_bytes() == before[j.id]
        for each in (e, plan.experiments[0]):
            need = next(n for n in measures(each) if n.config == j.config)
            assert load_numbers(store, j, need.measure), "what was measured before still holds"


def test_kept_weights_serve_another_measure_without_training(tmp_path, work):
    store, e = Store(tmp_path), figure()
    plan = plan_of(e, store, only="*+msmix")
    work(plan, store, keep=("checkpoint",))
    other = plan_of(figure(settings={**LABELS, "bins": 7}), store, only="*+msmix")
    assert len(other.figures.to_measure()) == 1 and not other.figures.to_retrain()
    log = store.folder(plan.jobs[0]) / "log.txt"
    log.unlink()
    assert work(other, store)[0].status == "done" and not log.exists(), "no training wrote a log"


def test_a_failing_measure_is_one_line_stops_no_other_and_is_not_retried(tmp_path, work):
    store = Store(tmp_path)
    e = figure(settings={**LABELS, "split": "nowhere"})
    plan = plan_of(e, store)
    outcomes = work(plan, store)
    assert [o.status for o in outcomes] == ["failed", "failed"] and all(o.error.startswith("labels: ") for o in outcomes)
    assert all(store.status(o.job) == "done" for o in outcomes), "the trainings are done"
    again = plan_of(e, store)
    assert again.figures.summary()["failed"] == 2 and not again.figures.to_measure()
    assert len(again.figures.to_measure(retry_failed=True)) == 2 == len(again.figures.failed(store))
    record = read_json(next(store.folder(again.jobs[0]).glob("labels-*.failed.json")))
    assert "\n" not in record["error"] and record["settings"]["split"] == "nowhere"


def test_command_line_runs_measures_and_reports_failures(capsys, tmp_path):
    argv = ["msmix-f1", "--suite", "quick", "--results", str(tmp_path), "--only", "*+msmix", "--seeds", "1"]
    argv += ["--set", "train.max_epochs=1", "--set", "fraction=0.2"]
    assert main(["plan", *argv, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)["measures"]
    assert said["wanted"] == said["to_make"] == 1 and said["largest_checkpoint_mb"] > 1
    assert main(["run", *argv, "--dry-run"]) == 0
    assert re.search(r"would run \S+-s1111, labels-[0-9a-f]{12}$", capsys.readouterr().out, re.M)
    store = Store(tmp_path)
    plan = make_plan(select(["msmix-f1"]), suite("quick"), store, None, 1, "*+msmix", argv[-3::2])
    job, m = plan.jobs[0], plan.figures.of[plan.jobs[0].id][0]
    assert main(["run", *argv, "--workers", "1"]) == 0
    assert load_numbers(store, job, m) and not store.checkpoint(job).exists()
    (store.folder(job) / f"{m.stem}.json").unlink()
    fail(store, job, m, "labels: something was wrong")
    capsys.readouterr()
    assert main(["run", *argv, "--workers", "1"]) == 1
    out = capsys.readouterr().out
    assert "labels: something was wrong" in out and "1 failed" in out


def test_a_figure_that_trains_nothing_can_be_run(capsys, tmp_path):
    assert main(["run", "powmix-f2", "--suite", "quick", "--results", str(tmp_path)]) == 0
    assert "nothing is trained" in capsys.readouterr().out
    assert (tmp_path / "plans" / "quick.json").exists()


def test_numbers_of_a_curve_are_its_ends_or_its_mean():
    history = pd.DataFrame({"epoch": [1, 2, 3], "a": [5.0, 4.0, 1.0], "b": [1.0, 1.0, 1.0], "c": [np.nan, 2.0, 4.0]})
    assert [numbers.curve_number(history, ["a", "b"], end) for end in ("first", "last", "")] == [6, 2, pytest.approx(13 / 3)]
    assert numbers.curve_number(history, ["c"], "first") == 2, "the first epoch that has a value"
    assert numbers.curve_number(history, ["c"], "") == 3 and np.isnan(numbers.curve_number(history, ["gone"], "last"))


def test_dynamics_are_read_from_the_history(finished):
    store, e = finished
    ends = {"loss": ["train_total"], "valid_loss": ["valid_loss"]}
    rows = tuple(Row("", "LMF", end, block=end, cells={"MOSI": e.rows[1].cells["MOSI"]}) for end in ("first", "last"))
    dynamic = Experiment(
        "x-f2", "x", "x", "figure", computed("MOSI", {m: m for m in ends}, convention="mean"), rows, seeds=1,
        figure={"kind": "dynamics", "metrics": ["loss"], "computed": ends, "panels": [{"metric": "loss", "group": "MOSI"}]},
    )
    values, runs = store.frames(expand([dynamic]))
    grid = make_grid(dynamic, Results(pd.concat([values, numbers.values([dynamic], store)]), runs))
    history = store.history(Job(e.rows[1].cells["MOSI"], 1111))
    assert grid.cells[0][0].mean == pytest.approx(history["train_total"].iloc[0])
    assert grid.cells[1][1].mean == pytest.approx(history["valid_loss"].iloc[-1])


def test_measures_of_two_panels_differ_by_what_they_show():
    e = FIGURES["samlml-f6"]
    found = {n.measure.settings["key"]: n.measure.stem for n in measures(e)}
    assert set(found) == {"audio", "vision"} and len(set(found.values())) == 2
    assert Measure("tsne", {}).stem.startswith("tsne-")
