"""`bench tune`: the same budget for everybody, on validation alone, resumable, and exact about what it searched."""

import json
import math
import pickle
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bench import registry, spaces
from bench.analysis.tuning import expected_best
from bench.cli import main
from bench.data.tools import write_synthetic
from bench.errors import BenchError
from bench.experiments import all_experiments
from bench.matrix import Job
from bench.seeds import FIELD_SEEDS
from bench.store import Store, read_json
from bench.trails import of_cell, read_all, unequal
from bench.tune import FIRST_SEED, RUNGS, SAMPLERS, _Course, _Search, seeds
from bench.tune import tune as search
from tests.golden import cell_config
from tests.planted import searched_in_rounds as tune

ROOT = Path(__file__).parents[1]
METHODS = ("none", "manifold", "multimix", "advmixup", "powmix", "msmix")


def cells(*mixers):
    return [cell_config("lmf", m) for m in mixers or METHODS]


def landscape(store):
    """A launcher that trains nothing: the validation loss is a known function of the settings; the test loss its
    opposite, so that a search that looked at it would choose otherwise."""
    trained = []

    def run(jobs):
        for job in jobs:
            trained.append(job)
            value = (math.log10(job.config.train["lr"]) + 3.5) ** 2 + job.config.train.get("weight_decay", 0)
            value += abs(job.config.mixer_params.get("p_mix", 1.0) - 0.4)
            metrics = {"epochs": min(20, job.config.train["max_epochs"]), "best_epoch": 1, "updates": 1, "n": {},
                       "valid": {"loss": value}, "test": {"loss": -value}}
            folder = store.folder(job)
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "metrics.json").write_text(json.dumps(metrics))
            (folder / "job.json").write_text(json.dumps(job.as_dict()))
    run.trained = trained
    return run


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_method_gets_the_same_number_of_trials_and_the_published_setting(sampler, tmp_path):
    store = Store(tmp_path)
    trails = tune(cells(), store, landscape(store), 9, sampler)
    assert unequal(trails) == ""
    for t in trails:
        assert [x.number for x in t.trials] == list(range(9)) and t.seeds == (FIRST_SEED,)
        assert t.trials[0].settings == {} and t.trials[0].config == t.config.id and not t.trials[0].rung
        assert t.best().value == min(x.value for x in t.trials if not x.rung)
        assert t.best().value <= t.trials[0].value  # the published setting is among the candidates
        assert t.chosen().id == t.best().config
    assert {x.config.mixer for x in of_cell(store, cells("none")[0])} == {"none"}


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_search_goes_on_while_others_are_at_it_and_the_trails_are_those_of_rounds(sampler, tmp_path):
    stores, mixers = [Store(tmp_path / n) for n in ("rounds", "fed")], ("none", "powmix", "msmix")
    whole = tune(cells(*mixers), stores[0], landscape(stores[0]), 13, sampler)
    run, ended = landscape(stores[1]), []

    def feed(jobs, after):
        """MS-Mix's jobs end last of all."""
        waiting = list(jobs)
        while waiting:
            job = min(waiting, key=lambda j: j.config.mixer == "msmix")
            waiting.remove(job)
            run([job])
            ended.append(job.config.mixer)
            waiting += after(job)

    fed = search(cells(*mixers), stores[1], feed, 13, sampler)
    assert fed == whole and len(run.trained) == len(set(run.trained))
    assert ended == sorted(ended, key=lambda m: m == "msmix") and ended.count("msmix") >= 13
    assert search(cells(*mixers), stores[1], lambda jobs, after: pytest.fail("all is stored"), 13, sampler) == whole


def test_a_trial_that_two_searches_ask_for_is_run_once_and_a_failed_one_counts_for_both(tmp_path):
    store = Store(tmp_path)
    one, run, ran = cells("none")[0], landscape(store), []

    def feed(jobs, after):
        waiting = list(jobs)
        while waiting:
            job = waiting.pop(0)
            ran.append(job)
            if len(ran) != 2:  # the second fails
                run([job])
            waiting += after(job)

    course = _Course([_Search(one, store, 6, "random", (FIRST_SEED,), "loss", {}) for _ in range(2)], store, {})
    feed(course.first(), course.after)
    a, b = (s.trail for s in course.searches)
    assert a.trials == b.trials and len(ran) == len(set(ran)) == 6 and [x.value is None for x in a.trials] == [False, True] + 4 * [False]


def test_tuning_seeds_are_never_evaluation_seeds():
    assert not set(seeds(50)) & {FIELD_SEEDS[0] + i for i in range(100)}
    with pytest.raises(BenchError, match="--tuning-seeds takes 1 to"):
        seeds(2000)


def test_random_trials_of_a_backbone_are_paired_between_methods(tmp_path):
    store = Store(tmp_path)
    trails = tune(cells("none", "powmix", "msmix"), store, landscape(store), 6, "random")
    shared = [[{k: v for k, v in x.settings.items() if not k.startswith("mixer.")} for x in t.trials] for t in trails]
    assert shared[0] == shared[1] == shared[2] and len({json.dumps(s) for s in shared[0]}) == 6


def test_tpe_finds_more_than_chance_and_stays_inside_its_space(tmp_path):
    store = Store(tmp_path)
    (t,) = tune(cells("powmix"), store, landscape(store), 40, "tpe")
    first, last = [[x.value for x in t.trials][k] for k in (slice(1, 14), slice(27, 40))]
    assert np.mean(last) < np.mean(first)
    for x in t.trials:
        for key, value in x.settings.items():
            d = t.space.get(key)
            if d and "choices" in d:
                assert value in d["choices"]
            elif d:
                assert d["low"] <= value <= d["high"]
        assert 1e-3 / 4 * 0.999 <= x.settings.get("train.lr", 1e-3) <= 4e-3 * 1.001
        rates = x.settings.get("train.group_lr")
        assert rates is None or rates["factors"] == x.settings["train.lr"]  # all rates are scaled alike


def test_a_search_that_was_killed_goes_on_to_the_same_trail(tmp_path):
    whole, cut = Store(tmp_path / "whole"), Store(tmp_path / "cut")
    (expected,) = tune(cells("msmix"), whole, landscape(whole), 12, "tpe")

    class Killed(Exception):
        pass

    def dies(jobs):
        if sum(1 for _ in (tmp_path / "cut").glob("*/*/*/metrics.json")) >= 6:
            raise Killed
        landscape(cut)(jobs[:3])  # and leaves a round half done

    def patient(jobs):
        for j in jobs:
            dies([j])

    with pytest.raises(Killed):
        tune(cells("msmix"), cut, patient, 12, "tpe")
    run = landscape(cut)
    (resumed,) = tune(cells("msmix"), cut, run, 12, "tpe")
    assert resumed == expected and len(run.trained) == 12 - 6


def test_paper_search_of_powmix_is_p_mix_then_n_mixed(tmp_path):
    store = Store(tmp_path)
    (t,) = tune(cells("powmix"), store, landscape(store), 13, "paper")
    p_mix = [x.settings.get("mixer.p_mix", 0.5) for x in t.trials]
    n_mixed = [x.settings.get("mixer.n_mixed", 256) for x in t.trials]
    assert set(n_mixed[:7]) == {256} and len(set(p_mix[:7])) == 7  # n_O = 256 while p_mix is searched
    assert {0.1, 1.0} <= set(p_mix[:7]), "its share is spread over the whole range, not cut off its end"
    best = min(range(7), key=lambda i: t.trials[i].value)
    assert set(p_mix[7:11]) == {p_mix[best]} and set(n_mixed[7:11]) == {64, 128, 512, 1024}
    assert not any(k.startswith(("train.", "backbone.")) for x in t.trials[:11] for k in x.settings)


def test_halving_saves_epochs_and_says_how_many(tmp_path):
    store = Store(tmp_path)
    run = landscape(store)
    (c,) = cells("none")
    (t,) = tune([c.with_(train={"max_epochs": 20})], store, run, 9, "halving")
    by_rung = {r: [x.number for x in t.trials if x.rung == r] for r in (*RUNGS, 0)}
    assert [len(by_rung[r]) for r in (*RUNGS, 0)] == [5, 2, 2] and 0 in by_rung[0]
    assert t.epochs == sum(min(20, j.config.train["max_epochs"]) for j in run.trained) < 9 * 20
    assert all(j.config.train["schedule_epochs"] for j in run.trained if j.config.train["max_epochs"] in RUNGS)


@pytest.mark.parametrize(("whole", "epochs"), [(2, 9 * 2), (8, 9 * 3 + 4 * 8)])
def test_halving_never_trains_longer_than_the_cell_says(whole, epochs, tmp_path):
    """Rungs of 3 and 9 epochs: of a training of 2 epochs nothing can be saved, of one of 8 the first rung's share."""
    store = Store(tmp_path)
    (c,) = cells("msmix")
    run = landscape(store)
    (t,) = tune([c.with_(train={"max_epochs": whole})], store, run, 9, "halving")
    assert max(j.config.train["max_epochs"] for j in run.trained) == whole
    assert len(t.trials) == 9 and t.epochs == epochs and not t.best().rung


def test_a_failed_trial_has_no_value_and_is_not_chosen(tmp_path):
    store = Store(tmp_path)
    honest = landscape(store)

    def run(jobs):
        honest([j for j in jobs if j.config.id == cells("none")[0].id])

    (t,) = tune(cells("none"), store, run, 6, "tpe")
    assert [x.value is None for x in t.trials] == [False] + [True] * 5 and t.best().number == 0
    with pytest.raises(BenchError, match="every trial failed"):
        tune(cells("msmix"), store, lambda jobs: None, 2, "random")[0].best()


def test_unequal_budgets_are_named(tmp_path):
    store = Store(tmp_path)
    a = tune(cells("none"), store, landscape(store), 4, "random")
    b = tune(cells("msmix"), store, landscape(store), 6, "random")
    assert "random, 4 trials on 1 seed by loss: lmf+none" in unequal(a + b)
    assert [t.budget for t in of_cell(store, cells("none")[0])] == [4]


@pytest.mark.parametrize("kind", ["models", "mixers"])
def test_every_declared_space_fits_its_component(kind):
    """A range for a setting that no component has would fail in a user's search."""
    for path in (spaces.FOLDER / kind).glob("*.toml"):
        assert path.stem == "default" or spaces.declared(kind, path.stem)["source"], path  # BenchError: no such component
    found = {c for e in all_experiments().values() if e.seeds for c in e.configs() if not c.corruption}
    seen = set()
    for c in sorted(found, key=lambda c: c.id):
        if (c.dataset, c.backbone, c.mixer) not in seen:
            seen.add((c.dataset, c.backbone, c.mixer))
            space = spaces.space(c)
            assert spaces.settings(c, space, {d.name: d.published for d in space.dimensions}) == {}
            drawn = spaces.changed(c, spaces.settings(c, space, {d.name: d.uniform("x", "y", 3) for d in space.dimensions}))
            module = registry.load("models", c.backbone)
            from bench.train.protocol import Protocol, from_params

            from_params(module.Params, drawn.backbone_params, c.backbone)
            from_params(registry.load("mixers", c.mixer).Params, drawn.mixer_params, c.mixer)
            from_params(Protocol, drawn.train, "protocol")


@pytest.mark.parametrize(("space", "line"), [
    ({"mixer.alpha": {"low": 2, "high": 1}}, "needs choices, factor, or low below high"),
    ({"mixer.alpha": {"low": -1, "high": 1, "log": True}}, "a log range lies above 0"),
    ({"mixer.nosuch": {"low": 0, "high": 1}}, "has no setting 'mixer.nosuch'"),
    ({"data.x": {"low": 0, "high": 1}}, "take train.X, backbone.X and mixer.X"),
    ({"mixer.alpha": {"lowest": 0}}, "takes choices"),
])
def test_a_wrong_space_is_one_line(space, line, monkeypatch):
    (cell,) = cells("msmix")
    monkeypatch.setattr(registry, "constants", lambda kind, name: {"SPACE": space} if kind == "mixers" else {})
    spaces.declared.cache_clear()
    try:
        with pytest.raises(BenchError, match=line) as e:
            spaces.space(cell)
        assert "\n" not in str(e.value)
    finally:
        spaces.declared.cache_clear()


def test_what_a_cell_sets_is_its_published_value():
    """The released MS-Mix runs with delta = 0.4: trial 0 is that, and 0.2 is a setting to try."""
    released = next(r.cells["MOSI"] for r in all_experiments()["msmix-t1"].rows if r.key == ("LMF", "MS-Mix (release)", ""))
    printed = next(r.cells["MOSI"] for r in all_experiments()["msmix-t1"].rows if r.key == ("LMF", "MS-Mix", ""))
    for c, own, other in ((released, 0.4, 0.2), (printed, 0.2, 0.4)):
        space = spaces.space(c)
        draw = {d.name: d.published for d in space.dimensions}
        assert draw["mixer.delta"] == own and spaces.settings(c, space, draw) == {}
        assert spaces.settings(c, space, {**draw, "mixer.delta": other}) == {"mixer.delta": other}


@pytest.mark.parametrize("entry", [{"low": 1.0, "high": 10.0, "log": True}, {"factor": 3.0}])
def test_what_is_switched_off_is_not_searched_on_a_logarithmic_scale(entry):
    (cell,) = cells("msmix")
    with pytest.raises(BenchError, match="'mixer.beta': the cell sets 0, and"):
        spaces._dimension("mixer.beta", entry, cell.with_(mixer_params={"beta": 0}), "msmix")


def test_a_mixer_that_declares_no_space_is_named(monkeypatch):
    known = cells()
    own = replace(known[-1], mixer="swap")
    assert spaces.undeclared(known) == ""
    monkeypatch.setattr(registry, "constants", lambda kind, name: {})
    spaces.declared.cache_clear()
    try:
        assert spaces.undeclared([*known, own]) == "swap declares no SPACE: only the backbone's settings are searched there"
    finally:
        spaces.declared.cache_clear()


def test_a_components_own_space_is_used(monkeypatch):
    (cell,) = cells("msmix")
    own = {"source": "mine", "mixer.alpha": {"choices": [1.0, 3.0]}}
    monkeypatch.setattr(registry, "constants", lambda kind, name: {"SPACE": own} if kind == "mixers" else {})
    spaces.declared.cache_clear()
    try:
        space = spaces.space(cell)
    finally:
        spaces.declared.cache_clear()
    (d,) = [d for d in space.dimensions if d.name.startswith("mixer.")]
    assert d.choices == (2.0, 1.0, 3.0) and "msmix: mine" in space.sources


def test_expected_best_equals_the_mean_over_all_draws():
    values = [3.0, 1.0, 2.0]
    expected = expected_best(values)
    draws = [min(a, b) for a in values for b in values]
    assert expected[0] == pytest.approx(2.0) and expected[1] == pytest.approx(np.mean(draws))
    assert expected[2] == pytest.approx(np.mean([min(a, b, c) for a in values for b in values for c in values]))
    assert expected_best(values, lower_is_better=False)[1] == pytest.approx(np.mean([max(a, b) for a in values for b in values]))


def test_poisoned_test_labels_change_no_choice(tmp_path, capsys):
    """From the command line, on files: every test label negated, the same trail, but for the file's own hash."""
    folders = [tmp_path / "clean", tmp_path / "poisoned"]
    for folder in folders:
        write_synthetic(folder, ["mosi"])
    for path in folders[1].rglob("*.pkl"):
        with open(path, "rb") as f:
            content = pickle.load(f)
        if isinstance(content, dict) and "test" in content and "regression_labels" in content["test"]:
            content["test"]["regression_labels"] = -content["test"]["regression_labels"]
            with open(path, "wb") as f:
                pickle.dump(content, f)
    trails = []
    for folder in folders:
        results = tmp_path / f"results-{folder.name}"
        code = main(["tune", "msmix-t1", "--suite", "real", "--data", str(folder), "--results", str(results), "--only",
                     "mosi/lmf+m*mix", "--budget", "3", "--set", "train.max_epochs=2", "--workers", "1"])
        assert code == 0
        said = capsys.readouterr().out
        assert "mosi lmf+msmix (" in said and "variant=release" in said  # two rows of one mixer are told apart
        trails.append(read_all(Store(results)))
        jobs = [Job(t.config, FIRST_SEED) for t in trails[-1]]
        assert all("test" in read_json(Store(results).folder(j) / "metrics.json") for j in jobs)
    trails = [[replace(t, data="") for t in several] for several in trails]
    assert trails[0] == trails[1] and len(trails[0]) == 3  # MultiMix, MS-Mix and its release


@pytest.mark.slow
def test_kill_9_and_resume_from_the_command_line(tmp_path):
    command = [sys.executable, "-m", "bench", "tune", "msmix-t1", "--only", "synthetic-mosi/lmf+msmix", "--budget", "6",
               "--workers", "1"]
    subprocess.run([*command, "--results", str(tmp_path / "whole")], cwd=ROOT, check=True, capture_output=True)
    process = subprocess.Popen([*command, "--results", str(tmp_path / "cut")], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.time() + 120
    while time.time() < deadline and len(list((tmp_path / "cut").glob("*/*/*/metrics.json"))) < 2:
        time.sleep(0.1)
    process.send_signal(signal.SIGKILL)
    process.wait()
    subprocess.run([*command, "--results", str(tmp_path / "cut")], cwd=ROOT, check=True, capture_output=True)
    whole, cut = (read_all(Store(tmp_path / n)) for n in ("whole", "cut"))
    assert whole == cut and whole[0].complete
