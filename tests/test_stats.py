"""Statistics: agreement with scipy, error rates under simulation, and what happens without spread or with holes."""

import gc

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from statsmodels.stats.power import TTestPower

from bench.analysis.agreement import prediction_interval, rope, status
from bench.analysis.power import power, seeds_needed
from bench.analysis.samples import bootstrap, mcnemar, resampled
from bench.analysis.stats import across, compare, holm, paired, paired_t, summary
from bench.metrics import METRICS, evaluate

SEEDS = [1111, 1112, 1113, 1114, 1115]


# ---- one cell

def test_summary_equals_scipy():
    x = np.random.default_rng(0).normal(80, 2, 5)
    s = summary(x)
    low, high = stats.t.interval(0.95, 4, x.mean(), stats.sem(x))
    expected = (5, x.mean(), x.std(ddof=1), x.std(), low, high)
    assert (s.n, s.mean, s.std, s.std0, s.low, s.high) == pytest.approx(expected)
    assert s.std > s.std0 and s.note == ""


def test_a_nan_makes_the_cell_nan_and_says_so():
    s = summary([80.0, np.nan, 81.0, np.inf, 80.0])
    assert s.n == 5 and np.isnan([s.mean, s.std, s.low]).all() and s.note == "2 of 5 runs not finite"
    p = paired([1.0, 2.0, np.nan], [1.0, 2.0, 3.0])
    assert np.isnan([p.difference, p.p, p.welch_p]).all() and p.note == "1 of 3 runs of a not finite"
    assert paired([1.0, 2.0], [1.0, np.inf]).note == "1 of 2 runs of b not finite"


def test_too_few_runs_have_no_spread():
    assert summary([3.0]).mean == 3.0 and np.isnan(summary([3.0]).std) and summary([3.0]).note == "one run: no spread"
    assert np.isnan(summary([]).mean) and summary([]).note == "no runs"
    assert paired([2.0], [1.0]).difference == 1.0 and np.isnan(paired([2.0], [1.0]).p)
    assert paired([], []).note == "no pairs"


def test_paired_equals_scipy():
    rng = np.random.default_rng(1)
    for _ in range(20):
        b = rng.normal(80, 1, 5)
        a = b + rng.normal(0.5, 0.7, 5)
        r, expected = paired(a, b), stats.ttest_rel(a, b)
        interval, welch = expected.confidence_interval(), stats.ttest_ind(a, b, equal_var=False)
        assert (r.t, r.p, r.low, r.high) == pytest.approx((expected.statistic, expected.pvalue, *interval))
        assert (r.welch_t, r.welch_p) == pytest.approx((welch.statistic, welch.pvalue))
        assert r.correlation == pytest.approx(stats.pearsonr(a, b).statistic)
        assert r.d_z == pytest.approx(r.t / np.sqrt(5))
        swapped = paired(b, a)
        assert (swapped.difference, swapped.p) == pytest.approx((-r.difference, r.p))


def test_paired_matches_by_seed_not_by_position():
    a = pd.Series([1.0, 2.0, 4.0, 8.0], index=SEEDS[:4])
    b = pd.Series([8.5, 4.25, 2.5, 1.0, 7.0], index=SEEDS[3::-1] + SEEDS[4:])
    r = paired(a, b)
    assert r.n == 4 and r.difference == pytest.approx(-0.3125)
    assert r.note == "seeds on one side only, left out: 1115"
    with pytest.raises(ValueError, match="a seed occurs twice"):
        paired(pd.Series([1.0, 2.0], index=[1111, 1111]), a)
    with pytest.raises(ValueError, match="cannot be paired by position"):
        paired([1.0, 2.0], [1.0])
    with pytest.raises(ValueError, match="not one of each"):
        paired(a, [1.0, 2.0, 3.0, 4.0])


def test_without_spread_there_is_no_test():
    same = paired([0.1, 0.2, 0.3], [0.1, 0.2, 0.3])
    assert (same.p, same.low, same.high, same.note) == (1.0, 0.0, 0.0, "identical in every seed")
    shifted = paired(np.array([0.1, 0.2, 0.3]) + 0.7, [0.1, 0.2, 0.3])  # differences vary by rounding alone
    assert shifted.difference == pytest.approx(0.7) and np.isnan([shifted.p, shifted.t, shifted.d_z, shifted.low]).all()
    assert shifted.note.startswith("the same difference in every seed")
    flat = paired([1.0, 1.0, 1.0], [0.0, 0.5, 0.2])
    assert 0 < flat.p < 0.05 and np.isnan(flat.correlation) and 0 < flat.welch_p < 1


# ---- families of cells

def test_holm_is_holm_and_keeps_untested_comparisons_out():
    p = np.array([[0.01, np.nan, 0.04], [0.03, 0.005, np.nan]])
    np.testing.assert_allclose(holm(p), [[0.03, np.nan, 0.06], [0.06, 0.02, np.nan]])
    assert np.isnan(holm([np.nan, np.nan])).all() and holm([]).shape == (0,)
    with pytest.raises(ValueError, match="outside"):
        holm([0.5, 1.2])


def test_false_positive_rates_with_five_seeds_and_correlated_methods():
    """No method is better: the paired test errs in 5 % of the cells, a Holm-adjusted family in at most 5 %."""
    rng = np.random.default_rng(2)
    families, rivals, n = 4000, 10, 5
    shared_by_seed = rng.normal(0, 1, (families, 1, n))  # one seed's luck helps every method
    proposed = shared_by_seed + rng.normal(0, 0.8, (families, 1, n))
    others = shared_by_seed + rng.normal(0, 0.8, (families, rivals, n))
    _, p = paired_t(proposed - others)  # (families, rivals)
    assert 0.04 < (p < 0.05).mean() < 0.06
    gc.freeze()  # statsmodels collects garbage on every call, over everything that the test session has imported
    familywise = np.mean([(holm(row) < 0.05).any() for row in p])
    gc.unfreeze()
    assert familywise < 0.05 + 3 * np.sqrt(0.05 * 0.95 / families)
    assert (p < 0.05).any(axis=1).mean() > 0.1  # without the adjustment the family does err too often


def test_paired_t_is_the_test_of_paired():
    rng = np.random.default_rng(3)
    a, b = rng.normal(0, 1, (2, 6, 5))
    t, p = paired_t(a - b)
    each = [paired(x, y) for x, y in zip(a, b)]
    np.testing.assert_allclose(t, [r.t for r in each])
    np.testing.assert_allclose(p, [r.p for r in each])


def test_across_cells():
    d = [0.5, 0.7, 0.2, 0.9, 0.4, 0.3, 0.6, -0.1]
    names = ["mosi", "mosi", "mosi", "mosei", "mosei", "mosei", "sims", "sims"]
    r = across(d, names)
    assert (r.n, r.wins, r.ties, r.losses) == (8, 7, 0, 1)
    assert r.p == pytest.approx(2 * 2 / 2**8)  # the loss has the smallest rank: rank sums 0 and 1 of 256 sign patterns
    assert r.sign_p == pytest.approx(2 * (1 + 8) / 2**8)
    low, high = stats.ttest_1samp(d, 0).confidence_interval()
    assert (r.low, r.high) == pytest.approx((low, high))
    without = dict(r.without)
    assert list(without) == ["mosi", "mosei", "sims"] and without["sims"].n == 6 and without["sims"].losses == 0
    assert r.worst_p == max(w.p for w in without.values()) > r.p


def test_across_says_when_it_cannot_tell():
    assert across([0.1, np.nan]).note == "1 of 2 cells not finite" and np.isnan(across([0.1, np.nan]).p)
    assert across([]).note == "no cells" and np.isnan(across([]).p)
    tied = across([0.0, 0.0, 0.0])
    assert (tied.p, tied.sign_p, tied.ties) == (1.0, 1.0, 3)
    assert across([0.3]).p == 1.0
    with pytest.raises(ValueError, match="1 dataset names for 2 cells"):
        across([0.1, 0.2], ["mosi"])


def test_across_says_that_few_cells_cannot_reach_a_small_p():
    r = across([1.0, 2.0, 3.0])
    assert r.p == 0.25 and r.note == "p = 0.25 is the smallest that 3 cells can give"
    assert across([1.0, 2.0, 3.0, 4.0, 5.0, 6.0]).note == ""  # 0.03


def test_one_dataset_cannot_carry_a_result_unseen():
    r = across([2.0, 2.1, 1.9, 2.2, 2.3, 2.4, 0.01, -0.02, 0.03], ["mosi"] * 6 + ["sims"] * 3)
    assert r.p < 0.05 and r.worst_p > 0.5


def test_compare_pairs_every_cell_and_adjusts_over_all_of_them():
    rng = np.random.default_rng(4)
    frame = pd.DataFrame(
        [
            {"dataset": d, "backbone": "lmf", "mixer": m, "seed": s, "non0_acc2": 0.8 + 0.01 * i + rng.normal(0, 0.005)}
            for d in ("mosi", "sims") for i, m in enumerate(("none", "powmix", "msmix")) for s in SEEDS
        ]
    ).sample(frac=1, random_state=0)
    table = compare(frame, "non0_acc2", proposed="msmix")
    assert len(table) == 4 and set(table["a"]) == {"msmix"} and (table["n"] == 5).all()
    row = table.query("dataset == 'sims' and b == 'none'").iloc[0]
    sims = frame.query("dataset == 'sims'").pivot(index="seed", columns="mixer", values="non0_acc2")
    assert row["p"] == pytest.approx(stats.ttest_rel(sims["msmix"], sims["none"]).pvalue)
    np.testing.assert_allclose(table["p_holm"], holm(table["p"]))
    assert len(compare(frame, "non0_acc2")) == 6
    lost = compare(frame.query("not (dataset == 'sims' and mixer == 'msmix')"), "non0_acc2", proposed="msmix")
    assert len(lost) == 4 and lost["p"].isna().sum() == 2 and lost["note"].str.contains("no pairs").sum() == 2
    assert compare(frame.iloc[:0], "non0_acc2").empty


# ---- sample by sample

@pytest.mark.parametrize("family", sorted(METRICS))
def test_resampled_metrics_equal_metrics_of_repeated_items(family):
    rng = np.random.default_rng(5)
    y = (rng.integers(0, 2, 60) if family == "binary" else rng.integers(-6, 7, 60) / 5).astype(np.float32)
    p = (y + rng.normal(0, 0.7, (3, 60))).astype(np.float32)
    counts = rng.integers(0, 4, (4, 60)).astype(float)
    for metric in METRICS[family]:
        ours = resampled(p, y, counts, family, metric)
        repeated = [np.repeat(np.arange(60), c.astype(int)) for c in counts]
        expected = [[evaluate(row[i], y[i], family)[metric] for row in p] for i in repeated]
        np.testing.assert_allclose(ours, expected, atol=1e-6 if metric.endswith("mae") else 1e-12, err_msg=metric)


def test_resampled_is_nan_where_the_metric_is():
    y = np.array([0.0, 0.0, 1.0], np.float32)
    p = np.array([[0.3, 0.3, -0.2]], np.float32)
    counts = np.array([[2.0, 1.0, 0.0]])
    for metric in ("non0_acc2", "non0_f1", "corr", "avg"):
        assert np.isnan(resampled(p, y, counts, "msena", metric)).all(), metric
    assert resampled(p, y, counts, "msena", "has0_acc2")[0, 0] == 1.0


def _runs(rng, n_items=150, n_seeds=5, gain=0.0):
    """Predictions [S, N] of two equally good methods that differ mostly by item, less by seed; and labels [N]."""
    y = rng.choice([-2.0, -1.0, 1.0, 2.0], n_items)
    hard = rng.normal(0, 1.2, n_items)
    a, b = (y + hard + rng.normal(0, 1.0, n_items) + rng.normal(0, 0.3, (n_seeds, n_items)) for _ in range(2))
    return a + gain * np.sign(y), b, y


def test_bootstrap_interval_covers():
    rng = np.random.default_rng(6)
    results = [bootstrap(*_runs(rng), "msena", "non0_acc2", resamples=300, seed=i) for i in range(300)]
    covered = np.mean([r.low <= 0 <= r.high for r in results])
    assert 0.91 < covered < 0.985  # nominal 0.95; the standard error of this share is 0.013
    assert np.mean([r.p < 0.05 for r in results]) < 0.08
    spread = np.std([r.difference for r in results])
    assert np.mean([r.error for r in results]) == pytest.approx(spread, rel=0.12)


def test_bootstrap_finds_a_difference_and_is_antisymmetric_and_seeded():
    a, b, y = _runs(np.random.default_rng(7), gain=1.0)
    r, again, swapped = (bootstrap(*x, y, "msena", "mae", resamples=500) for x in ((a, b), (a, b), (b, a)))
    assert r == again
    assert (swapped.difference, swapped.p) == pytest.approx((-r.difference, r.p))
    assert (swapped.low, swapped.high) == pytest.approx((-r.high, -r.low))
    better = bootstrap(a, b, y, "msena", "non0_f1", resamples=500)
    expected = np.mean([evaluate(p, y, "msena")["non0_f1"] for p in a])
    expected -= np.mean([evaluate(p, y, "msena")["non0_f1"] for p in b])
    assert better.difference == pytest.approx(expected) and better.low > 0 and better.p < 0.01


def test_bootstrap_by_group_is_wider_where_items_of_a_group_are_alike():
    a, b, y = _runs(np.random.default_rng(8), n_items=60)
    copies = [np.repeat(v, 5, axis=-1) for v in (a, b, y)]
    items = bootstrap(*copies, "msena", "non0_acc2", resamples=500)
    videos = bootstrap(*copies, "msena", "non0_acc2", resamples=500, groups=np.repeat(np.arange(60), 5))
    assert videos.error > 1.6 * items.error
    assert videos.error == pytest.approx(bootstrap(a, b, y, "msena", "non0_acc2", resamples=500).error, rel=1e-9)


def test_bootstrap_of_a_diverged_run_says_so():
    a, b, y = _runs(np.random.default_rng(9))
    a[2, 7] = np.nan
    r = bootstrap(a, b, y, "msena", "non0_acc2")
    assert np.isnan(r.difference) and r.note == "a prediction or label is not finite"
    assert bootstrap(b[0], b[1], y, "msena", "mae", resamples=50).note.startswith("one seed")
    tiny = bootstrap([[0.1, 0.2]], [[0.3, 0.1]], [1.0, 0.0], "msena", "non0_acc2", resamples=50)
    assert tiny.note.startswith("non0_acc2 is undefined in") and np.isnan(tiny.low)
    with pytest.raises(ValueError, match="for 3 labels"):
        bootstrap(a, b, [1.0, 2.0, 3.0], "msena", "mae")


def test_mcnemar_counts_discordant_items():
    y = np.array([1.0] * 20 + [0.0] * 5)  # zero labels do not count
    a, b = np.ones(25), np.ones(25)
    a[:2], b[2:12] = -1.0, -1.0
    r = mcnemar(a, b, y, "msena", "non0_acc2")
    assert (r.items, r.only_a, r.only_b) == (20, 10, 2)
    assert r.p == pytest.approx(2 * stats.binom.cdf(2, 12, 0.5))
    assert mcnemar(a, a, y, "msena", "non0_acc2").p == 1.0
    assert np.isnan(mcnemar(np.full(25, np.nan), b, y, "msena", "non0_acc2").p)
    with pytest.raises(ValueError, match="hits and misses"):
        mcnemar(a, b, y, "msena", "mae")


# ---- ours against the paper's, equivalence

@pytest.mark.parametrize("n, m", [(5, 5), (5, 1), (3, 15)])
def test_prediction_interval_covers_the_mean_of_further_runs(n, m):
    rng = np.random.default_rng(n * 100 + m)
    ours, theirs = rng.normal(80, 2, (2000, n)), rng.normal(80, 2, (2000, m)).mean(axis=1)
    inside = np.mean([status(prediction_interval(o, m), t) == "inside" for o, t in zip(ours, theirs)])
    assert 0.935 < inside < 0.965


def test_prediction_interval_formula_and_status():
    ours = [79.0, 80.0, 81.0, 80.5, 79.5]
    interval = prediction_interval(ours, 5)
    assert interval.half_width == pytest.approx(2.7764451 * np.std(ours, ddof=1) * np.sqrt(2 / 5))
    h = interval.half_width
    shifts = (0.9, -0.9, 1.5, 2.5, -1.5, np.nan)
    expected = ["inside", "inside", "within twice", "beyond", "better", "undecided"]
    assert [status(interval, 80 + k * h) for k in shifts] == expected
    assert [status(interval, 80 - k * h, higher_is_better=False) for k in shifts] == expected
    assert status(interval, 80 + h + 0.004, rounding=0.005) == "inside"


def test_prediction_interval_says_what_it_does_not_know():
    unsaid = prediction_interval([1.0, 2.0, 3.0], None)
    assert unsaid.half_width == prediction_interval([1.0, 2.0, 3.0], 5).half_width and "read as 5" in unsaid.note
    assert prediction_interval([1.0, 2.0, 3.0], np.nan) == unsaid
    diverged = prediction_interval([1.0, np.nan], 5)
    assert status(diverged, 1.0) == "undecided" and diverged.note == "1 of 2 runs not finite"
    assert status(prediction_interval([1.0], 5), 1.0) == "undecided"


@pytest.mark.parametrize("theirs_sd", [0.5, 4.0])
def test_the_papers_own_spread_enters_the_prediction_interval(theirs_sd):
    """Their runs spread otherwise than ours: with their std the interval covers their mean 19 times of 20, without it not."""
    rng = np.random.default_rng(6)
    ours, runs = rng.normal(80, 2, (2000, 5)), rng.normal(80, theirs_sd, (2000, 5))
    theirs, std = runs.mean(axis=1), runs.std(axis=1, ddof=1)
    with_std = np.mean([status(prediction_interval(o, 5, reported_std=s), t) == "inside" for o, t, s in zip(ours, theirs, std)])
    without = np.mean([status(prediction_interval(o, 5), t) == "inside" for o, t in zip(ours, theirs)])
    assert 0.93 < with_std < 0.975 and not 0.93 < without < 0.97
    assert "own std" in prediction_interval([1.0, 2.0, 3.0], 5, reported_std=0.5).note


def test_rope_shares_add_up_and_mirror():
    a, b = np.array([80.1, 80.4, 79.9, 80.6, 80.2]), np.array([80.0, 80.1, 80.0, 80.2, 80.3])
    r, swapped = rope(a, b, 0.2), rope(b, a, 0.2)
    assert r.below + r.inside + r.above == pytest.approx(1.0) and r.above > r.below
    assert (swapped.below, swapped.inside, swapped.above) == pytest.approx((r.above, r.inside, r.below))
    assert rope(a, b, 100.0).inside == pytest.approx(1.0)
    assert rope(a, b, 1e-9).above == pytest.approx(1 - paired(a, b).p / 2, abs=1e-6)


def test_equivalence_without_spread():
    x = [1.0, 2.0, 3.0]
    assert np.isnan(rope(x, x, 0.1).inside), "a tie is not certainty"
    assert rope([0.8, 0.8], [0.8, 0.8], 0.01).note == "identical in every seed"
    shifted = [1.5, 2.5, 3.5]
    assert np.isnan(rope(shifted, x, 1.0).inside) and np.isnan(rope([1.0], [1.0], 1.0).inside)
    with pytest.raises(ValueError, match="margin must be positive"):
        rope(x, x, 0.0)


# ---- power

def test_power_equals_simulation():
    rng = np.random.default_rng(12)
    for effect, n in ((0.5, 5), (1.0, 5), (1.0, 10)):
        _, p = paired_t(rng.normal(effect, 0.7, (20000, n)))
        assert (p < 0.05).mean() == pytest.approx(power(effect, 0.7, n), abs=0.012)


def test_power_equals_statsmodels_and_never_falls():
    for d in (0.1, 0.5, 1.0, 2.0):
        assert power(d, 1.0, 7) == pytest.approx(TTestPower().power(d, 7, 0.05), abs=1e-12)
    for n in (2, 5, 1000):
        curve = [power(d, 1.0, n) for d in np.geomspace(1e-3, 1e8, 80)]
        assert np.isfinite(curve).all() and np.diff(curve).min() >= 0 and curve[-1] == 1.0
    assert power(0.0, 1.0, 5) == pytest.approx(0.05) and power(-1.0, 1.0, 5) == power(1.0, 1.0, 5)


def test_seeds_needed_is_the_smallest_number():
    assert seeds_needed(0.5, 1.0) == 34  # Cohen's d_z = 0.5, 80 %: the textbook number
    for effect in (0.2, 0.7, 1.5, 4.0, 20.0):
        n = int(seeds_needed(effect, 1.0, power=0.9))
        assert power(effect, 1.0, n) >= 0.9 and (n == 2 or power(effect, 1.0, n - 1) < 0.9)


def test_power_without_an_answer():
    assert seeds_needed(0.0, 1.0) == np.inf
    for effect, sd in ((1.0, 0.0), (np.nan, 1.0), (1.0, np.nan)):
        assert np.isnan(seeds_needed(effect, sd)) and np.isnan(power(effect, sd, 5))
    assert np.isnan(power(1.0, 1.0, 1))


# ---- one value per independent unit

def _line(dataset, backbone, block, difference):
    from bench.analysis.agreement import Rope
    from bench.matrix import Row
    from bench.report.significance import Line

    rows = (Row(backbone, "ours"), Row(backbone, "other"))
    pair = paired([0.8 + difference, 0.81 + difference], [0.8, 0.81])
    return Line(block, "", "acc", *rows, pair, 0.5, Rope(2, 1.0), 5.0, dataset, 1)


def test_rates_and_tables_of_one_dataset_are_one_value():
    """Seven rates of three datasets are three units, and three cannot give a small p however often they are repeated."""
    from bench.report.significance import across_cells

    lines = [_line(d, "", f"MR={r}", 0.01) for d in ("mosi", "mosei", "sims") for r in range(7)]
    (found,) = across_cells(lines).values()
    assert found.n == 3 and found.wins == 3 and found.p == 0.25 and "smallest" in found.note
    apart = across_cells([_line("mosi", b, "b", 0.01) for b in ("A", "B", "C", "D", "E", "F")])["other"]
    assert apart.n == 6


def test_seeds_needed_are_those_of_the_level_that_is_used(tmp_path):
    assert seeds_needed(0.5, 1.0, alpha=0.05 / 20) > 1.5 * seeds_needed(0.5, 1.0)
    from bench.analysis.grid import make_grid
    from bench.analysis.results import Results
    from bench.matrix import expand
    from bench.report.significance import contrasts, family
    from tests import planted

    p = planted.write(tmp_path, holes=False)
    grid = make_grid(p.experiment, Results(*p.store.frames(expand([p.experiment]))))
    against = contrasts(grid, "proposed")
    lines = family(grid, against)
    m = sum(np.isfinite(c.holm) for c in against.values())
    assert m == 12
    for line in lines:
        assert line.needed == seeds_needed(line.paired.difference, line.paired.std, alpha=0.05 / m)
