"""Which jobs an artefact list needs, which are done, what the rest will cost, and what cannot run here and why.

Torch-free: `bench list` and `bench plan` answer at once.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, cached_property, partial
from pathlib import Path
from typing import Any

from bench import encoders, estimate, modalities, validate
from bench.baselines import with_rows as with_baselines
from bench.data.corruption import VERSION as CORRUPTION_VERSION
from bench.data.corruption import refuse_evaluation
from bench.data.dataset import fingerprint, is_synthetic, load, locate, spec
from bench.data.recognise import instead
from bench.errors import BenchError
from bench.matrix import Config, Experiment, Job, Row, expand
from bench.matrix import seeds as of_seeds
from bench.measure.wanted import Wanted, wanted
from bench.provenance import of_file
from bench.selectors import Only, row_labels
from bench.settings import ROOMS
from bench.spaces import swept
from bench.store import DAMAGED, DONE, FAILED, MISSING, STALE, Store
from bench.suites import Suite, fit_to_data
from bench.trails import TUNED, Trail, of_cell, other_data, read_all, unequal, without_choice


@dataclass(frozen=True)
class Found:
    """A feature file at hand, or the reason why there is none."""

    dataset: str
    features: str
    path: Path | None
    sha256: str = ""
    provenance: str = ""
    reason: str = ""
    unusable: bool = False  # it is there, and the reason is what is wrong with it
    rows: int = 0  # training samples, where the file could be read
    leaks: tuple[str, ...] = ()  # ids that its splits share, which --allow-leak let through


@dataclass
class Plan:
    """Artefacts as they will be run in a suite, and the state of their jobs."""

    suite: Suite
    experiments: list[Experiment]
    jobs: list[Job]
    status: dict[str, str]  # job id -> done, failed, missing, stale
    blocked: dict[str, str]  # config id -> why it cannot run here
    data: dict[tuple[str, str], str]  # (dataset, features) -> sha256 of the file at hand
    adapted: list[str] = field(default_factory=list)  # one line per deviation from the experiment's definition
    seconds: dict[str, dict[str, float]] = field(default_factory=dict)  # "cpu", "gpu" -> config id -> of one job
    n_seeds: int | None = None  # overrides each experiment's own number
    figures: Wanted = field(default_factory=Wanted)  # what figures want measured of the jobs
    base: list[Experiment] = field(default_factory=list)  # the artefacts without --set
    settings: tuple[str, ...] = ()  # as after --set
    variant: str = ""  # what --as calls the cells that they change
    limits: dict[str, float] = field(default_factory=dict)  # job id -> the time limit that a failed job ran into
    notes: list[str] = field(default_factory=list)  # one line per setting that only some of the selected cells have
    unusable: list[str] = field(default_factory=list)  # what is wrong with feature files that are there
    baselines: bool = False  # tables have rows of simple baselines
    memory: dict[str, float] = field(default_factory=dict)  # config id -> bytes of the process of one job on a CPU
    _jobs_of: dict[str, list[Job]] = field(default_factory=dict, repr=False)  # by artefact

    def todo(self, retry_failed: bool = False, timeout: float | None = math.nan) -> list[Job]:
        """Jobs to run now: missing, stale and damaged ones that are not blocked, failed ones on request, and those that
        failed for a shorter time limit than `timeout` (None: there is none; NaN: it is not known yet)."""
        states = {MISSING, STALE, DAMAGED} | ({FAILED} if retry_failed else set())
        longer = {i for i, limit in self.limits.items() if timeout is None or timeout > limit}
        return [
            j for j in self.jobs
            if (self.status[j.id] in states or j.id in longer) and j.config.id not in self.blocked
        ]

    def count(self, status: str, jobs: Iterable[Job] | None = None) -> int:
        return sum(self.status[j.id] == status for j in (self.jobs if jobs is None else jobs))

    def remaining_seconds(self, jobs: Iterable[Job], device: str = estimate.CPU) -> float:
        """Expected seconds of some jobs on one CPU core, or on one GPU with one worker."""
        return sum(self.seconds[device][j.config.id] for j in jobs)

    def jobs_of(self, e: Experiment) -> list[Job]:
        """The jobs of an artefact in this plan."""
        if e.id not in self._jobs_of:
            self._jobs_of[e.id] = [j for j in expand([e], self.n_seeds) if j.id in self.status]
        return self._jobs_of[e.id]

    @cached_property
    def needed_by(self) -> dict[str, list[str]]:
        """Job id -> the artefacts that need it, in the plan's order; the first one of them brings it in."""
        found: dict[str, list[str]] = {}
        for e in self.experiments:
            for j in self.jobs_of(e):
                found.setdefault(j.id, []).append(e.id)
        return found


def with_figure_settings(e: Experiment, settings: Any) -> Experiment:
    """The experiment with other settings of its figure's measures; the same where they are None."""
    return e if settings is None else replace(e, figure={**e.figure, "settings": settings})


def map_configs(e: Experiment, change: Any) -> Experiment:
    """The experiment with every config replaced by change(config)."""
    rows = tuple(
        replace(r, cells={g: None if c is None else change(c) for g, c in r.cells.items()}) for r in e.rows
    )
    return replace(e, rows=rows)


def overridden(config: Config, settings: Sequence[str]) -> Config:
    """Apply --set key=value: train.max_epochs=5, backbone.rank=4, mixer.p_mix=1, fraction=0.5, features=aligned,
    data.modalities=text,audio.

    Raises BenchError on anything else.
    """
    for room, name, value in map(validate.split, settings):
        if not room:
            config = config.with_(**{name: value})
            continue
        if room == "data":
            config = modalities.keep(config, value)
            continue
        config = config.with_(**{ROOMS[room]: {**getattr(config, ROOMS[room]), name: value}})
        if room == "corruption":
            config = config.with_(versions={"corruption": CORRUPTION_VERSION})
    if any(s.startswith("corruption.") for s in settings):
        refuse_evaluation(config.corruption)
    return config


def restricted(e: Experiment, only: Only) -> Experiment:
    """The part of an experiment that a selection of jobs means: its cells, and no column without one."""
    def wanted(row: Row, group: str, c: Config | None) -> bool:
        return c is not None and only.row(row, group, c, of_seeds(e.seeds_of(row) or 1))

    rows = tuple(
        replace(r, cells=kept) for r in e.rows if (kept := {g: c for g, c in r.cells.items() if wanted(r, g, c)})
    )
    groups = {g for r in rows for g in r.cells}
    return replace(e, rows=rows, columns=tuple(c for c in e.columns if c.group in groups or "" in groups or not c.group))


def find_data(configs: Iterable[Config], data_dir: Path | None) -> dict[tuple[str, str], Found]:
    """Look every (dataset, features) pair up in the data folder, and check the files that are there; what was found out
    about a file is remembered between calls."""
    found = {}
    for key in dict.fromkeys((c.dataset, c.features) for c in configs):
        found[key] = _opened(_find(*key, data_dir), data_dir)
    return found


def _opened(found: Found, data_dir: Path | None) -> Found:
    """A file that is there is opened and checked: nothing is found where that fails."""
    if found.path is None:
        return found
    try:
        data = load(found.dataset, found.features, data_dir, verify=False)  # the workers verify
    except BenchError as e:
        return Found(found.dataset, found.features, None, reason=str(e), unusable=True)
    return replace(found, provenance=data.provenance, leaks=data.leaks, rows=data.train_size)


def _find(dataset: str, features: str, data_dir: Path | None) -> Found:
    try:
        known = spec(dataset)
        if features not in known.features:
            raise BenchError(f"{known.name} has no '{features}' features; known: {', '.join(known.features)}")
        if is_synthetic(dataset):
            return Found(dataset, features, None, provenance="synthetic")
        path = locate(dataset, features, data_dir)
        if path is None:
            other = instead(data_dir, known.features[features]) if data_dir else "name their folder with --data"
            where = f" in {data_dir}" if data_dir else ""
            raise BenchError(f"no {features} features of {dataset}{where}{'; ' if other else ''}{other}")
        sha256 = fingerprint(dataset, features, path)
    except BenchError as e:
        return Found(dataset, features, None, reason=str(e))
    return Found(dataset, features, path, sha256, of_file(known.name, features, sha256, known.features[features].sha256))


def make_plan(
    experiments: Sequence[Experiment], suite: Suite, store: Store, data_dir: Path | None = None,
    seeds: int | None = None, only: str | Sequence[str] | None = None, settings: Sequence[str] = (), variant: str = "",
    baselines: bool = False,
) -> Plan:
    """Adapt the artefacts to the suite and the data at hand and look up the state of every job. `settings` change the
    cells that `only` selects, and no others; what they change is kept as a variant, beside the default's results and
    under the name `variant` (bench/manifest.py)."""
    why: dict[Config, list[str]] = {}  # a config as it is run -> what the data at hand made different
    picked = Only(only)
    selected: list[Config] = []  # what settings have changed
    n_seeds = suite.seeds if seeds is None else seeds

    read = cache(partial(load, verify=False))  # a file serves dozens of configs

    @cache
    def fitted(c: Config) -> Config:
        changed, reasons = fit_to_data(c, data_dir, read)
        why.setdefault(changed, []).extend(reasons)
        return changed

    def adjusted(e: Experiment) -> tuple[Experiment, Experiment]:
        if "settings" in e.figure:
            e = with_figure_settings(e, suite.adapt_measure(e.figure["kind"], e.figure["settings"]))
        numbers = of_seeds(e.seeds if n_seeds is None else n_seeds)
        base, labels = map_configs(e, lambda c: fitted(suite.adapt(c))), row_labels([e])
        if suite.tuned and (names := swept(e)):
            of_all.append(f"{e.id} varies {', '.join(names)} and stands as published")
            return base, base
        if suite.tuned:
            return base, map_configs(base, chosen)
        if not settings:
            return base, base

        def change(c: Config) -> Config:
            changed = fitted(overridden(suite.adapt(c), validate.applicable(c, settings)))
            if picked and not picked.cell(changed, numbers, labels[c]):
                return fitted(suite.adapt(c))
            selected.append(changed)
            return changed

        return base, map_configs(e, change)

    tuned: list[Trail] = []
    of_all: list[str] = []  # departures that no single job has

    @cache
    def chosen(c: Config) -> Config:
        """The setting that the largest search of a cell chose; the cell as it is where there is none."""
        trails = of_cell(store, c)
        tuned.extend(trails[:1])
        return trails[0].chosen() if trails else c

    if suite.tuned and settings:
        raise BenchError("--suite tuned runs what `bench tune` chose; --set belongs to the other suites")
    both = [adjusted(with_baselines(e) if baselines else e) for e in experiments]
    if suite.tuned:
        variant = TUNED
        lost = without_choice(store, (c for b, _ in both for c in b.configs()))
        of_all += [line for line in (unequal(tuned), lost) if line]
        if not tuned and lost:
            raise BenchError(f"{lost}; see the jobs' log.txt")
        if not tuned:
            others = read_all(store)
            what = (f"of the {len(others)} searches in {store.root} none is of these cells (generated data, --set and other files "
                    "make other cells)") if others else f"nothing in {store.root} was tuned yet"
            raise BenchError(f"{what}: `bench tune ARTEFACT --suite real`, with the same --data and --results")
    base, ours = [b for b, _ in both], [o for _, o in both]
    notes = validate.check(settings, selected) if settings else []
    found = find_data((c for e in ours for c in e.configs()), data_dir)
    of_all += [f"{f.dataset}/{f.features}: {line} (--allow-leak)" for f in found.values() for line in f.leaks]
    wanted_jobs = expand([*base, *ours], n_seeds) if suite.tuned else expand(ours, n_seeds)
    labels = row_labels([*base, *ours])
    jobs = [j for j in wanted_jobs if not picked or picked.job(j, labels[j.config])]
    if picked and wanted_jobs and not jobs:
        raise BenchError("; ".join([f"nothing to run: no job matches --only {picked.text}", *picked.unmet()]))
    notes += picked.unmet()
    adapted = [*dict.fromkeys(line for j in jobs for line in why.get(j.config, ())), *of_all]
    hashes = {k: f.sha256 for k, f in found.items() if f.sha256}
    adapted += filter(None, [other_data(tuned, hashes)])
    blocked, at_hand = {}, cache(encoders.available)
    for c in dict.fromkeys(j.config for j in jobs):
        reason = found[c.dataset, c.features].reason or _encoder_reason(c, at_hand)
        if reason:
            blocked[c.id] = reason
    status = {j.id: store.status(j, hashes) for j in jobs}
    entries = {j.id: store.entry(j) for j in jobs if status[j.id] in (DONE, STALE)}
    rows = {k: f.rows for k, f in found.items() if f.rows}
    expected = {d: estimate.seconds(jobs, entries, d, rows) for d in (estimate.CPU, estimate.GPU)}
    figures = wanted(ours, n_seeds, jobs, status, blocked, store, entries)
    limits = {j.id: limit for j in jobs if status[j.id] == FAILED and (limit := store.time_limit(j)) is not None}
    store.keep_index()
    return Plan(
        suite, ours, jobs, status, blocked, hashes, adapted, expected, n_seeds, figures, base, tuple(settings), variant,
        limits, notes, sorted(f.reason for f in found.values() if f.unusable), baselines, estimate.memory(jobs, entries),
    )


def _encoder_reason(c: Config, at_hand: Callable[[str, str], tuple[bool, str]]) -> str:
    for kind, key in (("text", "encoder"), ("audio", "audio_encoder")):
        name = c.backbone_params.get(key)
        present, reason = (True, "") if name is None else at_hand(name, kind)
        if not present:
            return reason
    return ""
