"""What the page's script needs to open a cell: seeds, reported number, tests, runs. Compact JSON."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from shlex import quote
from typing import Any

from bench.baselines import BLOCK
from bench.matrix import Config, dataset_name
from bench.matrix import seeds as of_seeds
from bench.report.layout import Line
from bench.report.settings import Setting
from bench.report.significance import Contrast
from bench.report.tables import Table
from bench.report.verdict import Printed
from bench.report.words import pretty
from bench.settings import current, variant_name

RUN_FIELDS = (
    "seed", "status", "error", "commit", "dirty", "code_hash", "data_sha256", "provenance", "device", "torch", "python",
    "wall_seconds", "parameters", "test_only",
)
_CODED = {"status", "error", "commit", "code_hash", "data_sha256", "provenance", "device", "torch", "python"}


def digits(value: float | None, n: int = 5) -> float | None:
    """A number short enough for JSON; None for NaN and None."""
    return None if value is None or not math.isfinite(value) else float(f"{value:.{n}g}")


def printed_text(printed: Printed) -> str:
    """A reported number in words."""
    text = printed.text + (f" \u00b1 {printed.std_text}" if printed.std_text else "")
    text += f", n = {printed.n}" if printed.n else ", number of runs not stated"
    return text + (", copied from another publication" if printed.elsewhere else "")


@dataclass(frozen=True)
class Rerun:
    """How to run cells again from a shell: what a report was made from."""

    suite: str
    results: str = "results"  # as it is named on the command line
    data: str = "DIR"  # folder with the feature files, where it is known

    def command(self, table: Table, configs: Sequence[Config], artefact: str, states: Iterable[str]) -> str:
        """The command that runs these configs again: into a folder of their own where they are done. It works as it
        stands, but for the data folder where that is not known."""
        states, commands = set(states), []
        for c in configs:
            row = table.row_of[c]
            parts = [f"bench run {artefact} --suite {self.suite} --only {quote(current(c).id + '-s*')}"]
            parts += [f"--set {quote(s)}" for s in row.settings]
            parts += [f"--as {quote(row.departs)}"] * (row.departs not in ("", variant_name("", row.settings)))
            parts += ["--baselines"] * (row.block == BLOCK)
            parts += [f"--seeds {table.wanted[c]}"]
            parts += [f"--data {quote(self.data) if self.data != 'DIR' else 'DIR'}"] * (not c.dataset.startswith("synthetic-"))
            parts += ["--retry-failed"] * ("failed" in states)
            target = "again" if states == {"done"} else self.results
            parts += [f"--results {quote(target)}"] * (target != "results")
            commands.append(" ".join(parts))
        return " && ".join(commands)

    def line(self, table: Table, line: Line) -> str:
        """The command of a printed line."""
        configs = list(dict.fromkeys(c for at in filter(None, line.cells) for c in table.cell(at).configs))
        states = {s for at in filter(None, line.cells) for s in table.cell(at).states}
        return self.command(table, configs, table.experiment.id, states) if states else ""


class _Levels:
    """Distinct values of the text fields, in order of appearance."""

    def __init__(self) -> None:
        self.of: dict[str, dict[str, int]] = {f: {} for f in RUN_FIELDS if f in _CODED}

    def encode(self, run: Mapping[str, Any]) -> list[Any]:
        coded = []
        for f in RUN_FIELDS:
            value = run.get(f)
            if f in self.of and value not in (None, ""):
                value = self.of[f].setdefault(str(value), len(self.of[f]))
            elif isinstance(value, bool):
                value = True if value else None
            elif isinstance(value, float):
                value = digits(value)
            coded.append(value if value != "" else None)
        while coded and coded[-1] is None:
            coded.pop()
        return coded


def payload(tables: Sequence[Table], rerun: Rerun, settings: Mapping[str, Sequence[Setting]]) -> str:
    """The JSON block of the page, safe inside a script element."""
    levels, index, configs, why, seeds = _Levels(), {}, [], {"": 0}, {}
    said: dict[Setting, int] = {}
    cells: dict[str, list[dict]] = {}
    for t in tables:
        mine = cells[t.experiment.id] = []
        for line in t.layout.lines:
            for at in filter(None, line.cells):
                cell, judged = t.cell(at), t.judged[at]
                for c in cell.configs:
                    if c.id not in index:
                        index[c.id] = len(configs)
                        found = [(s, t.results.run(c, s)) for s in of_seeds(t.wanted[c])]
                        configs.append({
                            "id": c.id, "path": f"{c.dataset}/{c.backbone}+{c.mixer}/{c.id}",
                            "cmd": rerun.command(t, [c], "{artefact}", {r["status"] for _, r in found}),
                            "set": [said.setdefault(x, len(said)) for x in settings.get(c.id, ())],
                            "runs": [levels.encode({**r, "seed": s}) for s, r in found],
                        })
                record: dict[str, Any] = {}
                if cell.configs:
                    record |= {"c": [index[c.id] for c in cell.configs], "s": "".join(s[0] for s in cell.states)}
                    if cell.n:
                        record["v"] = [digits(v) for v in cell.values]
                        if cell.valid and t.results.split != "valid":
                            record["u"] = [digits(v) for v in cell.valid]
                if z := seeds.setdefault(cell.seeds, len(seeds)):
                    record["z"] = z
                row = t.experiment.rows[at[0]]
                for key, text in (("o", row.described), ("y", row.unrun if not cell.configs else "")):
                    if text:
                        record[key] = why.setdefault(text, len(why))
                if row.departs:
                    record["x"] = row.departs
                if judged.printed:
                    record |= {"r": printed_text(judged.printed), "q": digits(judged.printed.mean, 6)}
                for key, value in (("d", digits(judged.delta)), ("h", digits(judged.half_width)), ("j", judged.status)):
                    if value not in (None, ""):
                        record[key] = value
                if judged.why:
                    record["w"] = why.setdefault(judged.why, len(why))
                for key, kind in (("p", "proposed"), ("b", "plain"), ("e", "default")):
                    if c := t.versus[kind].get(at):
                        record[key] = _contrast(c)
                mine.append(record)
    data = {
        "seeds": [list(s) for s in seeds], "fields": RUN_FIELDS, "levels": {f: list(v) for f, v in levels.of.items()},
        "settings": list(said), "configs": configs, "why": list(why), "columns": {t.experiment.id: _columns(t) for t in tables}, "cells": cells,
    }
    text = json.dumps(data, separators=(",", ":"), allow_nan=False, ensure_ascii=False)
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def _contrast(c: Contrast) -> list[Any]:
    return [c.n, *(digits(x, 4) for x in (c.difference, c.low, c.high, c.p, c.d_z, c.holm))]


def _columns(t: Table) -> list[dict]:
    """Per printed column: group, metric, label, convention, datasets, and the method where columns are methods."""
    layout = t.layout
    methods = [m for m, n in layout.groups for _ in range(n)] if t.pivoted else [""] * len(layout.columns)
    found = []
    for k, column in enumerate(layout.columns):
        configs = [c for line in layout.lines if line.cells[k] for c in t.cell(line.cells[k]).configs]
        datasets = sorted({dataset_name(c.dataset) for c in configs} or {column.group.lower()} - {""})
        entry = {
            "g": column.group,
            "k": column.metric,
            "l": column.label,
            "c": pretty(column.convention),
            "d": [] if t.pivoted else datasets,
        }
        found.append(entry | ({"m": methods[k]} if methods[k] else {}))
    return found
