"""Claims: the ledger, each predicate on small tables, the papers' own numbers, and runs whose truth is planted."""

import numpy as np
import pandas as pd
import pytest

from bench.analysis import reported
from bench.analysis.cells import KEY, as_fraction, by_key
from bench.analysis.claims import (
    CONTRADICTED,
    FAILS,
    HOLDS,
    KINDS,
    PARTLY,
    REPRODUCED,
    UNDECIDED,
    UNTESTABLE,
    load,
    on_reported,
    on_runs,
    parse,
    read,
)
from bench.analysis.claims.verdict import FALSE, MISSING, OPEN, TRUE, conjunction, of_claim, of_group, shown
from bench.errors import BenchError
from bench.experiments import all_experiments
from benchmarks import null_claims

SEEDS = (1111, 1112, 1113, 1114, 1115)
METHODS = ("plain", "PowMix", "MS-Mix")


def table(rows, artefact="msmix-t1", backbone="LMF", n=5, dataset="mosi"):
    """A printed table: rows maps (method or variant) -> {metric: "mean" or "mean +- std"}; variants start with "=".."""
    lines = []
    for name, cells in rows.items():
        method, variant = ("", name[1:]) if name.startswith("=") else (name, "")
        for metric, text in cells.items():
            mean, _, std = text.partition(" +- ")
            lines.append({
                "artefact": artefact, "dataset": dataset, "backbone": backbone, "method": method, "variant": variant,
                "metric": metric, "unit": "1" if metric == "mae" else "%", "mean": float(mean), "mean_text": mean,
                "std": float(std) if std else float("nan"), "std_text": std, "n": n,
                "cell_id": f"{artefact}/{method}{variant}/{metric}",
            })
    return pd.DataFrame(lines)


def claim(**fields):
    return parse({"id": "x-c01", "where": "Sec. 1", "says": "something", **fields})


def verdict(frame, **fields):
    (line,) = on_reported([claim(**fields)], frame).to_dict("records")
    return line["verdict"], line["k"], line["n"]


SMALL = table({
    "plain": {"avg": "70.00", "mae": "0.900", "acc7": "40.0"},
    "PowMix": {"avg": "71.00 +- 0.20", "mae": "0.880", "acc7": "41.0"},
    "MS-Mix": {"avg": "71.50 +- 0.20", "mae": "0.880", "acc7": "40.5"},
})
OURS = {"row": {"method": "MS-Mix"}}
OVER_PLAIN = {**OURS, "against": {"method": "plain"}}


# --- the ledger ----------------------------------------------------------------------------------------------------

def test_the_ledger_holds_the_papers_claims():
    claims = load()
    papers = pd.Series([c.paper for c in claims]).value_counts().to_dict()
    assert papers == {"msmix": 29, "powmix": 29, "slad": 33, "samlml": 36, "cpsl": 25}
    forms = pd.Series([c.form for c in claims]).value_counts().to_dict()
    assert forms == {"stated": 127, "reading": 17, "cross-check": 8}
    assert len({c.id for c in claims}) == 152 and all(c.says.endswith(".") and c.where for c in claims)


@pytest.mark.parametrize(("change", "message"), [
    ({"kind": "bset"}, "kind 'bset' is none of"),
    ({"colour": 1}, "unknown field 'colour'"),
    ({"form": "guess"}, "form 'guess' is none of"),
    ({"on": "paper"}, "on 'paper' is none of"),
    ({"kind": "difference"}, "needs 'expect'"),
    ({"kind": "untestable"}, "needs a 'reason'"),
    ({"says": None}, "has no 'says'"),
])
def test_a_malformed_claim_is_named_in_one_line(change, message):
    entry = {"id": "x-c01", "where": "Sec. 1", "says": "s", "kind": "best", **change}
    with pytest.raises(BenchError, match=message) as error:
        parse({k: v for k, v in entry.items() if v is not None}, "x.toml")
    assert "x-c01" in str(error.value) and "\n" not in str(error.value)


def test_a_ledger_file_is_checked(tmp_path):
    with pytest.raises(BenchError, match="no ledger"):
        read(tmp_path / "x.toml")
    entry = '[[claim]]\nid = "x-c01"\nwhere = "Sec. 1"\nsays = "s"\nkind = "best"\n'
    (tmp_path / "x.toml").write_text(entry, encoding="utf-8")
    assert [c.id for c in read(tmp_path / "x.toml")] == ["x-c01"]
    (tmp_path / "x.toml").write_text(entry * 2, encoding="utf-8")
    with pytest.raises(BenchError, match="'x-c01' occurs twice"):
        read(tmp_path / "x.toml")
    (tmp_path / "x.toml").write_text("[[claim]", encoding="utf-8")
    with pytest.raises(BenchError, match="not valid TOML"):
        read(tmp_path / "x.toml")


def test_every_kind_of_predicate_is_used_or_tested_here():
    used = {part.kind for c in load() for part in c.parts}
    assert set(KINDS) - used == {"untestable"}


# --- predicates on printed numbers ---------------------------------------------------------------------------------

@pytest.mark.parametrize(("fields", "expected"), [
    ({"kind": "best", "metrics": ["avg"], **OURS}, (HOLDS, 1, 1)),
    ({"kind": "best", "metrics": ["mae"], **OURS}, (FAILS, 0, 1)),  # a tie is not better
    ({"kind": "best", "metrics": ["mae"], "ties": True, **OURS}, (HOLDS, 1, 1)),
    ({"kind": "rank", "at_most": 1, **OURS}, (FAILS, 2, 3)),  # a tie does not count against it
    ({"kind": "rank", "at_most": 2, **OURS}, (HOLDS, 3, 3)),
    ({"kind": "better", **OVER_PLAIN}, (HOLDS, 3, 3)),
    ({"kind": "better", "margin": {"avg": 2.0}, **OVER_PLAIN}, (FAILS, 2, 3)),
    ({"kind": "better", "need": "majority", **OURS}, (HOLDS, 4, 6)),
    ({"kind": "better", "need": 4, **OURS}, (HOLDS, 4, 6)),
    ({"kind": "better", "need": {"share": 0.67, "within": 0.005}, **OURS}, (HOLDS, 4, 6)),
    ({"kind": "better", "need": "any", "row": {"method": "plain"}}, (FAILS, 0, 6)),
    ({"kind": "worst", "row": {"method": "plain"}}, (HOLDS, 3, 3)),
    ({"kind": "beaten", "metrics": ["acc7"], **OURS}, (HOLDS, 1, 1)),
    ({"kind": "beats", "metrics": ["acc7"], "row": {"method": "plain"}}, (FAILS, 0, 1)),
    ({"kind": "difference", "expect": {"avg": 1.5, "mae": 0.02}, **OVER_PLAIN}, (HOLDS, 2, 2)),
    ({"kind": "difference", "expect": {"avg": 1.7}, **OVER_PLAIN}, (FAILS, 0, 1)),
    ({"kind": "difference", "expect": {"avg": "1.495"}, **OVER_PLAIN}, (UNDECIDED, 0, 1)),
    ({"kind": "difference", "expect": {"avg": 1.7}, "tolerance": 0.2, **OVER_PLAIN}, (HOLDS, 1, 1)),
    ({"kind": "change", "expect": {"mae": [-3, -2]}, **OVER_PLAIN}, (HOLDS, 1, 1)),
    ({"kind": "comparable", **OURS, "against": {"method": "PowMix"}, "margin": {"avg": 0.6, "acc7": 0.4}},
     (FAILS, 2, 3)),
    ({"kind": "value", "expect": {"avg": 71.5}, **OURS}, (HOLDS, 1, 1)),
    ({"kind": "value", "expect": {"avg": [0, 71]}, **OURS}, (FAILS, 0, 1)),
    ({"kind": "significant", "metrics": ["avg"], **OURS}, (HOLDS, 1, 1)),  # Welch p = 0.004
    ({"kind": "steadier", "metrics": ["avg"], "against": {"method": "PowMix"}, **OURS}, (HOLDS, 1, 1)),
    ({"kind": "best", "metrics": ["avg"], "row": {"method": "SLaD"}}, (UNTESTABLE, 0, 1)),
    ({"kind": "untestable", "reason": "the measure is not defined"}, (UNTESTABLE, 0, 1)),
    ({"kind": "contrast", "of": {"metric": "avg"}, "expect": [0, float("inf")],
      "terms": [{"method": "MS-Mix"}, {"weight": -1, "method": "!MS-Mix", "pick": "best"}]}, (HOLDS, 1, 1)),
    ({"kind": "contrast", "of": {"metric": "avg"}, "expect": 0.4,
      "terms": [{"method": "MS-Mix"}, {"weight": -1, "const": 71.1}]}, (HOLDS, 1, 1)),
])
def test_predicates(fields, expected):
    assert verdict(SMALL, **fields) == expected


def test_a_series_a_peak_and_printed_changes():
    curve = table({f"=NR=0.{i}": {"non0_acc2": v} for i, v in enumerate(("88.0", "88.4", "87.0", "87.0"), 1)})
    order = ["NR=0.1", "NR=0.2", "NR=0.3", "NR=0.4"]
    assert verdict(curve, kind="monotone", order=order, trend="worse") == (FAILS, 1, 3)
    assert verdict(curve, kind="monotone", order=order[1:], trend="worse", ties=True) == (HOLDS, 2, 2)
    assert verdict(curve, kind="best", row={"x": 0.2}) == (HOLDS, 1, 1)
    assert verdict(curve, kind="monotone", order=[*order, "NR=0.5"], trend="worse")[0] == FAILS
    changes = table({"=full": {"acc2": "81.6"}, "=a": {"acc2": "77.9", "acc2_change": "-4.55"},
                     "=b": {"acc2": "76.2", "acc2_change": "-4.61"}})
    # computed -4.53, which rounding allows to be printed as -4.55, and -6.62, which it does not
    assert verdict(changes, kind="printed_change", against={"variant": "full"}) == (FAILS, 1, 2)


def test_equal_compares_at_the_coarser_rounding_and_across_units():
    one = table({"Ours": {"mae": "0.638", "corr": "0.864"}}, artefact="cpsl-t1").assign(unit="1")
    two = table({"=A6": {"mae": "0.6379", "corr": "86.44"}}, artefact="cpsl-t2").assign(unit=["1", "%"])
    same = {"kind": "equal", "by": ["dataset"], "row": {"artefact": "cpsl-t2"}, "against": {"artefact": "cpsl-t1"}}
    assert verdict(pd.concat([one, two]), **same) == (HOLDS, 2, 2)
    moved = two.assign(mean=[0.6379, 86.61], mean_text=["0.6379", "86.61"])
    assert verdict(pd.concat([one, moved]), **same) == (FAILS, 1, 2)


def test_the_arithmetic_names_cells_and_numbers():
    line = on_reported([claim(kind="best", metrics=["acc7"], **OURS)], SMALL).iloc[0]
    assert line["arithmetic"] == "0 of 1: not msmix-t1 mosi LMF + MS-Mix, Acc7 (40.5 against 41.0)"
    assert line["cells"] == "msmix-t1/MS-Mix/acc7; msmix-t1/PowMix/acc7"
    gap = on_reported([claim(kind="difference", expect={"avg": 1.7}, **OVER_PLAIN)], SMALL).iloc[0]
    assert "71.50 against 70.00: 1.5, the text says 1.7" in gap["arithmetic"]


@pytest.mark.parametrize(("states", "need", "expected"), [
    ([TRUE, TRUE], "all", HOLDS), ([TRUE, FALSE, OPEN], "all", FAILS), ([TRUE, OPEN], "all", UNDECIDED),
    ([TRUE, MISSING], "all", UNTESTABLE), ([MISSING, MISSING], "any", UNTESTABLE), ([], "all", UNTESTABLE),
    ([TRUE, MISSING, FALSE], "any", HOLDS), ([FALSE, OPEN], "any", UNDECIDED), ([FALSE, FALSE], "any", FAILS),
    ([TRUE, TRUE, OPEN], "majority", HOLDS), ([TRUE, FALSE], "majority", FAILS),
    ([TRUE, OPEN, FALSE], "majority", UNDECIDED),
    ([TRUE, TRUE, FALSE], 2, HOLDS), ([TRUE, TRUE, TRUE], 2, HOLDS), ([TRUE, OPEN, FALSE], 2, UNDECIDED),
    ([TRUE, FALSE, FALSE], 2, FAILS),
    ([TRUE, FALSE, FALSE, FALSE], {"share": 0.25, "within": 0.01}, HOLDS),
    ([TRUE, OPEN], {"share": 0.5, "within": 0.01}, UNDECIDED),
])
def test_what_a_claim_needs(states, need, expected):
    assert of_claim(states, need) == expected


def test_what_a_group_needs():
    assert of_group([TRUE, FALSE], allowed=1) == TRUE and of_group([FALSE, FALSE], allowed=1) == FALSE
    assert of_group([TRUE, FALSE, OPEN], allowed=1) == OPEN and of_group([TRUE, MISSING], allowed=0) == MISSING
    assert of_group([FALSE, MISSING], allowed=0) == FALSE


# --- the papers' own numbers ---------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def printed():
    return reported.load()


@pytest.fixture(scope="module")
def world(printed):
    return null_claims.World(all_experiments().values(), printed)


@pytest.fixture(scope="module")
def own(printed):
    return on_reported(load(), printed).set_index("id")


def test_verdicts_on_the_papers_own_numbers(own):
    counts = own.groupby("paper")["verdict"].value_counts().unstack(fill_value=0)
    assert counts[HOLDS].to_dict() == {"msmix": 6, "powmix": 13, "slad": 16, "samlml": 24, "cpsl": 14}
    assert counts[FAILS].to_dict() == {"msmix": 12, "powmix": 4, "slad": 11, "samlml": 7, "cpsl": 6}
    assert counts[UNTESTABLE].to_dict() == {"msmix": 11, "powmix": 12, "slad": 6, "samlml": 5, "cpsl": 5}
    assert UNDECIDED not in counts


@pytest.mark.parametrize(("name", "k", "n"), [
    ("msmix-c01", 18, 18), ("msmix-c02", 128, 132), ("msmix-c07", 8, 18), ("msmix-c08", 6, 18), ("msmix-c13", 14, 72),
    ("powmix-c01", 48, 48), ("powmix-c02", 54, 96), ("powmix-c04", 90, 90), ("powmix-c11", 32, 36),
    ("slad-c01", 11, 12),
    ("slad-c11", 19, 20), ("slad-c19", 0, 5), ("slad-c20", 67, 70), ("samlml-c13", 27, 42), ("samlml-c17", 35, 36),
    ("samlml-c28", 20, 24), ("samlml-c29", 12, 18), ("cpsl-c10", 16, 20), ("cpsl-c12", 64, 64), ("cpsl-c19", 6, 8),
])
def test_counts_on_the_papers_own_numbers(own, name, k, n):
    assert (own.loc[name, "k"], own.loc[name, "n"]) == (k, n)


def test_a_claim_about_a_row_that_is_not_printed_says_so(own):
    assert "variant omega" in own.loc["slad-c15", "arithmetic"]
    assert "UniMSE" in own.loc["cpsl-c04", "arithmetic"]
    assert own.loc["msmix-c19", "verdict"] == UNTESTABLE and "msmix-f5" in own.loc["msmix-c19", "arithmetic"]


# --- runs whose truth is planted -----------------------------------------------------------------------------------

N = len(SEEDS)


def runs(gains, n=N, sd=0.3, metric="avg", noise=7, rows=METHODS, artefact="msmix-t1", base=70.0):
    """Runs with a seed effect shared by all rows, and noise of its own size `sd` per run; gains: row -> true gain.
    All of it in points of a percentage."""
    rng = np.random.default_rng(noise)
    shared = rng.normal(0, 1.0, n)
    return pd.DataFrame([
        {"artefact": artefact, "dataset": "mosi", "backbone": "LMF", "method": "" if r.startswith("=") else r,
         "variant": r[1:] if r.startswith("=") else "", "metric": metric, "seed": seed, "value": (base + shared[i] + x) / 100}
        for r in rows for i, (seed, x) in enumerate(zip(SEEDS[:n], gains.get(r, 0.0) + rng.normal(0, sd, n)))
    ])


def judged(results, provenance="official", printed_table=SMALL, **fields):
    (line,) = on_runs([claim(**fields)], results, printed_table, provenance).to_dict("records")
    return line


BEST = {"kind": "best", "metrics": ["avg"], "of": {"artefact": "msmix-t1"}, **OURS}


def test_a_large_gain_is_reproduced_its_reverse_contradicted_and_none_undecided():
    held = judged(runs({"MS-Mix": 3.0}), **BEST)
    assert (held["verdict"], held["k"], held["n"], held["tested"], held["seeds"]) == (REPRODUCED, 1, 1, 1, 5)
    assert (held["direction"], held["significant"], held["opposite"]) == (2, 2, 0)
    failed = judged(runs({"MS-Mix": -3.0}), **BEST)
    assert failed["verdict"] == CONTRADICTED and failed["opposite"] == 2 and "Against it: msmix-t1" in failed["arithmetic"]
    level = judged(runs({}), **BEST)
    assert level["verdict"] == UNDECIDED and level["significant"] == level["opposite"] == 0
    assert 0 < level["power"] < 1 and level["seeds_needed"] >= 2  # to see the printed lead of 0.5 and 1.5


def test_one_cell_against_it_is_enough_to_contradict_all_and_not_any():
    results = runs({"MS-Mix": 3.0, "PowMix": 6.0})
    both = {"kind": "better", "metrics": ["avg"], "of": {"artefact": "msmix-t1"}, **OURS}
    assert judged(results, **both)["verdict"] == PARTLY  # one of two is shown, the other's contrary too
    assert judged(results, **BEST)["verdict"] == CONTRADICTED
    assert judged(results, need="any", **both)["verdict"] == REPRODUCED
    assert judged(results, **{**BEST, "kind": "rank", "at_most": 2})["verdict"] == REPRODUCED
    assert judged(results, **{**BEST, "kind": "rank", "at_most": 1})["verdict"] == CONTRADICTED


def test_missing_and_diverged_runs_are_named_and_never_averaged():
    results = runs({"MS-Mix": 3.0})
    lacking = judged(results[results["method"] != "PowMix"], **BEST)
    assert lacking["verdict"] == UNDECIDED and "msmix-t1 mosi LMF + PowMix, Avg" in lacking["arithmetic"]
    assert judged(results.iloc[:0], **BEST)["verdict"] == UNTESTABLE
    hole = results.assign(value=results["value"].where(results.index != results.index[-1]))
    diverged = judged(hole, **BEST)
    assert diverged["verdict"] == UNTESTABLE and "a finite value in every run of msmix-t1 mosi LMF" in diverged["arithmetic"]
    many = judged(results[results["method"] == "MS-Mix"], **{**BEST, "metrics": ["avg", "acc7"]})["arithmetic"]
    assert "Missing: 5 numbers of LMF on MOSI (msmix-t1)." in many
    worse = runs({"MS-Mix": -3.0})
    one_loss = judged(worse[worse["method"] != "PowMix"], **{**BEST, "kind": "better"})
    assert one_loss["verdict"] == CONTRADICTED  # whatever the missing runs would show
    assert (one_loss["tested"], one_loss["n"], one_loss["missing"]) == (1, 2, 1)
    assert "Tested 1 of 2 cells" in one_loss["arithmetic"]


def test_what_was_run_can_contradict_a_claim_but_not_reproduce_it_in_full():
    won = runs({"MS-Mix": 3.0})
    part = judged(won[won["method"] != "PowMix"], **{**BEST, "kind": "better"})
    assert (part["verdict"], part["k"], part["tested"], part["n"]) == (PARTLY, 1, 1, 2)


def test_one_seed_decides_nothing():
    assert judged(runs({"MS-Mix": 3.0}, n=1), **BEST)["verdict"] == UNDECIDED


def test_pairing_by_seed_sees_what_unpaired_means_would_not():
    """The shared seed effect (std 1) is larger than the gain (0.9); the paired noise (0.1) is not."""
    results = runs({"MS-Mix": 0.9}, sd=0.1)
    shuffled = results.assign(seed=results.groupby("method")["seed"].transform(lambda s: np.roll(s, ord(s.name[0]))))
    assert judged(results, **BEST)["verdict"] == REPRODUCED
    assert judged(shuffled, **BEST)["verdict"] == UNDECIDED


def test_errors_are_better_when_lower():
    results = runs({"MS-Mix": -0.5}, metric="mae", sd=0.05)
    assert judged(results, **{**BEST, "metrics": ["mae"]})["verdict"] == REPRODUCED


def test_holm_guards_a_claim_of_many_cells():
    """Under no effect 20 comparisons at 5 % give a false one more often than not; adjusted, one time in twenty."""
    claims, wrong = claim(kind="better", of={"artefact": "msmix-t1"}, **OVER_PLAIN), 0
    for noise in range(10):
        frames = [runs({}, metric=f"m{i}", noise=100 * noise + i, rows=("plain", "MS-Mix")) for i in range(20)]
        line = on_runs([claims], pd.concat(frames), SMALL.iloc[:0]).iloc[0]
        wrong += line["verdict"] != UNDECIDED
    assert wrong <= 2


def test_a_tie_is_not_certainty():
    """Two seeds whose difference is exactly one test item of 656: nothing has been tested."""
    two = runs({}, n=2, sd=0.0, rows=("plain", "MS-Mix"))
    item = two.assign(value=[0.75, 0.76, 0.75 - 1 / 656, 0.76 - 1 / 656])
    for kind in ("best", "better"):
        line = judged(item, **{**BEST, "kind": kind, **OVER_PLAIN})
        assert (line["verdict"], line["opposite"]) == (UNDECIDED, 0)
    assert judged(item, kind="monotone", of={"artefact": "msmix-t1"}, by=["metric"],
                  order=[{"method": "plain"}, {"method": "MS-Mix"}], trend="worse")["verdict"] == UNDECIDED
    other = item.assign(backbone="TFN", value=[0.75, 0.76, 0.74, 0.755])
    both = judged(pd.concat([item, other]), **{**BEST, "kind": "better", **OVER_PLAIN})  # one unit ties, one does not
    alone = judged(other, **{**BEST, "kind": "better", "of": {"backbone": "TFN"}, **OVER_PLAIN})
    assert both["units"] == 2 and both["pooled_p"] == alone["pooled_p"] > 0.05


def test_one_unit_inside_whatever_a_table_prints():
    """CP+SL prints Corr as 86.44 in Table 2 and as 0.864 in Table 1; thresholds are quoted in points."""
    one = table({"Ours": {"corr": "0.864"}}, artefact="cpsl-t1").assign(unit="fraction")
    two = table({"=A6": {"corr": "86.44"}}, artefact="cpsl-t2")
    same = {"kind": "equal", "by": ["dataset"], "row": {"artefact": "cpsl-t2"}, "against": {"artefact": "cpsl-t1"}}
    assert verdict(pd.concat([one, two]), **same) == (HOLDS, 1, 1)
    margin = {"kind": "better", "of": {"artefact": "msmix-t1"}, "metrics": ["avg"], **OVER_PLAIN}
    assert judged(runs({"MS-Mix": 3.0}), margin=1.0, **margin)["verdict"] == REPRODUCED
    assert judged(runs({"MS-Mix": 3.0}), margin=5.0, **margin)["verdict"] == CONTRADICTED


def test_quoted_numbers_need_published_data():
    gain = {"kind": "difference", "of": {"artefact": "msmix-t1"}, "expect": {"avg": 1.5}, **OVER_PLAIN}
    assert judged(runs({"MS-Mix": 1.5}), **gain)["verdict"] == REPRODUCED
    assert judged(runs({"MS-Mix": 6.0}), **gain)["verdict"] == CONTRADICTED
    assert judged(runs({"MS-Mix": 1.0}, sd=2.0), **gain)["verdict"] == UNDECIDED
    custom = judged(runs({"MS-Mix": 1.5}), provenance="custom", **gain)
    assert custom["verdict"] == UNTESTABLE and "published features (data here: custom)" in custom["arithmetic"]
    unlisted = judged(runs({"MS-Mix": 1.5}), provenance="unlisted", **gain)
    assert (unlisted["verdict"], unlisted["data"]) == (REPRODUCED, "unlisted")
    assert judged(runs({"MS-Mix": 3.0}), provenance="custom", **BEST)["verdict"] == REPRODUCED  # an order needs no paper


def test_provenance_is_that_of_the_cells_a_claim_uses():
    """Custom files elsewhere on the page take nothing from a claim about published ones."""
    mixed = pd.concat([
        runs({"MS-Mix": 1.5}).assign(provenance="official"),
        runs({"MS-Mix": 1.5}).assign(dataset="mosei", provenance="custom"),
    ])
    gain = {"kind": "difference", "expect": {"avg": 1.5}, **OVER_PLAIN}
    one = judged(mixed, **gain, of={"artefact": "msmix-t1", "dataset": "mosi"})
    assert (one["verdict"], one["data"]) == (REPRODUCED, "official")
    two = judged(mixed, **gain, of={"artefact": "msmix-t1"})
    assert (two["verdict"], two["tested"], two["n"], two["data"]) == (PARTLY, 1, 2, "official")


def test_an_absolute_number_is_met_only_where_ours_is_shown_to_be_near():
    level = {"kind": "value", "of": {"artefact": "msmix-t1"}, "expect": {"avg": "70.0"}, **OURS}
    def flat(sd, at):
        return runs({}, rows=("MS-Mix",)).assign(value=[(at + sd * z) / 100 for z in (-1, 0, 1, -1, 1)])
    assert judged(flat(0.2, 70.1), **level)["verdict"] == REPRODUCED
    assert judged(flat(4.0, 70.1), **level)["verdict"] == UNDECIDED  # a wide spread confirms nothing
    assert judged(flat(0.2, 75.0), **level)["verdict"] == CONTRADICTED


def test_equivalence_and_ranges():
    same = {"kind": "comparable", "of": {"artefact": "msmix-t1"}, "against": {"method": "plain"}, "margin": 1.0,
            "metrics": ["avg"], **OURS}
    assert judged(runs({}, sd=0.1), **same)["verdict"] == REPRODUCED
    assert judged(runs({}, sd=1.5), **same)["verdict"] == UNDECIDED
    assert judged(runs({"MS-Mix": 4.0}, sd=0.1), **same)["verdict"] == CONTRADICTED
    level = {"kind": "value", "of": {"artefact": "msmix-t1"}, "expect": {"avg": [60, 80]}, **OURS}
    assert judged(runs({}), **level)["verdict"] == REPRODUCED
    assert judged(runs({"MS-Mix": 30.0}), **level)["verdict"] == CONTRADICTED


def test_costs_without_spread_are_compared_as_they_are():
    sizes = runs({"MS-Mix": -1.0}, metric="params", sd=0.0)
    flat = sizes.assign(value=np.where(sizes["method"] == "MS-Mix", 10.0, 11.0))
    least = {**BEST, "metrics": ["params"]}
    assert judged(flat, **least)["verdict"] == REPRODUCED
    assert judged(flat.assign(value=10.0), **least)["verdict"] == CONTRADICTED
    assert judged(flat[flat["seed"] == SEEDS[0]], **least)["verdict"] == REPRODUCED  # one run says it


def test_spread_over_seeds():
    steady = {"kind": "steadier", "of": {"artefact": "msmix-t1"}, "metrics": ["avg"], **OVER_PLAIN}
    base = runs({}, sd=1.0, rows=("plain",))
    calm = base.assign(method="MS-Mix", value=0.7 + (base["value"] - 0.7) / 50)
    assert judged(pd.concat([base, calm]), **steady)["verdict"] == REPRODUCED
    assert judged(pd.concat([base.assign(method="MS-Mix"), calm.assign(method="plain")]), **steady)["verdict"] == CONTRADICTED
    assert judged(pd.concat([base, base.assign(method="MS-Mix")]), **steady)["verdict"] == UNDECIDED


def test_the_smallest_spread_of_many_is_guarded_as_a_family_and_printed_row_first():
    """36 pairs whose spreads are equal in truth: unguarded tests would contradict more than half of the time."""
    steady, wrong = claim(kind="steadier", metrics=["avg"], row={"method": "MS-Mix"}), 0
    for noise in range(20):
        frames = [runs({}, noise=99 * noise + i).assign(backbone=f"B{i}") for i in range(18)]
        wrong += on_runs([steady], pd.concat(frames), SMALL.iloc[:0]).iloc[0]["verdict"] != UNDECIDED
    assert wrong <= 2
    wide = table({"plain": {"avg": "70.0 +- 0.20"}, "MS-Mix": {"avg": "71.0 +- 0.50"}})
    line = on_reported([claim(kind="steadier", metrics=["avg"], **OVER_PLAIN)], wide).iloc[0]
    assert "LMF + MS-Mix, Avg (0.50 against 0.20)" in line["arithmetic"]
    worst = on_reported([claim(kind="worst", metrics=["avg"], **OVER_PLAIN)], wide).iloc[0]
    assert "LMF + MS-Mix, Avg (71.0 against 70.0)" in worst["arithmetic"]


def test_three_of_four_is_at_least_three():
    names = ["m1", "m2", "m3", "m4"]
    four = {"need": 3, "kind": "better", "of": {"artefact": "msmix-t1"}, "metrics": names, **OVER_PLAIN}
    won = pd.concat([runs({"MS-Mix": 4.0}, metric=m, sd=0.1, noise=i) for i, m in enumerate(names)])
    line = judged(won, **four)
    assert (line["verdict"], line["k"], line["n"]) == (REPRODUCED, 4, 4)


def test_power_is_that_of_the_level_which_decides():
    """Twenty comparisons: each is shown at a twentieth of the level, and 0.3 of power alone is 0.01 there."""
    names = [f"m{i}" for i in range(20)]
    printed_table = pd.concat([table({"plain": {m: "70.0"}, "MS-Mix": {m: "70.2"}}) for m in names])
    rows = ("plain", "MS-Mix")
    frames = [runs({"MS-Mix": 0.2}, metric=m, rows=rows, noise=i, sd=0.2, n=3) for i, m in enumerate(names)]
    gain = {"kind": "better", "of": {"artefact": "msmix-t1"}, **OVER_PLAIN}
    alone = judged(frames[0], printed_table=printed_table[printed_table["metric"] == "m0"], **gain)
    many = judged(pd.concat(frames), printed_table=printed_table, **gain)
    assert many["power"] < alone["power"] / 3 and many["seeds_needed"] > alone["seeds_needed"] + 3


def test_a_claim_that_compares_a_training_with_itself_is_no_evidence():
    twice = pd.concat([runs({}).assign(config=lambda d: d["method"]),
                       runs({}).assign(artefact="msmix-t4", config=lambda d: d["method"])])
    same = {"kind": "equal", "by": ["dataset", "backbone", "method"], "metrics": ["avg"],
            "row": {"artefact": "msmix-t4"}, "against": {"artefact": "msmix-t1"}, "of": {"artefact": "msmix-t[14]"}}
    line = judged(twice, form="cross-check", **same)
    assert (line["verdict"], line["evidence"], line["tested"]) == (UNTESTABLE, False, 0)
    assert "same training" in line["arithmetic"]
    other = judged(twice.assign(config=lambda d: d["artefact"] + d["method"]), form="cross-check", **same)
    assert other["evidence"] and other["tested"] == 3  # two trainings: that they agree is a result
    first = runs({}, rows=("=first", "=last"), artefact="cpsl-f2").assign(config="c", point=lambda d: d["variant"])
    fall = judged(first, kind="better", row={"variant": "last"}, against={"variant": "first"})
    assert fall["evidence"] and fall["tested"] == 1  # two points of one training


def test_a_claimed_share_is_judged_by_what_it_can_still_be():
    """Of eight comparisons two hold, two do not and four tie: the share lies between a quarter and three quarters."""
    names = ["LMF", *(f"B{i}" for i in range(1, 8))]
    gains = dict(zip(names, (3.0, 3.0, -3.0, -3.0, 0.0, 0.0, 0.0, 0.0)))
    results = pd.concat([runs({"MS-Mix": g}, rows=("plain", "MS-Mix"), noise=i).assign(backbone=b) for i, (b, g) in enumerate(gains.items())])
    better = {"kind": "better", "metrics": ["avg"], "of": {"artefact": "msmix-t1"}, **OVER_PLAIN}

    def state(share, within, frame=results):
        return judged(frame, need={"share": share, "within": within}, **better)["verdict"]

    assert [state(s, 0.01) for s in (0.9, 0.1, 0.5)] == [CONTRADICTED, CONTRADICTED, UNDECIDED]
    assert state(0.5, 0.25) == REPRODUCED  # whatever the four are
    some = results[results["backbone"].isin(names[:4])]
    assert state(0.5, 0.01, some) == REPRODUCED and state(0.9, 0.01, some) == CONTRADICTED


def test_a_distance_to_a_bound_is_not_called_a_gain():
    at_least = {"kind": "better", "metrics": ["avg"], "of": {"artefact": "msmix-t1"}, **OURS}
    plain = judged(runs({"MS-Mix": 3.0}), **at_least)["arithmetic"]
    bound = judged(runs({"MS-Mix": 3.0}), margin=1.0, **at_least)["arithmetic"]
    assert "the mean gain in Avg is +" in plain and "beyond the bound" not in plain
    assert "the mean distance beyond the bound that the claim sets in Avg is +" in bound and "mean gain" not in bound


def test_every_claim_can_be_reproduced_by_runs_that_are_as_it_says():
    """The printed numbers with next to no noise, as runs: what holds on paper is not contradicted, and "equal" is only
    asked of a training and itself, because two are never equal."""
    rng, printed_table, every = np.random.default_rng(0), reported.load(), load()
    lines = [(*k, seed, c["mean"] + 1e-6 * abs(c["mean"]) * rng.normal()) for k, c in by_key(printed_table.to_dict("records")).items()
             if c["variant"] != "reported" for seed in SEEDS]
    ours = on_runs(every, pd.DataFrame(lines, columns=[*KEY, "seed", "value"]), printed_table).set_index("id")
    theirs = on_reported(every, printed_table).set_index("id")
    asked = {c.id for c in every if c.form != "cross-check" and all(p.on == "both" for p in c.parts)}
    holds = [i for i in theirs.index if theirs.loc[i, "verdict"] == HOLDS and i in asked]
    off = {i: ours.loc[i, "verdict"] for i in holds if ours.loc[i, "verdict"] != REPRODUCED}
    assert len(holds) > 50 and off == {"samlml-c20": PARTLY}  # its printed difference is its bound to the digit
    assert not any(p.kind == "equal" and p.on != "reported" for c in every if c.form != "cross-check" for p in c.parts)


def test_metrics_of_one_run_are_not_independent_evidence():
    """Eight copies of one metric: eight times the same evidence. The pooled p is that of one unit, not of eight cells."""
    one = runs({"MS-Mix": 0.3}, rows=("plain", "MS-Mix"))
    copies = pd.concat([one, *(one.assign(metric=f"m{i}") for i in range(7))])
    gain = {"kind": "better", "of": {"artefact": "msmix-t1"}, **OVER_PLAIN}
    alone, many = judged(one, **{**gain, "metrics": ["avg"]}), judged(copies, **gain)
    assert many["units"] == 1 and many["pooled_p"] == pytest.approx(alone["pooled_p"])
    assert "Wilcoxon" not in many["arithmetic"]
    shared = pd.concat([runs({"MS-Mix": 0.3}), runs({}).assign(backbone="TFN")])
    both = judged(shared, **{**BEST, "kind": "better"})
    assert (both["units"], both["n"]) == (2, 4)  # rows that share a baseline are one unit


def test_all_is_contradicted_by_a_negative_mean_though_no_single_comparison_is():
    frames = [runs({"MS-Mix": -0.6}, noise=i, sd=0.4, n=3).assign(backbone=f"B{i}") for i in range(6)]
    line = judged(pd.concat(frames), **BEST)
    assert (line["verdict"], line["opposite"]) == (CONTRADICTED, 0)
    assert line["units"] == 6 and line["mean_gain"] < -0.3 and line["pooled_p"] < 0.02


def test_partial_conjunctions():
    p = [0.001, 0.01, 0.2]
    assert [float(conjunction(p, k)) for k in (0, 1, 2, 3, 4)] == pytest.approx([0, 0.003, 0.02, 0.2, 1])
    assert shown(p, 0.025).tolist() == [True, True, False] and shown([0.02, 0.02], 0.025).tolist() == [False, False]


@pytest.mark.parametrize("n", [2, 3, 5, 10])
def test_equal_methods_get_a_wrong_verdict_in_at_most_one_of_twenty_folders(printed, world, n):
    """Every claim of the ledger as printed; the metrics of a run move as in the reference results. The large version is
    benchmarks/null_claims.py."""
    found = null_claims.simulate(world, load(), printed, n, sets=60, seed=1)
    assert found["wrong"].mean() <= 0.02 * 60
    # 60 folders: a claim that is wrong in 5 % of all is wrong in more than 9 of 60 once in 500 times
    assert found.loc[found["wrong"].idxmax(), "wrong"] <= 9
    assert (found["undecided"] + found["untestable"]).sum() < found["sets"].sum()  # it can be wrong at all


def test_figures_are_judged_on_the_points_they_store():
    points = [f"=delta=0.{i}" for i in range(5)]
    peak = {"kind": "best", "of": {"artefact": "msmix-f5", "variant": "delta=*"}, "row": {"x": 0.2}}
    curve = runs({"=delta=0.2": 4.0}, rows=points, artefact="msmix-f5")
    assert judged(curve, **peak)["verdict"] == REPRODUCED
    assert judged(runs({"=delta=0.3": 4.0}, rows=points, artefact="msmix-f5"), **peak)["verdict"] == CONTRADICTED
    order = ["delta=0.2", "delta=0.3", "delta=0.4"]
    fall = {"kind": "monotone", "of": {"artefact": "msmix-f5"}, "order": order, "trend": "worse"}
    falling = runs({"=delta=0.2": 6.0, "=delta=0.3": 3.0}, rows=points, artefact="msmix-f5")
    assert judged(falling, **fall)["verdict"] == REPRODUCED


def test_the_whole_ledger_runs_on_the_papers_layout(printed):
    """Runs drawn around the printed means: no claim that clearly holds on them may come out as failing."""
    rng = np.random.default_rng(8)
    tables = printed[printed["artefact"].isin(["msmix-t1", "powmix-t3", "slad-t2", "samlml-t4", "cpsl-t2"])]
    noise = 0.0001
    results = pd.DataFrame([
        {**{k: c[k] for k in ("artefact", "dataset", "backbone", "method", "variant", "metric")}, "seed": seed,
         "value": as_fraction(c)["mean"] + rng.normal(0, noise)}
        for c in tables.to_dict("records") for seed in SEEDS
    ])
    lines = on_runs(load(), results, printed).set_index("id")
    assert len(lines) == 152
    hold = ["slad-c07", "powmix-c18", "cpsl-c12", "samlml-c08", "samlml-c09"]
    assert lines.loc[hold, "verdict"].tolist() == [REPRODUCED] * 5
    assert lines.loc[["slad-c01", "samlml-c18", "msmix-c19"], "verdict"].tolist() == [UNTESTABLE] * 3
    wrong = lines.loc[["cpsl-c10", "cpsl-c19", "samlml-c12"]]  # 16 of 20, 6 of 8 and 3 of 5 hold on the printed numbers
    assert wrong["verdict"].tolist() == [PARTLY] * 3 and (wrong["opposite"] > 0).all()
    assert lines.loc["powmix-c17", "verdict"] == PARTLY  # a tie as printed is a tie in the runs
    mosi_only = lines.loc["msmix-c01"]  # two of the three tables have no runs
    assert (mosi_only["verdict"], mosi_only["k"], mosi_only["tested"], mosi_only["n"]) == (PARTLY, 6, 6, 18)
