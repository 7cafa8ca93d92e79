"""One column, one convention, whatever file a row reads."""

from pathlib import Path

import numpy as np
import pytest
import torch

from bench import registry
from bench.analysis.grid import make_grid
from bench.analysis.results import Results
from bench.experiments import all_experiments
from bench.experiments.common import columns
from bench.matrix import Config, Experiment, Job, Row, expand
from bench.metrics import METRICS, SAME_AS, evaluate
from bench.models.parts.words import MinMax
from bench.store import Store
from tests import planted

ROOT = Path(__file__).parents[1]


def test_both_conventions_are_stored_and_equal_the_other_family():
    rng = np.random.default_rng(0)
    label = rng.choice([-2.0, -0.6, 0.0, 0.0, 1.2, 3.0], 200)
    p = label + rng.normal(0, 1, 200)
    msena, mag = evaluate(p, label, "msena"), evaluate(p, label, "mag")
    for theirs, ours in SAME_AS["mag", "msena"].items():
        assert msena[ours] == mag[theirs] != msena[theirs]
        assert METRICS["msena"][ours].convention == METRICS["mag"][theirs].convention


def test_a_column_of_two_files_has_one_mae(tmp_path):
    """A word-level system and one on M-SENA's files: over all samples the second would win, over the same ones it loses."""
    word, msena = Config("mosi", "word", "ithp"), Config("mosi", "unaligned", "self_mm")
    e = Experiment(
        "x-t1", "x", "x", "table", columns("mag", "MOSI", {"mae": "MAE", "non0_acc2": "Acc2"}), seeds=2,
        rows=(Row("", "ITHP", cells={"MOSI": word}), Row("", "Self-MM", cells={"MOSI": msena})), primary="mae",
    )
    store = Store(tmp_path)
    for job in expand([e]):
        values = {"mae": 0.70, "non0_acc2": 0.85} if job.config == word else {"mae": 0.65, "non0_mae": 0.72, "non0_acc2": 0.84}
        planted.finish(store, Job(job.config, job.seed), {k: v + (job.seed - 1111) / 100 for k, v in values.items()}, planted.env(1))
    first, second = make_grid(e, Results(*store.frames(expand([e])))).cells
    assert (first[0].mean, second[0].mean) == pytest.approx((0.705, 0.725))
    assert first[0].best and not second[0].best


def test_older_runs_that_did_not_store_it_say_so(tmp_path):
    c = Config("mosi", "unaligned", "self_mm")
    e = Experiment("x-t1", "x", "x", "table", columns("mag", "MOSI", {"mae": "MAE"}), (Row("", "Self-MM", cells={"MOSI": c}),), seeds=1)
    store = Store(tmp_path)
    planted.finish(store, Job(c, 1111), {"mae": 0.65}, planted.env(1))
    assert make_grid(e, Results(*store.frames(expand([e])))).cells[0][0].state == "not recorded"


def test_no_table_of_the_papers_mixes_the_samples_of_its_mae():
    for e in all_experiments().values():
        for column in e.columns:
            if column.metric not in ("mae", "corr"):
                continue
            configs = [c for r in e.rows for c in r.cells.values() if c is not None and r.cells.get(column.group) == c]
            samples = {"y != 0" in METRICS[_family(c)][column.key(c)].convention for c in configs}
            assert len(samples) < 2, (e.id, column.metric)


def _family(c):
    from bench.data.dataset import spec

    return spec(c.dataset).family(c.features)


def test_systems_whose_scores_depend_on_the_batch_are_those_that_the_protocol_names():
    """Scaled by the extremes of a batch, a clip's score depends on the clips beside it: said where users look."""
    scaled = {n for n in registry.names("models") if getattr(registry.load("models", n).Params(), "scale", "") == "batch"}
    row = next(line for line in (ROOT / "docs/protocol.md").read_text().splitlines() if line.startswith("| evaluation batch"))
    assert scaled == {"ithp", "cpsl", "samlml", "mboost"}
    assert all(title in row for title in ("ITHP and CP+SL, 128 rows", "SAM-LML and Multimodal Boosting, 256"))
    assert {n: registry.load("models", n).Model.eval_batch for n in sorted(scaled)} == {"cpsl": 128, "ithp": 128, "mboost": None, "samlml": None}
    x = torch.tensor([[1.0, 2.0], [3.0, 9.0]])
    assert not torch.equal(MinMax("batch")(x)[:1], MinMax("batch")(x[:1]))
