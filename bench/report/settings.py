"""The settings behind every cell, and where each of them comes from."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Any, NamedTuple

import pandas as pd

from bench import settings as reading
from bench.errors import BenchError
from bench.matrix import Config, Experiment, Row, dataset_name
from bench.report.tables import Table
from bench.suites import fitted_settings, suite

GIVEN = "--set"  # the source of what a user gave


class Setting(NamedTuple):
    name: str  # as --set takes it
    value: str
    source: str


def settings_of(e: Experiment, row: Row, config: Config, suite_name: str) -> list[Setting]:
    """Every setting of a config in a row of an artefact."""
    given, full = reading.given(config), reading.full(config)
    by_user = {reading.parse(s)[0] for s in row.settings}
    by_suite, fitted = _suite_gives(e.id, suite_name), fitted_settings(config.backbone)
    published, found = replace(config, dataset=dataset_name(config.dataset)), []
    for name in dict.fromkeys([*given, *full]):
        value = reading.text(full[name])
        if name in by_user:
            source = GIVEN
        elif (name, value) in by_suite:
            source = f"suite {suite_name}"
        elif (name, full[name]) in fitted:
            source = "fitted to the data file"
        else:
            file = _file(e, published, name, full[name]) if name in given else ""
            source = file or ("the experiment" if name in given else _code(config, name))
        found.append(Setting(name, value, source))
    return found


def _code(config: Config, name: str) -> str:
    room = name.partition(".")[0]
    file = {"train": "train/protocol", "backbone": f"models/{config.backbone}", "mixer": f"mixers/{config.mixer}"}.get(room)
    return f"default, bench/{file}.py" if file else "default"


def _file(e: Experiment, config: Config, name: str, value: Any) -> str:
    from bench.experiments.common import origin

    return origin(e.paper, config, name, value)


@cache
def _suite_gives(artefact: str, suite_name: str) -> frozenset[tuple[str, str]]:
    """The (setting, value) pairs in which a suite changes an artefact's cells."""
    from bench.experiments import all_experiments

    try:
        adapt = suite(suite_name).adapt
    except BenchError:
        return frozenset()
    e = all_experiments().get(artefact)
    return frozenset(
        (name, reading.text(value)) for c in (e.configs() if e else ())
        for name, value in reading.difference(adapt(c), c).items()
    )


def by_config(tables: Sequence[Table], suite_name: str) -> dict[str, list[Setting]]:
    """Config id -> its settings, as in the first artefact that shows it."""
    found: dict[str, list[Setting]] = {}
    for t in tables:
        e = t.experiment
        for row in e.rows:
            for c in row.cells.values():
                if c is not None and c.id not in found:
                    found[c.id] = settings_of(e, row, c, suite_name)
    return found


def frame(settings: Mapping[str, Iterable[Setting]]) -> pd.DataFrame:
    """One line per config and setting."""
    lines = [(i, *s) for i, of in settings.items() for s in of]
    return pd.DataFrame(lines, columns=["config", "setting", "value", "source"])


def words(settings: Iterable[Setting]) -> str:
    """All settings on a line: "train.lr=0.001; backbone.rank=3"."""
    return "; ".join(f"{s.name}={s.value}" for s in settings)
