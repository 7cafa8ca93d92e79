"""Methods over many tables: mean ranks with a critical-difference diagram, probability of improvement, win rates.

A unit is one block in the primary metric of one dataset (summary.Unit): the independent thing that ranks average over, with
its seeds inside. Only methods that ran in every unit take part. What two tables say of one backbone on one dataset, or from
trainings that they share, is said once, by the first of them.

Ranks: Friedman's test, and Nemenyi's critical difference q sqrt(k (k + 1) / 6N) (Demsar 2006). Probability of improvement:
the chance that a run of the first method is better than a run of the second, averaged over units, with a bootstrap over the
seeds of each unit (Agarwal et al. 2021). Win rate: share of units whose mean is better, ties half, with the Clopper-Pearson
interval.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import escape
from scipy import stats

from bench.report.summary import Unit, paper_name, units
from bench.report.tables import Table, p_text

RESAMPLES = 2000
ALPHA = 0.05


@dataclass(frozen=True)
class Versus:
    """The proposed method against another."""

    probability: float  # of improvement
    low: float
    high: float
    wins: float  # of units; ties count half
    win_low: float
    win_high: float


@dataclass(frozen=True)
class Board:
    """`ranks`: method -> mean rank, best first. `critical` NaN where there are too few units or methods."""

    name: str
    units: int
    ranks: Mapping[str, float]
    friedman: float
    critical: float
    proposed: str
    versus: Mapping[str, Versus]

    @property
    def cliques(self) -> list[tuple[float, float]]:
        """Spans of ranks within which no two methods differ by the critical difference; none inside another."""
        values, found = list(self.ranks.values()), []
        for i, low in enumerate(values) if math.isfinite(self.critical) else ():
            high = max(v for v in values if v - low <= self.critical)
            if values.index(high) > i and not any(a <= low and high <= b for a, b in found):
                found.append((low, high))
        return found


def board(name: str, found: Sequence[Unit]) -> Board | None:
    """The leaderboard of some units; None where fewer than two units share three methods."""
    ran = independent([u for u in found if u.ran])
    common = [k for k in (ran[0].ours if ran else ()) if all(k in u.ours for u in ran)]
    if len(ran) < 2 or len(common) < 3:
        return None
    table = np.array([[u.ranks(u.ours, common)[k] for k in common] for u in ran])  # (N, k)
    n, k = table.shape
    order = sorted(zip(common, table.mean(axis=0)), key=lambda x: x[1])
    p = float(stats.friedmanchisquare(*table.T).pvalue) if np.ptp(table) else math.nan
    q = float(stats.studentized_range.ppf(1 - ALPHA, k, np.inf)) / math.sqrt(2)
    proposed = ran[0].proposed
    same = all(u.proposed == proposed for u in ran) and proposed in common
    against = {m: versus(ran, proposed, m) for m in common if m != proposed} if same else {}
    return Board(
        name, n, {m: float(r) for m, r in order}, p, q * math.sqrt(k * (k + 1) / (6 * n)), proposed if same else "", against,
    )


def independent(found: Sequence[Unit]) -> list[Unit]:
    """The units without those that repeat an earlier one: the same backbone on the same dataset, or a shared training."""
    kept: list[Unit] = []
    for u in found:
        mine = set(u.trainings.values())
        if not any((u.block and (u.dataset, u.block) == (k.dataset, k.block)) or mine & set(k.trainings.values()) for k in kept):
            kept.append(u)
    return kept


def versus(found: Sequence[Unit], a: str, b: str, resamples: int = RESAMPLES) -> Versus:
    """Method a against b over units in which both ran."""
    rng = np.random.default_rng(0)
    drawn, seen, wins = np.zeros(resamples), 0.0, 0.0
    for u in found:
        sign = 1 if u.column.higher_is_better else -1
        x, y = (sign * np.asarray(u.runs[m], dtype=float) for m in (a, b))
        better = (x[:, None] > y).astype(float) + 0.5 * (x[:, None] == y)  # (S_a, S_b)
        i, j = rng.integers(len(x), size=(resamples, len(x))), rng.integers(len(y), size=(resamples, len(y)))
        drawn += better[i[:, :, None], j[:, None, :]].mean(axis=(1, 2)) / len(found)
        seen += better.mean() / len(found)
        difference = sign * (u.ours[a] - u.ours[b])
        wins += 1.0 if difference > 0 else 0.5 if difference == 0 else 0.0
    low, high = np.quantile(drawn, [ALPHA / 2, 1 - ALPHA / 2])
    n = len(found)
    win_low = float(stats.beta.ppf(ALPHA / 2, wins, n - wins + 1)) if wins else 0.0
    win_high = float(stats.beta.ppf(1 - ALPHA / 2, wins + 1, n - wins)) if wins < n else 1.0
    return Versus(float(seen), float(low), float(high), wins, win_low, win_high)


def boards(tables: Sequence[Table]) -> list[dict]:
    """What the page prints: one leaderboard per paper, and one over all of them where their tables share methods."""
    by_paper: dict[str, list[Unit]] = {}
    for paper in dict.fromkeys(t.experiment.paper for t in tables):
        by_paper[paper_name(paper)] = units([t for t in tables if t.experiment.paper == paper])
    made = [board(name, of) for name, of in by_paper.items()]
    if sum(any(u.ran for u in of) for of in by_paper.values()) > 1:
        made.append(board("all tables of this report", [u for of in by_paper.values() for u in of]))
    return [_printed(b) for b in made if b is not None]


def _printed(b: Board) -> dict:
    rows = []
    for method, rank in b.ranks.items():
        v = b.versus.get(method)
        rows.append({
            "method": method, "strong": method == b.proposed, "rank": f"{rank:.2f}",
            "probability": f"{v.probability:.2f} [{v.low:.2f}, {v.high:.2f}]" if v else "",
            "wins": f"{v.wins:g} of {b.units} [{v.win_low:.2f}, {v.win_high:.2f}]" if v else "",
        })
    return {
        "name": b.name, "units": b.units, "rows": rows, "friedman": p_text(b.friedman) or "undefined",
        "critical": f"{b.critical:.2f}", "proposed": b.proposed, "svg": diagram(b),
    }


def diagram(b: Board) -> str:
    """Demsar's critical-difference diagram: best rank on the left, a bar joins methods that do not differ."""
    width, left, right, k = 640, 150, 150, len(b.ranks)
    half = math.ceil(k / 2)
    bars = b.cliques
    base = 46
    height = base + 12 + 9 * len(bars) + 20 * half + 6

    def x(rank: float) -> float:
        return left + (width - left - right) * (rank - 1) / (k - 1)

    out = [f'<line class="axis" x1="{x(1):.1f}" x2="{x(k):.1f}" y1="{base}" y2="{base}"/>']
    for r in range(1, k + 1):
        out.append(f'<line class="axis" x1="{x(r):.1f}" x2="{x(r):.1f}" y1="{base - 5}" y2="{base}"/><text x="{x(r):.1f}" y="{base - 9}" text-anchor="middle">{r}</text>')
    span = min(b.critical, k - 1)
    cut = "" if b.critical <= k - 1 else " (wider than the axis)"
    out.append(f'<line class="cd" x1="{x(1):.1f}" x2="{x(1 + span):.1f}" y1="12" y2="12"/><text x="{x(1 + span) + 6:.1f}" y="16">critical difference {b.critical:.2f}{cut}</text>')
    for i, (low, high) in enumerate(bars):
        y = base + 10 + 9 * i
        out.append(f'<line class="clique" x1="{x(low) - 4:.1f}" x2="{x(high) + 4:.1f}" y1="{y}" y2="{y}"/>')
    for i, (method, rank) in enumerate(b.ranks.items()):
        first = i < half
        y = base + 12 + 9 * len(bars) + 20 * (i if first else k - 1 - i) + 8
        end = left - 8 if first else width - right + 8
        out.append(f'<path class="lead" d="M{x(rank):.1f} {base}V{y}H{end}"/><text class="{"strong" if method == b.proposed else ""}" x="{end - 4 if first else end + 4}" y="{y + 4}" text-anchor="{"end" if first else "start"}">{escape(method)} {rank:.2f}</text>')
    return f'<svg class="cd-diagram" viewBox="0 0 {width} {height}" role="img" aria-label="critical-difference diagram, {escape(b.name)}">{"".join(out)}</svg>'
