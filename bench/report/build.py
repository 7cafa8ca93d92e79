"""From job folders to a report: index.html, LaTeX, CSV and Markdown per table, runs.csv.

Safe to call again and again while jobs still run: what is there is shown, what is not is counted.
"""

import gc
import importlib
import importlib.util
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from bench.analysis import claims as ledger
from bench.analysis import reported as printed_numbers
from bench.analysis.audit import audit
from bench.analysis.results import Results, provenance
from bench.errors import BenchError
from bench.matrix import Experiment, dataset_name, expand
from bench.measure import numbers
from bench.measure.needs import point
from bench.names import check_slug, csv_text
from bench.provenance import SYNTHETIC
from bench.report import html, latex, samples, tuning, tuning_table
from bench.report.curves import in_training
from bench.report.flat import frame, markdown
from bench.report.master import master_file
from bench.report.payload import Rerun
from bench.report.records import Figure
from bench.report.sections import section
from bench.report.settings import Setting, by_config, words
from bench.report.settings import frame as settings_frame
from bench.report.tables import Table, make_table
from bench.report.verdict import Reported
from bench.report.words import pretty
from bench.store import Store, write_atomic

Figures = Callable[[Experiment, Table, Store, Path], Sequence[Figure]]  # draws an artefact's figures into a folder


def build(
    experiments: Sequence[Experiment], store: Store, out_dir: str | Path, suite: str,
    data_hashes: Mapping[tuple[str, str], str] | None = None, seeds: int | None = None,
    reported: pd.DataFrame | None = None, *, adapted: Sequence[str] = (), figures: Figures | None = None,
    rerun: Rerun | None = None, split: str = "test",
) -> Path:
    """Render a report and return the path of its index.html.

    experiments: as they were run (a suite may have adapted their configs). data_hashes: (dataset, features) -> sha256
    of the file at hand; results made from another file are stale, where none is at hand all but those of the file that
    most are of. seeds: overrides each experiment's own number.
    reported: the papers' numbers, by default those of experiments/reported. adapted: lines on where the runs depart
    from the papers. figures: draws an artefact's figures; by default bench.report.figures where it exists. rerun: what
    its commands to run a cell again say. split: "valid" shows what selection saw, beside no reported number.
    Raises BenchError where there is nothing to report or the folder cannot be written.
    """
    if not experiments:
        raise BenchError("no artefact to report; `bench list` shows them all")
    try:
        Path(out_dir).mkdir(parents=True, exist_ok=True)
    except OSError as e:
        why = str(e.strerror).lower()
        raise BenchError(f"cannot write {out_dir}: {why}; choose another folder with --out") from None
    try:
        return _build(experiments, store, Path(out_dir), suite, data_hashes, seeds, reported, adapted, figures, rerun, split)
    finally:
        gc.unfreeze()


def _build(
    experiments: Sequence[Experiment],
    store: Store,
    out: Path,
    suite: str,
    data_hashes: Mapping[tuple[str, str], str] | None,
    seeds: int | None,
    reported: pd.DataFrame | None,
    adapted: Sequence[str],
    figures: Figures | None,
    rerun: Rerun | None,
    split: str,
) -> Path:
    for name, what in ((suite, "suite"), *((e.id, "artefact") for e in experiments)):
        check_slug(name, what)
    reported = printed_numbers.load() if reported is None else reported
    draw = figures or _figures()
    jobs = expand(experiments, seeds)
    data_hashes, several = store.one_file(jobs, data_hashes)
    adapted = [*adapted, *several]
    values, runs = store.frames(jobs, data_hashes)
    computed = numbers.values(experiments, store, seeds)
    values = pd.concat([values, computed], ignore_index=True) if len(computed) else values
    results = Results(values, runs, split)
    printed = Reported(reported if split == "test" else None)  # papers print test values: nothing else is compared with them
    tables = []
    for e in experiments:
        gc.freeze()  # statsmodels collects garbage in every Holm adjustment: it must not walk all that is here already
        tables.append(make_table(e, results, printed, seeds))

    sections, texts, pdfs = [], {}, {}
    for t in tables:
        e = t.experiment
        files = _write_table(t, out, suite) if t.layout.lines and e.columns else []
        texts[e.id] = [name.removesuffix(".tex") for name in files if name.endswith(".tex")]
        drawn = [f for part in _figure_tables(t, results, printed, seeds) for f in draw(part.experiment, part, store, out)] if draw else []
        _forget(out, e.id, drawn)
        pdfs[e.id] = [(f.pdf, " ".join(filter(None, (f"{f.title}.", f.caption, f.note)))) for f in drawn if f.pdf]
        labels = [(_label(name), name) for name in files]
        sections.append(section(t, labels, drawn, samples.section(t, store) if e.primary else None))
        searched = tuning.frame(t, store) if e.primary else pd.DataFrame()
        sections[-1]["tuning"] = shown = tuning.section(t, store, data_hashes, suite) if len(searched) else None
        written = {f"{e.id}-trials.csv": searched if shown else "", **tuning_table.files(t, shown, suite)}
        for name, content in written.items():
            _write(out / name, content if isinstance(content, str) else csv_text(content))
        if shown:
            shown["files"] = [(name.removeprefix(f"{e.id}-"), name) for name in written]
            texts[e.id] += [f"{e.id}-tuning"]

    unmatched = printed.unmatched(e.id for e in experiments)
    _write(out / "unmatched.csv", csv_text(pd.DataFrame(unmatched)) if unmatched else "")
    settings = by_config(tables, suite)
    _write(out / "runs.csv", csv_text(_runs(runs, settings)))
    _write(out / "settings.csv", csv_text(settings_frame(settings)))
    _write(out / "master.tex", master_file(tables, texts, pdfs, suite))
    mine, own = _claims(experiments, tables, reported) if split == "test" else (None, None)
    for name, lines in (("claims", mine), ("claims-on-printed-numbers", own)):
        if lines is not None:
            _write(out / f"{name}.csv", csv_text(lines))
    records = list(results.runs.values())
    page = html.page(
        sections,
        records,
        suite,
        claims=mine,
        own_claims=own,
        audit=_audit(reported, experiments, out),
        adapted=adapted,
        unmatched=[
            "/".join(str(r[k]) for k in ("artefact", "dataset", "backbone", "method", "variant", "metric"))
            for r in unmatched
        ],
        rerun=rerun,
        settings=settings,
        split=split,
        training=in_training(store, (j for j in jobs if results.runs[j.config.id, j.seed]["status"] != "done")),
    )
    _write(out / "index.html", page)
    return out / "index.html"


def _forget(out: Path, artefact: str, drawn: Sequence[Figure]) -> None:
    """Remove figures of an earlier report that this one does not have."""
    kept = {name for f in drawn for name in (f.pdf, f.csv) if name}
    for path in (p for kind in ("pdf", "csv") for p in out.glob(f"{artefact}-figure*.{kind}")):
        if path.name not in kept:
            path.unlink()


def _figure_tables(t: Table, results: Results, printed: Reported, seeds: int | None) -> list[Table]:
    """The tables that an artefact's figures are drawn from: the experiment as it is defined, then each variant by itself.
    Where only variants were run, there is no empty figure before them."""
    e = t.experiment
    names = list(dict.fromkeys(r.departs for r in e.rows if r.departs))
    if e.kind != "figure" or not names:
        return [t]
    found = []
    for name in ("", *names):
        rows = tuple(replace(r, departs="") for r in e.rows if r.departs == name)
        part = replace(
            e, rows=rows, variant=name, seeds=max(r.seeds for r in rows) if name else e.seeds,
            title=f"{e.title} [{name}]" if name else e.title,
        )
        part_table = make_table(part, results, printed, seeds)
        if name or part_table.progress["done"]:
            found.append(part_table)
    return found


def _runs(runs: pd.DataFrame, settings: Mapping[str, Sequence[Setting]]) -> pd.DataFrame:
    """The runs, each with its settings in one field; settings.csv says where they come from."""
    return runs.assign(settings=[words(settings.get(c, ())) for c in runs["config"]]) if len(runs) else runs


def _write(path: Path, text: str) -> None:
    if text:
        write_atomic(path, text.encode())
    else:
        path.unlink(missing_ok=True)


def _label(name: str) -> str:
    return "tex, beside reported" if name.endswith("-reported.tex") else name.rpartition(".")[2]


def _write_table(t: Table, out: Path, suite: str) -> list[str]:
    """Write a table's files and return their names."""
    e = t.experiment
    texts = {
        f"{e.id}.tex": latex.table_file(t, suite), f"{e.id}-reported.tex": latex.comparison_file(t, suite) or "",
        f"{e.id}.csv": csv_text(frame(t)), f"{e.id}.md": markdown(t),
    }
    for name, text in texts.items():
        _write(out / name, text)
    return [name for name, text in texts.items() if text]


def _figures() -> Figures | None:
    if importlib.util.find_spec("bench.report.figures") is None:
        return None
    return importlib.import_module("bench.report.figures").draw


def tidy(tables: Sequence[Table]) -> pd.DataFrame:
    """Runs of real data as claims read them: artefact, dataset, backbone, method, variant, metric, seed, value (a
    fraction, also where the column prints per cent), config, point and provenance. Cells that must not be aggregated,
    rows beside the paper's and generated data are left out."""
    lines = []
    for t in tables:
        e = t.experiment
        for i, j, cell in t.grid:
            if e.rows[i].apart or not cell.shown or cell.derived:
                continue
            finished = t.results.finished(cell)
            kind = provenance(finished)
            if kind in ("", SYNTHETIC) or any(r.get("test_only") for r in finished):
                continue
            row, column = e.rows[i], e.columns[j]
            unit, config = 100.0 if column.percent else 1.0, " ".join(c.id for c in cell.configs)
            at = " ".join(row.points) or point(e, row, column) or ""
            dataset = dataset_name(cell.configs[0].dataset).replace("_", "-")  # as the reported numbers spell it
            lines += [
                (e.id, dataset, *row.key, column.metric, seed, value / unit, config, at, kind)
                for seed, value in zip(cell.seeds, cell.values) if value == value
            ]
    columns = ["artefact", "dataset", "backbone", "method", "variant", "metric", "seed", "value"]
    return pd.DataFrame(lines, columns=[*columns, "config", "point", "provenance"])


def _claims(
    experiments: Sequence[Experiment], tables: Sequence[Table], reported: pd.DataFrame
) -> tuple[pd.DataFrame | None, pd.DataFrame | None]:
    """(claims on our runs, claims on the printed numbers) of the papers in this report."""
    papers = [p for p in dict.fromkeys(e.paper for e in experiments) if ledger.ledger.known(p)]
    if not papers:
        return None, None
    claims = ledger.load(papers)
    return ledger.on_runs(claims, tidy(tables), reported), ledger.on_reported(claims, reported)


def _audit(reported: pd.DataFrame, experiments: Sequence[Experiment], out: Path) -> list[dict[str, Any]]:
    """The audit's findings on the papers of this report, one group per paper; audit.csv beside the page."""
    paper = {e.id: e.paper for e in experiments} | {e.paper: e.paper for e in experiments}
    found = audit(reported)
    found = found.assign(paper=[paper.get(a) or paper.get(a.split("-")[0]) for a in found["artefact"]]).dropna(
        subset="paper"
    )
    _write(out / "audit.csv", csv_text(found) if len(found) else "")
    told = found.fillna("").astype(str)
    for name in ("printed", "expected", "arithmetic", "assumption", "cells"):
        told[name] = told[name].map(pretty) if name in told else ""
    return [
        {"name": html.paper_name(name), "rows": told.loc[lines.index].to_dict("records")}
        for name in dict.fromkeys(e.paper for e in experiments) if len(lines := found[found["paper"] == name])
    ]
