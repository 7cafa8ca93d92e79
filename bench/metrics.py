"""Metrics of a prediction vector, one table per convention family. Pure functions on numpy arrays.

A family is how one line of work counts. The same words ("Acc-2", "F1") mean different things in different families,
so every column carries its convention in words; see METRICS.

    msena   CMU-MOSI, CMU-MOSEI as in M-SENA (MS-Mix, PowMix, SLaD)
    sims    CH-SIMS as in M-SENA
    mag     the word-level line of MAG-BERT, MIB and ITHP (SAM-LML, CP+SL)
    binary  humour and sarcasm detection (UR-FUNNY, MUStARD)

Readings:
- Values are fractions and are not rounded; M-SENA itself rounds every run to four decimals before it averages.
- Everything is computed on float32, as in M-SENA: a value on a cut point of CH-SIMS (float32 0.1 is greater than
  double 0.1) or on a rounding tie must not depend on how it was stored.
- Rounding is half to even: 0.5 -> 0, 1.5 -> 2, 2.5 -> 2.
- F1 is weighted by the true class. Some released code swaps the two arguments; none of the families here does.
- Zero is non-negative in has-0, left out in non-0 and negative on CH-SIMS.
- PowMix says that it excludes "zero-valued predictions" (Sec. 5.3); M-SENA, which it runs on, excludes zero labels.
- CP+SL names no convention. Its skeleton is ITHP's, hence family mag; has-0 is there beside it.
- binary: the prediction is a logit, so p > 0 says "probability above 0.5".
- A prediction or label that is not finite makes every metric NaN: NaN is never counted as a class. A metric without
  samples (no non-zero label) and the correlation of a constant are NaN.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float32]
Classes = Callable[[Floats], NDArray[np.int64]]  # values [N] -> class of each [N], from 0


@dataclass(frozen=True)
class Metric:
    """How one column is computed, and how it is printed."""

    label: str
    convention: str  # the definition in words; p is the prediction, y the label
    kind: str  # "accuracy", "f1", "mae", "corr" or "mean"
    classes: Classes | None = None  # of accuracy and f1
    non0: bool = False  # only samples with y != 0
    clip: float | None = None  # p and y are clipped to [-clip, clip] first
    of: tuple[str, ...] = ()  # the keys that kind "mean" averages
    higher_is_better: bool = True
    percent: bool = True  # printed x 100

    def keep(self, label: Floats) -> NDArray[np.bool_]:
        """Mask [N] of the samples that count."""
        return label != 0 if self.non0 else np.ones(len(label), dtype=bool)

    def clipped(self, values: Floats) -> Floats:
        return values if self.clip is None else np.clip(values, -self.clip, self.clip)


def _non_negative(x: Floats) -> NDArray[np.int64]:
    return (x >= 0).astype(np.int64)


def _positive(x: Floats) -> NDArray[np.int64]:
    return (x > 0).astype(np.int64)


def _rounded(bound: int) -> Classes:
    """2 * bound + 1 classes: clip to [-bound, bound], round half to even."""
    return lambda x: np.round(np.clip(x, -bound, bound)).astype(np.int64) + bound


def _binned(*cuts: float) -> Classes:
    """Bins closed on the right; the cut points are float32."""
    edges = np.array(cuts, dtype=np.float32)
    return lambda x: np.searchsorted(edges, x, side="left")


def _binary_pair(prefix: str, tag: str, convention: str, classes: Classes, **rule: object) -> dict[str, Metric]:
    """Acc2 and the weighted F1 of the same classes."""
    return {
        f"{prefix}acc2": Metric(f"Acc2{tag}", convention, "accuracy", classes, **rule),
        f"{prefix}f1": Metric(f"F1{tag}", f"{convention}; F1 weighted by true class", "f1", classes, **rule),
    }


def _errors(samples: str, **rule: object) -> dict[str, Metric]:
    """MAE and Pearson correlation."""
    return {
        "mae": Metric("MAE", f"mean |p - y|, {samples}", "mae", higher_is_better=False, percent=False, **rule),
        "corr": Metric("Corr", f"Pearson correlation, {samples}", "corr", percent=False, **rule),
    }


_HAS0 = _binary_pair("has0_", " (has-0)", "all samples, p >= 0 against y >= 0", _non_negative)
_ACC5 = Metric("Acc5", "clipped to [-2, 2], rounded half to even, all samples", "accuracy", _rounded(2))
_ACC7 = Metric("Acc7", "clipped to [-3, 3], rounded half to even, all samples", "accuracy", _rounded(3))
_SIX = ("has0_acc2", "has0_f1", "non0_acc2", "non0_f1", "acc5", "acc7")
_SIMS = ("acc2", "acc3", "acc5", "f1")
_SIMS_BINARY = _binary_pair("", "", "all samples, p > 0 against y > 0 (zero is negative)", _positive, clip=1.0)

METRICS: Mapping[str, Mapping[str, Metric]] = MappingProxyType({
    "msena": {
        **_HAS0,
        **_binary_pair("non0_", " (non-0)", "samples with y != 0, p > 0 against y > 0", _positive, non0=True),
        "acc5": _ACC5,
        "acc7": _ACC7,
        **_errors("all samples, unclipped"),
        **{f"non0_{k}": replace(m, label=f"{m.label} (non-0)")  # as family mag
           for k, m in _errors("samples with y != 0, unclipped", non0=True).items()},
        "avg": Metric("Avg", "mean of has-0 and non-0 Acc2 and F1, Acc5 and Acc7", "mean", of=_SIX),
    },
    "sims": {
        "acc2": _SIMS_BINARY["acc2"],
        "acc3": Metric("Acc3", "clipped to [-1, 1], cuts -0.1, 0.1, bins closed on the right", "accuracy",
                       _binned(-0.1, 0.1), clip=1.0),
        "acc5": Metric("Acc5", "clipped to [-1, 1], cuts -0.7, -0.1, 0.1, 0.7, bins closed on the right", "accuracy",
                       _binned(-0.7, -0.1, 0.1, 0.7), clip=1.0),
        "f1": _SIMS_BINARY["f1"],
        **_errors("all samples, p and y clipped to [-1, 1]", clip=1.0),
        "avg": Metric("Avg", "mean of Acc2, Acc3, Acc5 and F1", "mean", of=_SIMS),
    },
    "mag": {
        **_binary_pair("non0_", " (non-0)", "samples with y != 0, p >= 0 against y >= 0", _non_negative, non0=True),
        **_HAS0,
        "acc7": _ACC7,
        **_errors("samples with y != 0, unclipped", non0=True),
    },
    "binary": {
        "accuracy": Metric("Accuracy", "all samples, logit p > 0 against y > 0", "accuracy", _positive),
        "f1": Metric("F1", "all samples, logit p > 0 against y > 0; F1 weighted by true class", "f1", _positive),
    },
})


# Key of the other family's column under this family's convention. Tables of word-level systems (mag) have rows that run on
# M-SENA's files: their MAE and Corr must be over the same samples. Accuracies differ for a prediction of exactly 0 alone.
SAME_AS: Mapping[tuple[str, str], Mapping[str, str]] = MappingProxyType({
    ("mag", "msena"): {"mae": "non0_mae", "corr": "non0_corr"},
})
MSENA_FEATURES = ("unaligned", "aligned", "audio")  # feature files whose results are of family msena (or sims)


def evaluate(prediction: ArrayLike, label: ArrayLike, family: str) -> dict[str, float]:
    """Every metric of a family, in the order of METRICS[family].

    prediction, label: [N] or [N, 1], any float type. Returns fractions (MAE in label units), NaN where undefined.
    Raises ValueError for an unknown family and for vectors of different length.
    """
    if family not in METRICS:
        raise ValueError(f"unknown metric family '{family}'; known: {', '.join(METRICS)}")
    p, y = as_float32(prediction).ravel(), as_float32(label).ravel()
    if len(p) != len(y):
        raise ValueError(f"{len(p)} predictions for {len(y)} labels")
    if not (np.isfinite(p).all() and np.isfinite(y).all()):
        return dict.fromkeys(METRICS[family], float("nan"))
    values: dict[str, float] = {}
    for key, metric in METRICS[family].items():
        if metric.kind == "mean":
            values[key] = float(np.mean([values[part] for part in metric.of]))
        else:
            keep = metric.keep(y)
            values[key] = _single(metric, metric.clipped(p[keep]), metric.clipped(y[keep]))
    return values


def as_float32(values: ArrayLike) -> Floats:
    """The values in float32; what does not fit becomes infinite, and so not a number that counts."""
    with np.errstate(over="ignore", invalid="ignore"):
        return np.asarray(values).astype(np.float32)


def _single(metric: Metric, p: Floats, y: Floats) -> float:
    if len(y) == 0:
        return float("nan")
    if metric.kind == "mae":
        with np.errstate(over="ignore"):  # a diverged but finite prediction has an infinite error
            return float(np.mean(np.abs(p - y)))
    if metric.kind == "corr":
        return correlation(p, y)
    predicted, truth = metric.classes(p), metric.classes(y)
    return weighted_f1(truth, predicted) if metric.kind == "f1" else float(np.mean(predicted == truth))


def correlation(p: Floats, y: Floats) -> float:
    """Pearson correlation in float64 of vectors [N]; NaN (and no warning) where either is constant."""
    if len(p) == 0 or p.min() == p.max() or y.min() == y.max():
        return float("nan")
    return float(np.corrcoef(p, y)[0, 1])


def weighted_f1(truth: NDArray[np.int64], predicted: NDArray[np.int64]) -> float:
    """F1 per class, averaged with the number of true samples as weight; NaN without samples.

    With n_c true, m_c predicted and t_c rightly predicted samples of class c: sum_c (n_c / N) 2 t_c / (n_c + m_c).
    Equals scikit-learn's f1_score(truth, predicted, average="weighted"), which takes milliseconds a call.
    truth, predicted: [N] classes from 0.
    """
    if len(truth) == 0:
        return float("nan")
    k = int(max(truth.max(), predicted.max())) + 1
    confusion = np.bincount(truth * k + predicted, minlength=k * k).reshape(k, k)  # (true, predicted)
    n, m, hits = confusion.sum(1), confusion.sum(0), np.diagonal(confusion)
    return float(np.sum(n * (2 * hits / np.maximum(n + m, 1))) / len(truth))


_LOWER = {"mae", "non0_mae", "params", "gflops", "params_ours", "gflops_ours", "kl", "loss_rise", "drop", "loss"}


def is_time(metric: str) -> bool:
    """Whether a metric is a time that a run took: it depends on what else its device did meanwhile."""
    return metric.endswith("seconds_per_epoch")


def higher_is_better(metric: str) -> bool:
    """False for errors, costs, losses and p-values."""
    return not (metric in _LOWER or metric.endswith(("_p_value", "seconds_per_epoch", "_loss", "_drop")))
