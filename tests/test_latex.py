"""LaTeX of the report: layout, and that pdflatex accepts it without boxes sticking out."""

import re
import shutil
import subprocess
from dataclasses import replace

import pytest

from bench.analysis.results import Results
from bench.matrix import Column, Config, Experiment, Row, expand
from bench.report.build import build
from bench.report.latex import escape, table_file
from bench.report.master import overfull
from bench.report.records import Figure
from bench.report.tables import make_table
from bench.report.verdict import Reported
from bench.store import Store
from tests import planted

pytestmark = pytest.mark.usefixtures("no_fsync")

SVG = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 9 9"><path d="M0 0L9 9"/></svg>'


@pytest.fixture(scope="module")
def p(tmp_path_factory):
    return planted.write(tmp_path_factory.mktemp("results"))


def grids() -> list[Experiment]:
    """A tall table (8 blocks, every label awkward), a wide one (18 columns), and a figure that was not drawn."""
    tall = planted.experiment(backbones=tuple(f"Net_{k} & 100% #{k}" for k in range(8)), id="tall-t1")
    columns = tuple(
        Column(m, m.upper(), g)
        for g in ("MOSI", "MOSEI", "SIMS")
        for m in ("acc2", "f1", "acc3", "acc5", "acc7", "avg")
    )
    wide = Experiment(
        "wide-t1",
        "msmix",
        "A wide table",
        "table",
        columns,
        tuple(
            Row(
                "LMF",
                m,
                block="LMF",
                cells={
                    g: Config(g.lower(), "unaligned", "lmf", m.lower().replace(" ", ""))
                    for g in ("MOSI", "MOSEI", "SIMS")
                },
            )
            for m in planted.METHODS
        ),
    )
    figure = Experiment("msmix-f9", "msmix", "A figure", "figure", columns[:1], tall.rows[:1])
    return [tall, wide, figure, replace(figure, id="msmix-f8")]


def test_the_papers_layout(p):
    values, runs = p.store.frames(expand([p.experiment]), p.hashes)
    tex = table_file(make_table(p.experiment, Results(values, runs), Reported(p.reported)), "real")
    lines = [line for line in tex.splitlines() if line.endswith(r"\\")]
    assert lines[0] == r"Model & w-ACC2 (\%) $\uparrow$ & MAE $\downarrow$ & Corr $\uparrow$ & Avg. (\%) $\uparrow$ \\"
    assert [line.split(" &")[0] for line in lines[1:7]] == [
        "TFN",
        "+ Manifold Mix",
        "+ MultiMix",
        "+ PowMix",
        "+ MS-Mix",
        "LMF",
    ]
    assert all(rule in tex for rule in (r"\toprule", r"\midrule", r"\bottomrule"))
    assert re.search(r"\\textbf\{80\.\d\d\}\\,\{\\scriptsize\$\\pm\$\\,1\.\d\d\}", lines[5])
    assert r"\underline{" in tex and "$^{*}$" in tex and r"$^{\circ}$" in tex
    assert "sample standard deviation (ddof = 1) over $n = 5$ seeds" in tex
    assert r"\textit{72.00}" in lines[16]


@pytest.mark.parametrize(
    "text, tex",
    [
        ("50% of a_b & #1 {x} $2", r"50\% of a\_b \& \#1 \{x\} \$2"),
        ("SIG -> Ground-Truth", r"SIG $\rightarrow$ Ground-Truth"),
        ("a\\b~^", r"a\textbackslash{}b\textasciitilde{}\textasciicircum{}"),
        ("δ = 0.2 − 1 ± 字", r"$\delta$ = 0.2 $-$ 1 $\pm$ ?"),
    ],
)
def test_escape(text, tex):
    assert escape(text) == tex


def test_overfull_reads_a_log():
    assert overfull("Overfull \\hbox (12.5pt too wide) in\nOverfull \\vbox (3pt too high)") == 12.5
    assert overfull("all well") == 0


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")
@pytest.mark.parametrize("kind", ["official", "synthetic"])
def test_pdflatex_compiles_everything(p, tmp_path, kind):
    experiments, out = grids(), tmp_path / "out"
    if kind == "official":
        experiments, store = [p.experiment, *experiments], p.store
        columns = tuple(c for c in experiments[2].columns)
        for job in expand(experiments[1:3])[::2]:
            values = {c.metric: 0.71234 for c in (*planted.COLUMNS, *columns)}
            planted.finish(store, job, values | {"avg": 0.7 + job.seed / 1e5}, planted.env(job.seed))
    else:
        s = planted.write(tmp_path / "results", "synthetic", "synthetic-mosi", holes=False)
        experiments, store = [s.experiment, *experiments], s.store
    out.mkdir()
    (out / "picture.tex").write_text("\\documentclass{minimal}\\begin{document}x\\end{document}")
    subprocess.run(["pdflatex", "picture.tex"], cwd=out, check=True, capture_output=True)

    def draw(e, table, store, folder):
        return [Figure("f", "A picture", SVG, "of 100% nothing", pdf="picture.pdf")] if e.id == "msmix-f8" else []

    build(experiments, store, out, kind, p.hashes if kind == "official" else None, reported=p.reported, figures=draw)
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "master.tex"]
    for _ in range(2):
        done = subprocess.run(command, cwd=out, capture_output=True, text=True, errors="replace")
        assert done.returncode == 0, done.stdout[-2000:]
    log = (out / "master.log").read_text(encoding="latin-1")
    assert (
        overfull(log) <= 5
        and "Float too large" not in log
        and "undefined" not in log.lower().replace("undefined 1/5", "")
    )
    if shutil.which("pdftotext"):
        text = subprocess.run(
            ["pdftotext", "-layout", "master.pdf", "-"], cwd=out, capture_output=True, text=True
        ).stdout
        pages = text.strip("\f").split("\f")
        assert all("SYNTHETIC" in page for page in pages) == (kind == "synthetic")
        assert "A picture. of 100% nothing" in text and "runs are done" in text


def test_an_empty_store_still_gives_tables(tmp_path):
    build(grids(), Store(tmp_path / "none"), tmp_path / "out", "paper", reported=planted.reported())
    tex = (tmp_path / "out" / "tall-t1.tex").read_text()
    assert r"Net\_0 \& 100\% \#0" in tex and " & --" in tex and "0 of 200 runs done" in tex


def test_rows_that_nobody_ran_are_left_out_and_counted(tmp_path):
    p = planted.write(tmp_path / "results", holes=False)
    e = p.experiment
    extra = tuple(replace(r, backbone="MISA", block="MISA", cells={"MOSI": planted.config("MISA", r.method)}) for r in e.rows[:5])
    build([replace(e, rows=(*e.rows, *extra))], p.store, tmp_path / "out", "real", p.hashes, reported=p.reported)
    tex = (tmp_path / "out" / "msmix-t1.tex").read_text()
    assert "5 rows that nobody has run are left out." in tex and "MISA" not in tex and "GLoMo" in tex
    assert tex.count("midrule") == 4, "one above the body, one between blocks"


def test_the_reported_table_has_two_numbers_a_cell(tmp_path):
    p = planted.write(tmp_path / "results", holes=False)
    build([p.experiment], p.store, tmp_path / "out", "real", p.hashes, reported=p.reported)
    out = tmp_path / "out"
    assert "pm" in (out / "msmix-t1.tex").read_text().split("toprule")[1]
    assert "pm" not in (out / "msmix-t1-reported.tex").read_text().split("toprule")[1]


def test_the_document_needs_no_package_beyond_latex_base_and_recommended(tmp_path):
    """lmodern is taken where it is; nothing else is outside of texlive-latex-base and -recommended."""
    p = planted.write(tmp_path / "results", holes=False)
    build([p.experiment], p.store, tmp_path / "out", "real", p.hashes)
    master = (tmp_path / "out" / "master.tex").read_text()
    used = {name for group in re.findall(r"\\usepackage(?:\[[^]]*\])?\{([^}]*)\}", master) for name in group.split(",")}
    assert used <= {"inputenc", "fontenc", "lmodern", "geometry", "amssymb", "array", "booktabs", "graphicx", "pdflscape",
                    "caption", "hyperref", "fancyhdr"}
    assert r"\IfFileExists{lmodern.sty}{\usepackage[T1]{fontenc}\usepackage{lmodern}}{}" in master
