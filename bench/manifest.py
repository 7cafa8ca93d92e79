"""What was run, kept beside the results, so that a report needs neither the data nor the flags of the run.

<results>/plans/<suite>.json holds, for each artefact, the configs of its cells as a suite and the data at hand made them,
and beside them the variants: what ran with --set, under a name of its own. A variant never takes a default's place.
"""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench import baselines
from bench.errors import BenchError
from bench.matrix import Config, Experiment, Job, Row
from bench.matrix import seeds as of_seeds
from bench.plan import Plan, map_configs, with_figure_settings
from bench.plural import count
from bench.seeds import MOST_SEEDS
from bench.settings import difference, short_name, text, variant_name
from bench.store import MISSING, Store, read_json, write_json
from bench.suites import SUITES, Suite, fitted_settings

FORMAT = 2
Name = tuple[str, str, str, str]  # backbone, method, variant, column group


def suites_run(store: Store) -> list[str]:
    """Suites that were run into a results folder, the last one last: a copy's files are all of one time, so the record
    says when it was written."""
    found = sorted((store.root / "plans").glob("*.json"))
    if len(found) > 1:
        found.sort(key=_written)
    return [p.stem for p in found if p.stem in SUITES]  # another version's, or somebody's, is nothing that can be shown here


def _written(record: Path) -> float:
    try:
        found = read_json(record)
    except BenchError:
        found = None
    at = found.get("written") if isinstance(found, dict) else None
    return float(at) if isinstance(at, (int, float)) else record.stat().st_mtime


def path(store: Store, suite: str) -> Path:
    return store.root / "plans" / f"{suite}.json"


# --- writing --------------------------------------------------------------------------------------------------------

def write_manifest(plan: Plan, store: Store, seeds: int | None) -> None:
    """Merge the plan's cells into <results>/plans/<suite>.json. Running some cells alone, or with fewer seeds, changes
    nothing about the others: a cell that was not selected stays as it was run before, and one that --set changed is
    kept as a variant beside its default. Raises BenchError where the variant's name has other settings already."""
    old = read_json(path(store, plan.suite.name)) or {}
    with _damage(path(store, plan.suite.name)):
        artefacts = _upgraded(old, {e.id: e for e in plan.base}, plan.suite, store)
    selected = {j.config.id for j in plan.jobs}
    name = plan.variant or variant_name("", plan.settings)
    for base, e in zip(plan.base, plan.experiments):
        before = artefacts.get(e.id, {})
        earlier = {tuple(key): c for *key, c in before.get("cells", ())}
        variants = dict(before.get("variants", {}))
        mine = variants.get(name, {})
        if mine and sorted(mine["settings"]) != sorted(plan.settings):
            raise BenchError(f"--as {name}: {e.id} has a variant of that name in {store.root} already, made with {' '.join(mine['settings'])}; choose another")
        changed = {tuple(key): c for *key, c in mine.get("cells", ())}
        cells = []
        for key, default, c in _cells(base, e):
            ran = c.id in selected
            if ran and c != default:
                changed[key] = c.as_dict()
            kept = default.as_dict() if ran and c == default else earlier.get(key, default.as_dict())
            cells.append([*key, kept])
        if changed:
            variants[name] = {
                "settings": sorted(plan.settings), "named": bool(plan.variant) or mine.get("named", False),
                "seeds": max(mine.get("seeds", 0), seeds or plan.suite.seeds or e.seeds),
                "cells": [[*key, c] for key, c in changed.items()],
            }
        with_baselines = plan.baselines or before.get("baselines", False)
        if with_baselines and not plan.baselines:  # of rows that this run did not ask for
            cells += [[*key, c] for key, c in earlier.items() if key not in {tuple(k) for *k, _ in cells}]
        default_ran = any(c == d and c.id in selected for _, d, c in _cells(base, e))
        wanted = e.seeds and (seeds or plan.suite.seeds or e.seeds)
        artefacts[e.id] = {
            "seeds": max(before.get("seeds", 0), wanted) if default_ran or not before else before["seeds"],
            "cells": cells,
            **({"variants": variants} if variants else {}),
            **({"baselines": True} if with_baselines else {}),
            **({"settings": e.figure["settings"]} if "settings" in e.figure else {}),
        }
    adapted = sorted({*old.get("adapted", []), *plan.adapted})
    write_json(path(store, plan.suite.name), {"format": FORMAT, "written": round(time.time(), 3), "artefacts": artefacts, "adapted": adapted})


def _cells(base: Experiment, e: Experiment) -> Iterable[tuple[Name, Config, Config]]:
    """(labels of a cell, its config by default, its config in the plan)."""
    for row, mine in zip(base.rows, e.rows):
        for group, c in row.cells.items():
            if c is not None:
                yield (*row.key, group), c, mine.cells[group]


# --- reading --------------------------------------------------------------------------------------------------------

def read_manifest(
    experiments: Sequence[Experiment], store: Store, suite: Suite, every_variant: bool = False
) -> tuple[list[Experiment], list[str]]:
    """(experiments as they were run in the suite, where that departs from their definition, one line each).

    Artefacts never run are left out. A variant follows its default as a row of its own where it was named, where its
    default has no run, and always with `every_variant`.
    """
    file = path(store, suite.name)
    manifest = read_json(file)
    if manifest is None and not file.exists():
        return [], []
    with _damage(file):
        return as_run(manifest, experiments, store, suite, every_variant)


@contextmanager
def _damage(file: Path) -> Iterator[None]:
    """Say in one line that a record is not what a run writes."""
    try:
        yield
    except (ArithmeticError, AttributeError, IndexError, KeyError, TypeError, ValueError) as e:
        raise BenchError(f"{file} is damaged ({type(e).__name__}: {str(e)[:80]}); remove it and run again: finished jobs are kept") from None


def as_run(
    manifest: Mapping[str, Any], experiments: Sequence[Experiment], store: Store, suite: Suite, every_variant: bool
) -> tuple[list[Experiment], list[str]]:
    """What read_manifest returns, of a manifest's content."""
    known = {e.id: adapted(e, suite) for e in experiments}
    ran, out = _upgraded(manifest, known, suite, store), []
    lines = list(manifest.get("adapted", []))
    for e in experiments:
        if e.id not in ran:
            continue
        record, base = ran[e.id], known[e.id]
        for wanted in (record, *record.get("variants", {}).values()):
            _check_seeds(wanted["seeds"])
        if record.get("baselines"):
            base = baselines.with_rows(base)
        cells = {tuple(key): _config(c) for *key, c in record["cells"]}
        rows, said = [], {}
        for row in base.rows:
            mine = replace(row, cells={g: cells.get((*row.key, g), c) for g, c in row.cells.items()})
            rows.append(mine)
            for name, variant in record.get("variants", {}).items():
                of = {tuple(key): _config(c) for *key, c in variant["cells"]}
                changed = {g: of[key] for g in row.cells if (key := (*row.key, g)) in of}
                if not changed:
                    continue
                alone = any(not _runs(mine.cells[g], record["seeds"], store) for g in changed)
                shown = every_variant or variant["named"] or alone
                said.setdefault((name, shown), []).extend(changed.values())
                if shown:
                    rows.append(replace(row, cells=changed, baseline="", departs=name, settings=tuple(variant["settings"]), seeds=variant["seeds"]))
        lines += [_line(e.id, name, shown, configs, record["variants"][name]) for (name, shown), configs in said.items()]
        lines += _versions(base, rows)
        made = replace(base, rows=tuple(rows), seeds=record["seeds"])
        out.append(with_figure_settings(baselines.with_values(made, store), record.get("settings")))
    return out, list(dict.fromkeys(lines)) + [f"{a} was run, but is not known here" for a in ran if not _known(a)]


def _check_seeds(n: Any) -> None:
    if type(n) is not int or not 0 <= n <= MOST_SEEDS:
        raise ValueError(f"'seeds' is {str(n)[:20]}, no number from 0 to {MOST_SEEDS}")


def adapted(e: Experiment, suite: Suite) -> Experiment:
    """An experiment as a suite defines it."""
    if "settings" in e.figure:
        e = with_figure_settings(e, suite.adapt_measure(e.figure["kind"], e.figure["settings"]))
    return map_configs(e, suite.adapt)


def _known(artefact: str) -> bool:
    from bench.experiments import all_experiments

    return artefact in all_experiments()


def _config(d: Mapping[str, Any]) -> Config:
    """A stored config, of whatever version."""
    return Config.from_dict(d)


def _runs(c: Config, n: int, store: Store) -> int:
    """How many of n seeds were run, well or not."""
    return sum(store.status(Job(c, s)) != MISSING for s in of_seeds(n))


def _line(artefact: str, name: str, shown: bool, configs: Sequence[Config], variant: Mapping[str, Any]) -> str:
    systems = ", ".join(dict.fromkeys(c.backbone for c in configs))
    settings = " ".join(variant["settings"])
    where = "rows of their own, outside every verdict" if shown else "not shown; `bench report --variants` shows them"
    title = f"{name} ({settings})" if variant["named"] else settings
    cells = f"{count(len(configs), 'cell')}"
    return f"{artefact}, {systems}: {cells} ran with other settings, {title}: {where}"


def _versions(base: Experiment, rows: Sequence[Row]) -> list[str]:
    """Lines on cells that another version of a component made."""
    present = {(c.backbone, c.mixer, c.dataset): c.versions for c in base.configs()}
    found: dict[tuple[str, int, int], None] = {}
    for c in (c for r in rows for c in r.cells.values() if c is not None):
        for part, now in present.get((c.backbone, c.mixer, c.dataset), {}).items():
            then = c.versions.get(part, now)
            if then != now:
                found[{"backbone": c.backbone, "mixer": c.mixer, "dataset": c.dataset}.get(part, part), then, now] = None
    return [f"{what} ran as version {then}, the code here is version {now}: its numbers may differ" for what, then, now in found]


# --- records of earlier versions ------------------------------------------------------------------------------------

def _upgraded(manifest: Mapping[str, Any], known: Mapping[str, Experiment], suite: Suite, store: Store) -> dict[str, Any]:
    """The artefacts of a manifest in the present form. A cell whose config is not the experiment's, in ways that
    fitting to a data file does not explain, is taken for a variant: settings were given to it, or its definition has
    changed since."""
    found = dict(manifest.get("artefacts", {}))
    for artefact, e in known.items():
        if artefact in found:
            found[artefact] = _apart(found[artefact], e, store)
    return found


def _apart(record: Mapping[str, Any], e: Experiment, store: Store) -> dict[str, Any]:
    defaults = {(*row.key, g): c for row in e.rows for g, c in row.cells.items() if c is not None}
    cells, variants = [], {k: {**v, "cells": list(v["cells"])} for k, v in record.get("variants", {}).items()}
    for *key, stored in record["cells"]:
        c, default = _config(stored), defaults.get(tuple(key))
        changed = difference(c, default) if default is not None else {}
        changed = {k: v for k, v in changed.items() if (k, v) not in fitted_settings(c.backbone)}
        if not changed or default is None:
            cells.append([*key, stored])
            continue
        cells.append([*key, default.as_dict()])
        if done := _runs(c, record["seeds"], store):
            name = short_name(changed)
            one = variants.setdefault(name, {
                "settings": sorted(f"{k}={text(v)}" for k, v in changed.items()), "named": False, "seeds": 0, "cells": [],
            })
            one["seeds"] = max(one["seeds"], done)
            one["cells"].append([*key, stored])
    return {**record, "cells": cells, **({"variants": variants} if variants else {})}
