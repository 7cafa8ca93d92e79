"""Metrics against the numbers of the reference implementation (M-SENA) on 1,000 stored vectors."""

from pathlib import Path

import numpy as np
import pytest

from bench.metrics import evaluate

FIXTURE = Path(__file__).parents[1].parent / "shared" / "parity" / "metrics.npz"
pytestmark = pytest.mark.skipif(not FIXTURE.exists(), reason="parity fixtures (metrics.npz) are not here")

KEYS = {
    "mosi": ("msena", ("has0_acc2", "has0_f1", "non0_acc2", "non0_f1", "acc5", "acc7", "mae", "corr")),
    "sims": ("sims", ("acc2", "acc3", "acc5", "f1", "mae", "corr")),
}


def _evaluated(dataset: str) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """The fixture's arrays of one dataset, and ours [500, metrics]."""
    family, keys = KEYS[dataset]
    with np.load(FIXTURE, allow_pickle=False) as f:
        d = {k.split("/")[1]: f[k] for k in f.files if k.startswith(dataset)}
    spans = list(zip(d["offset"], d["offset"][1:]))
    rows = (evaluate(d["prediction"][i:j], d["label"][i:j], family) for i, j in spans)
    return d, np.array([[m[k] for k in keys] for m in rows])


@pytest.mark.parametrize("dataset", sorted(KEYS))
def test_parity_with_the_reference_on_500_vectors(dataset):
    d, ours = _evaluated(dataset)
    defined = d["raises"] == 0
    assert len(ours) == 500 and defined.sum() >= 461
    assert np.array_equal(np.isnan(ours[defined]), np.isnan(d["metric_raw"][defined]))
    np.testing.assert_allclose(ours[defined], d["metric_raw"][defined], rtol=0, atol=1e-12)
    np.testing.assert_array_equal(np.round(ours[defined], 4), d["metric_rounded"][defined])


def test_parity_where_the_reference_raises():
    """Without a non-zero label the reference crashes; here only the metrics over y != 0 are undefined."""
    d, ours = _evaluated("mosi")
    crashed = ours[d["raises"] == 1]
    assert len(crashed) == 39
    assert np.isnan(crashed[:, 2:4]).all()
    assert np.isfinite(crashed[:, [0, 1, 4, 5, 6]]).all()
