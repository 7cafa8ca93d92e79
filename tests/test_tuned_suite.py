"""`--suite tuned`: the chosen settings beside the published ones, and what the report says of them."""

import numpy as np
import pandas as pd
import pytest

from bench import api
from bench.cli import main
from bench.manifest import write_manifest
from bench.plan import make_plan
from bench.store import Store
from bench.suites import suite
from bench.tune import tune
from experiments import select
from tests.planted import env, finish

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


def test_unequal_budgets_are_said(tuned, tmp_path):
    store, cells, _ = tuned
    other = Store(tmp_path)
    tune(cells[:1], other, planted(other), 3, "random")
    tune(cells[1:2], other, planted(other), 5, "random")
    plan = make_plan(select(["msmix-t1"]), suite("tuned"), other, None, 1, "mosi/lmf+*")
    assert any(line.startswith("not tuned alike") for line in plan.adapted)


def test_nothing_tuned_is_one_line(tmp_path, capsys):
    for more, line in (((), "was tuned yet: `bench tune ARTEFACT`"), (("--set", "train.lr=1"), "--set belongs to the other suites")):
        assert main(["run", "msmix-t1", "--suite", "tuned", *more, "--results", str(tmp_path)]) == 2
        err = capsys.readouterr().err
        assert line in err and err.count("\n") == 1
