"""Metric definitions: what counts as a class, what is left out, what is undefined."""

import numpy as np
import pytest
from sklearn.metrics import f1_score

from bench.metrics import METRICS, evaluate, weighted_f1

FAMILIES = sorted(METRICS)


def _vectors(family: str, n: int = 50, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Prediction and label [n] float32 in the family's range, with zeros and ties."""
    rng = np.random.default_rng(seed)
    bound = {"sims": 1.0, "binary": 3.0}.get(family, 3.0)
    p = rng.uniform(-1.2 * bound, 1.2 * bound, n).astype(np.float32)
    y = (rng.integers(0, 2, n) if family == "binary" else np.round(rng.uniform(-bound, bound, n) * 5) / 5)
    return p, y.astype(np.float32)


@pytest.mark.parametrize("classes", [2, 3, 7])
def test_weighted_f1_equals_sklearn(classes):
    rng = np.random.default_rng(classes)
    for n in [1, 2, 5, 40] * 10:
        truth, predicted = rng.integers(0, classes, (2, n))
        assert weighted_f1(truth, predicted) == pytest.approx(
            f1_score(truth, predicted, average="weighted", zero_division=0), abs=1e-14
        )


def test_f1_is_weighted_by_the_true_class():
    truth, predicted = np.array([0, 0, 0, 1]), np.array([0, 1, 1, 1])
    assert weighted_f1(truth, predicted) == pytest.approx(0.75 * 0.5 + 0.25 * 0.5)
    assert weighted_f1(np.array([0, 0, 0, 1]), np.array([0, 0, 1, 1])) == pytest.approx(0.75 * 0.8 + 0.25 * 2 / 3)
    assert weighted_f1(np.array([0, 0, 1, 1]), np.array([0, 0, 0, 1])) == pytest.approx(0.5 * 0.8 + 0.5 * 2 / 3)


def test_zero_is_non_negative_in_has0_and_left_out_in_non0():
    m = evaluate([0.0, 0.5, -0.5, 0.0], [0.0, 0.0, 0.0, 1.0], "msena")
    assert m["has0_acc2"] == 3 / 4
    assert m["non0_acc2"] == 0.0  # only the last sample counts, and p > 0 fails at p = 0
    assert evaluate([0.0, 0.5, -0.5, 0.0], [0.0, 0.0, 0.0, 1.0], "mag")["non0_acc2"] == 1.0  # there p >= 0 holds


def test_zero_is_negative_on_sims():
    m = evaluate([0.0, 0.3, -0.2], [-0.4, 0.0, 0.0], "sims")
    assert m["acc2"] == pytest.approx(2 / 3)


def test_rounding_is_half_to_even():
    p, y = [0.5, 1.5, 2.5, -0.5, -1.5, -2.5], [0.0, 2.0, 2.0, 0.0, -2.0, -2.0]
    m = evaluate(p, y, "msena")
    assert m["acc7"] == 1.0 and m["acc5"] == 1.0
    assert evaluate([2.5], [3.0], "msena")["acc7"] == 0.0  # half up would say 3
    assert evaluate([2.5], [3.0], "msena")["acc5"] == 1.0  # both clip to 2


def test_sims_cut_points_are_float32_and_bins_closed_on_the_right():
    assert evaluate([np.float64(0.1)], [0.0], "sims")["acc3"] == 1.0  # on the cut: still neutral
    assert evaluate([np.nextafter(np.float32(0.1), np.float32(1))], [0.0], "sims")["acc3"] == 0.0
    assert evaluate([0.7], [0.2], "sims")["acc5"] == 1.0
    assert evaluate([-0.7], [-1.0], "sims")["acc5"] == 1.0
    assert evaluate([-0.1], [-0.2], "sims")["acc5"] == 1.0


def test_sims_clips_before_the_errors_and_msena_does_not():
    p, y = [2.0, -0.5, 0.25], [1.0, -0.5, 0.25]
    assert evaluate(p, y, "sims")["mae"] == 0.0
    assert evaluate(p, y, "sims")["corr"] == pytest.approx(1.0)
    assert evaluate(p, y, "msena")["mae"] == pytest.approx(1 / 3)


def test_mag_scores_errors_without_zero_labels_and_acc7_with_them():
    p, y = [1.0, 2.0, -1.0, 3.0], [1.0, 1.0, -2.0, 0.0]
    m = evaluate(p, y, "mag")
    assert m["mae"] == pytest.approx(2 / 3)
    assert m["corr"] == pytest.approx(np.corrcoef(p[:3], y[:3])[0, 1])
    assert m["acc7"] == 1 / 4
    assert evaluate(p, y, "msena")["mae"] == pytest.approx(5 / 4)


def test_binary_reads_logits():
    m = evaluate([3.0, 0.2, -0.1, -4.0], [1, 0, 0, 1], "binary")
    assert m == {"accuracy": 0.5, "f1": 0.5}


def test_avg_is_the_mean_of_the_accuracy_and_f1_columns_only():
    p, y = _vectors("msena")
    m = evaluate(p, y, "msena")
    six = ("has0_acc2", "has0_f1", "non0_acc2", "non0_f1", "acc5", "acc7")
    assert m["avg"] == pytest.approx(sum(m[k] for k in six) / 6)
    m = evaluate(*_vectors("sims"), "sims")
    assert m["avg"] == pytest.approx((m["acc2"] + m["acc3"] + m["acc5"] + m["f1"]) / 4)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("hole", [np.nan, np.inf, 1e300])
def test_a_prediction_that_is_no_number_makes_every_metric_nan(family, hole):
    p, y = _vectors(family)
    p = p.astype(float)
    p[3] = hole
    assert np.isnan(list(evaluate(p, y, family).values())).all()


@pytest.mark.parametrize("family", FAMILIES)
def test_no_samples_is_nan_and_no_crash(family):
    assert np.isnan(list(evaluate([], [], family).values())).all()


def test_no_non_zero_label_leaves_only_the_non0_metrics_undefined():
    m = evaluate([0.1, -0.2, 0.3], [0.0, 0.0, 0.0], "msena")
    assert [k for k, v in m.items() if np.isnan(v)] == ["non0_acc2", "non0_f1", "corr", "non0_mae", "non0_corr", "avg"]
    assert m["has0_acc2"] == pytest.approx(2 / 3)


def test_the_correlation_of_a_constant_is_nan():  # a RuntimeWarning would fail the test
    for p, y in (([0.1] * 7, list(range(7))), (list(range(7)), [0.1] * 7), ([1.0], [1.0])):
        assert np.isnan(evaluate(p, y, "msena")["corr"])
    assert np.isnan(evaluate([1.5, 2.0, 3.0], [-1.0, 0.0, 1.0], "sims")["corr"])  # constant once clipped


@pytest.mark.parametrize("family", FAMILIES)
def test_neither_order_nor_shape_nor_storage_type_matters(family):
    p, y = _vectors(family)
    expected = evaluate(p, y, family)
    assert evaluate(p[:, None].astype(np.float64), y.astype(np.float64), family) == expected
    order = np.random.default_rng(1).permutation(len(p))
    assert evaluate(p[order], y[order], family) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("family", FAMILIES)
def test_perfect_predictions(family):
    _, y = _vectors(family)
    p = np.where(y > 0, 2.0, -2.0) if family == "binary" else y
    for key, value in evaluate(p, y, family).items():
        assert value == pytest.approx(0.0 if key.endswith("mae") else 1.0), key


@pytest.mark.parametrize("family", FAMILIES)
def test_every_column_names_its_convention(family):
    p, y = _vectors(family)
    assert list(evaluate(p, y, family)) == list(METRICS[family])
    for key, metric in METRICS[family].items():
        assert metric.label and metric.convention
        assert metric.higher_is_better == (not key.endswith("mae"))
        assert metric.percent == (not key.endswith(("mae", "corr")))


def test_wrong_calls_say_what_is_wrong():
    with pytest.raises(ValueError, match="unknown metric family 'mosi'; known: msena, sims, mag, binary"):
        evaluate([1.0], [1.0], "mosi")
    with pytest.raises(ValueError, match="3 predictions for 2 labels"):
        evaluate([1.0, 2.0, 3.0], [1.0, 2.0], "msena")


def test_no_two_metrics_of_a_family_have_one_name():
    for family, metrics in METRICS.items():
        labels = [m.label for m in metrics.values()]
        assert len(set(labels)) == len(labels), family
