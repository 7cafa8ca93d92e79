"""The papers' figures from planted results: what is drawn, what is said of what is not, and how it looks."""

import re
from dataclasses import replace
from types import SimpleNamespace
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from matplotlib.text import Text
from mpl_toolkits.mplot3d import Axes3D
from scipy import stats

from bench.experiments import all_experiments
from bench.matrix import Experiment, Job, expand, seeds
from bench.measure import spec
from bench.report import figures
from bench.report.latex import escape
from bench.report.plots import render
from bench.report.records import Figure
from bench.selectors import selects
from bench.store import Store
from tests import planted, planted_figures

pytestmark = pytest.mark.usefixtures("no_fsync")

FIGURES = [e.id for e in all_experiments().values() if e.kind == "figure"]
LINES = [i for i in FIGURES if all_experiments()[i].figure["kind"] == "line"]
N = 3  # planted seeds


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """artefact -> what `draw` makes of planted results, with every text that was drawn and where."""
    made: dict[str, SimpleNamespace] = {}

    def get(artefact: str) -> SimpleNamespace:
        if artefact not in made:
            e, root = planted_figures.experiment(artefact), tmp_path_factory.mktemp(artefact)
            store = planted_figures.write(root / "results", e, N)
            made[artefact] = draw(e, store, root / "report", N, pdf=True)
        return made[artefact]

    return get


def draw(e: Experiment, store: Store, out, n: int | None = None, pdf: bool = False) -> SimpleNamespace:
    """A figure with its matplotlib figure and its texts as drawn: (words, size, extent), in points. pdf: the real one,
    which takes longest."""
    texts, kept, text, printers = [], [], Text.draw, (render.svg, render.pdf)

    def note(self, renderer):
        if self.get_visible() and self.get_text().strip():
            texts.append((self.get_text(), self.get_fontsize(), self.get_window_extent(renderer)))
        return text(self, renderer)

    def keep(figure, title):
        kept.append(figure)
        Text.draw = note
        try:
            return printers[0](figure, title)
        finally:
            Text.draw = text

    render.svg, render.pdf = keep, printers[1] if pdf else lambda figure: b"%PDF"
    try:
        (f,) = figures.draw(e, planted_figures.table(e, store, n), store, out)
    finally:
        render.svg, render.pdf = printers
    points = pd.read_csv(out / f.csv) if f.csv else pd.DataFrame()
    words = " ".join(" ".join(x.itertext()) for x in ElementTree.fromstring(f.svg).iter() if x.tag.endswith("text"))
    return SimpleNamespace(
        experiment=e, store=store, out=out, record=f, points=points, figure=kept[0], texts=texts, words=words,
    )


# --- every figure ---------------------------------------------------------------------------------------------------

def test_all_twenty_figures_of_the_inventory_are_defined():
    assert len(FIGURES) == 20


@pytest.mark.parametrize("artefact", FIGURES)
def test_without_results_every_panel_says_so(artefact, tmp_path):
    d = draw(planted_figures.experiment(artefact), Store(tmp_path / "none"), tmp_path)
    runs = len(expand([d.experiment]))
    if not runs:  # nothing is trained for it
        assert "not run" not in d.words and len(d.points)
        return
    places = len(d.figure.axes)
    assert d.words.count("not run") == places >= 2
    assert not len(d.points) and not d.record.csv and not d.record.caption
    assert f"Not run yet: {runs} of {runs} runs." in d.record.note
    shown = {int(n) for n in re.findall(r"0 of (\d+) (?:run is|runs are) there", d.words)}
    assert shown and max(shown) <= runs


@pytest.mark.parametrize("artefact", FIGURES)
def test_every_figure_is_whole_legible_and_follows_the_page(artefact, drawn):
    d = drawn(artefact)
    assert "not run" not in d.words and "not run" not in d.record.note.lower()
    assert len(d.points) and (d.out / d.record.pdf).stat().st_size > 5000
    if d.experiment.seeds:
        assert f"n = {N} seeds" in d.record.caption and "the published files" in d.record.caption
    printable(d.record)
    legible(d)
    themed(artefact, d.record.svg)


def printable(f: Figure) -> None:
    assert "?" not in escape(f"{f.title} {f.caption} {f.note}") and ".." not in f.caption + f.note


def legible(d: SimpleNamespace) -> None:
    """No text is smaller than 6 points, leaves the sheet or touches another."""
    assert min(size for _, size, _ in d.texts) >= 6
    width, height = 72 * d.figure.get_size_inches()
    for words, _, box in d.texts:
        assert box.x0 >= -0.5 and box.y0 >= -0.5 and box.x1 <= width + 0.5 and box.y1 <= height + 0.5, words
    boxes = [(words, box.padded(-0.6)) for words, _, box in d.texts]
    touching = [
        (a, b) for k, (a, one) in enumerate(boxes) for b, two in boxes[:k]
        if one.x0 < two.x1 and two.x0 < one.x1 and one.y0 < two.y1 and two.y0 < one.y1
    ]
    assert not touching


def themed(artefact: str, svg: str) -> None:
    """Ink is the page's, methods have a twin for dark pages, and nothing reaches beyond the drawing."""
    root = ElementTree.fromstring(svg)
    assert root.get("role") == "img" and root.get("width") is None and artefact in root.get("aria-label")
    drawing = re.sub(r'"data:image[^"]*"', '""', svg)
    assert "<style" not in drawing and "#000000" not in drawing and "DejaVu" not in drawing and len(svg) < 400_000
    assert "currentColor" in drawing and not re.search(r"(?:fill|stroke): #(?:d04a00|c98500|2e8fd0|6a6a6a)", drawing)
    ids = re.findall(r'\bid="([^"]+)"', drawing)
    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize("artefact", ["msmix-f5", "msmix-f4", "msmix-f3", "cpsl-f3"])
def test_figures_are_the_same_bytes_every_time(artefact, drawn, tmp_path):
    d = drawn(artefact)
    again = draw(d.experiment, d.store, tmp_path, N, pdf=True)
    assert again.record == d.record
    for name in (d.record.pdf, d.record.csv):
        assert (tmp_path / name).read_bytes() == (d.out / name).read_bytes()
    assert b"CreationDate" not in (d.out / d.record.pdf).read_bytes() and "matplotlib.org" not in d.record.svg


# --- numbers --------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("artefact", LINES)
def test_lines_are_means_with_students_interval(artefact, drawn):
    d = drawn(artefact)
    e, table = d.experiment, planted_figures.table(d.experiment, d.store, N)
    ours = d.points[d.points["what"].isin(["line", "cell"])]
    expected = 0
    for panel in e.figure["panels"]:
        rows = [r for r in e.rows if r.x is not None and _selected(r, panel["rows"])]
        rows += [r for r in e.rows if "thin" in panel and r.x is not None and _selected(r, panel["thin"])]
        metrics = [m for m in e.figure["metrics"] if panel.get("metric", m) == m]
        expected += len(rows) * sum((m, panel["group"]) in {(c.metric, c.group) for c in e.columns} for m in metrics)
    assert len(ours) == expected
    for line in ours.sample(min(25, len(ours)), random_state=0).to_dict("records"):
        found = [
            c for i, j, c in table.grid
            if e.rows[i].variant == line["label"] and e.columns[j].metric == line["metric"]
            and e.rows[i].method == (line["line"] if "=" not in str(line["line"]) else e.rows[i].method)
            and c.n and c.mean == pytest.approx(line["mean"], rel=1e-5)
        ]
        assert found, line
        low, high = stats.t.interval(0.95, N - 1, np.mean(found[0].values), stats.sem(found[0].values))
        assert line["n"] == N and (line["low"], line["high"]) == pytest.approx((low, high), rel=1e-5)


def _selected(row, where) -> bool:
    fields = {"backbone": row.backbone, "method": row.method, "variant": row.variant, "x": row.x}
    return selects(where)(fields)


def test_the_level_the_default_and_the_map_are_marked(drawn):
    d = drawn("msmix-f5")
    assert d.points["what"].value_counts().to_dict() == {"line": 7 + 6 + 5 + 5, "cell": 25, "level": 1}
    titles = {a.get_title(): a for a in d.figure.axes}
    threshold = titles["(a) similarity threshold"]
    dotted = [line for line in threshold.lines if line.get_label() == "setting of the paper"]
    assert len(dotted) == 1 and set(dotted[0].get_xdata()) == {0.2}
    level = d.points[d.points["what"] == "level"].iloc[0]
    dashed = [line for line in threshold.lines if line.get_label() == "Manifold Mix (level)"]
    assert dashed[0].get_ydata()[0] == pytest.approx(level["mean"], rel=1e-5)
    grid = next(a for t, a in titles.items() if t.startswith("(b)"))
    box = next(p for p in grid.patches if not p.get_fill())
    assert (box.get_x(), box.get_y()) == (2.5, 1.5)  # xi_1 = 0.7, xi_2 = 0.5 of 0.1, 0.3, ...
    number = next(t for t in grid.texts if t.get_position() == (3, 2)).get_text()
    cell = d.points[(d.points["x"] == 0.7) & (d.points["y"] == 0.5)].iloc[0]
    assert number == f"{cell['mean']:.1f}"


def test_printed_values_and_gains_stand_beside_real_runs_only(drawn, tmp_path):
    tau = drawn("slad-f4").points
    assert sorted(tau.loc[tau["what"] == "printed", "mean"]) == [0.6, 78.3, 79.7, 81.4]
    share = drawn("powmix-f8")
    for metric, gain in (("non0_acc2", 1.21), ("mae", -0.022)):
        mine = share.points[(share.points["metric"] == metric) & share.points["x"].isin([0.1, 0.2])]
        plain = mine[(mine["what"] == "line") & (mine["line"] == "plain")].set_index("x")["mean"]
        printed = mine[mine["what"] == "printed"].set_index("x")["mean"]
        np.testing.assert_allclose(printed - plain, [gain, gain], atol=2e-4)
    e = planted_figures.experiment("slad-f4")
    for k, (provenance, word) in enumerate((("synthetic", "SYNTHETIC data"), ("custom", "custom files"))):
        d = draw(e, planted_figures.write(tmp_path / provenance, e, 1, provenance), tmp_path / str(k), 1)
        assert (d.points["what"] == "printed").any() == (provenance == "custom")
        assert word in d.record.caption and ("not a result" in d.words) == (provenance == "synthetic")


def test_probes_are_drawn_from_the_measures(drawn):
    d = drawn("powmix-f5")
    ours = d.points[d.points["what"] == "cell"]
    assert len(ours) == 2 * 4 * 2 * 2 and (ours["n"] == N).all()  # backbones, parts, methods, metrics
    need = next(n for n in spec.measures(d.experiment) if n.row.key == ("MulT", "PowMix", "A"))
    stored = [spec.load_numbers(d.store, Job(need.config, s), need.measure)["audio:non0_acc2"] for s in seeds(N)]
    line = ours.query("panel == 'MulT' and line == 'PowMix' and label == 'A' and metric == 'non0_acc2'")
    assert line["mean"].item() == pytest.approx(100 * np.mean(stored), rel=1e-5)


def test_curves_are_those_of_the_history(drawn):
    d = drawn("samlml-f4")
    job = Job(d.experiment.configs()[0], seeds(N)[0])
    columns = d.experiment.figure["computed"]["noise_addition_loss"]
    curve = d.points[d.points["curve"] == "noise_addition_loss"]
    np.testing.assert_allclose(curve["first_seed"], d.store.history(job)[columns].sum(axis=1), rtol=1e-5)
    everyone = [d.store.history(Job(job.config, s))[columns].sum(axis=1)[4] for s in seeds(N)]
    low, high = stats.t.interval(0.95, N - 1, np.mean(everyone), stats.sem(everyone))
    fifth = curve[curve["epoch"] == 5].iloc[0]
    assert (fifth["mean"], fifth["low"], fifth["high"]) == pytest.approx((np.mean(everyone), low, high), rel=1e-4)


def test_a_curve_goes_on_where_some_seeds_have_stopped(tmp_path):
    e = planted_figures.experiment("cpsl-f3")
    store = planted_figures.write(tmp_path / "results", e, N)
    jobs = [Job(e.configs()[0], s) for s in seeds(N)]
    first, second, third = (store.folder(j) / "history.csv" for j in jobs)
    for j in jobs:
        planted.unseal(store, j)
    pd.read_csv(second).iloc[:8].to_csv(second, index=False)  # stopped early
    pd.read_csv(third).assign(imbalance=lambda h: h["imbalance"].where(h["epoch"] < 5)).to_csv(third, index=False)
    d = draw(e, store, tmp_path, N)
    n = {k: list(v["n"]) for k, v in d.points.groupby("curve")}
    assert n["coefficient_audio"] == [3] * 8 + [2] * 4 and n["imbalance"] == [3] * 4 + [2] * 4 + [1] * 4
    first.write_text("epoch,train_total\n1,0.5\n")
    d = draw(e, store, tmp_path, 1)
    assert d.words.count("not recorded") == 2 and "without these curves" in d.words and "not run" not in d.words


def test_the_papers_ranges_and_the_baseline_are_in_the_dynamics(drawn):
    coefficients = drawn("cpsl-f3").figure.axes[0]
    labels = coefficients.get_legend_handles_labels()[1]
    assert labels == ["audio", "audio, printed range", "vision", "vision, printed range", "level 1"]


def test_landscapes_share_directions_scale_and_limits(drawn):
    d = drawn("msmix-f4")
    surfaces = [a for a in d.figure.axes if isinstance(a, Axes3D)]
    assert len(surfaces) == 6 and len({a.get_zlim() for a in surfaces}) == 1
    assert len(d.points) == 6 * planted_figures.SIDE ** 2
    contours = [a.collections[0] for a in d.figure.axes if a.collections and a not in surfaces and a.get_xlabel()]
    assert len(contours) == 6 and len({c.get_clim() for c in contours}) == 1
    assert "Rise of MS-Mix minus" in d.record.note and d.record.note.count("p =") == 5


def test_a_histogram_has_all_labels_and_its_divergence(drawn):
    d = drawn("msmix-f1")
    assert d.points.groupby("panel")[["data_percent", "generated_percent"]].sum().to_numpy() == pytest.approx(100)
    assert [a.get_title().split(" [")[0].split(":")[0] for a in d.figure.axes] == ["Manifold Mix", "MS-Mix"]
    need = spec.measures(d.experiment)[0]
    values = [spec.load_numbers(d.store, Job(need.config, s), need.measure)["kl"] for s in seeds(N)]
    assert f"KL {np.mean(values):.3f} [" in d.figure.axes[0].get_title()


def test_noised_columns_are_marked(drawn):
    d = drawn("samlml-f3")
    for a in d.figure.axes[:2]:
        assert list(a.lines[0].get_xdata()) == [7, 17, 18, 35, 41]
    assert set(d.points.loc[d.points["noised"], "key"]) == {7, 17, 18, 35, 41}


# --- holes ----------------------------------------------------------------------------------------------------------

def test_failed_stale_and_missing_runs_are_left_out_and_counted(tmp_path):
    e = planted_figures.experiment("powmix-f3")
    store = planted_figures.write(tmp_path / "results", e, N)
    first, second, third, *_ = [r.cells["MOSEI"] for r in e.rows]
    (store.folder(Job(first, seeds(N)[0])) / "metrics.json").unlink()
    store.fail(Job(first, seeds(N)[0]), "loss is not finite", "FloatingPointError")
    for name in ("metrics.json", "history.csv"):
        (store.folder(Job(second, seeds(N)[1])) / name).unlink()
    undefined = Job(third, seeds(N)[0])
    values = {"non0_acc2": float("nan"), "mae": 0.6}
    planted.finish(store, undefined, values, planted.env(undefined.seed))
    d = draw(e, store, tmp_path, N)
    legible(d)
    assert "Left out: 1 failed of 18 runs. Not run yet: 1 of 18 runs." in d.record.note
    assert "Left out: 1 point whose metric is undefined in a run." in d.record.note
    n = d.points[(d.points["what"] == "line") & (d.points["metric"] == "non0_acc2")].set_index("label")["n"]
    assert n.to_dict() == {"U(2, 4)": 2, "U(2, 8)": 2, "U(4, 6)": 0, "U(2, 16)": 3, "U(6, 8)": 3}
    assert "n = 2 to 3 seeds" in d.record.caption


def test_a_panel_without_measures_says_how_many_are_missing(tmp_path):
    e = planted_figures.experiment("msmix-f3")
    store = planted_figures.write(tmp_path / "results", e, 2, measured=False)
    config, measure = spec.measure_of(e, e.rows[0], e.figure["panels"][0])
    planted_figures.measure(store, Job(config, seeds(2)[0]), measure)
    spec.fail(store, Job(config, seeds(2)[1]), measure, "no weights")
    d = draw(e, store, tmp_path, 2)
    assert d.words.count("not measured") == 1 and "2 of 2 runs are there" in d.words and "0 of 2 measured" in d.words
    assert "Not measured yet: 2 of 4." in d.record.note and "Failed to measure: 1 of 4 (no weights)." in d.record.note
    assert set(d.points["panel"]) == {"(a) MS-Mix"}


def test_a_config_that_nobody_implemented_is_not_run_here(tmp_path):
    e = planted_figures.experiment("slad-f4")
    e = replace(e, rows=tuple(replace(r, cells={"SIMS": None}) for r in e.rows))
    d = draw(e, Store(tmp_path / "none"), tmp_path)
    assert d.words.count("not run here: no implementation") == 12  # panels: a line each


def test_tables_and_unknown_kinds(tmp_path):
    table = all_experiments()["msmix-t1"]
    store = Store(tmp_path / "none")
    assert figures.draw(table, planted_figures.table(table, store), store, tmp_path) == []
    odd = replace(planted_figures.experiment("powmix-f3"), figure={"kind": "pie"})
    with pytest.raises(ValueError, match="powmix-f3: no figure of kind 'pie'"):
        figures.draw(odd, planted_figures.table(odd, store), store, tmp_path)


def test_no_line_joins_categories(drawn):
    """powmix-f3: an interval is not between two others; its means are points with their intervals as bars."""
    axes = [a for a in drawn("powmix-f3").figure.axes if any("PowMix" in str(line.get_label()) for line in a.lines)]
    assert axes
    for a in axes:
        means = next(line for line in a.lines if line.get_label() == "PowMix")
        assert means.get_linestyle() == "None" and len(means.get_xdata()) == 5 and means.get_marker() != "None"
        assert any(len(c.get_segments()) == 5 for c in a.collections if hasattr(c, "get_segments"))


@pytest.mark.parametrize("artefact, panels, lines", [("msmix-f6", 12, 2), ("slad-f4", 12, 1)])
def test_lines_that_would_cover_each_other_have_panels_of_their_own(drawn, artefact, panels, lines):
    axes = [a for a in drawn(artefact).figure.axes if a.get_visible() and a.lines]
    joined = [sum(len(line.get_xdata()) > 2 for line in a.lines) for a in axes]
    assert len(axes) == panels and set(joined) == {lines}


@pytest.mark.parametrize("artefact, titles, names", [("slad-f4", 4, 4), ("msmix-f6", 12, 4)])
def test_what_a_column_of_panels_shares_is_said_once(drawn, artefact, titles, names):
    """A panel under one of the same title has none of its own; the axis is named under the lowest."""
    axes = [a for a in drawn(artefact).figure.axes if a.get_visible() and a.lines]
    assert sum(bool(a.get_title()) for a in axes) == titles
    assert sum(bool(a.get_xlabel()) for a in axes) == names


def test_rows_of_panels_stand_apart(drawn):
    """No title of a row reaches up to the axis of the row above, ticks and label included."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    figure = drawn("msmix-f6").figure
    FigureCanvasAgg(figure).draw()
    axes = [a for a in figure.axes if a.get_visible() and a.lines]
    scale = 72 / figure.dpi
    bottom = {round(a.get_position().y0, 3): a.get_tightbbox().y0 * scale for a in axes}
    top = {round(a.get_position().y0, 3): a.get_tightbbox().y1 * scale for a in axes}
    rows = sorted(bottom, reverse=True)
    assert len(rows) == 3
    assert all(bottom[upper] - top[lower] >= 8 for upper, lower in zip(rows, rows[1:]))  # points


def test_an_interval_ends_where_what_is_measured_does():
    """Two seeds give wide t intervals: an accuracy of 103 % and a divergence below 0 are none."""
    from bench.analysis.stats import summary
    from bench.report.plots.view import spread

    two = summary([95.0, 97.0])
    assert two.high > 100 and spread(two, 1, (0, 100)) == "96.0 [83.3, 100.0]" and spread(two, 1) == "96.0 [83.3, 108.7]"
    assert spread(summary([0.5]), 1, (0, 1)) == "0.5"
