"""Texts of users on pages and in files: printed as they are, never read as markup, LaTeX, paths or formulas."""

from dataclasses import replace

import pandas as pd
import pytest

from bench.cli import main
from bench.errors import BenchError
from bench.launch.worker import Outcome
from bench.matrix import Config, Job, expand
from bench.names import csv_text, is_slug
from bench.report.build import build
from bench.report.latex import escape
from bench.store import Store
from bench.terminal import plans
from bench.terminal.progress import Progress
from tests import planted


@pytest.fixture(autouse=True)
def fast(no_fsync):
    pass


@pytest.mark.parametrize("text", ["a[/b]", "[/INST]", "/data/[old]", "[bold red]x", "[link=http://x]y"])
def test_nothing_of_a_users_text_is_markup(tmp_path, capsys, text):
    store, job = Store(tmp_path), Job(Config("mosi", "unaligned", "lmf"), 1111)
    store.fail(job, text, "ValueError")
    plans.print_failures([job], store)
    Progress([job], 1, {})(Outcome(job, "failed", 1.0, text))
    assert capsys.readouterr().out.count(text) == 2


def test_progress_bar_prints_brackets_as_they_are(capsys, monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    job = Job(Config("mosi", "unaligned", "lmf"), 1111)
    shown = Progress([job], 1, {})
    shown(Outcome(job, "failed", 1.0, "a[/b]"))
    shown.say("[/INST] again")
    shown.close()
    out = capsys.readouterr()
    assert "a[/b]" in out.out + out.err and "[/INST] again" in out.out + out.err


def test_names_that_may_become_files():
    assert all(map(is_slug, ("quick", "msmix-t1", "my_suite.v2", "a")))
    assert not any(map(is_slug, ("", ".", "..", "a/b", "../x", "x\n\\input{secret}\n", "a b", "-x", "a..b", ".hidden", "x\n", "é", "a" * 200)))


def test_a_report_refuses_a_suite_or_artefact_whose_name_is_no_slug(tmp_path):
    p = planted.write(tmp_path / "results", holes=False)
    for suite, e in (("x\n\\input{secret}\n", p.experiment), ("..", p.experiment), ("real", replace(p.experiment, id="../escaped"))):
        with pytest.raises(BenchError, match="a name takes letters"):
            build([e], p.store, tmp_path / "out" / "in", suite, reported=planted.reported())
    assert not list(tmp_path.rglob("*.tex"))


def test_plan_files_with_other_names_are_nobodys_suite(tmp_path, capsys):
    results = tmp_path / "results"
    assert main(["run", "powmix-f2", "--suite", "quick", "--results", str(results)]) == 0
    for name in ("x\n\\input{secret}\n.json", "...json", "someday.json"):
        (results / "plans" / name).write_text('{"artefacts": {}}')
    capsys.readouterr()
    code = main(["report", "--results", str(results), "--out", str(tmp_path / "out")])
    out = capsys.readouterr()
    assert code == 0, out.err
    assert "secret" not in "".join(f.read_text() for f in (tmp_path / "out").rglob("*.tex"))


def test_latex_of_any_text_is_inert():
    assert escape("\\input{x}\n%$#_&~^{}") == r"\textbackslash{}input\{x\} \%\$\#\_\&\textasciitilde{}\textasciicircum{}\{\}"
    assert "\x00" not in escape("a\x00b\x1bc")


def test_reported_numbers_of_a_plugin_are_escaped(tmp_path):
    p = planted.write(tmp_path / "results", holes=False)
    reported = p.reported.assign(mean_text=r"1.0\input{x_y}")
    page = build([p.experiment], p.store, tmp_path / "out", "real", reported=reported)
    tex = "".join(f.read_text() for f in page.parent.glob("*.tex"))
    assert "\\input{x_y}" not in tex and "input\\{x\\_y" in tex


def test_texts_are_no_formulas_to_a_spreadsheet(tmp_path):
    texts = ["=1+1", "@SUM(A1)", "+cmd|'/C calc'!A0", "-2+3+cmd|' /C calc'!A0", "\t=1", "+ SASS", "-0.5", "plain", ""]
    found = pd.read_csv(__import__("io").StringIO(csv_text(pd.DataFrame({"a": texts, "b": range(9)}))), keep_default_na=False)
    assert list(found.a) == ["'=1+1", "'@SUM(A1)", "'+cmd|'/C calc'!A0", "'-2+3+cmd|' /C calc'!A0", "'\t=1", "+ SASS", "-0.5", "plain", ""]
    p = planted.write(tmp_path / "results", holes=False)
    job = expand([p.experiment])[0]
    (p.store.folder(job) / "metrics.json").unlink()
    p.store.fail(job, "=HYPERLINK(\"http://x\")", "ValueError")
    page = build([p.experiment], Store(p.store.root), tmp_path / "out", "real", reported=planted.reported())
    runs = pd.read_csv(page.parent / "runs.csv")
    assert runs.error.dropna().str.startswith("'=HYPERLINK").sum() == 1


def test_an_error_with_half_a_character_blocks_no_page(tmp_path):
    p = planted.write(tmp_path / "results", holes=False)
    job = expand([p.experiment])[0]
    (p.store.folder(job) / "metrics.json").unlink()
    (p.store.folder(job) / "failed.json").write_text('{"error": "half \\ud800 [/INST]\\nline", "type": 5}')
    page = build([p.experiment], Store(p.store.root), tmp_path / "out", "real", reported=planted.reported()).read_text()
    assert "half \\ud800 [/INST] line" in page
