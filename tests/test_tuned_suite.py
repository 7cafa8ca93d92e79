"""`--suite tuned`: the chosen settings beside the published ones, and what the report says of them."""

from itertools import product

import numpy as np
import pandas as pd
import pytest

from bench import api
from bench import plan as plan_module
from bench.analysis.results import Cell
from bench.cli import main
from bench.errors import BenchError
from bench.experiments import select
from bench.manifest import write_manifest
from bench.matrix import Job
from bench.plan import make_plan
from bench.running import check_objective
from bench.spaces import swept
from bench.store import Store
from bench.suites import suite
from bench.terminal.trials import print_trails
from bench.trails import other_data, read_all
from tests.planted import DATA_HASH, env, finish
from tests.planted import searched_in_rounds as tune

METRICS = ("non0_acc2", "has0_acc2", "non0_f1", "has0_f1", "acc5", "acc7", "mae", "corr", "avg", "loss")


def planted(store):
    """A launcher that trains nothing: a run's Avg. grows with the learning rate, its validation loss falls with it."""
    def run(jobs):
        for job in jobs:
            rng = np.random.default_rng(job.seed)
            gain = 0.01 * (job.config.train["lr"] > 1e-3) + 0.002 * rng.normal()
            values = dict.fromkeys(METRICS, 0.6) | {"avg": 0.6 + gain, "loss": 1.0 - gain}
            finish(store, job, values, env(job.seed, "custom"))
    return run


@pytest.fixture(scope="module")
def tuned(tmp_path_factory):
    """(store, cells) of LMF's six methods, tuned and run at both settings by a planted truth."""
    store = Store(tmp_path_factory.mktemp("tuned"))
    artefact = select(["msmix-t1"])
    before = make_plan(artefact, suite("real"), store, None, 1, "mosi/lmf+*")
    cells = list(dict.fromkeys(j.config for j in before.jobs))
    tune(cells, store, planted(store), 6, "random")
    plan = make_plan(artefact, suite("tuned"), store, None, 3, "mosi/lmf+*")
    planted(store)(plan.jobs)
    write_manifest(plan, store, 3)
    return store, cells, plan


def test_both_settings_of_every_tuned_cell_are_wanted(tuned):
    store, cells, plan = tuned
    configs = {j.config for j in plan.jobs}
    assert set(cells) <= configs and len(configs) == 2 * len(cells)
    assert all(c.train["lr"] > 1e-3 for c in configs - set(cells)), "the planted truth: a higher rate is better"
    assert {j.seed for j in plan.jobs} == {1111, 1112, 1113}, "never a tuning seed"


def test_the_report_shows_what_was_chosen_and_what_it_gained(tuned, tmp_path):
    store, cells, _ = tuned
    page = api.report(["msmix-t1"], store.root, "tuned", out=tmp_path)
    trials = pd.read_csv(tmp_path / "msmix-t1-trials.csv")
    assert len(trials) == 6 * len(cells) and trials.chosen.sum() == len(cells) and (trials.tuning_seeds == 101).all()
    chosen = trials[trials.chosen]
    assert (chosen.validation <= trials[trials.trial == 0].validation.to_numpy()).all()
    text = page.read_text()
    assert "the same budget for every method" in text and "Dodge" in text
    assert "+1.00 [+1.00, +1.00]" not in text and "+1.00" in text  # the gain of 0.01 in Avg., in printed units
    first = text[text.index('class="cards"'):text.index('class="gauges"')]
    assert f"Both tuned alike ({trials.trial.max() + 1} trials on validation): MS-Mix" in first and "against plain with" in first
    legend = next(line for line in text.split("<svg") if "expected best validation" in line)
    assert all(name in legend for name in ("plain", "MS-Mix (release)"))
    table = pd.read_csv(tmp_path / "msmix-t1.csv")
    beside = table[(table == "tuned").any(axis=1)]
    assert len(beside) == len(cells) * table.metric.nunique(), "every tuned cell is a row beside its default"


def test_what_tuning_gained_is_written_for_spreadsheets_and_papers(tuned, tmp_path):
    """The gain recomputed from the stored runs, and the curve as the mean of the best over all ordered draws."""
    store, cells, _ = tuned
    api.report(["msmix-t1"], store.root, "tuned", out=tmp_path)
    told = pd.read_csv(tmp_path / "msmix-t1-tuning.csv").set_index("config")
    curves = pd.read_csv(tmp_path / "msmix-t1-tuning-budget.csv", keep_default_na=False)
    assert len(told) == len(cells)
    for trail in read_all(store):
        line, best = told.loc[trail.chosen().id], min(trail.trials, key=lambda t: t.value)
        assert (line.chosen_trial, line.trials, line.validation_chosen) == (best.number, 6, pytest.approx(best.value))
        avg = [[100 * store.metrics(Job(c, s))["test"]["avg"] for s in (1111, 1112, 1113)] for c in (trail.config, trail.chosen())]
        assert line.gain == pytest.approx(np.mean(avg[1]) - np.mean(avg[0])) and line.tuned_std == pytest.approx(np.std(avg[1], ddof=1))
        values = [t.value for t in trail.trials]
        own = curves[(curves.method == line.method) & (curves.trials == 3)].expected_best_validation
        assert any(v == pytest.approx(np.mean([min(x) for x in product(values, repeat=3)])) for v in own)
    assert curves.groupby(["method", "variant"]).size().eq(6).all()
    page, tex = ((tmp_path / f"msmix-t1-tuning.{kind}").read_text() for kind in ("md", "tex"))
    assert page.count("(trial ") == tex.count("(trial ") == len(cells) and "validation, chosen" in page
    assert "\\input{msmix-t1-tuning}" in (tmp_path / "master.tex").read_text()
    api.report(["msmix-t1"], store.root, "tuned", out=tmp_path, split="valid")
    assert "validation Avg. (%), tuned" in (tmp_path / "msmix-t1-tuning.md").read_text()
    assert "test Avg. (%), tuned" not in (tmp_path / "index.html").read_text(), "values of one split under the other's name"


def test_unequal_budgets_are_said(tuned, tmp_path):
    store, cells, _ = tuned
    other = Store(tmp_path)
    tune(cells[:1], other, planted(other), 3, "random")
    tune(cells[1:2], other, planted(other), 5, "random")
    plan = make_plan(select(["msmix-t1"]), suite("tuned"), other, None, 1, "mosi/lmf+*")
    assert any(line.startswith("not tuned alike") for line in plan.adapted)


def test_a_search_of_one_row_is_no_comparison_of_methods(tmp_path):
    store, artefact = Store(tmp_path / "results"), select(["msmix-t1"])
    cells = list(dict.fromkeys(j.config for j in make_plan(artefact, suite("real"), store, None, 1, "mosi/lmf+none,mosi/lmf+manifold").jobs))

    def pages():
        found = []
        for name in ("real", "tuned"):
            plan = make_plan(artefact, suite(name), store, None, 2, "mosi/lmf+none,mosi/lmf+manifold")
            planted(store)(plan.jobs)
            write_manifest(plan, store, 2)
            page = api.report(["msmix-t1"], store.root, name, out=tmp_path / name)
            found.append((page.read_text(), (page.parent / "msmix-t1-trials.csv").exists()))
        return found

    tune(cells[:1], store, planted(store), 2, "random")
    (real, trials), (tuned, kept) = pages()
    assert 'id="msmix-t1-tuning"' not in real and not trials, "a report of the published settings has nothing to say of one search"
    assert "the same budget" not in tuned and "1 row was searched: no methods are compared" in tuned and kept
    assert "Nothing else of this block was searched in the same way, so nothing is compared. LMF" in tuned
    tune(cells[1:2], store, planted(store), 2, "random")
    assert all("<b>Tuning</b>: the same budget for every method" in text and trials for text, trials in pages())


def test_two_methods_that_were_not_tuned_alike_are_not_called_so(tuned):
    from bench.report.tuning import _headline
    from bench.trails import Trail

    store, cells, _ = tuned
    at = {r.baseline: r for r in select(["msmix-t1"])[0].rows if r.block == "LMF" and r.baseline}
    column = next(c for c in select(["msmix-t1"])[0].columns if c.metric == "avg")
    values = {kind: Cell((at[kind].cells["MOSI"],), (1, 2, 3), ("done",) * 3, v) for kind, v in
              {"plain": (60.0, 61.0, 62.0), "proposed": (61.0, 61.5, 63.5)}.items()}

    def said(budget):
        trails = {k: Trail(at[k].cells["MOSI"].as_dict(), "tpe", b, (101,), "loss", {}) for k, b in (("plain", 12), ("proposed", budget))}
        return _headline({("LMF", "MOSI"): [(at[k], trails[k], values[k], values[k]) for k in at]}, column)

    assert said(50) == "" and said(12).startswith("Both tuned alike (12 trials on validation): MS-Mix +1.00 [")


def test_a_search_without_a_single_good_trial_loses_neither_report_nor_plan(tmp_path, capsys):
    store, artefact = Store(tmp_path / "results"), select(["msmix-t1"])
    cells = {j.config.mixer: j.config for j in make_plan(artefact, suite("real"), store, None, 1, "mosi/lmf+*").jobs}
    with pytest.raises(BenchError, match="every trial of mosi lmf\\+powmix failed"):
        tune([cells["powmix"]], store, lambda jobs: None, 2, "random")
        make_plan(artefact, suite("tuned"), store, None, 1, "mosi/lmf+*")
    trails = tune([cells["none"], cells["manifold"]], store, planted(store), 2, "random")
    plan = make_plan(artefact, suite("tuned"), store, None, 2, "mosi/lmf+none,mosi/lmf+manifold,mosi/lmf+powmix")
    assert any("lmf+powmix failed: nothing was chosen there" in line for line in plan.adapted)
    planted(store)(plan.jobs)
    write_manifest(plan, store, 2)
    text = api.report(["msmix-t1"], store.root, "tuned", out=tmp_path / "page").read_text()
    assert "every trial of mosi lmf+powmix failed" in text
    print_trails([*trails, *(t for t in read_all(store) if t.failed)])
    assert "every trial failed" in " ".join(capsys.readouterr().out.split())


def test_nothing_tuned_is_one_line(tmp_path, capsys):
    for more, line in (((), "was tuned yet: `bench tune ARTEFACT --suite real`"), (("--set", "train.lr=1"), "--set belongs to the other suites")):
        assert main(["run", "msmix-t1", "--suite", "tuned", *more, "--results", str(tmp_path)]) == 2
        err = capsys.readouterr().err
        assert line in err and err.count("\n") == 1


def test_searches_of_other_cells_are_not_called_none(tmp_path, capsys):
    """`bench tune` searches generated data where no --data is given: the tuned suite then says what is missing."""
    store = Store(tmp_path)
    plan = make_plan(select(["msmix-t1"]), suite("quick"), store, None, 1, "lmf+none")
    print_trails(tune({j.config for j in plan.jobs}, store, planted(store), 2, "random"))
    assert "searched on generated data" in " ".join(capsys.readouterr().out.split())
    assert main(["run", "msmix-t1", "--suite", "tuned", "--results", str(tmp_path)]) == 2
    assert "of the 1 searches in" in (err := capsys.readouterr().err) and err.count("\n") == 1


def test_a_sweep_is_not_tuned_away(tuned, tmp_path, capsys):
    """Figure 5 of MS-Mix varies delta: a search would choose it for every point of the curve."""
    store, cells, _ = tuned
    assert main(["tune", "msmix-f5", "--budget", "2", "--data", str(tmp_path), "--results", str(tmp_path / "r")]) == 2
    assert "msmix-f5 shows what mixer.delta, mixer.alpha," in capsys.readouterr().err
    assert {e.id: swept(e) for e in select(()) if swept(e)} == {
        "msmix-f5": ["mixer.delta", "mixer.alpha", "mixer.xi1", "mixer.xi2"], "powmix-f4": ["mixer.n_mixed"],
        "samlml-f7": ["backbone.alpha", "backbone.alpha_mix", "backbone.alpha_c", "backbone.gamma_1"],
    }
    plan = make_plan(select(["powmix-f4", "msmix-t1"]), suite("tuned"), store, None, 1)
    assert any(line == "powmix-f4 varies mixer.n_mixed and stands as published" for line in plan.adapted)
    (figure,) = (e for e in plan.experiments if e.id == "powmix-f4")
    assert [r.cells["MOSEI"].mixer_params["n_mixed"] for r in figure.rows if r.method == "PowMix"] == [16, 32, 64, 128, 256, 512, 1024, 2048]
    with pytest.raises(BenchError, match="powmix-f4 shows what mixer.n_mixed does"):
        api.tune(plan, tmp_path / "other")


def test_a_search_on_another_file_is_said(tmp_path, monkeypatch):
    """Chosen on one file, evaluated on another: its validation clips may be the other's test clips."""
    store, artefact = Store(tmp_path), select(["msmix-t1"])
    (cell,) = {j.config for j in make_plan(artefact, suite("real"), store, None, 1, "mosi/lmf+none").jobs}
    key = cell.dataset, cell.features
    tune([cell], store, planted(store), 2, "random", data={key: DATA_HASH})
    (trail,) = read_all(store)
    assert trail.data == DATA_HASH and other_data([trail], {key: DATA_HASH}) == other_data([trail], {}) == ""
    found = plan_module.Found(*key, tmp_path / "file.pkl", "b" * 64, "custom")
    monkeypatch.setattr(plan_module, "find_data", lambda configs, data: {key: found})
    plan = make_plan(artefact, suite("tuned"), store, None, 1, "mosi/lmf+none")
    assert any(line == "tuned on another data file than the one at hand: mosi lmf+none; tune again" for line in plan.adapted)


@pytest.mark.parametrize("name", ["acc2", "nosuch", "../../x"])
def test_an_objective_that_no_trial_could_have_is_refused_before_any_is_trained(name, tuned):
    _, cells, _ = tuned
    with pytest.raises(BenchError, match="is no metric of these cells .msena.: loss, has0_acc2") as error:
        check_objective(name, cells)
    assert ("did you mean has0_acc2 or non0_acc2?" in str(error.value)) == (name == "acc2")
    for fine in ("loss", "mae", "avg"):
        check_objective(fine, cells)
    with pytest.raises(BenchError, match=".mag."):  # word-level systems have no Avg.
        check_objective("avg", [cells[0], cells[0].with_(features="word")])


def test_rows_that_were_not_searched_alike_are_not_compared(tmp_path):
    """Three rows; the third had more trials: its tuned values stand, without a difference to the plain one's, or a p."""
    store, artefact = Store(tmp_path / "results"), select(["msmix-t1"])
    only = "mosi/lmf+none,mosi/lmf+manifold,mosi/lmf+powmix"
    cells = list(dict.fromkeys(j.config for j in make_plan(artefact, suite("real"), store, None, 1, only).jobs))
    assert [c.mixer for c in cells] == ["none", "manifold", "powmix"]
    tune(cells[:2], store, planted(store), 3, "random")
    tune(cells[2:], store, planted(store), 4, "random")
    plan = make_plan(artefact, suite("tuned"), store, None, 3, only)
    planted(store)(plan.jobs)
    write_manifest(plan, store, 3)
    page = api.report(["msmix-t1"], store.root, "tuned", out=tmp_path / "page")
    lines = pd.read_csv(page.parent / "msmix-t1-tuning.csv").set_index("method")
    assert list(lines.budget) == [3, 3, 4] and list(lines.tuned_n) == [3, 3, 3] and "Not an equal fight." in page.read_text()
    assert lines.over_plain_published.notna().tolist() == [False, True, True]
    assert lines.over_plain_tuned.notna().tolist() == [False, True, False] and pd.isna(lines.holm_p.iloc[2]) and pd.isna(lines.p.iloc[2])
