"""Two results folders side by side."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from bench.errors import BenchError
from bench.matrix import Job, expand
from bench.report.compare import Side, compare, differences, labels
from bench.store import Store
from tests import planted

pytestmark = pytest.mark.usefixtures("no_fsync")


def _folder(root, gain: float = 0.0, version: int = 1, n: int = 5, noise: float = 0.0) -> list[Job]:
    """TFN of the planted table: MS-Mix moved by `gain` standard deviations and `noise` of its own, the rest as it always is."""
    e = planted.experiment(backbones=("TFN",))
    store, jobs = Store(root), expand([e])
    for k, job in enumerate(jobs):
        if job.seed >= 1111 + n:
            continue
        job = Job(replace(job.config, versions={"train": version}), job.seed)
        moved = gain + noise * np.random.default_rng(job.seed).normal() if job.config.mixer == "ms-mix" else 0.0
        values = planted.metrics(np.random.default_rng(k), job.seed, moved)
        planted.finish(store, job, values, planted.env(job.seed))
    return jobs


@pytest.fixture(scope="module")
def table(tmp_path_factory) -> pd.DataFrame:
    root = tmp_path_factory.mktemp("compare")
    _folder(root / "a")
    _folder(root / "b", gain=1.0, version=2, noise=0.05)
    page = compare(root / "a", root / "b", root / "out").read_text()
    assert "5 cells were made by different component versions" in page and "https://" not in page
    return pd.read_csv(root / "out" / "compare.csv")


def test_unchanged_cells_are_identical_and_the_moved_one_differs(table):
    assert len(table) == 20
    moved = table["mixer"] == "ms-mix"
    assert set(table.loc[~moved, "verdict"]) == {"identical"}
    assert set(table.loc[moved, "verdict"]) == {"differs"}
    assert table.loc[moved & (table["metric"] == "avg"), "difference"].item() == pytest.approx(planted.SD, rel=0.1)
    assert table.loc[moved & (table["metric"] == "mae"), "difference"].item() == pytest.approx(-planted.SD, rel=0.1)


def test_only_common_seeds_are_paired(tmp_path):
    _folder(tmp_path / "a")
    _folder(tmp_path / "b", n=2)
    found = differences(Side(tmp_path / "a"), Side(tmp_path / "b"))
    assert {(d.a.n, d.b.n, d.paired.n, d.verdict) for d in found} == {(5, 2, 2, "identical")}


def test_the_newer_version_stands_for_its_folder(tmp_path):
    _folder(tmp_path / "a")
    _folder(tmp_path / "b")
    _folder(tmp_path / "b", gain=1.0, version=2)
    _folder(tmp_path / "b", gain=2.0, version=10)  # ten is more than two, as a text it is less
    found = {(d.config.mixer, d.metric): d for d in differences(Side(tmp_path / "a"), Side(tmp_path / "b"))}
    assert found["plain", "avg"].verdict == "identical"
    assert found["ms-mix", "avg"].paired.difference == pytest.approx(2 * planted.SD)
    assert found["ms-mix", "avg"].verdict == "the same difference in every seed", "which is no test, and no certainty"


def test_no_mean_is_of_two_versions_or_two_data_files(tmp_path):
    _folder(tmp_path / "a")
    jobs = _folder(tmp_path / "b")
    _folder(tmp_path / "b", version=2, n=2)
    assert {d.b.n for d in differences(Side(tmp_path / "a"), Side(tmp_path / "b"))} == {2}
    for job in jobs[:5]:
        job = Job(replace(job.config, versions={"train": 1}), job.seed)
        (Store(tmp_path / "a").folder(job) / "env.json").unlink()
    assert {d.a.n for d in differences(Side(tmp_path / "a"), Side(tmp_path / "b"))} == {4}, "a seed of nobody knows which file"


def test_labels_name_what_differs():
    a = planted.config("LMF", "MS-Mix")
    found = labels([a, a.with_(mixer_params={"sal": False}), a.with_(train={"lr": 0.01})])
    assert list(found.values()) == [
        "lmf + ms-mix (lr=0.001)",
        "lmf + ms-mix (sal=False, lr=0.001)",
        "lmf + ms-mix (lr=0.01)",
    ]


def test_nothing_in_common_is_said_in_one_line(tmp_path):
    _folder(tmp_path / "a", n=1)
    with pytest.raises(BenchError, match="no job folders in"):
        compare(tmp_path / "a", tmp_path / "none", tmp_path / "out")
    job = Job(planted.config("LMF", "plain"), 1111)
    planted.finish(Store(tmp_path / "b"), job, planted.metrics(np.random.default_rng(0), 1111, 0.0), planted.env(1111))
    with pytest.raises(BenchError, match="no cell in common"):
        compare(tmp_path / "a", tmp_path / "b", tmp_path / "out")


def test_lower_is_better_is_known_from_one_place_and_absent_settings_are_counted_once(tmp_path):
    a, b = _folder(tmp_path / "a"), _folder(tmp_path / "b")
    store = Store(tmp_path / "b")
    other = Job(a[0].config.with_(train={"lr": 7.0}), 1111)
    planted.finish(store, other, {**planted.metrics(np.random.default_rng(1), 1111, 0.0), "loss": 1.0}, planted.env(1111, data_sha256="c" * 64))
    page = compare(tmp_path / "a", tmp_path / "b", tmp_path / "out").read_text()
    assert "Only in B: 1 setting." in page and "Of 20 shared cells: identical 20." in page
    assert "different data files" not in page, "the folders share no run that was made from other data"
    head = page[page.index(">loss "):]
    assert head.index("\u2193") < 40
    body = page[page.index("<tbody>"):]
    assert body.index("ms-mix") < body.index("lr=7"), "what both have comes first"
    cell = replace(b[0].config, versions={"train": 1})
    for seed in (1111, 1112, 1113):
        planted.finish(store, Job(cell, seed), planted.metrics(np.random.default_rng(0), seed, 0.0), planted.env(seed, data_sha256="c" * 64))
    assert Side(tmp_path / "b").runs.query(f"config == '{cell.id}'").status.tolist() == ["done"] * 3 + ["stale"] * 2
    assert "different data files where they share runs" in compare(tmp_path / "a", tmp_path / "b", tmp_path / "out").read_text()
