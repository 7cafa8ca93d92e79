"""The first screen: one sentence per paper with its numbers, the headline claims, and a picture."""

import re
from dataclasses import replace

import pytest

from bench.analysis.claims import ledger
from bench.analysis.results import Results
from bench.matrix import expand
from bench.report.build import build
from bench.report.summary import amount, headlines, ordinal, picture, sentence, standing, units
from bench.report.tables import make_table
from bench.report.verdict import Reported
from tests import planted

pytestmark = pytest.mark.usefixtures("no_fsync")


def tables(root, **changes):
    p = planted.write(root, **changes)
    values, runs = p.store.frames(expand([p.experiment]), p.hashes)
    return p, [make_table(p.experiment, Results(values, runs), Reported(p.reported))]


def test_the_planted_truth_in_one_sentence(tmp_path):
    """MS-Mix is best with TFN by one point, equal with LMF, and MulT has holes; the paper has it second to Manifold Mix
    with TFN (planted), and tied with all others elsewhere."""
    _, found = tables(tmp_path)
    main = units(found)
    assert [(u.block, u.ran) for u in main] == [("TFN", True), ("LMF", True), ("MulT", True), ("GLoMo", False)]
    place, of, rank = standing([u for u in main if u.block == "TFN"])
    assert (place, of, rank) == (1, 5, 1.0)
    gain = sum(u.gain(u.ours, "MS-Mix", "plain") for u in main[:3]) / 3
    text = sentence("MS-Mix", found, main)
    assert text.startswith("MS-Mix on MOSI: ") and f"Avg {amount(gain, main[0].column)} against the backbone alone" in text
    assert "n = 5, 3 of 4 backbones run; the paper has it nowhere first." in text


def test_ranks_share_ties_and_know_which_way_is_better(tmp_path):
    _, found = tables(tmp_path)
    u = units(found)[0]
    assert u.ranks({"a": 1.0, "b": 2.0, "c": 2.0}, "abc") == {"a": 3.0, "b": 1.5, "c": 1.5}
    lower = replace(u, column=replace(u.column, higher_is_better=False))
    assert lower.ranks({"a": 1.0, "b": 2.0}, "ab") == {"a": 1.0, "b": 2.0}
    assert (ordinal(1, 6), ordinal(6, 6), ordinal(2, 2), ordinal(3, 30)) == ("first of six", "last of six", "second of two", "third of 30")


def test_the_page_opens_with_the_answer(tmp_path):
    p = planted.write(tmp_path / "results")
    page = build([p.experiment], p.store, tmp_path / "out", "real", p.hashes, reported=p.reported).read_text()
    card = re.search(r'<article class="card">.*?</article>', page, re.S).group()
    assert page.index("<article") < page.index('class="gauges"') and "MS-Mix on MOSI: " in card
    assert [i for i in headlines("msmix") if f'href="#{i}"' in card] == headlines("msmix") and len(headlines("msmix")) == 3
    lines = re.findall(r'<text class="(strong)?" [^>]*>([^<]*)</text>', card)
    assert ("strong", "MS-Mix") in lines and len(lines) == 4, "every method but the backbone alone"
    assert card.count('class="rep" d=') == 4 and "Avg over the backbone alone, points (right is better)" in card


def test_generated_data_show_no_reported_number(tmp_path):
    _, found = tables(tmp_path, provenance="synthetic", dataset="synthetic-mosi", holes=False)
    main = units(found)
    assert "paper" not in sentence("MS-Mix", found, main) and 'class="rep"' not in picture(main) and "circle" in picture(main)


def test_a_study_of_ones_own_has_a_headline_of_its_own(tmp_path):
    p = planted.write(tmp_path / "results", holes=False)
    rows = tuple(replace(r, method={"MS-Mix": "mine"}.get(r.method, r.method)) for r in p.experiment.rows[:5])
    own = replace(p.experiment, id="study-t1", paper="study", rows=rows)
    page = build([own], p.store, tmp_path / "out", "real", p.hashes, reported=p.reported).read_text()
    assert "<h1>What came out of study</h1>" in page and "What reproduced" not in page
    assert "mine on MOSI: first of five in mean rank" in page and "the paper" not in re.search(r'<p class="answer">(.*?)</p>', page).group(1)


def test_validation_values_answer_nothing():
    from bench.report.html import heading

    assert "reproduced" not in heading([{"name": "MS-Mix", "own": False}], split="valid")


def test_nothing_run_and_other_settings_only_are_said(tmp_path):
    p = planted.write(tmp_path / "a", holes=False)
    e = p.experiment
    empty = make_table(e, Results(*type(p.store)(tmp_path / "none").frames(expand([e]))), Reported(p.reported))
    assert sentence("MS-Mix", [empty], units([empty])) == "MS-Mix: not run yet (75 runs)."
    rows = tuple(replace(r, departs="mine") if r.cells["MOSI"] else r for r in e.rows)
    apart = make_table(replace(e, rows=rows), Results(*p.store.frames(expand([e]))), Reported(p.reported))
    assert "75 runs with other settings than the paper's, which say nothing about it" in sentence("MS-Mix", [apart], units([apart]))
    assert picture(units([apart])) == ""


def test_headlines_are_claims():
    for paper in ("msmix", "powmix", "slad", "samlml", "cpsl"):
        assert set(headlines(paper)) <= {c.id for c in ledger.load([paper])} and len(headlines(paper)) == 3
    assert headlines("nobody") == []
