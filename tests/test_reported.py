"""The reported numbers against the text of the papers, read again by a reader that knows nothing of the CSV schema."""

import re
from collections import Counter

import pandas as pd
import pytest

from bench.analysis.reported import KEY, PAPERS, load
from bench.errors import BenchError
from bench.metrics import METRICS
from tests.paper_tables import TEXTS, Line, squash, table

needs_papers = pytest.mark.skipif(not TEXTS.is_dir(), reason="the papers' text is not beside this checkout")

TABLES = {"msmix": 4, "powmix": 3, "slad": 5, "samlml": 14, "cpsl": 2}
ARTEFACTS = [f"{paper}-t{i}" for paper, n in TABLES.items() for i in range(1, n + 1)]
STATIC = {"powmix-t1", "slad-t4", "samlml-t7"}  # settings: rows are metrics, columns are datasets or models
CELLS = {  # the counts of the papers' tables, by hand: rows x columns, less the cells printed as "-"
    "msmix-t1": 36 * 8, "msmix-t2": 36 * 8, "msmix-t3": 36 * 6, "msmix-t4": 8 * 8,
    "powmix-t1": 3, "powmix-t2": 6 * 12 + 12 * 16, "powmix-t3": 5 * 3,
    "slad-t1": 9 * 12, "slad-t2": 10 * 5, "slad-t3": 15 * 5 + 14 * 5, "slad-t4": 9 * 3 + 2 * 2, "slad-t5": 8 * 12,
    "samlml-t1": 9 * 10 - 4, "samlml-t2": 7 + 4, "samlml-t3": 6 + 4, "samlml-t4": 9 * 5, "samlml-t5": 16 * 6 * 3,
    "samlml-t6": 16 * 3 * 2, "samlml-t7": 12 * 4, "samlml-t8": 3 * 2, "samlml-t9": 3 * 2, "samlml-t10": 2 * 12,
    "samlml-t11": 6 * 6, "samlml-t12": 4 * 4, "samlml-t13": 16 * 3 * 2, "samlml-t14": 6 * 3,
    "cpsl-t1": 11 * 4 + 8 * 4, "cpsl-t2": 17 * 4,
}
HEADINGS = {  # our key -> the heading, squashed, where they differ
    "params": "numberofparameters", "train_seconds_per_epoch": "trainingtimes",
    "test_seconds_per_epoch": "testingtimes",
}
COPIED = {  # the mark of a copied row in a label, where the paper has one
    "msmix": "†", "powmix": "†", "samlml": "†", "slad-t1": r"\^[bc]", "slad-t2": r"\^[bc]", "slad-t5": r"\*",
}


def printed(cells: pd.DataFrame) -> list[str]:
    """The numbers of CSV lines in file order, each mean followed by its std, without the sign of an arrow."""
    pairs = zip(cells["mean_text"], cells["std_text"], strict=True)
    return [text.lstrip("-") for pair in pairs for text in pair if text]


def lines_of(artefact: str) -> list[tuple[Line, pd.DataFrame]]:
    """Each printed line with the CSV lines that hold its numbers."""
    rest, pairs = load().query("artefact == @artefact"), []
    for line in table(artefact).lines:
        n = 0
        while len(printed(rest.iloc[:n])) < len(line.numbers):
            n += 1
        pairs.append((line, rest.iloc[:n]))
        rest = rest.iloc[n:]
    return pairs


@needs_papers
@pytest.mark.parametrize("artefact", ARTEFACTS)
def test_every_printed_number_is_in_the_csv_and_no_other(artefact):
    ours = printed(load().query("artefact == @artefact"))
    theirs = [n for line in table(artefact).lines for n in line.numbers]
    assert Counter(ours) == Counter(theirs)
    assert ours == theirs  # also in the same order: no two numbers of a table changed places


@needs_papers
@pytest.mark.parametrize("artefact", [a for a in ARTEFACTS if a not in STATIC])
def test_every_row_carries_its_printed_label(artefact):
    dataset = ""
    for line, ours in lines_of(artefact):
        assert ours[["backbone", "variant"]].drop_duplicates().shape[0] == 1
        labels = [squash(label) for label in line.labels]
        if artefact in ("samlml-t5", "samlml-t6", "samlml-t13"):  # systems are columns
            dataset = labels[0] or dataset
            assert set(ours["dataset"]) == {dataset}
            assert squash(ours["variant"].iloc[0]) in (f"mr{labels[1]}", f"nr{labels[1]}", labels[1])
            continue
        assert ours["method"].nunique() == 1
        name = squash("".join(ours[["backbone", "method", "variant"]].iloc[0]))
        assert all(label in name for label in (labels[:1] if artefact == "cpsl-t2" else labels))
        assert any(labels) or artefact in ("powmix-t3", "slad-t3", "msmix-t4")  # rows of ticks


@needs_papers
@pytest.mark.parametrize("artefact", [a for a in ARTEFACTS if a not in STATIC])
def test_every_column_carries_its_printed_heading(artefact):
    for line, ours in lines_of(artefact):
        keys = ours["metric"].str.replace("_(change|p_value)$", "", regex=True)
        weak = "w" if artefact.startswith("msmix") else ""  # MS-Mix: w- is without neutral samples
        keys = keys.str.replace("non0_", weak).str.replace("has0_", "")
        if artefact == "samlml-t10":
            keys = keys.str.replace("accuracy", "acc")
        assert [HEADINGS.get(key, key) for key in keys] == line.columns


@needs_papers
@pytest.mark.parametrize("artefact", [a for a in ARTEFACTS if a not in ("powmix-t1", "samlml-t14")])  # name no dataset
def test_datasets_follow_the_headings(artefact):
    assert tuple(load().query("artefact == @artefact")["dataset"].unique()) == table(artefact).datasets


@needs_papers
@pytest.mark.parametrize("artefact", ["samlml-t5", "samlml-t6", "samlml-t13"])
def test_systems_of_the_grids_follow_the_headings(artefact):
    for line, ours in lines_of(artefact):
        assert [squash(m) for m in ours["method"].unique()] == [squash(h) for h in line.top]


@needs_papers
@pytest.mark.parametrize("artefact", ["slad-t4", "samlml-t7"])
def test_settings_follow_their_labels(artefact):
    for line, ours in lines_of(artefact):
        name = re.sub(r"[${}\\]", "", line.labels[0].replace("$ au$", "tau").replace("α", "alpha"))
        assert re.sub("[ -]", "_", name.lower()).endswith(ours["metric"].unique().item())


@needs_papers
@pytest.mark.parametrize(("artefact", "parts"), [
    ("msmix-t4", ("Manifold Mix", "SASS", "SIG", "SAL")),
    ("powmix-t3", ("Aniso.", "Reweight", "M. Share", "D.Mix")),
    ("slad-t3", ("omega", "L_con", "L_rep", "L_ml")),
])
def test_ticks_spell_the_variant(artefact, parts):
    for line, ours in lines_of(artefact):
        ticked = [part for part, cell in zip(parts, line.labels, strict=True) if re.search("√|✓|checkmark", cell)]
        if artefact == "msmix-t4" and len(ticked) != 1:
            ticked = ["", *ticked[1:]]  # "+ SASS": Manifold Mix goes without saying
        if not line.labels[0].startswith("SIG"):
            assert ours["variant"].iloc[0] == (" + ".join(ticked).strip() or "none")


@needs_papers
@pytest.mark.parametrize("artefact", ARTEFACTS)
def test_copied_rows_are_those_with_a_mark(artefact):
    mark = COPIED.get(artefact) or COPIED.get(artefact.split("-")[0])
    for line, ours in lines_of(artefact):
        assert set(ours["elsewhere"]) == {bool(mark and re.search(mark, line.labels[0]))}
        assert not (ours["elsewhere"] & ours["n"].notna()).any()
        assert ours.loc[ours["variant"] == "reported", "elsewhere"].all()


@needs_papers
@pytest.mark.parametrize(("flag", "span"), [("bold", r"<b>(.*?)</b>|\*\*(.*?)\*\*"), ("underline", r"<u>(.*?)</u>")])
def test_marked_numbers_are_those_in_markup(flag, span):
    for artefact in ARTEFACTS:
        spans = [m[0] for line in table(artefact).lines for cell in line.cells for m in re.finditer(span, cell)]
        theirs = Counter(n for s in spans for n in re.findall(r"\d[\d,.]*", s))
        assert Counter(load().query(f"artefact == @artefact and {flag}")["mean_text"]) == theirs


@pytest.mark.parametrize("artefact", ARTEFACTS)
def test_number_of_cells(artefact):
    assert len(load().query("artefact == @artefact")) == CELLS[artefact]


def test_no_cell_is_given_twice():
    cells = load()
    assert set(cells["artefact"]) == set(ARTEFACTS)
    assert not cells.duplicated(list(KEY)).any()
    assert cells["cell_id"].is_unique


def test_values_and_units_are_plausible():
    cells = load()
    assert cells["mean"].notna().all()
    assert (cells["std"].notna() == (cells["std_text"] != "")).all()
    percent = cells[cells["unit"] == "%"]
    change = percent["convention"] == "relative"
    assert percent.loc[~change, "mean"].between(15, 100).all() and percent.loc[change, "mean"].between(-15, 15).all()
    assert cells.loc[cells["unit"] == "fraction", "mean"].between(0, 1, inclusive="neither").all()
    p_value = cells["metric"].str.endswith("_p_value")
    assert p_value.sum() == 24 and cells.loc[p_value, "mean"].between(0, 1, inclusive="neither").all()
    assert cells.loc[cells["metric"] == "mae", "mean"].between(0.3, 3.5).all()
    # Printed std of a percentage stays below 3 points, of an MAE below 0.05: a swapped mean and std would not.
    assert cells.loc[cells["unit"] == "%", "std"].max() < 3 and cells.loc[cells["metric"] == "mae", "std"].max() < 0.05


def test_metrics_are_those_the_harness_computes():
    cells = load()
    for convention, metrics in cells.groupby("convention")["metric"].unique().items():
        if convention in METRICS:
            assert set(metrics) <= set(METRICS[convention])
        elif convention in ("non0", "has0"):
            assert set(metrics) == {f"{convention}_acc2", f"{convention}_f1"}
    computed = {m for family in METRICS.values() for m in family}
    derived = cells.loc[cells["convention"].isin(["relative", "paired_t"]), "metric"]
    assert set(derived.str.replace(r"_(change|p_value)$", "", regex=True)) <= computed


def value(artefact, metric, dataset=None, **row):
    cells = load().query("artefact == @artefact and metric == @metric")
    for column, wanted in {"dataset": dataset, **row}.items():
        cells = cells if wanted is None else cells[cells[column] == wanted]
    assert len(cells) == 1
    return cells["mean_text"].item()


def test_cells_quoted_in_the_prose():
    """Numbers that the papers repeat in their running text, with the column and the row they belong to."""
    ours = {m: value("cpsl-t1", m, "mosi", method="Ours") for m in ("non0_acc2", "non0_f1", "mae", "corr")}
    assert list(ours.values()) == ["89.31", "89.23", "0.638", "0.864"]  # CP+SL 3.2
    assert value("cpsl-t1", "corr", "mosei", method="Ours") == "0.820"
    assert value("cpsl-t2", "mae", variant="C1") == "0.8646" and value("cpsl-t2", "mae", variant="B5") == "0.6808"
    average = {"method": "SAM-LML", "variant": "Avg."}  # SAM-LML 4.4
    assert [value("samlml-t5", m, "mosi", **average) for m in ("non0_acc2", "acc7")] == ["74.6", "35.9"]
    assert [value("samlml-t5", m, "mosei", **average) for m in ("non0_acc2", "acc7")] == ["80.0", "48.2"]
    seconds = [f"{split}_seconds_per_epoch" for split in ("train", "test")]  # A.8
    assert [value("samlml-t8", m, method="ITHP") for m in seconds] == ["111.1", "6.9"]
    assert [value("samlml-t8", m, method="SAM-LML", variant="") for m in seconds] == ["144.5", "6.7"]
    assert value("slad-t5", "corr", "mosi", method="CMFF") == "0.876"  # SLaD A.2.2
    assert value("slad-t5", "corr", "mosei", method="CMFF") == "0.813"
    assert value("slad-t2", "acc5", method="SLaD") == "47.9"  # 4.5.2


@pytest.mark.parametrize(("left", "right"), [
    ({"artefact": "msmix-t4", "variant": "Manifold Mix"},
     {"artefact": "msmix-t1", "backbone": "LMF", "method": "Manifold Mix"}),
    ({"artefact": "msmix-t4", "variant": "+ SASS + SIG + SAL"},
     {"artefact": "msmix-t1", "backbone": "LMF", "method": "MS-Mix"}),
    ({"artefact": "powmix-t3", "variant": "Aniso. + Reweight + M. Share + D.Mix"},
     {"artefact": "powmix-t2", "backbone": "Self-MM", "method": "PowMix"}),
    ({"artefact": "slad-t5", "method": "SLaD"}, {"artefact": "slad-t1", "method": "SLaD"}),
    ({"artefact": "samlml-t4", "variant": ""}, {"artefact": "samlml-t1", "method": "SAM-LML"}),
    ({"artefact": "samlml-t11", "variant": "aligned"}, {"artefact": "samlml-t1"}),
    ({"artefact": "samlml-t12", "method": "SAM-LML"}, {"artefact": "samlml-t1", "method": "SAM-LML"}),
    ({"artefact": "cpsl-t2", "variant": "A1"}, {"artefact": "cpsl-t2", "variant": "B1"}),
])
def test_rows_printed_in_two_tables_agree(left, right):
    """The tables have other columns in another order, so a column read under a wrong metric would show."""
    def cells(row):
        mask = " and ".join(f"{column} == {wanted!r}" for column, wanted in row.items())
        return load().query(mask)

    same = ["dataset", "metric"] + (["method"] if left["artefact"] == "samlml-t11" else [])
    both = cells(left).merge(cells(right), on=same)
    assert len(both) == len(cells(left))
    assert (both["mean_text_x"] == both["mean_text_y"]).all()


def test_relative_changes_have_the_sign_of_their_values():
    cells = load("slad").query("artefact == 'slad-t3'").set_index(["variant", "metric"])["mean"].unstack()
    full = cells.loc["omega + L_con + L_rep + L_ml"]
    off = set()
    for metric in ("acc2", "f1", "acc5", "mae", "corr"):
        computed = (cells[metric] / full[metric] - 1) * 100
        gap = (computed - cells[f"{metric}_change"]).abs()
        off |= {(variant, metric) for variant in gap.index[gap > 0.06]}
    assert off == {("omega + L_rep + L_ml", "f1"), ("omega + L_ml", "acc2"), ("L_ml", "acc2")}  # see the README


def test_load_keeps_text_and_precision():
    cells = load("samlml").set_index("cell_id")
    p = cells.loc["samlml-t10/mosi//SOTA1//acc7_p_value"]
    assert (p["mean_text"], p["mean"], p["decimals"]) == ("3.68e-4", 3.68e-4, 6)
    params = cells.loc["samlml-t2/ur-funny//HKT//params"]
    assert (params["mean_text"], params["mean"], params["decimals"]) == ("17,066,564", 17066564.0, 0)
    lmf = load("msmix").set_index("cell_id").loc["msmix-t1/mosi/LMF/MS-Mix//mae"]
    assert (lmf["mean_text"], lmf["std_text"], lmf["decimals"], lmf["n"]) == ("0.879", "0.003", 3, 5)
    assert load("msmix").query("mean_text == '65.20'")["decimals"].tolist() == [2, 2]


def test_load_gives_copies_and_rejects_unknown_papers():
    for paper in (None, "cpsl"):
        mine = load(paper)
        mine.loc[:, "mean"] = 0.0
        assert load(paper)["mean"].min() > -15 and (load(paper)["mean"] != 0.0).mean() > 0.99
    assert len(load()) == sum(len(load(p)) for p in PAPERS)
    with pytest.raises(BenchError, match="known papers: msmix, powmix, slad, samlml, cpsl"):
        load("mmsa")
