"""Metrics of one set of predictions against each other: accuracy and F1, has-0 and non-0, coarse and fine classes."""

from collections.abc import Iterator
from functools import lru_cache

import numpy as np
import pandas as pd

from bench.analysis.audit.finding import Finding, gather, some
from bench.analysis.audit.testsets import TEST_SETS
from bench.analysis.cells import BINARY, ROW, groups, half_unit, label, paper
from bench.selectors import Cell

_NESTED = (("acc7", "acc5"), ("acc5", "acc3"))  # right in the finer classes is right in the coarser ones
_SPREAD_GAP = 0.3  # points between the std of accuracy and of F1 that call for a look
_OUTLIER = 6  # robust standard deviations
_PER_RUN = 0.005  # points that rounding each run to four decimals may add
Pair = tuple[Cell, Cell]  # an accuracy and the F1 of the same predictions


def check(frame: pd.DataFrame) -> Iterator[Finding]:
    pairs = []
    every = frame.to_dict("records")
    for row in groups(every, ROW).values():
        cells = {cell["metric"]: cell for cell in row}
        pairs += [(cells[a], cells[f]) for a, f in BINARY.items() if a in cells and f in cells]
        if "has0_acc2" in cells and "non0_acc2" in cells:
            yield from _neutral_samples(cells["has0_acc2"], cells["non0_acc2"])
        for fine, coarse in _NESTED:
            if fine in cells and coarse in cells and cells[fine]["mean"] > cells[coarse]["mean"]:
                yield _nested(cells[fine], cells[coarse])
    yield from _above_constant(every)
    yield from _f1_ranges(pairs)
    yield from _wide_gaps(pairs)
    yield from _spread_gaps(pairs)


@lru_cache(maxsize=4096)
def f1_range(accuracy: float, positive: int, negative: int, swapped: bool = False) -> tuple[float, float]:
    """Least and largest weighted F1 (fraction) that one set of predictions of that accuracy can have.

    With e the share of errors and t that of true positives, F1+ = 2t / (2t + e) and F1- = 2(a - t) / (2(a - t) + e);
    t is free between max(0, a - share of negatives) and min(a, share of positives). `swapped` weights the two by the
    predicted classes instead of the true ones.
    """
    plus = positive / (positive + negative)
    t = np.linspace(max(0.0, accuracy - (1 - plus)), min(accuracy, plus), 401)
    errors, true_negative = 1 - accuracy, accuracy - t
    f_plus, f_minus = 2 * t / (2 * t + errors + 1e-12), 2 * true_negative / (2 * true_negative + errors + 1e-12)
    weight = t + (1 - plus) - true_negative if swapped else plus
    f1 = weight * f_plus + (1 - weight) * f_minus
    return float(f1.min()), float(f1.max())


def mean_f1_range(accuracy: float, width: float, positive: int, negative: int, swapped: bool = False):
    """The same for means over runs whose accuracies lie within `width` of their mean: the convex hull around it."""
    grid = np.unique(np.clip(accuracy + width * np.linspace(-1, 1, 17), 0, 1))
    ends = np.array([f1_range(float(a), positive, negative, swapped) for a in grid])
    left, right = grid[grid <= accuracy][:, None], grid[grid >= accuracy][None, :]
    share = np.divide(accuracy - left, right - left, out=np.zeros((left.shape[0], right.shape[1])), where=right > left)
    chords = [
        ends[grid <= accuracy, side][:, None] * (1 - share) + ends[grid >= accuracy, side][None, :] * share
        for side in (0, 1)
    ]
    return float(chords[0].min()), float(chords[1].max())


def _f1_ranges(pairs: list[Pair]) -> Iterator[Finding]:
    """F1 that no predictions of the printed accuracy have, apart from that which swapped arguments would explain."""
    for artefact, here in gather([p for p in pairs if _classes(p[0])], lambda p: p[0]["artefact"]).items():
        off = [(a, f, _allowed(a, f, False), _allowed(a, f, True)) for a, f in here]
        off = [o for o in off if not _within(o[1]["mean"], o[2])]
        swapped = [o for o in off if _within(o[1]["mean"], o[3])]
        for level, found in (("impossible", [o for o in off if o not in swapped]), ("implausible", swapped)):
            if not found:
                continue
            yield Finding(
                check="f1-accuracy", level=level, artefact=artefact,
                cells=tuple(c["cell_id"] for o in found for c in o[1::-1]),
                printed=some(f"{label(a)} F1 {f['mean_text']} at accuracy {a['mean_text']}" for a, f, _, _ in found),
                expected=some(_bounds(f["mean"], *bounds) for _, f, bounds, _ in found),
                arithmetic=f"in {len(found)} of {len(here)} pairs no set of predictions with this accuracy has this "
                "weighted F1"
                + ("; weighted by predicted instead of true classes (arguments swapped) it can" * (found is swapped)),
                assumption="accuracy and F1 of the same predictions, classes weighted by truth, the usual test file; "
                "runs rounded to four decimals or not",
            )


def _classes(accuracy: Cell) -> tuple[int, int] | None:
    test = TEST_SETS.get(accuracy["dataset"])
    return test.classes(accuracy["metric"]) if test else None


def _allowed(accuracy: Cell, f1: Cell, swapped: bool) -> tuple[float, float]:
    """Least and largest F1 (%) at a printed accuracy; rounding widens both."""
    width = (2 * accuracy["std"] if accuracy["std"] == accuracy["std"] else 2.0) / 100
    slack = [half_unit(c["mean_text"]) + _PER_RUN for c in (accuracy, f1)]
    ends = [
        mean_f1_range((accuracy["mean"] + side * slack[0]) / 100, width, *_classes(accuracy), swapped)[side > 0]
        for side in (-1, 1)
    ]
    return 100 * ends[0] - slack[1], 100 * ends[1] + slack[1]


def _bounds(value: float, low: float, high: float) -> str:
    """An interval in as many digits as it takes to see that the value lies outside: "[75.750, 81.178], missed by 0.002"."""
    digits = next((d for d in (2, 3, 4) if not round(low, d) <= round(value, d) <= round(high, d)), 4)
    missed = f", missed by {max(low - value, value - high):.{digits}f}" if digits > 2 else ""
    return f"[{low:.{digits}f}, {high:.{digits}f}]{missed}"


def _within(value: float, interval: tuple[float, float]) -> bool:
    return interval[0] <= value <= interval[1]


def _neutral_samples(has0: Cell, non0: Cell) -> Iterator[Finding]:
    test = TEST_SETS.get(has0["dataset"])
    if test is None:
        return
    polar = test.positive + test.negative
    right = (test.size * has0["mean"] - polar * non0["mean"]) / 100
    slack = (test.size * 10.0 ** -has0["decimals"] + polar * 10.0 ** -non0["decimals"]) / 200
    if -slack <= right <= test.neutral + slack:
        return
    yield Finding(
        check="has0-non0", level="impossible", artefact=has0["artefact"], cells=(has0["cell_id"], non0["cell_id"]),
        printed=f"has-0 {has0['mean_text']}, non-0 {non0['mean_text']}",
        expected=f"between 0 and {test.neutral} right neutral samples",
        arithmetic=f"{label(has0)}: {test.size} x has-0 - {polar} x non-0 leaves {right:.1f} +- {slack:.1f} right "
        f"answers on {test.neutral} neutral samples",
        assumption="both accuracies are of the same predictions, and no prediction is exactly 0",
    )


def _nested(fine: Cell, coarse: Cell) -> Finding:
    return Finding(
        check="nested-classes", level="impossible", artefact=fine["artefact"],
        cells=(fine["cell_id"], coarse["cell_id"]),
        printed=f"{fine['metric']} {fine['mean_text']}, {coarse['metric']} {coarse['mean_text']}",
        expected=f"{fine['metric']} at most {coarse['metric']}",
        arithmetic=f"{label(fine)}: a prediction in the right fine class is in the right coarse class",
        assumption="both accuracies clip and round the same predictions",
    )


def _above_constant(cells: list[Cell]) -> Iterator[Finding]:
    """Errors above that of always answering the median label."""
    off = [(c, limit) for c in cells if c["metric"] == "mae" and (limit := _constant_mae(c)) and c["mean"] > limit]
    for artefact, found in gather(off, lambda o: o[0]["artefact"]).items():
        yield Finding(
            check="constant-predictor", level="implausible", artefact=artefact,
            cells=tuple(c["cell_id"] for c, _ in found),
            printed=some(f"{c['mean_text']} ({label(c)})" for c, _ in found), expected=f"below {found[0][1]:.3f}",
            arithmetic=f"in {len(found)} cells always answering the median label has a smaller error",
            assumption="MAE on the label scale over the test samples of the column's convention",
        )


def _constant_mae(mae: Cell) -> float | None:
    test = TEST_SETS.get(mae["dataset"])
    return test and (test.polar_constant_mae if mae["convention"] == "mag" else test.constant_mae)


def _wide_gaps(pairs: list[Pair]) -> Iterator[Finding]:
    """Accuracy and F1 farther apart than in nearly all other rows of the paper."""
    for name, here in gather(pairs, lambda p: paper(p[0]["artefact"])).items():
        gaps = np.array([a["mean"] - f["mean"] for a, f in here])
        centre = float(np.median(gaps))
        scale = max(1.4826 * float(np.median(np.abs(gaps - centre))), 0.05)
        far = [pair for pair, gap in zip(here, gaps) if abs(gap - centre) > _OUTLIER * scale]
        if not far:
            continue
        yield Finding(
            check="f1-gap", level="implausible", artefact=name, cells=tuple(c["cell_id"] for pair in far for c in pair),
            printed=some(f"{a['artefact']} {label(a)} {a['mean_text']} / {f['mean_text']}" for a, f in far),
            expected=f"a gap of {centre:.2f} +- {_OUTLIER * scale:.2f}",
            arithmetic=f"in {len(far)} of {len(gaps)} pairs accuracy and F1 are farther apart; the median gap is "
            f"{centre:+.2f} with a robust spread of {scale:.2f}",
            assumption="accuracy and F1 of the same predictions move together",
        )


def _spread_gaps(pairs: list[Pair]) -> Iterator[Finding]:
    """Accuracy and F1 of the same runs with clearly different std."""
    both = [(a, f) for a, f in pairs if a["std"] == a["std"] and f["std"] == f["std"]]
    for artefact, here in gather(both, lambda p: p[0]["artefact"]).items():
        gaps = [(a, f, abs(a["std"] - f["std"])) for a, f in here]
        apart = sorted((g for g in gaps if g[2] > _SPREAD_GAP + 1e-9), key=lambda g: -g[2])
        if not apart:
            continue
        yield Finding(
            check="f1-spread", level="implausible", artefact=artefact,
            cells=tuple(c["cell_id"] for a, f, _ in apart for c in (a, f)),
            printed=some(f"{label(a)} {a['metric']} {a['std_text']} / {f['std_text']}" for a, f, _ in apart),
            expected=f"std of accuracy and of F1 within {_SPREAD_GAP}",
            arithmetic=f"in {len(apart)} of {len(here)} pairs the two std differ by more than {_SPREAD_GAP} points",
            assumption="accuracy and F1 of the same predictions move together from seed to seed",
        )
