"""The audit on planted tables (what must be found, what must not) and on the five papers' printed numbers."""

import subprocess
import sys
import time
from itertools import product

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import f1_score

from bench.analysis import reported
from bench.analysis.audit import (
    CHECKS,
    LEVELS,
    audit,
    averages,
    duplicates,
    grim,
    grim_table,
    grim_totals,
    marks,
    pairs,
    pvalues,
    quotes,
    series,
    spread,
    summary,
    write_csv,
)
from bench.analysis.audit.testsets import TEST_SETS, samples
from bench.analysis.cells import half_unit, label
from bench.errors import BenchError
from bench.selectors import number, selects

COLUMNS = (
    "artefact", "dataset", "backbone", "method", "variant", "metric", "convention", "unit", "mean_text", "std_text",
    "mean", "std", "n", "elsewhere", "bold", "underline", "decimals", "cell_id",
)


def cell(metric, mean, std="", artefact="msmix-t1", dataset="mosi", backbone="TFN", method="", variant="", unit="%",
         n=5, elsewhere=False, bold=False, underline=False, convention="msena"):
    """One printed cell in the schema of bench.analysis.reported; mean and std as printed."""
    return dict(zip(COLUMNS, (
        artefact, dataset, backbone, method, variant, metric, convention, unit, mean, std, float(mean),
        float(std) if std else float("nan"), n, elsewhere, bold, underline, len(mean.partition(".")[2]),
        "/".join((artefact, dataset, backbone, method, variant, metric)),
    )))


def frame(*cells):
    made = pd.DataFrame(list(cells), columns=list(COLUMNS))
    return made.assign(n=made["n"].astype("Int64"))


@pytest.fixture(scope="module")
def printed():
    return reported.load()


@pytest.fixture(scope="module")
def timed(printed):
    start = time.process_time()
    found = audit(printed)
    return found, time.process_time() - start


@pytest.fixture(scope="module")
def findings(timed):
    return timed[0]


# --- averages ------------------------------------------------------------------------------------------------------

def test_an_average_is_judged_with_its_rounding():
    parts = [cell("acc5", "39.39"), cell("acc7", "34.46")]  # mean 36.925 +- 0.005, printed to 0.005: [36.915, 36.935]
    assert not list(averages.check(frame(*parts, cell("avg", "36.92"), cell("mae", "0.947", unit="1"))))
    (found,) = averages.check(frame(*parts, cell("avg", "36.94")))
    assert (found.level, found.printed, found.expected) == ("impossible", "36.94", "[36.915, 36.935]")
    assert found.cells[0].endswith("/avg") and len(found.cells) == 3


def test_an_average_row_is_judged_against_the_other_variants():
    rates = [cell("acc7", m, variant=f"MR={r}", n=None) for r, m in (("0.1", "40.0"), ("0.2", "30.0"))]
    assert not list(averages.check(frame(*rates, cell("acc7", "35.0", variant="Avg."))))
    (found,) = averages.check(frame(*rates, cell("acc7", "35.2", variant="Avg.")))
    assert found.expected == "[34.90, 35.10]"


def test_the_spread_of_an_average_cannot_exceed_the_mean_spread():
    parts = [cell("acc5", "40.00", "0.30"), cell("acc7", "40.00", "0.10")]
    assert not list(averages.check(frame(*parts, cell("avg", "40.00", "0.21"))))  # 0.20, and 0.01 of rounding
    (found,) = averages.check(frame(*parts, cell("avg", "40.00", "0.22")))
    assert (found.check, found.level, found.expected) == ("average-spread", "impossible", "[0.09, 0.21]")


# --- GRIM ----------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("size", "runs"), [(457, 5), (656, 1), (686, 3)])
def test_every_true_mean_passes(size, runs):
    rng = np.random.default_rng(0)
    right = rng.integers(size // 2, size, (300, runs))
    for row in right:
        exact, per_run = 100 * row.mean() / size, 100 * np.round(row / size, 4).mean()
        assert grim.fits(f"{exact:.2f}", size, runs) and grim.fits(f"{exact:.1f}", size, runs)
        assert grim.fits(f"{per_run:.2f}", size, runs, per_run_rounding=True)


def test_fits_agrees_with_trying_every_count():
    attainable = {f"{100 * k / 457:.2f}" for k in range(458)}
    texts = [f"{t / 100:.2f}" for t in range(0, 10001, 7)]
    assert [t for t in texts if grim.fits(t, 457, 1)] == [t for t in texts if t in attainable]
    every = [f"{t / 100:.2f}" for t in range(10001)]
    assert grim.chance(2, 457, 1) == pytest.approx(np.mean([grim.fits(t, 457, 1) for t in every]))
    assert grim.chance(1, 457, 5) == 1.0  # a tenth of a per cent tells nothing about five runs on 457 samples


def test_explain_finds_the_size_and_the_number_of_runs():
    right = np.random.default_rng(1).integers(520, 600, 20)
    best = grim.explain([f"{100 * k / 655:.2f}" for k in right], range(640, 671)).iloc[0]
    assert (best["size"], best["runs"], best["passed"]) == (655, 1, best["cells"])
    assert best["p_all"] < 1e-9
    noise = np.random.default_rng(2).uniform(80, 85, 20)
    assert grim.explain([f"{x:.2f}" for x in noise], range(640, 671))["p_all"].iloc[0] > 0.01


def test_a_printed_mean_that_cannot_be_is_named_with_its_assumption():
    right = np.random.default_rng(3).integers(330, 370, (6, 5))
    means = [cell("acc2", f"{100 * r.mean() / 457:.2f}", dataset="sims", method=str(i)) for i, r in enumerate(right)]
    assert not list(grim.check(frame(*means)))
    more = frame(*means, cell("acc2", "79.42", dataset="sims", method="x"))
    (found,) = grim.check(more)
    assert found.cells == ("msmix-t1/sims/TFN/x//acc2",) and found.level == "impossible"
    assert "mean of 5 runs on 457 test samples" in found.assumption
    (open_ended,) = grim.check(more.assign(artefact="powmix-t2"))
    assert open_ended.level == "implausible" and "at least five" in open_ended.assumption


# --- one set of predictions ----------------------------------------------------------------------------------------

@pytest.mark.parametrize("swapped", [False, True])
def test_the_f1_range_holds_every_set_of_predictions_and_is_tight(swapped):
    positive, negative, right = 12, 20, 24
    values = []
    for tp in range(right - negative, positive + 1):
        tn = right - tp
        truth = [1] * positive + [0] * negative
        guess = [1] * tp + [0] * (positive - tp) + [0] * tn + [1] * (negative - tn)
        pair = (guess, truth) if swapped else (truth, guess)
        values.append(f1_score(*pair, average="weighted", zero_division=0.0))
    low, high = pairs.f1_range(right / 32, positive, negative, swapped)
    assert low <= min(values) + 1e-9 and max(values) <= high + 1e-9
    assert low == pytest.approx(min(values), abs=1e-6) and high == pytest.approx(max(values), abs=5e-3)


def test_f1_beyond_what_accuracy_allows_is_found():
    row = [cell("non0_acc2", "78.48"), cell("non0_f1", "79.50")]
    (found,) = [f for f in pairs.check(frame(*row)) if f.check == "f1-accuracy"]
    assert "swapped" in found.arithmetic and found.level == "implausible"
    (worse,) = [f for f in pairs.check(frame(row[0], cell("non0_f1", "83.00"))) if f.check == "f1-accuracy"]
    assert worse.level == "impossible"
    assert not list(pairs.check(frame(row[0], cell("non0_f1", "78.40"))))


def test_has0_and_non0_must_leave_a_possible_number_of_neutral_samples():
    ok = [cell("non0_acc2", "80.00"), cell("has0_acc2", "79.00")]  # 541.9 - 524.8 = 17.1 of 30
    assert not list(pairs.check(frame(*ok)))
    (found,) = pairs.check(frame(ok[0], cell("has0_acc2", "82.00")))  # 37.7 of 30
    assert found.check == "has0-non0" and "37.7" in found.arithmetic


def test_finer_classes_are_never_easier_and_constants_are_beaten():
    row = frame(cell("acc5", "40.00"), cell("acc7", "41.00"), cell("mae", "1.400", unit="1"))
    assert {f.check for f in pairs.check(row)} == {"nested-classes", "constant-predictor"}


# --- spread --------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("ddof", [0, 1])
def test_every_true_spread_passes_grimmer(ddof):
    for right in np.random.default_rng(4).integers(520, 545, (200, 5)):
        share = 100 * right / 686
        assert spread.std_fits(f"{share.mean():.2f}", f"{share.std(ddof=ddof):.2f}", 686, 5, ddof)


def test_grimmer_agrees_with_trying_every_set_of_three_runs():
    """N = 20, n = 3, sum 45: which std of a mean of 75 % can be printed?"""
    sets = [(a, b, c) for a, b, c in product(range(21), repeat=3) if a + b + c == 45]
    possible = {f"{np.std([5 * k for k in s], ddof=1):.2f}" for s in sets}
    claimed = {f"{t / 100:.2f}" for t in range(0, 5000) if spread.std_fits("75.00", f"{t / 100:.2f}", 20, 3)}
    assert possible <= claimed and len(claimed) <= 100  # of 5,000: whole sums of squares of the right parity
    assert not spread.std_fits("75.00", "1.00", 20, 3)


def test_a_lost_digit_stands_out():
    rows = [cell("mae", "0.900", f"0.00{i}", method=f"m{i}", unit="1") for i in range(3, 9)]
    (found,) = spread.check(frame(*rows, cell("mae", "0.876", "0.04", method="x", unit="1")))
    assert found.cells[0].endswith("/x//mae") and "fewer decimals" in found.arithmetic


# --- marks, duplicates, series, p-values ---------------------------------------------------------------------------

def test_bold_and_underline_are_judged_in_the_scope_that_fits():
    rows = [cell("avg", m, backbone=b, method=x, bold=m in ("70.00", "60.00", "80.00")) for b, x, m in (
        ("TFN", "a", "60.00"), ("TFN", "b", "59.00"), ("LMF", "a", "69.00"), ("LMF", "b", "70.00"),
        ("MISA", "a", "79.00"), ("MISA", "b", "80.00"), ("ALMT", "a", "80.00"), ("ALMT", "b", "78.00"))]
    assert not list(marks.check(frame(*rows)))  # the best of each backbone
    moved = frame(*rows).assign(bold=[False, True, False, True, False, True, True, False])
    (found,) = marks.check(moved)
    assert found.level == "disagrees" and "one backbone" in found.assumption and found.printed == "bold 59.00"
    second = frame(*rows).assign(underline=[True] + 7 * [False])
    assert [f.check for f in marks.check(second)] == ["underline"]


def test_identical_and_repeated_rows():
    def row(variant, *values, artefact="cpsl-t2", method="Ours"):
        return [cell(m, v, artefact=artefact, variant=variant, backbone="", method=method, n=None, unit=u)
                for m, v, u in zip(("non0_acc2", "non0_f1", "mae", "corr"), values, ("%", "%", "1", "%"))]

    rng = np.random.default_rng(5)
    numbers = rng.uniform((80, 80, 0.6, 80), (90, 90, 0.9, 90), (8, 4))
    table = [
        c for i, (a, f, m, r) in enumerate(numbers) for c in row(f"r{i}", f"{a:.2f}", f"{f:.2f}", f"{m:.4f}", f"{r:.2f}")
    ]
    assert not list(duplicates.check(frame(*table)))
    copied = row("copy", *(c["mean_text"] for c in table[:4]))
    (found,) = duplicates.check(frame(*table, *copied))
    assert found.check == "identical-rows" and "r0" in found.arithmetic and "copy" in found.arithmetic
    elsewhere = row("", *(c["mean_text"] for c in table[:3]), "12.34", artefact="cpsl-t1")
    (found,) = duplicates.check(frame(*table, *elsewhere))
    assert found.check == "repeated-row" and found.printed == f"corr {table[3]['mean_text']} and 12.34"


def test_a_step_against_the_trend():
    def curve(*values):
        return frame(*(cell("mae", v, variant=f"NR=0.{i}", unit="1") for i, v in enumerate(values, 1)))

    assert not list(series.check(curve("0.70", "0.80", "0.78", "0.95", "1.10")))
    (found,) = series.check(curve("0.70", "1.60", "1.10", "1.70", "3.00"))
    assert found.printed == "mae 1.60 at NR=0.2, 1.10 at NR=0.3"


def test_the_spread_behind_a_p_value_is_recovered(printed):
    needed = pvalues.implied_spread(printed).set_index(["dataset", "metric", "other"])["spread"]
    assert len(needed) == 24
    assert needed["mosi", "acc7", "ITHP"] == pytest.approx(0.97, abs=0.005)
    assert needed["mosi", "mae", "Multimodal Boosting"] == pytest.approx(0.0085, abs=0.0001)
    assert needed["mosei", "corr", "Multimodal Boosting"] == pytest.approx(0.013, abs=0.0005)


def test_the_welch_range_holds_the_p_of_the_printed_numbers():
    a, b = cell("avg", "73.69", "0.27"), cell("avg", "73.33", "0.23", method="x")
    low, high = pvalues.welch_range(a, b)
    assert low < 0.0537 < high and high - low < 0.03


# --- no false alarm ------------------------------------------------------------------------------------------------

def test_numbers_that_five_real_runs_gave_are_never_called_impossible():
    """20 rows of five simulated classifiers on MOSI's labels, printed as the papers print."""
    rng, test = np.random.default_rng(6), TEST_SETS["mosi"]
    truth = np.repeat([1.0, 0.0, -1.0], [test.positive, test.neutral, test.negative])
    cells = []
    for i in range(20):
        runs = []
        for _ in range(5):
            score = truth + rng.normal(rng.normal(0, 0.2), 1.1, len(truth))
            polar = truth != 0
            binary = {
                "non0_acc2": ((score > 0) == (truth > 0))[polar].mean(),
                "has0_acc2": ((score >= 0) == (truth >= 0)).mean(),
                "non0_f1": f1_score(truth[polar] > 0, score[polar] > 0, average="weighted"),
                "has0_f1": f1_score(truth >= 0, score >= 0, average="weighted"),
            }
            values = {**binary, "acc5": (np.round(score) == truth).mean()}
            runs.append({**values, "avg": float(np.mean(list(values.values())))})
        for m in runs[0]:
            x = np.array([round(100 * r[m], 2) for r in runs])
            cells.append(cell(m, f"{x.mean():.2f}", f"{x.std(ddof=1):.2f}", method=f"m{i}"))
    assert "impossible" not in set(audit(frame(*cells))["level"])


# --- the papers ----------------------------------------------------------------------------------------------------

def test_the_audit_finds_what_the_papers_arithmetic_shows(findings):
    impossible = findings[findings["level"] == "impossible"]
    averages_off = impossible[impossible["check"] == "average"]["cells"].str.split("; ").str[0]
    assert set(averages_off) == {
        "msmix-t2/mosei/MISA/Manifold Mix//avg", "msmix-t2/mosei/ALMT/Manifold Mix//avg",
        "samlml-t5/mosi//MMIN/Avg./acc7",
    }
    identical = set(findings[findings["check"] == "identical-rows"]["arithmetic"].str.extract(r"^(.*?) agree")[0])
    assert "mosei MulT + plain reported (powmix-t2) and mosei MISA + plain reported (powmix-t2)" in identical

    def text(check):
        return " ".join(findings[findings["check"] == check][["printed", "expected", "arithmetic"]].to_numpy().ravel())

    assert "0.876 +- 0.04" in text("std-outlier")
    assert "N = 655, n = 1" in text("grim-search")
    assert "27 of 30 are k/457" in text("grim-single")
    assert "0 of 5 cells" in text("quoted-row")  # MulT on SIMS in MS-Mix
    assert "corr 0.631 and 0.632" in text("repeated-row")
    assert "Self-MM_b" in text("convention")
    assert "corr is a fraction in cpsl-t1 and a percentage in cpsl-t2" in text("units")
    assert "those of ALMT (2 of 2: corr, mae)" in text("text-table")
    assert "those of C-MIB (1 of 1: non0_acc2)" in text("text-table")
    assert "those of SLaD omega + L_con + L_ml (3 of 3: acc2, f1, mae)" in text("text-table")
    assert all(word in text("text-missing") for word in ("UniMSE", "variant omega", "SIMS"))
    assert "24 of 38 (msmix) and 32 of 32 (powmix)" in text("two-gains")
    assert "acc5 46.8 / 48.6" in text("same-training")
    assert "4 of 24 differences" in text("p-value")
    assert "bold 32.8" in text("bold")


def test_pass_rates_of_the_papers_accuracies(printed):
    rates = grim_totals(grim_table(printed)).set_index(["artefact", "dataset", "rows", "runs"])
    expected = {  # artefact, dataset, rows, runs: cells, strictly, loosely
        ("msmix-t1", "mosi", "own", 5): (128, 47, 100), ("msmix-t3", "sims", "own", 5): (99, 17, 31),
        ("msmix-t4", "mosi", "own", 5): (32, 9, 21), ("msmix-t1", "mosi", "quoted", 5): (16, 15, 16),
        ("msmix-t3", "sims", "quoted", 5): (9, 9, 9), ("powmix-t2", "mosi", "own", 5): (36, 21, 24),
        ("powmix-t2", "sims", "own", 5): (12, 6, 6), ("slad-t3", "sims", "own", 1): (30, 27, 29),
        ("cpsl-t2", "mosi", "own", 1): (17, 0, 0),
    }
    for where, numbers in expected.items():
        assert tuple(rates.loc[where, ["cells", "strict", "loose"]]) == numbers, where
    assert rates.loc[("msmix-t3", "sims", "own", 5), "strict_chance"] == pytest.approx(0.23, abs=0.005)
    assert rates.loc[("msmix-t3", "sims", "own", 5), "loose_chance"] == pytest.approx(0.46, abs=0.005)


def test_findings_name_cells_that_exist_and_an_assumption(findings, printed):
    ids = set(printed["cell_id"])
    for line in findings.itertuples():
        assert set(filter(None, line.cells.split("; "))) <= ids, line.check
        assert line.assumption and line.arithmetic and line.printed and line.level in LEVELS
    accusing = findings["arithmetic"].str.contains("fabricat|cheat|fraud|wrong|error by", case=False)
    assert not accusing.any()


def test_summary_and_csv(findings, tmp_path):
    counts = summary(findings)
    assert counts["all"].sum() == len(findings) and counts.loc["average", "impossible"] == 3
    again = pd.read_csv(write_csv(findings, tmp_path / "audit"), keep_default_na=False)
    assert list(again["check"]) == list(findings["check"]) and len(again.columns) == 8


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path, findings):
    (tmp_path / "file").touch()
    with pytest.raises(BenchError, match="cannot write .*findings.csv: file exists; name another folder with --out"):
        write_csv(findings, tmp_path / "file")


def test_the_audit_is_quick_and_needs_no_torch(timed):
    assert timed[1] < 10
    code = "import sys, bench.analysis.audit, bench.analysis.claims; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_empty_and_partial_frames_give_no_finding(printed):
    assert audit(frame(), tuple(c for c in CHECKS if c != "text")).empty
    assert not list(quotes.text_against_table([], printed))
    assert audit(printed[printed["artefact"] == "samlml-t7"], tuple(c for c in CHECKS if c != "text")).empty


# --- cells ---------------------------------------------------------------------------------------------------------

def test_cells_helpers():
    assert half_unit("84.50") == pytest.approx(0.005) and half_unit("3.68e-4") == pytest.approx(5e-7)
    assert number("xi_1=0.7, xi_2=0.5") == 0.7 and number("MR=0.3") == 0.3
    assert label(cell("avg", "1.0", method="MS-Mix", variant="x")) == "mosi TFN + MS-Mix x"
    assert samples("mosi", "non0_acc2") == 656 and samples("mosi", "acc7") == 686
    assert samples("mustard", "accuracy") is None
    row = cell("avg", "1.0", variant="NR=0.5", method="A")
    assert selects({"variant": "NR=*", "method": "!B"})(row) and selects({"x": [0.1, 0.5]})(row)
    assert not selects({"method": ["A", "!A"]})(row) and not selects({"backbone": ""})(row)
    with pytest.raises(KeyError):
        selects({"colour": "red"})(row)


# --- no false alarm, sizes that nobody states, bounds that one can see ----------------------------------------------

def test_rows_that_the_ledger_calls_one_configuration_are_no_oddity(findings):
    alarms = findings[findings["check"].isin(["identical-rows", "shared-cells"])]["arithmetic"].tolist()
    assert not any(f"Ours {a} (cpsl-t2) and mosi Ours {b}" in x for x in alarms for a, b in (("A1", "B1"), ("A2", "C3"), ("A5", "C4")))
    assert any("MulT + plain reported" in x for x in alarms)  # a copied row stays one


def test_a_test_set_of_unknown_size_is_searched_for(findings):
    """MUStARD's accuracies are shares of 68, which no paper states."""
    (line,) = findings[findings["check"] == "grim-size"].to_dict("records")
    assert line["artefact"] == "samlml-t3" and line["expected"] == "a test set of N = 68"
    assert "4 of 5 distinct values are k/68 rounded, where chance gives 6%" in line["arithmetic"]


def test_a_bound_that_rounding_would_hide_is_printed_with_the_digits_it_takes(findings):
    lines = findings[(findings["check"] == "f1-accuracy") & (findings["artefact"] == "msmix-t2")].iloc[0]
    assert "F1 81.18 at" in lines["printed"] and "[75.754, 81.175], missed by 0.005" in lines["expected"]
    assert "[83.77, 85.20]" in lines["expected"]
