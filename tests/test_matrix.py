"""Job identity: what may change an id and what may not."""

import time

import pytest

from bench import registry
from bench.errors import BenchError
from bench.experiments import all_experiments, select
from bench.experiments.common import config
from bench.matrix import Config, Experiment, Job, Row, canonical, expand
from bench.seeds import numpy_stream, stream_seed


def small(**changes):
    return Config(**{"dataset": "mosi", "features": "unaligned", "backbone": "lmf", "train": {"lr": 1e-3, "batch_size": 64}, **changes})


def experiment(name, configs, seeds=5):
    return Experiment(id=name, paper="p", title=name, kind="table", seeds=seeds,
                      rows=tuple(Row(backbone=str(i), cells={"MOSI": c}) for i, c in enumerate(configs)))


def test_id_ignores_order_and_number_spelling():
    a = small(train={"lr": 1e-3, "batch_size": 64, "clip_norm": 1.0})
    b = small(train={"clip_norm": 1, "batch_size": 64, "lr": 0.001})
    assert a.id == b.id and a == b and len({a, b}) == 1


@pytest.mark.parametrize("changes", [
    {"dataset": "sims"}, {"features": "aligned"}, {"backbone": "tfn"}, {"mixer": "msmix"}, {"backbone_params": {"rank": 4}},
    {"mixer_params": {"delta": 0.3}}, {"train": {"lr": 2e-3}}, {"corruption": {"kind": "occlusion", "rate": 0.1}},
    {"fraction": 0.5}, {"versions": {"backbone": 2}},
])
def test_everything_scientific_changes_the_id(changes):
    assert small().with_(**changes).id != small().id


def test_job_round_trips_through_json_dict():
    job = Job(small(mixer="msmix", mixer_params={"delta": 0.2, "heads": 4}), 1113)
    again = Job.from_dict(job.as_dict())
    assert again == job and again.id == job.id and again.folder == f"mosi/lmf+msmix/{job.config.id}-s1113"


def test_config_cannot_be_changed_after_hashing():
    params = {"lr": 1e-3}
    c = small(train=params)
    before = c.id
    params["lr"] = 5.0
    assert small(train={"lr": 1e-3}).id == before == Config(**c.as_dict()).id


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), object()])
def test_unhashable_parameters_are_refused(bad):
    with pytest.raises((ValueError, TypeError)):
        canonical({"x": bad})


def test_shared_runs_are_expanded_once_and_seeds_vary_slowest():
    a, b = small(), small(mixer="msmix")
    jobs = expand([experiment("x", [a, b], 2), experiment("y", [b, a], 3)])
    assert len(jobs) == len({j.id for j in jobs}) == 6
    assert [j.seed for j in jobs] == [1111, 1111, 1112, 1112, 1113, 1113]


def test_ten_thousand_jobs_expand_within_a_second():
    configs = [small(mixer_params={"i": i}) for i in range(2000)]
    began = time.perf_counter()
    jobs = expand([experiment("x", configs)])
    ids = {j.id for j in jobs}
    assert len(ids) == 10_000 and time.perf_counter() - began < 1.0


def test_table4_shares_its_first_and_sixth_row_with_table1():
    t1, t4 = (all_experiments()[i] for i in ("msmix-t1", "msmix-t4"))
    shared = set(t1.configs()) & set(t4.configs())
    assert {c.mixer for c in shared} == {"manifold", "msmix"}
    assert len(expand([t1, t4])) == len(expand([t1])) + len(expand([t4])) - 2 * 5


def test_streams_depend_on_everything_but_the_method():
    base = stream_seed("mosi", "lmf", 1111, "init")
    others = {stream_seed("sims", "lmf", 1111, "init"), stream_seed("mosi", "tfn", 1111, "init"),
              stream_seed("mosi", "lmf", 1112, "init"), stream_seed("mosi", "lmf", 1111, "order")}
    assert base not in others and len(others) == 4
    assert numpy_stream("mosi", "lmf", 1111, "order").random() == numpy_stream("mosi", "lmf", 1111, "order").random()
    with pytest.raises(ValueError):
        stream_seed("mosi", "lmf", 1111, "method")


def test_versions_are_part_of_a_config_and_read_without_import():
    c = config("msmix", "lmf", "mosi", "msmix")
    assert c.versions["backbone"] == registry.version("models", "lmf")
    assert set(c.versions) == {"backbone", "mixer", "dataset", "train"}


def test_unknown_names_are_one_clear_line():
    with pytest.raises(BenchError, match="unknown model 'nope'; known models: .*lmf"):
        registry.version("models", "nope")
    with pytest.raises(BenchError, match="unknown artefact 'msmix-t9'"):
        select(["msmix-t9"])
    assert config("msmix", "no-such-backbone", "mosi") is None


def test_read_wing_never_imports_torch():
    import subprocess
    import sys

    code = ("import sys, bench.matrix, bench.plan, bench.store, bench.cli, bench.api, bench.terminal.plans, bench.terminal.checks, bench.experiments;"
            "bench.experiments.all_experiments(); sys.exit('torch' in sys.modules)")
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_a_rows_title_has_one_plus_between_its_parts():
    assert Row("LMF", "", "+ SASS + SIG").title == "LMF + SASS + SIG" and Row("LMF", "MS-Mix").title == "LMF + MS-Mix"
