"""Ranks, critical difference, probability of improvement and win rates, against worked examples."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from bench.analysis.results import Results
from bench.experiments import all_experiments
from bench.matrix import Column, expand
from bench.report.build import build
from bench.report.leaderboard import board, diagram, independent, versus
from bench.report.summary import Unit, units
from bench.report.tables import make_table
from bench.report.verdict import Reported
from tests import planted

pytestmark = pytest.mark.usefixtures("no_fsync")
COLUMN = Column("avg", "Avg. (%)", "MOSI")


def unit(block: str, **runs: list[float]) -> Unit:
    return Unit("MOSI", block, COLUMN, "new", "plain", {k: float(np.mean(v)) for k, v in runs.items()}, {}, {}, runs)


def test_demsar_critical_difference_and_cliques():
    """q_0.05 of five classifiers is 2.728 (Demsar 2006, Table 5): CD = 2.728 sqrt(5 * 6 / (6 * 30)) over 30 data sets."""
    rng = np.random.default_rng(0)
    found = [unit(str(k), **{m: [level + rng.normal(0, 0.1)] for m, level in zip(("new", "b", "c", "d", "plain"), (9, 8, 5, 4.9, 1))}) for k in range(30)]
    b = board("x", found)
    assert b.critical == pytest.approx(2.728 * np.sqrt(5 * 6 / (6 * 30)), abs=2e-3)
    assert list(b.ranks)[:2] == ["new", "b"] and list(b.ranks)[-1] == "plain"
    ranks = np.array([[u.ranks(u.ours, u.ours)[m] for m in ("new", "b", "c", "d", "plain")] for u in found])
    assert b.friedman == pytest.approx(stats.friedmanchisquare(*ranks.T).pvalue)
    values = list(b.ranks.values())
    assert all(high - low <= b.critical for low, high in b.cliques) and (values[0], values[-1]) not in b.cliques
    assert not any(a != c and a[0] <= c[0] and c[1] <= a[1] for a in b.cliques for c in b.cliques)
    assert diagram(b).count('class="lead"') == 5


def test_probability_of_improvement_and_win_rate():
    found = [unit("a", new=[3.0, 4.0], plain=[1.0, 2.0]), unit("b", new=[1.0, 1.0], plain=[1.0, 2.0])]
    v = versus(found, "new", "plain")
    assert v.probability == pytest.approx((1.0 + 0.25) / 2) and v.low <= v.probability <= v.high
    assert v.wins == 1 and (v.win_low, v.win_high) == pytest.approx(stats.binomtest(1, 2).proportion_ci())
    lower = [replace(u, column=replace(COLUMN, higher_is_better=False)) for u in found]
    assert versus(lower, "new", "plain").probability == pytest.approx(1 - v.probability)


def test_what_two_tables_repeat_is_one_unit():
    """MOSI's MulT in two papers' tables, and a system whose run serves two tables: one unit each."""
    mult = unit("MulT", new=[3.0], b=[2.0], plain=[1.0])
    again = replace(mult, runs={k: [x + 0.1 for x in v] for k, v in mult.runs.items()})
    alone = replace(unit("", new=[3.0], b=[2.0], plain=[1.0]), trainings={"new": "n", "b": "b"})
    shared = replace(unit("", new=[3.0], b=[4.0], plain=[1.0]), trainings={"new": "n", "b": "other"})
    assert independent([mult, again, alone, shared]) == [mult, alone]
    assert board("x", [mult, again]) is None and board("x", [mult, again, alone, shared]).units == 2
    rows = [next(r for r in all_experiments()[t].rows if r.key == ("MISA", "plain", "")) for t in ("msmix-t2", "powmix-t2")]
    assert rows[0].cells["MOSEI"] == rows[1].cells["MOSEI"], "which is a training that two papers' tables share"


def test_methods_that_are_not_everywhere_do_not_take_part():
    found = [unit("a", new=[3.0], b=[2.0], plain=[1.0], rare=[9.0]), unit("b", new=[3.0], b=[2.0], plain=[1.0])]
    assert list(board("x", found).ranks) == ["new", "b", "plain"]
    assert board("x", found[:1]) is None


def test_the_page_has_a_leaderboard_of_the_planted_table(tmp_path):
    p = planted.write(tmp_path / "results", holes=False)
    page = build([p.experiment], p.store, tmp_path / "out", "real", p.hashes, reported=p.reported).read_text()
    t = make_table(p.experiment, Results(*p.store.frames(expand([p.experiment]))), Reported(p.reported))
    b = board("MS-Mix", units([t]))
    assert b.units == 3 and "Leaderboard: MS-Mix, over 3 blocks" in page and f"critical difference {b.critical:.2f}" in page
    assert b.versus["plain"].probability > 0.5 and f"<b>MS-Mix</b></td><td>{b.ranks['MS-Mix']:.2f}" in page
