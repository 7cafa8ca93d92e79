"""Studies of some modalities: what is blanked, that nothing of it reaches a prediction, and what is refused."""

import numpy as np
import pandas as pd
import pytest
import torch

from bench import api, modalities, registry
from bench.analysis.grid import make_grid
from bench.analysis.results import Results
from bench.baselines import BLOCK, compute, with_rows, with_values
from bench.cli import main
from bench.data.baselines import scores
from bench.data.corruption import parse
from bench.data.corruption.corrupted import BLANKED
from bench.data.dataset import load
from bench.errors import BenchError
from bench.experiments import select
from bench.job import run
from bench.manifest import read_manifest, write_manifest
from bench.matrix import Job
from bench.plan import make_plan, overridden
from bench.predict import predict
from bench.store import WEIGHTS, Store
from bench.suites import suite
from bench.train.capturable import host_reads
from bench.tryout import one_step, stepper
from tests.golden import cell_config

QUICK = ("misa", "mag", "samlml")  # means over time, words, reads keep_*; all others with the long tests


def small(backbone):
    return cell_config(backbone, "none")


@pytest.mark.parametrize("backbone", [
    b if b in QUICK else pytest.param(b, marks=pytest.mark.slow) for b in registry.names("models")
])
def test_nothing_of_a_modality_left_out_reaches_a_prediction(backbone):
    c = small(backbone)
    for kept in modalities.read_by(c):
        one = modalities.keep(c, kept)
        assert one.id != c.id
        steps = stepper(Job(one, 1111))
        step = one_step(steps, False)
        step()
        assert not host_reads(step)  # blanking can be captured as a CUDA graph with the rest of the step
        assert all(torch.isfinite(v).all() for v in steps.model.state_dict().values() if v.is_floating_point())
        steps.model.eval()
        rows = torch.arange(4)
        before = steps.data.batch("valid", rows)
        torch.manual_seed(0)  # bottlenecks are sampled, in evaluation too
        with torch.no_grad():
            expected = steps.model(before).prediction
        assert torch.isfinite(expected).all()
        for m in parse(one.corruption).dropped:
            assert not any(before[k].any() for k in BLANKED[m] if k in before and not k.endswith("text_bert"))
            for key in (k for k in BLANKED[m] if k in steps.data.tensors["valid"]):
                x = steps.data.tensors["valid"][key]
                if key.endswith("text_bert"):
                    steps.data.tensors["valid"][key] = torch.cat([x[:, :1].roll(1, 0).where(x[:, :1] > 103, x[:, :1]), x[:, 1:]], 1)
                else:
                    steps.data.tensors["valid"][key] = x + 1
        torch.manual_seed(0)
        with torch.no_grad():
            assert torch.equal(steps.model(steps.data.batch("valid", rows)).prediction, expected)


def test_it_is_part_of_the_identity_and_all_modalities_are_none():
    c = small("tfn")
    assert modalities.keep(c, "text,audio,vision") == c
    assert modalities.keep(c, "audio,text") == modalities.keep(c, ["text", "audio"]) != c
    assert modalities.keep(c, "text,audio").corruption == {"modalities": ["text", "audio"]}
    with_missing = c.with_(corruption={"kind": "missing", "rate": 0.3})
    found = parse(modalities.keep(with_missing, "text").corruption)
    assert found.dropped == ("audio", "vision") and found.parts[0].rate == 0.3
    assert overridden(c, ["data.modalities=text"]) == modalities.keep(c, "text")


def test_a_model_that_deals_with_missing_modalities_itself_is_told():
    steps = stepper(Job(modalities.keep(small("samlml"), "text"), 1111))
    batch = steps.data.batch("train", torch.arange(3))
    assert not batch["keep_audio"].any() and not batch["keep_vision"].any() and batch["keep_text"].all()


@pytest.mark.parametrize("given, line", [
    (["--modalities", "text,smell"], "modalities takes some of text, audio, vision, got 'text,smell'"),
    (["--modalities", "text,"], "modalities takes some of"),
    (["--set", "data.modality=text"], "did you mean 'data.modalities'?"),
    (["--modalities", "text,audio,vision"], "no selected cell reads anything else, so nothing changes"),
])
def test_what_is_refused(given, line, tmp_path, capsys):
    assert main(["plan", "msmix-t1", "--only", "*/tfn+*", "--results", str(tmp_path), *given]) == 2
    assert line in capsys.readouterr().err


def test_a_system_without_the_modality_says_so_in_one_line():
    with pytest.raises(BenchError, match=r"slad on .* reads text and audio alone: nothing is left of it with data.modalities=vision"):
        modalities.check(modalities.keep(small("slad"), "vision"))
    assert modalities.keep(small("slad"), "text,audio") == small("slad")


def test_the_flag_makes_a_variant_beside_the_default(tmp_path):
    plan = api.plan(["msmix-t1"], results=tmp_path, only="*/tfn+none", settings=["data.modalities=text,audio"])
    assert {tuple(j.config.corruption["modalities"]) for j in plan.jobs} == {("text", "audio")}
    assert all(j.config.versions["corruption"] for j in plan.jobs)


def test_weights_are_scored_without_what_they_were_trained_without(tmp_path):
    from bench.data.tools import write_synthetic

    write_synthetic(tmp_path / "data", ["mosi"])
    store, job = Store(tmp_path / "results"), Job(modalities.keep(small("lmf").with_(dataset="mosi"), "text"), 1111)
    run(job, store, tmp_path / "data", keep=("checkpoint",))
    file = next(p for p in (tmp_path / "data").rglob("*unaligned*.pkl"))
    found = predict(store.folder(job) / WEIGHTS, file)
    assert np.allclose(found[found.split == "test"].prediction, store.predictions(job)["test_prediction"], atol=1e-6)
    row = api.results(tmp_path / "results").iloc[0]
    assert row["data.modalities"] == "text"


def test_the_command_of_a_baselines_row_runs_it_again(tmp_path):
    from types import SimpleNamespace

    from bench.report.payload import Rerun

    plan = make_plan(select(["msmix-t1"]), suite("quick"), Store(tmp_path), seeds=1, only="*/tfn+none", baselines=True)
    row = next(r for r in plan.experiments[0].rows if r.method == "audio only")
    (c,) = row.cells.values()
    table = SimpleNamespace(row_of={c: row}, wanted={c: 1})
    command = Rerun("quick").command(table, [c], "msmix-t1", ["failed"])
    assert "--baselines" in command.split()
    chosen = make_plan(select(["msmix-t1"]), suite("quick"), Store(tmp_path), seeds=1, only="baselines", baselines=True).jobs
    assert [j.config.corruption["modalities"] for j in chosen] == [["text"], ["audio"], ["vision"]]
    only = command.split("--only ")[1].split()[0].strip("'")
    assert [j.config for j in make_plan(select(["msmix-t1"]), suite("quick"), Store(tmp_path), seeds=1, only=only, baselines=True).jobs] == [c]


# --- rows of simple baselines ----------------------------------------------------------------------------------------

def test_rows_of_baselines_stand_apart_and_hold_what_the_file_gives(tmp_path):
    store = Store(tmp_path)
    plan = make_plan(select(["msmix-t1"]), suite("quick"), store, seeds=1, only="*/tfn+none", baselines=True)
    e = plan.experiments[0]
    rows = [r for r in e.rows if r.block == BLOCK]
    assert [(r.backbone, r.method) for r in rows] == [
        ("Majority", ""), ("Ridge on text", ""), ("TFN", "text only"), ("TFN", "audio only"), ("TFN", "vision only")]
    assert all(r.apart for r in rows)
    assert {tuple(j.config.corruption.get("modalities", ())) for j in plan.jobs} == {(), ("text",), ("audio",), ("vision",)}

    write_manifest(plan, store, 1)
    compute(plan.base, store, None)
    (shown,), _ = read_manifest(select(["msmix-t1"]), store, suite("quick"))
    grid = make_grid(shown, Results(pd.DataFrame(columns=["config", "seed", "split", "metric", "value"]), pd.DataFrame(columns=["config", "seed", "status"])))
    known = scores(load("synthetic-mosi", "unaligned", None))
    for i, row in enumerate(shown.rows):
        if row.backbone in ("Majority", "Ridge on text"):
            for column, cell in zip(shown.columns, grid.cells[i]):
                expected = known[row.backbone.lower()][column.metric]
                assert cell.mean == pytest.approx(expected * (100 if column.percent else 1))
    assert not any(grid.cells[i][0].best for i, r in enumerate(shown.rows) if r.block == BLOCK)


def test_a_later_run_without_baselines_keeps_their_rows(tmp_path):
    store = Store(tmp_path)
    for asked in (True, False):
        write_manifest(make_plan(select(["msmix-t1"]), suite("quick"), store, seeds=1, only="*/tfn+none", baselines=asked), store, 1)
    (shown,), _ = read_manifest(select(["msmix-t1"]), store, suite("quick"))
    assert [r.method for r in shown.rows if r.block == BLOCK] == ["text only", "audio only", "vision only"]


def test_a_table_of_baselines_without_values_and_a_figure_stay_as_they_are(tmp_path):
    figure = next(e for e in select([]) if e.kind == "figure")
    assert with_rows(figure) == figure
    table = select(["msmix-t1"])[0]
    assert len(with_values(with_rows(table), Store(tmp_path)).rows) == len(table.rows) + 3  # nothing was computed


def test_settings_leave_rows_of_one_modality_alone(tmp_path):
    plan = make_plan(select(["msmix-t1"]), suite("quick"), Store(tmp_path), seeds=1, only="*/tfn+none",
                     settings=["data.modalities=text,audio"], baselines=True)
    kept = {(r.method, tuple(r.cells["MOSI"].corruption.get("modalities", ()))) for r in plan.experiments[0].rows if r.backbone == "TFN" and r.cells}
    assert ("text only", ("text",)) in kept and ("plain", ("text", "audio")) in kept
