"""Rows that form a series (missing rates, noise rates): large steps against its trend."""

from collections.abc import Iterator

import pandas as pd

from bench.analysis.audit.finding import Finding
from bench.analysis.cells import label, orientation
from bench.selectors import number

_SHARE = 0.3  # of the series' range
_LARGE = 0.2  # of the value itself
_LEAST = 5  # points that make a series


def check(frame: pd.DataFrame) -> Iterator[Finding]:
    numbered = frame[frame["variant"].str.contains(r"=-?\d", regex=True)]
    for _, series in numbered.groupby(["artefact", "dataset", "backbone", "method", "metric"], sort=False):
        series = series.assign(x=series["variant"].map(number)).sort_values("x")
        if len(series) < _LEAST:
            continue
        value = series["mean"].to_numpy() * orientation(series["metric"].iloc[0])
        trend = 1 if value[-1] >= value[0] else -1
        steps = trend * (value[1:] - value[:-1])
        span, worst = value.max() - value.min(), int(steps.argmin())
        rounding = 10.0 ** -series["decimals"].max()
        back = -steps[worst]
        if span <= 4 * rounding or (back < _SHARE * span and back < _LARGE * abs(value[worst])):
            continue
        a, b = series.iloc[worst], series.iloc[worst + 1]
        yield Finding(
            check="series", level="note", artefact=a["artefact"], cells=(a["cell_id"], b["cell_id"]),
            printed=f"{a['metric']} {a['mean_text']} at {a['variant']}, {b['mean_text']} at {b['variant']}",
            expected=f"{'rising' if trend * orientation(a['metric']) > 0 else 'falling'} from "
            f"{series.iloc[0]['mean_text']} to {series.iloc[-1]['mean_text']}",
            arithmetic=f"{label({**a, 'variant': ''})}: the step goes against the trend by {back:.3g}, "
            f"{back / span:.0%} of the series' range",
            assumption="the metric changes steadily with the rate, but for run-to-run noise",
        )
