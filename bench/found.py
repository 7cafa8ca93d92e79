"""Job folders without a plan: which tables and figures they belong to.

A folder that was copied, merged by hand or made by another version has no record of what was asked for. Its jobs say what
they are, so a job goes where its config does; one that is no artefact's is a variant of the cell that it is nearest to.
"""

from collections.abc import Sequence
from typing import Any

from bench.manifest import adapted, as_run
from bench.matrix import Config, Experiment, seeds
from bench.settings import difference, short_name, text
from bench.store import Store
from bench.suites import Suite, fitted_settings


def suite_of(store: Store) -> str | None:
    """The suite that job folders look like: "quick" for generated data, else "paper"; None where there are none."""
    kinds = {j.config.dataset.startswith("synthetic-") for j in store.scan()}
    return None if not kinds else "quick" if kinds == {True} else "paper"


def read_folders(
    experiments: Sequence[Experiment], store: Store, suite: Suite, every_variant: bool = False
) -> tuple[list[Experiment], list[str]]:
    """As manifest.read_manifest, from the job folders themselves. Experiments without any job are left out."""
    ran: dict[tuple[str, str, str], dict[Config, int]] = {}
    for job in store.scan():
        of, place = ran.setdefault(_system(job.config), {}), _place(job.seed)
        if place:  # trials of a search have seeds of their own and are nobody's result
            of[job.config] = max(of.get(job.config, 0), place)
    ours = [adapted(e, suite) for e in experiments]
    exact = {c: _exact(c, ran.get(_system(c), {})) for e in ours for c in e.configs()}
    taken = {c for c in exact.values() if c is not None}
    others = {system: [c for c in of if c not in taken] for system, of in ran.items()}
    artefacts = {}
    for e in ours:
        record = _record(e, exact, ran, others)
        if record:
            artefacts[e.id] = record
    lines = ["no record of what was asked for: artefacts are those that the job folders belong to"]
    found, departures = as_run({"artefacts": artefacts}, experiments, store, suite, every_variant)
    return found, lines + departures


def _system(c: Config) -> tuple[str, str, str]:
    return c.dataset, c.backbone, c.mixer


def _place(seed: int) -> int:
    """How many of the field's seeds must be wanted for this one to be among them; 0 for a foreign seed."""
    k = seed - seeds(1)[0] + 1
    return k if 0 < k <= 100 else 0


def _changes(ran: Config, cell: Config) -> dict[str, Any]:
    """Settings in which a job departs from a cell, but for those that a data file explains."""
    return {k: v for k, v in difference(ran, cell).items() if (k, v) not in fitted_settings(ran.backbone)}


def _exact(cell: Config, ran: dict[Config, int]) -> Config | None:
    """The job's config that is a cell's; of several, that of the newest versions."""
    fits = [c for c in ran if not _changes(c, cell)]
    return max(fits, key=lambda c: sorted(c.versions.items()), default=None)


def _record(
    e: Experiment, exact: dict[Config, Config | None], ran: dict[tuple[str, str, str], dict[Config, int]],
    others: dict[tuple[str, str, str], list[Config]],
) -> dict[str, Any] | None:
    cells = [((*row.key, g), c) for row in e.rows for g, c in row.cells.items() if c is not None]
    there = {c: exact[c] for _, c in cells if exact[c] is not None}
    n = max((ran[_system(c)][c] for c in there.values()), default=0)
    variants: dict[str, dict[str, Any]] = {}
    for system in dict.fromkeys(_system(c) for _, c in cells):
        mine = [(key, c) for key, c in cells if _system(c) == system]
        for other in others.get(system, ()):
            changes = {key: _changes(other, c) for key, c in mine}
            fewest = min(map(len, changes.values()))
            for key, changed in changes.items():
                if len(changed) == fewest:
                    one = variants.setdefault(short_name(changed), {
                        "settings": sorted(f"{k}={text(v)}" for k, v in changed.items()), "named": False, "seeds": 0, "cells": [],
                    })
                    one["seeds"] = max(one["seeds"], ran[system][other])
                    one["cells"].append([*key, other.as_dict()])
    if not there and not variants:
        return None
    n = n or max(v["seeds"] for v in variants.values())
    return {"seeds": n, "cells": [[*key, (there.get(c) or c).as_dict()] for key, c in cells], "variants": variants}
