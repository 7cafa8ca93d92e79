"""Every artefact of the five papers as an experiment: rows and columns against the reported numbers and the claims."""

import re
import resource
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from fnmatch import fnmatchcase

import pytest

from bench import estimate, registry
from bench.analysis.claims import ledger
from bench.analysis.grid import Grid, config_of
from bench.analysis.reported import load
from bench.data.corruption import named, parse
from bench.data.dataset import spec
from bench.errors import BenchError
from bench.experiments import all_experiments, common, differences, samlml
from bench.matrix import expand
from bench.measure.needs import point, sweeps
from bench.measure.wanted import wanted
from bench.metrics import METRICS
from bench.plan import overridden
from bench.report.verdict import Reported
from bench.selectors import selects
from bench.store import Store
from bench.train.protocol import Protocol, from_params
from tests.conftest import ROOT

EXPERIMENTS = all_experiments()
TABLES = {"msmix": 4, "powmix": 3, "slad": 5, "samlml": 14, "cpsl": 2}
FIGURES = {
    "msmix": (1, 3, 4, 5, 6), "powmix": (2, 3, 4, 5, 6, 7, 8), "slad": (4, 5), "samlml": (3, 4, 6, 7), "cpsl": (2, 3),
}
IDS = [f"{p}-{kind}{i}" for p, n in TABLES.items()
       for kind, numbers in (("t", range(1, n + 1)), ("f", FIGURES[p])) for i in numbers]
FIGURE_KINDS = {
    "line", "heatmap", "bars", "landscape", "tsne", "density", "attention", "dynamics", "illustration",
}
KEY = ["dataset", "backbone", "method", "variant", "metric"]
UNPRINTED = (  # cells of our tables that the papers leave empty: artefact, dataset, method, variant, metric
    ("powmix-t2", "*", "LF-DNN", "*", "acc[57]"), ("powmix-t2", "*", "TFN", "*", "acc[57]"),
    ("powmix-t2", "*", "MAG-BERT", "*", "acc[57]"), ("powmix-t2", "mos*", "*", "reported", "acc[57]"),
    ("slad-t3", "*", "SLaD", "omega + L_con + L_rep + L_ml", "*_change"),  # the full row against itself
    ("samlml-t1", "*", "DMD + MCIS", "", "mae"), ("samlml-t1", "*", "DMD + MCIS", "", "corr"),
    ("samlml-t2", "*", "*", "reported", "params"), ("samlml-t2", "*", "DMD+SuCI", "", "params"),
    ("samlml-t2", "*", "AtCAF", "", "params"), ("samlml-t2", "*", "AtCAF", "rerun", "*"), ("samlml-t3", "*", "*", "reported", "params"),
    ("samlml-t3", "*", "MO-Sarcation", "", "params"), ("samlml-t3", "*", "MO-Sarcation", "rerun", "*"),
    ("samlml-t10", "*", "SAM-LML", "", "*"),  # what the two rows are tested against
    ("cpsl-t1", "mosei", "UniMSE", "", "*"), ("cpsl-t1", "mosei", "MIB", "", "*"),
    ("cpsl-t1", "mosei", "BBFN", "", "*"),
    *((f"msmix-t{i}", "*", "MS-Mix (release)", "", "*") for i in (1, 2, 3)),  # a row beside the printed ones
    *(("samlml-t1", "*", m, "", "*") for m in ("E-MIB", "L-MIB", "DMD")),
    *(("powmix-t2", "*", m, "*", "*") for m in ("EF-LSTM", "MFN", "Graph-MFN")),
)


def cells_of(e):
    """(dataset, backbone, method, variant, metric) of each cell of a table that holds a number (tests/test_static.py has
    the words)."""
    return [
        (c.group.lower(), *r.key, c.metric) for r in e.rows for c in e.columns
        if not (c.words or isinstance(r.stated.get(c.metric), str))
    ]


WORDS = {"powmix-t1": {"ft_bert", "backbone", "fusion"}, "samlml-t7": {"loss"},  # printed, but no numbers
         "slad-t4": {"optimiser", "warm_up", "cosine_annealing", "context"}}


def unprinted(artefact, key):
    dataset, backbone, method, variant, metric = key
    if metric in WORDS.get(artefact, ()) or metric in ("params_ours", "gflops_ours"):  # our counting rule, beside theirs
        return True
    found = (artefact, dataset, method, variant, metric), (artefact, dataset, backbone, variant, metric)
    return any(all(map(fnmatchcase, k, p)) for k in found for p in UNPRINTED)


def configs():
    return {c.id: c for e in EXPERIMENTS.values() for c in e.configs()}


def test_there_are_28_tables_and_20_figures_in_the_papers_order():
    assert list(EXPERIMENTS) == IDS and len(IDS) == 48
    assert Counter(e.kind for e in EXPERIMENTS.values()) == {"table": 28, "figure": 20}


@pytest.mark.parametrize("artefact", [i for i in IDS if "-t" in i])
def test_every_reported_cell_has_one_place_and_every_place_a_reported_cell(artefact):
    e = EXPERIMENTS[artefact]
    printed = load(e.paper).query("artefact == @artefact")
    reported = list(printed[KEY].itertuples(index=False, name=None))
    ours = Counter(cells_of(e))
    assert max(ours.values()) == 1
    assert sorted(set(reported) - set(ours)) == []
    left = set(ours) - set(reported)
    assert sorted(k for k in left if not unprinted(artefact, k)) == []
    order = [k for k in dict.fromkeys((b, m, v) for _, b, m, v, _ in reported)]
    rows = [r.key for r in e.rows if r.key in order]
    assert rows == order, "rows are not in the order of print"


def test_no_exception_is_idle():
    for p in UNPRINTED:
        e = EXPERIMENTS[p[0]]
        printed = load(e.paper).query("artefact == @e.id")
        reported = set(printed[KEY].itertuples(index=False, name=None))
        mine = [k for k in cells_of(e) if any(all(map(fnmatchcase, (e.id, k[0], name, *k[3:]), p)) for name in k[1:3])]
        assert mine and not reported & set(mine), p


def test_the_report_finds_every_reported_number_in_our_tables():
    reported = Reported(load())
    for e in EXPERIMENTS.values():
        for row in e.rows:
            for column in e.columns:
                reported.find(e.id, row, column, ())
    assert reported.unmatched(EXPERIMENTS) == []


@pytest.mark.parametrize("e", EXPERIMENTS.values(), ids=EXPERIMENTS)
def test_docstring_says_claim_expectation_cost_and_command(e):
    words = ("Claim", "Expected", "Cost", "Command")
    lines = {w: next((x for x in e.doc.splitlines() if x.startswith(f"{w}:")), "") for w in words}
    assert all(lines.values()), lines
    assert re.search(rf"bench (run|report) {e.id}\b", lines["Command"])
    if e.kind == "table" and e.seeds:  # the numbers it promises are printed ones
        texts = set(load(e.paper).query("artefact == @e.id")[["mean_text", "std_text"]].to_numpy().ravel())
        assert [x for x in re.findall(r"\d+\.\d+|\d+,\d{3},\d{3}", lines["Expected"]) if x not in texts] == []


def test_docstrings_state_the_true_number_of_runs_and_a_fair_estimate():
    seen, wrong = set(), []
    for e in EXPERIMENTS.values():
        jobs = {j.id: j for j in expand([e])}
        new = [j for i, j in jobs.items() if i not in seen]
        seen |= set(jobs)
        minutes = sum(estimate.guess(j.config, estimate.GPU) for j in new) / 60
        cost = next(x for x in e.doc.splitlines() if x.startswith("Cost:")).removeprefix("Cost:").strip()
        said = re.match(r"(\d+) runs, (\d+|none) new(?:; about ([\d,]+) GPU-minutes)?", cost)
        if not jobs:
            assert cost == "none.", e.id
            continue
        found = said and (int(said[1]), 0 if said[2] == "none" else int(said[2]))
        about = said and said[3] and int(said[3].replace(",", ""))
        fair = (about or 0) * 0.8 <= minutes <= (about or 0) * 1.25
        if found != (len(jobs), len(new)) or not (fair if new else about is None):
            wrong.append(f"{e.id}: {len(jobs)} runs, {len(new)} new; about {minutes:.0f} GPU-minutes (says: {cost})")
    assert wrong == []


def test_configs_are_what_their_components_accept():
    for c in configs().values():
        from_params(Protocol, c.train, c.id)
        parse(c.corruption)
        assert ("corruption" in c.versions) == bool(c.corruption)
        for kind, name, given in (("models", c.backbone, c.backbone_params), ("mixers", c.mixer, c.mixer_params)):
            from_params(registry.load(kind, name).Params, given, f"{name} of {c.id}")


def test_columns_are_of_the_metric_family_that_their_runs_are_evaluated_in():
    other, unknown, mixed = set(), set(), set()
    for e in EXPERIMENTS.values():
        for row in e.rows:
            for column in e.columns:
                c = config_of(row, column)
                if c is None or column.source or point(e, row, column):
                    continue
                family = METRICS[spec(c.dataset).family(c.features)]
                if column.metric not in family:
                    unknown.add(column.metric)
                elif column.convention != family[column.key(c)].convention:
                    other.add((e.id, row.method))
                    mixed.add(column.metric)
    changes = {f"{m}_change" for m in ("acc2", "f1", "acc5", "mae", "corr")}
    p_values = {f"{m}_p_value" for m in ("acc7", "non0_acc2", "non0_f1", "mae", "corr", "accuracy")}
    costs = {"params", "gflops", "params_ours", "gflops_ours", "train_seconds_per_epoch", "test_seconds_per_epoch"}
    assert unknown == changes | p_values | costs
    # Self-MM, MFM, MMIM and unaligned data come from M-SENA's files: MAE and Corr are computed as the column says, only a
    # prediction of exactly 0 is another class
    assert mixed == {"non0_acc2", "non0_f1"}
    assert other == {
        ("samlml-t1", "Self-MM"), ("samlml-t1", "MFM"), ("samlml-t1", "ConFEDE"), ("samlml-t1", "DMD"),
        ("samlml-t11", "SAM-LML"), ("samlml-t11", "C-MIB"), ("samlml-t11", "Multimodal Boosting"),
        *(("samlml-t5", m) for m in ("MMIN", "MCTN", "MoMKE", "GCNet", "IMDer")),
        ("cpsl-t1", "UniMSE"), ("cpsl-t1", "Self-MM_b"), ("cpsl-t1", "Self-MM_d"),
        ("cpsl-t1", "MMIM_b"), ("cpsl-t1", "MMIM_d"),
    }


def test_rows_read_points_that_their_sweep_has():
    rows = [r for e in EXPERIMENTS.values() for r in e.rows if r.points]
    assert len(rows) == 64  # powmix-f6 and -f7: 2 backbones x 2 methods x 8 levels each
    for r in rows:
        for c in r.cells.values():
            assert [named(p).name for p in r.points] == list(r.points) and not c.corruption


def test_what_changes_only_the_evaluation_makes_no_training(tmp_path):
    """Figures 6 and 7 are measured on the jobs of Table 2, and on ten more seeds of the same configs."""
    table, *figures = ({c.id for c in EXPERIMENTS[i].configs()} for i in ("powmix-t2", "powmix-f6", "powmix-f7"))
    assert figures[0] == figures[1] and len(figures[0]) == 4 and figures[0] < table
    kinds = [m.settings["points"] for _, m in sweeps(EXPERIMENTS["powmix-f6"])]
    assert len(kinds) == 8 and all(len(points) == 8 for points in kinds)  # 4 configs x 2 kinds, all levels in one measure
    both = [EXPERIMENTS["powmix-t2"], EXPERIMENTS["powmix-f6"]]
    jobs = expand(both)
    asked = wanted(both, None, jobs, {j.id: "missing" for j in jobs}, {}, Store(tmp_path), {}).of
    assert len(asked) == 60 and {len(found) for found in asked.values()} == {2}  # made beside the training, once
    for corruption in ({"kind": "frame_drop", "rate": 0.1}, {"parts": [{"kind": "text_mean", "rates": [0.1, 0.2]}]},
                       {"parts": [{"kind": "missing", "rate": 0.3}, {"kind": "text_drop", "rate": 0.1}]},
                       {"kind": "missing", "rates": [0.3]}):
        with pytest.raises(BenchError, match="changes only how the test split is read"):
            common.config("powmix", "mult", "mosei", corruption=corruption)
    with pytest.raises(BenchError, match="`points` of an experiment's row"):
        overridden(EXPERIMENTS["powmix-t2"].configs()[0], ["corruption.kind=frame_drop", "corruption.rate=0.2"])
    assert common.config("samlml", "samlml", "mosi", corruption={"kind": "missing", "rate": 0.3}).corruption


@pytest.mark.parametrize("e", [e for e in EXPERIMENTS.values() if e.kind == "figure"], ids=lambda e: e.id)
def test_figures_name_rows_metrics_and_settings_that_exist(e):
    fig = e.figure
    assert fig["kind"] in FIGURE_KINDS and fig["panels"]
    known = {c.metric for c in e.columns} | set(fig.get("computed", ()))
    assert set(fig["metrics"]) <= known
    groups = {c.group for c in e.columns} | {g for r in e.rows for g in r.cells}
    for panel in fig["panels"]:
        if not e.rows:
            continue
        wanted = selects(panel.get("rows", {}))
        mine = [r for r in e.rows if wanted(_labels(r))]
        assert mine and panel["group"] in groups, panel
        assert "reference" not in panel or any(selects(panel["reference"])(_labels(r)) for r in e.rows)
        default = panel.get("default")
        if default is not None and not isinstance(default, list):
            assert default in [r.x for r in mine], panel
    for quoted in fig.get("printed", ()):
        rows = [r for r in e.rows if selects(quoted["at"])({**_labels(r), "x": r.x})]
        assert rows and quoted["metric"] in known, quoted
    assert set(fig["metrics"]) <= {c.metric for c in e.columns}


def _labels(r):
    return {"backbone": r.backbone, "method": r.method, "variant": r.variant}


def test_claims_about_figures_find_their_rows():
    cells = []
    for e in EXPERIMENTS.values():
        for r in e.rows:
            datasets = {g.lower() for g in r.cells} or {next(iter(e.rows[0].cells), "").lower()} or {""}
            metrics = {c.metric for c in e.columns} | set(e.figure.get("computed", ()))
            cells += [{"artefact": e.id, "dataset": d, **_labels(r), "metric": m} for d in datasets for m in metrics]
    checked = 0
    for claim in ledger.load():
        for part in claim.parts:
            if not re.search(r"-f\[?\d", str(part.of.get("artefact"))):
                continue
            about = [c for c in cells if selects(part.of)(c)]
            places = [part.row, part.against, *(o if not isinstance(o, str) else {"variant": o} for o in part.order)]
            places += [{k: v for k, v in t.items() if k not in ("weight", "pick", "const")} for t in part.terms]
            for place in places:
                assert any(selects(place)(c) for c in about), (claim.id, place)
            for metric in part.metrics:
                assert any(c["metric"] == metric for c in about), (claim.id, metric)
            checked += 1
    assert checked > 40


@pytest.mark.parametrize("artefact, needed, new", [  # runs of the paper's artefact, and those no earlier one brings in
    ("msmix-t1", 180, 180), ("msmix-t2", 180, 180), ("msmix-t3", 180, 180), ("msmix-t4", 40, 30), ("msmix-f1", 10, 0),
    ("msmix-f5", 235, 215), ("msmix-f6", 375, 300), ("powmix-t3", 25, 20), ("powmix-f3", 30, 20), ("powmix-f4", 45, 35),
    ("powmix-f5", 12, 0), ("powmix-f6", 60, 40), ("powmix-f7", 60, 0), ("powmix-f8", 60, 50), ("samlml-t4", 45, 40),
    ("samlml-t12", 40, 30), ("samlml-f7", 105, 100), ("cpsl-t2", 70, 65), ("cpsl-f2", 5, 0),
])
def test_runs_are_those_of_the_inventory(artefact, needed, new):
    printed = [replace(e, rows=tuple(r for r in e.rows if not r.beside)) for e in EXPERIMENTS.values()]
    mine = {j.id for j in expand([printed[IDS.index(artefact)]])}
    earlier = {j.id for j in expand(printed[: IDS.index(artefact)])}
    assert (len(mine), len(mine - earlier)) == (needed, new)


def test_papers_share_runs_where_their_configurations_are_equal():
    def one(artefact, dataset, backbone, method):
        return next(c for r in EXPERIMENTS[artefact].rows if r.key == (backbone, method, "")
                    for g, c in r.cells.items() if g.lower() == dataset)

    assert one("msmix-t3", "sims", "MulT", "plain") == one("powmix-t2", "sims", "MulT", "plain")
    assert one("msmix-t2", "mosei", "MISA", "PowMix") == one("powmix-t2", "mosei", "MISA", "PowMix")
    assert one("msmix-t1", "mosi", "MulT", "plain") != one("powmix-t2", "mosi", "MulT", "plain")  # batch 32 against 16
    assert one("msmix-t2", "mosei", "MISA", "Manifold Mix") != one("powmix-t2", "mosei", "MISA", "M.MixUp")
    starts = [one("powmix-t2", d, "Self-MM", "PowMix").mixer_params["start_epoch"] for d in ("mosi", "mosei", "sims")]
    assert starts == [2, 3, 3]
    assert "start_epoch" not in one("powmix-t2", "mosi", "MulT", "PowMix").mixer_params


def test_settings_tables_hold_our_configuration_and_it_is_the_papers():
    for artefact in ("samlml-t7", "slad-t4"):
        e, row = EXPERIMENTS[artefact], EXPERIMENTS[artefact].rows[0]
        assert expand([e]) == [] == expand([e], 3)
        printed = load(e.paper).query("artefact == @artefact").set_index(["dataset", "metric"])["mean"]
        for column in e.columns:
            if column.words:
                continue  # not a number: tests/test_static.py
            part, _, name = column.source.partition(".")
            value = getattr(row.cells[column.group], part)[name]
            assert value == printed[column.group.lower(), column.metric], (column.group, column.metric)


def test_papers_modules_load_fast_and_without_torch():
    code = ("import resource, sys, numpy; b = resource.getrusage(resource.RUSAGE_SELF).ru_utime;"
            "import bench.experiments; n = len(bench.experiments.all_experiments());"
            "print(n, 'torch' in sys.modules, resource.getrusage(resource.RUSAGE_SELF).ru_utime - b)")
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    out = run.stdout.split()
    assert out[:2] == ["48", "False"] and float(out[2]) < 1.0


def test_plan_of_everything_prints_totals_in_time(tmp_path):
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    run = subprocess.run(
        [sys.executable, "-m", "bench", "plan", "--suite", "paper", "--results", str(tmp_path / "none")],
        capture_output=True, text=True, cwd=ROOT, check=True,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 5.0
    assert [i for i in IDS if not re.search(rf"^{i} ", run.stdout, re.M)] == []
    out = run.stdout.replace("\n", " ")
    total, before_sharing = len(expand(EXPERIMENTS.values())), sum(len(expand([e])) for e in EXPERIMENTS.values())
    assert f"suite paper: {total:,} jobs ({before_sharing:,} before shared runs are counted once)" in out
    assert re.search(r"by estimate [\d,.]+ GPU-hours or [\d,.]+ CPU-core-hours", out)


def test_missing_components_are_not_run_and_raise_nothing(monkeypatch):
    from bench.experiments.common import config

    names = registry.names
    monkeypatch.setattr(registry, "names", lambda kind: tuple(n for n in names(kind) if n not in ("samlml", "sims")))
    assert config("samlml", "samlml", "mosi") is None and config("msmix", "lmf", "sims") is None
    assert samlml.run("mosi", "a system of nobody's") is None and samlml.run("mosi", "ITHP") is not None
    assert samlml.table4().rows == () and differences.PAGE.name == "hyperparameters.md"


def test_the_released_ms_mix_stands_beside_each_block_and_takes_part_in_nothing():
    for artefact in ("msmix-t1", "msmix-t2", "msmix-t3"):
        e = EXPERIMENTS[artefact]
        grid = Grid(e, (), ())
        rows = [i for i, r in enumerate(e.rows) if r.method == "MS-Mix (release)"]
        assert len(rows) == 6 and all(e.rows[i - 1].method == "MS-Mix" for i in rows)  # right after the printed one
        ranked = {i for block in grid.blocks.values() for i in block}
        assert not ranked & set(rows) and len(ranked) == 36
        assert {grid.baseline(i, kind) for i in rows for kind in ("plain", "proposed")} == {None}
        for i in rows:
            (released,), (printed,) = e.rows[i].cells.values(), e.rows[i - 1].cells.values()
            changed = {k: v for k, v in released.mixer_params.items() if printed.mixer_params.get(k) != v}
            assert changed == {"variant": "release", "delta": 0.4}
            latents = {k: v for k, v in released.backbone_params.items() if printed.backbone_params.get(k) != v}
            assert latents == ({"include_one": True} if released.backbone in ("tfn", "lmf") else {})
