"""Words as a paper prints them, claims in full, and what the page does with them."""

import re
from dataclasses import replace

import pytest

from bench.experiments import all_experiments
from bench.plural import count, named
from bench.report.build import build
from bench.report.latex import escape
from bench.report.layout import layout_of
from bench.report.sections import provenance_rows
from bench.report.words import fields, plain, pretty
from tests import planted

pytestmark = pytest.mark.usefixtures("no_fsync")


@pytest.mark.parametrize("text, said", [
    ("xi_1=0.7", "\u03be\u2081=0.7"), ("SIG -> Ground-Truth", "SIG \u2192 Ground-Truth"), ("p >= 0 against y >= 0", "p \u2265 0 against y \u2265 0"),
    ("alpha_mix = 0.1", "\u03b1_mix = 0.1"), ("66.81 +- 0.13", "66.81 \u00b1 0.13"), ("tau = 0.2", "\u03c4 = 0.2"), ("y != 0, 5 x 5", "y \u2260 0, 5 \u00d7 5"),
    ("bench run alpha-t1", "bench run alpha-t1"), ("alphabet, data/beta.toml, theta", "alphabet, data/beta.toml, theta"),
])
def test_signs_are_those_of_print(text, said):
    assert pretty(text) == said
    assert "?" not in escape(text)


def test_counts_and_recorded_values_read_as_words():
    assert (count(1, "job"), count(2, "job"), count(1200, "run")) == ("1 job", "2 jobs", "1,200 runs")
    assert (count(1, "id occurs", "ids occur"), count(0, "entry", "entries")) == ("1 id occurs", "0 entries")
    assert (named("seed", [1111]), named("seed", [1111, 1112])) == ("seed 1111", "seeds 1111, 1112")
    assert [plain(v) for v in (1.0, 2.5, True, "False", "a")] == ["1", "2.5", "yes", "no", "a"]
    runs = [{"status": "done", "cpu_threads": 1.0, "test_only": False, "wall_seconds": 1}]
    assert dict(provenance_rows(runs))["threads"] == [("1", 1)] and "test-only encoder" not in dict(provenance_rows(runs))


@pytest.mark.parametrize("artefact", sorted(all_experiments()))
def test_claims_are_not_cut(artefact):
    """Every word of a docstring is on the page: a field goes on until the next one."""
    doc = all_experiments()[artefact].doc
    found = fields(doc)
    assert set(re.findall(r"\w+", pretty(doc))) - set(re.findall(r"\w+", " ".join(found.values()))) <= set(found)
    assert "Claim" in found and "\n" not in found["Claim"]


def test_a_claim_of_several_lines_is_whole(tmp_path):
    found = fields("Title.\n\nClaim: one thing\n    and another.\nCommand: bench run x")
    assert found == {"": "Title.", "Claim": "one thing and another.", "Command": "bench run x"}
    long = [e for e in all_experiments().values() if re.search(r"Claim:[^\n]*[^.\n]\n\s*\w", e.doc)]
    assert long, "the papers' own docstrings have such claims (msmix-f5, cpsl-f3)"


def test_the_legend_stands_above_the_table_and_audit_is_a_list(tmp_path):
    p = planted.write(tmp_path / "results")
    page = build([p.experiment], p.store, tmp_path / "out", "real", p.hashes).read_text()
    body = page[page.index('class="artefact"'):]
    assert body.index("Bold: best of its block") < body.index('<table class="results"') < body.index("Data: ")
    assert '<ul class="findings">' in page


def test_one_run_each_is_never_bold(tmp_path):
    p = planted.write(tmp_path / "results", holes=False)
    page = build([replace(p.experiment, seeds=1)], p.store, tmp_path / "out", "real", p.hashes).read_text()
    assert 'class="cell best' not in page and 'class="cell second' not in page
    assert 'class="cell best' in build([p.experiment], p.store, tmp_path / "out", "real", p.hashes).read_text()


def test_no_line_of_a_table_is_without_a_name():
    """Where the paper names the full model by the method alone, the line keeps the method's name."""
    for e in all_experiments().values():
        for line in layout_of(e).lines:
            shown = line.labels[1:] if line.again else line.labels
            assert any(shown), (e.id, line.row.key)


def test_conventions_are_written_in_signs():
    assert pretty("samples with y != 0, 12 x 5 runs, x in a word: max x") == "samples with y ≠ 0, 12 × 5 runs, x in a word: max x"
