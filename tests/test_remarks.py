"""Rows without runs say why, and rows built from a description say of what, wherever a table is printed."""

import json
import re
from dataclasses import replace

import pytest
from rich.console import Console

from bench import registry
from bench.analysis.results import Results
from bench.experiments import all_experiments, unrun
from bench.matrix import Experiment, Row, expand
from bench.remarks import DESCRIBED, UNRUN, Remark, remarks
from bench.report.build import build
from bench.report.tables import make_table
from bench.report.verdict import BEYOND, Reported
from bench.terminal.plans import _print_remarks
from tests import planted

pytestmark = pytest.mark.usefixtures("no_fsync")


def test_every_row_without_runs_says_why_and_no_reason_is_idle():
    found = remarks(all_experiments().values())
    assert [r.name for r in found if r.kind == UNRUN and not r.text] == []
    rows = [row for e in all_experiments().values() for row in e.rows]
    for reason in unrun.reasons():
        covered = [row for row in rows if reason.covers(row)]
        assert covered, f"{reason.name}: no row is printed under this name"
        assert all(row.unrun == reason.why for row in covered if not any(row.cells.values())), reason.name
        assert not any(all(row.cells.values()) for row in covered if row.cells), f"{reason.name} runs: it needs no reason"
        assert reason.why.endswith(".")


def test_a_description_is_read_from_the_models_file(monkeypatch):
    made = {name: dict(registry.constants("models", name)) for name in registry.names("models")}
    made["tfn"]["DESCRIPTION"] = "an abstract"
    monkeypatch.setattr(registry, "constants", lambda kind, name: made[name])
    e = unrun.explained(planted.experiment())
    assert {r.backbone: r.described for r in e.rows} == {"TFN": "an abstract", "LMF": "", "MulT": "", "GLoMo": ""}


def test_one_remark_a_system_with_the_variant_where_that_is_what_is_not_run():
    c = planted.config("TFN", "plain")
    e = Experiment("a-t1", "a", "t", "table", rows=(
        Row("", "S", "x", cells={"g": c}), Row("", "S", "y", cells={"g": None}, unrun="no file."),
        Row("", "T", "x", cells={"g": None}), Row("", "T", "y", cells={"g": None}), Row("", "U", "q", cells={"g": c}, described="an abstract."),
    ))
    assert remarks([e, replace(e, id="a-t2")]) == [
        Remark(UNRUN, "S y", "no file.", ("a-t1", "a-t2")), Remark(UNRUN, "T", "", ("a-t1", "a-t2")),
        Remark(DESCRIBED, "U", "an abstract.", ("a-t1", "a-t2")),
    ]
    assert [r.sentence for r in remarks([e])] == [
        "S y is not run here. no file.", "T is not run here: it is not implemented.", "U is built from the description: an abstract.",
    ]


@pytest.fixture(scope="module")
def marked(tmp_path_factory):
    """The planted table, GLoMo's rows with a reason and TFN + Manifold Mix, which is beyond its number, from a description."""
    p = planted.write(tmp_path_factory.mktemp("remarks"))
    rows = tuple(
        replace(r, unrun="The method is not determined: a title_alone.") if r.backbone == "GLoMo" else
        replace(r, described="an abstract") if (r.backbone, r.method) == ("TFN", "Manifold Mix") else r
        for r in p.experiment.rows
    )
    p.experiment = replace(p.experiment, rows=rows)
    p.out = tmp_path_factory.mktemp("report")
    p.page = build([p.experiment], p.store, p.out, "real", p.hashes, reported=p.reported).read_text()
    return p


def test_the_page_and_its_drawer_say_both(marked):
    stub = re.search(r'<tr[^>]*data-backbone="TFN" data-method="Manifold Mix".*?</th>', marked.page, re.S)[0]
    assert '<span class="chip described" title="an abstract">from the description</span>' in stub
    assert marked.page.count('class="chip described"') == 2  # the row, and what the drawer is made of
    glomo = re.search(r'<tr[^>]*data-backbone="GLoMo" data-method="plain".*?</th>', marked.page, re.S)[0]
    assert 'title="The method is not determined: a title_alone."' in glomo and ">not run here<" in glomo
    assert "<li>TFN Manifold Mix is built from the description: an abstract.</li>" in marked.page
    assert "<li>GLoMo plain is not run here. The method is not determined: a title_alone.</li>" in marked.page
    data = json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', marked.page, re.S)[1])
    cells = data["cells"]["msmix-t1"]
    assert {data["why"][c["o"]] for c in cells if "o" in c} == {"an abstract"}
    assert sum("o" in c for c in cells) == 4
    assert {data["why"][c["y"]] for c in cells if "y" in c} == {"The method is not determined: a title_alone."}
    assert sum("y" in c for c in cells) == 20 and not any("y" in c and "v" in c for c in cells)


def test_latex_markdown_and_csv_say_both(marked):
    tex, md, csv = ((marked.out / f"msmix-t1.{kind}").read_text() for kind in ("tex", "md", "csv"))
    assert r"Manifold Mix\,$\S$" in tex and r"title\_alone." in tex and r"$\S$: of a system without public code" in tex
    assert "| Manifold Mix § |" in md and "- § TFN Manifold Mix is built from the description: an abstract." in md
    assert "- GLoMo plain is not run here. The method is not determined: a title_alone." in md
    assert csv.count("a title_alone") == 20 and csv.count("an abstract") == 4


def test_a_row_from_the_description_shows_its_difference_without_a_verdict(marked):
    values, runs = marked.store.frames(expand([marked.experiment]), marked.hashes)
    table = make_table(marked.experiment, Results(values, runs), Reported(marked.reported))
    plain = make_table(planted.experiment(), Results(values, runs), Reported(marked.reported))
    at = next(k for k, r in enumerate(table.experiment.rows) if r.described), 3
    assert plain.judged[at].status == BEYOND and table.judged[at].status == ""
    assert table.judged[at].delta == plain.judged[at].delta and "no verdict" in table.judged[at].why


def test_plan_and_list_print_them(capsys, marked):
    unsaid = replace(marked.experiment.rows[0], cells={"MOSI": None}, method="X", unrun="")
    _print_remarks([replace(marked.experiment, rows=(*marked.experiment.rows, unsaid))], Console(width=200))
    out = capsys.readouterr().out
    assert "not run here: GLoMo plain (msmix-t1): The method is not determined: a title_alone." in out
    assert "from the description: TFN Manifold Mix (msmix-t1): an abstract" in out
    assert "not implemented: TFN X (msmix-t1)\n" in out
