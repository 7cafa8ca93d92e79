"""Two results folders side by side: yours and a reference, or before and after a change of the code.

Runs are matched by what they are (config and seed). Component versions are left out of the match, because a change of
the code is a reason to compare; where they differ, the page says so. Differences are B minus A, paired by seed.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bench.analysis.cells import FIXED
from bench.analysis.stats import Paired, Summary, holm, paired, summary
from bench.errors import BenchError
from bench.matrix import Column, Config, Job
from bench.metrics import METRICS, higher_is_better
from bench.names import csv_text
from bench.plural import count
from bench.report.html import asset, environment, rendered_at
from bench.report.samples import family_of
from bench.report.sections import provenance_rows, signed
from bench.report.significance import ALPHA
from bench.report.tables import number, p_text
from bench.store import DONE, STALE, Store, write_atomic


@dataclass(frozen=True)
class Difference:
    """One metric of one config in both folders."""

    config: Config  # as in A, or in B where A has none
    metric: str
    a: Summary
    b: Summary
    paired: Paired
    holm: float = float("nan")

    @property
    def shared(self) -> bool:
        """Whether both folders have it."""
        return bool(self.a.n and self.b.n)

    @property
    def verdict(self) -> str:
        """What the two folders say about each other here."""
        if not self.a.n or not self.b.n:
            return "only in A" if self.a.n else "only in B"
        if "not finite" in self.paired.note:
            return "undefined"
        if not self.paired.n:
            return "no common seed"
        if "identical" in self.paired.note or (self.paired.n == 1 and self.paired.difference == 0):
            return "identical"
        if self.paired.n < 2:
            return "one common seed"
        if self.paired.std == 0 and self.metric not in FIXED:  # whole items of a test set tie easily: no certainty
            return "the same difference in every seed"
        return "differs" if self.holm < ALPHA or self.paired.std == 0 else "no difference shown"


class Side:
    """One folder: of every config the results of the newest component versions that have any, never of several in one mean."""

    def __init__(self, root: str | Path) -> None:
        jobs = Store(root).scan()
        if not jobs:
            raise BenchError(f"no job folders in {root}")
        store = Store(root, indexed=True)
        newest: dict[str, dict[int, Job]] = {}
        for job in sorted(jobs, key=lambda j: (store.status(j) == DONE, [(k, v if isinstance(v, int) else 0) for k, v in sorted(j.config.versions.items())])):
            before = newest.get(identity(job.config), {})
            newest[identity(job.config)] = {**({s: j for s, j in before.items() if j.config == job.config}), job.seed: job}
        shown = [j for of_seed in newest.values() for j in of_seed.values()]
        other = {i for of_seed in newest.values() for i in _of_another_file(store, list(of_seed.values()))}
        values, self.runs = store.frames(shown)
        values = values[~values["job"].isin(other)]
        self.runs.loc[self.runs["job"].isin(other), "status"] = STALE
        by_id = {j.config.id: j.config for j in shown}
        self.configs = {identity(c): c for c in by_id.values()}
        test = values[values["split"] == "test"]
        self.values: dict[tuple[str, str], pd.Series] = {
            (identity(by_id[config]), metric): cell.set_index("seed")["value"]
            for (config, metric), cell in test.groupby(["config", "metric"], sort=False)
        }


def _of_another_file(store: Store, jobs: list[Job]) -> list[str]:
    """Ids of a config's jobs that are of another data file than most of them are: no mean is over both."""
    data, _ = store.one_file(jobs)
    return [j.id for j in jobs if store.status(j, data) == STALE]


def identity(config: Config) -> str:
    """A config's id without its versions."""
    return replace(config, versions={}).id


def differences(a: Side, b: Side) -> list[Difference]:
    """Every metric of every config that either folder has finished, Holm-adjusted over those that are not identical."""
    none, found = pd.Series(dtype=float), []
    keys = dict.fromkeys([*a.values, *b.values])
    for key, metric in sorted(keys, key=lambda k: not (k in a.values and k in b.values)):  # shared ones first
        x, y = a.values.get((key, metric), none), b.values.get((key, metric), none)
        config = a.configs.get(key) or b.configs[key]
        found.append(Difference(config, metric, summary(x), summary(y), paired(y, x)))
    tested = [float("nan") if "identical" in d.paired.note else d.paired.p for d in found]
    return [replace(d, holm=float(p)) for d, p in zip(found, holm(tested))]


def compare(a: str | Path, b: str | Path, out_dir: str | Path) -> Path:
    """Write index.html and compare.csv on two results folders; returns the page's path.

    Raises BenchError where a folder holds no job or the two have no config in common.
    """
    left, right = Side(a), Side(b)
    if not left.configs.keys() & right.configs.keys():
        raise BenchError(f"{a} and {b} have no cell in common")
    found = differences(left, right)
    absent = {side: {d.config.id for d in found if not getattr(d, other).n} for side, other in (("a", "b"), ("b", "a"))}
    out = Path(out_dir)
    out.mkdir(parents=True, exist_ok=True)
    write_atomic(out / "compare.csv", csv_text(frame(found)).encode(), "--out")
    versions = sum(right.configs[k].versions != c.versions for k, c in left.configs.items() if k in right.configs)
    page = (
        environment()
        .get_template("compare.html")
        .render(
            style=asset("style.css"),
            a=str(a),
            b=str(b),
            counts=Counter(d.verdict for d in found if d.shared).most_common(),
            absent=[(side, len(of)) for side, of in (("A", absent["a"]), ("B", absent["b"])) if of],
            tables=_tables(found),
            cells=sum(d.shared for d in found),
            versions=versions,
            provenance=_provenance(left, right),
            rendered=rendered_at(),
            runs=[(side, Counter(s.runs["status"]).most_common()) for side, s in (("A", left), ("B", right))],
            synthetic=any("synthetic" in set(s.runs.get("provenance", ())) for s in (left, right)),
        same_data=not _other_data(left, right),
        )
    )
    write_atomic(out / "index.html", page.encode(), "--out")
    return out / "index.html"


def frame(found: Sequence[Difference]) -> pd.DataFrame:
    """One line per config and metric, values as stored (fractions)."""
    names = labels([d.config for d in found])
    return pd.DataFrame(
        [
            {
                "dataset": d.config.dataset,
                "features": d.config.features,
                "backbone": d.config.backbone,
                "mixer": d.config.mixer,
                "label": names[d.config.id],
                "config": d.config.id,
                "metric": d.metric,
                "n_a": d.a.n,
                "mean_a": d.a.mean,
                "std_a": d.a.std,
                "n_b": d.b.n,
                "mean_b": d.b.mean,
                "std_b": d.b.std,
                "pairs": d.paired.n,
                "difference": d.paired.difference,
                "low": d.paired.low,
                "high": d.paired.high,
                "p": d.paired.p,
                "holm": d.holm,
                "d_z": d.paired.d_z,
                "verdict": d.verdict,
                "note": d.paired.note,
            }
            for d in found
        ]
    )


def labels(configs: Sequence[Config]) -> dict[str, str]:
    """Config id -> "lmf + msmix" with the parameters that tell it from its namesakes."""
    groups: dict[tuple[str, ...], dict[str, dict[str, str]]] = {}
    for c in configs:
        groups.setdefault((c.dataset, c.features, c.backbone, c.mixer), {})[c.id] = dict(_flat({
            k: v for k, v in c.as_dict().items() if k not in ("versions", "dataset", "features", "backbone", "mixer")
        }))
    found = {}
    for (_, _, backbone, mixer), members in groups.items():
        keys = {k for flat in members.values() for k in flat}
        telling = sorted(k for k in keys if len({flat.get(k, "") for flat in members.values()}) > 1)
        for i, flat in members.items():
            extra = ", ".join(f"{k.rpartition('.')[2]}={flat[k]}" for k in telling if k in flat)
            found[i] = f"{backbone} + {mixer}" + (f" ({extra})" if extra else "")
    return found


def _flat(value: Any, prefix: str = "") -> list[tuple[str, str]]:
    if isinstance(value, Mapping):
        return [pair for k, v in value.items() for pair in _flat(v, f"{prefix}.{k}" if prefix else str(k))]
    return [(prefix, str(value))]


def _column(config: Config, metric: str) -> Column:
    """How a metric is printed, from the conventions of its dataset."""
    rule = METRICS.get(family_of(config) or "", {}).get(metric)
    if rule is None:
        return Column(metric, metric, percent=False, decimals=4, higher_is_better=higher_is_better(metric))
    return Column(
        metric,
        rule.label,
        convention=rule.convention,
        percent=rule.percent,
        decimals=2 if rule.percent else 3,
        higher_is_better=rule.higher_is_better,
    )


def _tables(found: Sequence[Difference]) -> list[dict[str, Any]]:
    """One table per dataset and feature file: rows are configs, columns metrics."""
    names = labels([d.config for d in found])
    groups: dict[tuple[str, str], list[Difference]] = {}
    for d in found:
        groups.setdefault((d.config.dataset, d.config.features), []).append(d)
    tables = []
    for (dataset, features), members in groups.items():
        metrics = list(dict.fromkeys(d.metric for d in members))
        columns = {m: _column(members[0].config, m) for m in metrics}
        rows: dict[str, dict[str, Any]] = {}
        alone = {d.config.id for d in members if not d.shared}
        for d in members:
            rows.setdefault(d.config.id, {})[d.metric] = _cell(d, columns[d.metric])
        tables.append(
            {
                "name": f"{dataset}, {features}",
                "columns": list(columns.values()),
                "rows": [
                    (names[i], [cells.get(m) for m in metrics])
                    for i, cells in sorted(rows.items(), key=lambda r: (r[0] in alone, names[r[0]]))
                ],
            }
        )
    return tables


def _cell(d: Difference, column: Column) -> dict[str, Any]:
    scale = 100 if column.percent else 1
    text = {
        k: number(scale * s.mean, column) or ("undefined" if s.n else "\u2013") for k, s in (("a", d.a), ("b", d.b))
    }
    spread = [
        f"{k.upper()} {text[k]} \u00b1 {number(scale * s.std, column)} (n = {s.n})" for k, s in (("a", d.a), ("b", d.b))
    ]
    r = d.paired
    interval = (
        f"[{signed(scale * r.low, column.decimals)}, {signed(scale * r.high, column.decimals)}]"
        if np.isfinite(r.low)
        else ""
    )
    return {
        **text,
        "title": "; ".join(spread),
        "n": "" if d.a.n == d.b.n == r.n else count(r.n, "pair"),
        "difference": (
            "identical" if d.verdict == "identical" else signed(scale * r.difference, column.decimals) or d.verdict
        ),
        "interval": "" if d.verdict == "identical" else interval,
        "p": p_text(d.holm),
        "css": {"identical": "inside", "differs": "beyond", "undefined": "beyond"}.get(d.verdict, "none"),
        "differs": d.verdict == "differs",
    }


def _other_data(a: Side, b: Side) -> bool:
    """Whether any run that both folders have finished was made from another data file."""
    def hashes(side: Side) -> dict[tuple[str, int], str]:
        of = {c.id: key for key, c in side.configs.items()}
        runs = side.runs.to_dict("records")
        return {(of[r["config"]], r["seed"]): r["data_sha256"] for r in runs if r["status"] == "done" and isinstance(r.get("data_sha256"), str) and r["config"] in of}

    left, right = hashes(a), hashes(b)
    return any(left[k] != right[k] for k in left.keys() & right.keys())


def _provenance(a: Side, b: Side) -> list[tuple[str, Any, Any]]:
    rows = [dict(provenance_rows(s.runs.where(s.runs.notna(), None).to_dict("records"))) for s in (a, b)]
    return [(name, rows[0].get(name, []), rows[1].get(name, [])) for name in dict.fromkeys([*rows[0], *rows[1]])]
