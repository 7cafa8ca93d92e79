"""Where data come from: the list of published files, judged per file, cell and claim."""

import pickle

import numpy as np
import pytest

from bench import provenance
from bench.analysis.results import Results
from bench.data import dataset
from bench.data.dataset import load
from bench.errors import BenchError
from bench.matrix import Config, Job
from bench.plan import find_data
from bench.provenance import CUSTOM, OFFICIAL, SYNTHETIC, UNLISTED, listed, of_file, weakest
from bench.report.build import build
from bench.store import Store
from tests import planted

HASH = "0123456789abcdef" * 4
ENTRY = f'[[file]]\ndataset = "mosi"\nfeatures = "word"\nfile = "mosi.pkl"\nsha256 = "{HASH}"\nsource = "someone"\n'


@pytest.fixture
def own_list(tmp_path, monkeypatch):
    path = tmp_path / "provenance.toml"
    path.write_text(ENTRY)
    monkeypatch.setattr(provenance, "LIST", path)
    return path


def test_a_format_without_a_published_hash_is_unlisted_until_somebody_lists_one(own_list):
    assert of_file("mosi", "word", HASH) == OFFICIAL and of_file("mosi", "word", "f" * 64) == CUSTOM
    assert of_file("mosei", "word", HASH) == UNLISTED  # nobody has listed one of that kind
    assert of_file("mosi", "unaligned", "f" * 64, published=HASH) == CUSTOM
    assert of_file("mosi", "unaligned", HASH, published=HASH) == OFFICIAL
    own_list.write_text(ENTRY.replace(f'sha256 = "{HASH}"\n', ""))
    assert of_file("mosi", "word", HASH) == UNLISTED


def test_the_list_that_comes_with_the_harness_names_sources_and_no_hash_that_nobody_published():
    assert listed() == frozenset()
    text = provenance.LIST.read_text()
    assert all(name in text for name in ("mosi.pkl", "mosei.pkl", "ur_funny.pkl", "mustard.pkl", "matalvepu/HKT"))


@pytest.mark.parametrize(("text", "message"), [
    ("[[file]", "not valid TOML"), (ENTRY.replace("someone", "x") + "colour = 1\n", "unknown field 'colour'"),
    (ENTRY.replace(HASH, "abc"), "sha256 is 64 hexadecimal digits"),
    (ENTRY.replace('source = "someone"\n', ""), "needs dataset, features and source"),
])
def test_a_damaged_list_is_named_in_one_line(own_list, text, message):
    own_list.write_text(text)
    with pytest.raises(BenchError, match=message) as error:
        of_file("mosi", "word", HASH)
    assert str(own_list) in str(error.value) and "\n" not in str(error.value).strip()


def test_a_part_of_a_data_set_is_nobodys_published_file():
    """Formats without a published hash: five clips under MOSI's name are not compared with reported numbers."""
    published = {"train": 1284, "valid": 229, "test": 686}
    for counts, whole in (((1284, 229, 686), True), ((1283, 214, 686), True), ((1300, 213, 686), True), ((3, 2, 2), False),
                          ((642, 115, 343), False), ((1284, 229, 1372), False)):
        splits = {s: {"label": np.zeros(n)} for s, n in zip(published, counts)}
        assert dataset._whole(published, splits) == whole, counts


def test_plan_and_loader_agree(tmp_path, own_list):
    """A generated file without its mark is a real one of unknown origin."""
    made = load("synthetic-mosi", "word", cache_dir=tmp_path / "cache")
    folder = tmp_path / "data" / "MOSI"
    folder.mkdir(parents=True)
    content = pickle.loads(made.path.read_bytes())
    content = {k: v for k, v in content.items() if k in ("train", "dev", "test")}
    (folder / "word.pkl").write_bytes(pickle.dumps(content))

    def both():
        (found,) = find_data([Config("mosi", "word", "lmf")], tmp_path / "data").values()
        return found, load("mosi", "word", tmp_path / "data", tmp_path / "cache")

    found, loaded = both()
    assert found.provenance == loaded.provenance == CUSTOM and found.sha256 == loaded.sha256
    own_list.write_text(ENTRY.replace(HASH, found.sha256))
    found, loaded = both()
    assert found.provenance == loaded.provenance == OFFICIAL


def test_a_file_that_was_listed_after_the_run_is_official_at_the_next_report(tmp_path, own_list):
    p = planted.write(tmp_path / "results", "unlisted", holes=False)
    jobs = [Job(c, s) for c in p.experiment.configs() for s in (1111, 1112)]
    kinds = {r["provenance"] for r in Results(*p.store.frames(jobs)).runs.values()}
    assert kinds == {UNLISTED}
    own_list.write_text(ENTRY.replace(HASH, planted.DATA_HASH).replace('"word"', '"unaligned"'))
    kinds = {r["provenance"] for r in Results(*p.store.frames(jobs)).runs.values()}
    assert kinds == {OFFICIAL}


def test_unlisted_files_get_verdicts_and_are_marked(tmp_path):
    p = planted.write(tmp_path / "results", "unlisted", holes=False)
    page = build([p.experiment], p.store, tmp_path / "out", "paper", reported=p.reported).read_text()
    assert "UNLISTED DATA" in page and "nobody has published a hash of this data file" in page
    cells = (tmp_path / "out" / "msmix-t1.csv").read_text()
    assert "inside" in cells and ",unlisted," in cells


def test_the_weakest_counts():
    assert weakest(["official", "unlisted"]) == UNLISTED and weakest([]) == "" and weakest(["?", "official"]) == CUSTOM


def test_a_store_is_read_without_a_list(tmp_path, monkeypatch):
    monkeypatch.setattr(provenance, "LIST", tmp_path / "none.toml")
    assert listed() == frozenset() and of_file("mosi", "word", HASH) == UNLISTED
    assert Store(tmp_path).scan() == []


def test_a_run_that_lost_its_env_is_never_better_than_custom_and_a_generated_one_stays_generated(tmp_path):
    p = planted.write(tmp_path / "results", holes=False)
    job = Job(next(iter(p.experiment.configs())), 1111)
    (p.store.folder(job) / "env.json").unlink()
    assert Results(*p.store.frames([job])).runs[job.config.id, 1111]["provenance"] == CUSTOM
    assert provenance.of_run({"dataset": "synthetic-mosi"}) == provenance.of_run({"dataset": "synthetic-mosi", "provenance": "official"}) == SYNTHETIC
