"""Per-sample tests of a table: would the gain over the backbone alone hold on other test items?

Read from the stored predictions of the proposed and the plain row of each block; where they were not kept there is
nothing to say.
"""

from typing import Any

import numpy as np

from bench import registry
from bench.analysis.results import DONE, Cell
from bench.analysis.samples import bootstrap, mcnemar
from bench.errors import BenchError
from bench.matrix import Config, Job, dataset_name
from bench.metrics import METRICS
from bench.report.significance import ALPHA
from bench.report.tables import Table, p_text
from bench.store import Store

_RESAMPLES = 500
CAVEAT = (
    "one pair of trainings at a time: with methods that are equal in truth, 3 to 36 % of such pairs have p < 0.05, because "
    "two trainings differ by more than their test items"
)
_HITS = ("non0_acc2", "acc2", "has0_acc2", "accuracy")  # which accuracy McNemar's test is about, first found


def family_of(config: Config) -> str | None:
    """Metric family of a config's dataset; None where it is not a known dataset."""
    try:
        return registry.load("datasets", dataset_name(config.dataset)).SPEC.family(config.features)
    except (BenchError, KeyError):
        return None


def section(table: Table, store: Store) -> dict[str, Any]:
    """{"samples", "samples_title", "samples_metric"} for the page; "samples" is empty where nothing can be said."""
    e, rows, hits = table.experiment, [], ""
    for j, column in enumerate(e.columns):
        if column.metric != e.primary:
            continue
        for block in table.grid.blocks:
            at = [table.grid.baselines.get((block, kind)) for kind in ("proposed", "plain")]
            if None in at or any(e.rows[i].points for i in at):  # predictions at a sweep's points are not kept
                continue
            pair = [table.grid.cells[i][j] for i in at]
            both = _predictions(store, *pair)
            family = family_of(pair[0].configs[0]) if both else None
            if not family or column.metric not in METRICS[family]:
                continue
            proposed, plain, label = both
            hits = next((h for h in _HITS if h in METRICS[family]), "")
            scale = 100 if column.percent else 1
            b = bootstrap(proposed, plain, label, family, column.metric, resamples=_RESAMPLES)
            runs = [mcnemar(p, q, label, family, hits) for p, q in zip(proposed, plain)] if hits else []
            decimals = column.decimals
            rows.append(
                {
                    "block": " ".join(filter(None, (block, column.group))),
                    "items": b.items,
                    "difference": f"{scale * b.difference:+.{decimals}f}",
                    "p": p_text(b.p) or b.note,
                    "interval": (
                        f"[{scale * b.low:+.{decimals}f}, {scale * b.high:+.{decimals}f}]" if np.isfinite(b.low) else ""
                    ),
                    "only": f"{sum(m.only_a for m in runs)} proposed, {sum(m.only_b for m in runs)} plain",
                    "significant": f"{sum(m.p < ALPHA for m in runs)} of {len(runs)}",
                }
            )
    primary = next((c.label for c in e.columns if c.metric == e.primary), e.primary)
    return {
        "samples": rows,
        "samples_title": f"the proposed method against the backbone alone on {primary}",
        "samples_metric": f"{hits} ({CAVEAT})" if hits else "",
    }


def _predictions(store: Store, proposed: Cell, plain: Cell) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """Predictions [S, N] of both cells under their common seeds, and labels [N]; None where any is missing or the test
    items differ."""
    if len(proposed.configs) != 1 or len(plain.configs) != 1:
        return None
    arrays: tuple[list, list] = ([], [])
    ids = label = None
    for k, seed in enumerate(proposed.seeds):
        if proposed.states[k] != DONE or plain.states[k] != DONE:
            continue
        for side, cell in zip(arrays, (proposed, plain)):
            kept = store.predictions(Job(cell.configs[0], seed))
            if kept is None or not {"test_id", "test_prediction", "test_label"} <= kept.keys():
                return None
            if ids is None:
                ids, label = kept["test_id"], kept["test_label"]
            if not np.array_equal(ids, kept["test_id"]) or kept["test_prediction"].ndim != 1:
                return None
            side.append(kept["test_prediction"])
    return (np.stack(arrays[0]), np.stack(arrays[1]), label) if arrays[0] else None
