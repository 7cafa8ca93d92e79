"""The data layer: finding, checking, converting, mapping; provenance; tensors on a device."""

import json
import pickle
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from bench import registry
from bench.data import cache, dataset, tools
from bench.data.dataset import load, locate
from bench.data.resident import Resident, train_subset
from bench.errors import BenchError, DataError
from bench.models.base import Inputs

ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared" / "data"
SIZES = {"train": 6, "valid": 3, "test": 4}


def content(aligned=False, sizes=SIZES, dtype=np.float32):
    """A small M-SENA file: text 5 x 8, audio 7 x 3, vision 9 x 2 (5 steps each if aligned)."""
    rng = np.random.default_rng(0)
    data = {}
    for split, n in sizes.items():
        steps = (5, 5) if aligned else (7, 9)
        mask = np.arange(5) < rng.integers(2, 6, (n, 1))
        tokens = np.stack([mask * rng.integers(100, 999, (n, 5)), mask, 0 * mask], axis=1)
        data[split] = {
            "raw_text": np.array([f"words of {split} {i}" for i in range(n)]),
            "id": [f"{split}$_${i}" for i in range(n)],
            "text": rng.standard_normal((n, 5, 8)).astype(dtype),
            "text_bert": tokens.astype(np.float32),
            "audio": rng.standard_normal((n, steps[0], 3)).astype(dtype),
            "vision": rng.standard_normal((n, steps[1], 2)).astype(dtype),
            "regression_labels": rng.uniform(-3, 3, n),
        }
        if not aligned:
            data[split]["audio_lengths"] = rng.integers(1, 8, n).tolist()
            data[split]["vision_lengths"] = rng.integers(1, 10, n)
    return data


@pytest.fixture
def put(tmp_path):
    """Writes a file's content under the data folder and loads it."""

    def write_and_load(data, name="mosi", features="unaligned", file="MOSI/Processed/unaligned_50.pkl"):
        path = tmp_path / "data" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(pickle.dumps(data, protocol=4))
        return load(name, features, tmp_path / "data", tmp_path / "cache")

    return write_and_load


# ---------------------------------------------------------------- reading


def test_arrays_ids_and_shapes(put):
    data = content(dtype=np.float64)
    ds = put(data)
    for split, raw in data.items():
        arrays = ds.splits[split]
        for name in ("text", "audio", "vision"):
            np.testing.assert_array_equal(arrays[name], raw[name].astype(np.float32))
            assert arrays[name].dtype == np.float32
        np.testing.assert_array_equal(arrays["text_bert"], raw["text_bert"])
        assert arrays["text_bert"].dtype == np.int32
        np.testing.assert_array_equal(arrays["audio_lengths"], raw["audio_lengths"])
        np.testing.assert_array_equal(arrays["vision_lengths"], raw["vision_lengths"])
        assert arrays["vision_lengths"].dtype == np.int64
        np.testing.assert_array_equal(arrays["label"], raw["regression_labels"].astype(np.float32))
        np.testing.assert_allclose(arrays["audio_mean"], raw["audio"].mean(1, keepdims=True), atol=1e-6)
        assert ds.ids(split) == raw["id"]
        assert ds.raw_text(split)[1] == f"words of {split} 1"
        assert ds.size(split) == SIZES[split]
    assert Inputs(**ds.inputs()) == Inputs((5, 8), (7, 3), (9, 2), 3.0, 6, False)
    assert Inputs(**ds.inputs(time_mean=True)) == Inputs((5, 8), (1, 3), (1, 2), 3.0, 6, False)
    assert "train: 6 samples, the official split has 1284" in ds.warnings


def test_mapped_arrays_cannot_be_written(put):
    with pytest.raises(ValueError, match="read-only"):
        put(content()).splits["train"]["text"][0] = 1


def test_aligned_streams_have_the_length_of_the_tokens(put):
    data = content(aligned=True)
    ds = put(data, features="aligned", file="MOSI/Processed/aligned_50.pkl")
    lengths = data["test"]["text_bert"][:, 1].sum(-1)
    np.testing.assert_array_equal(ds.splits["test"]["audio_lengths"], lengths)
    np.testing.assert_array_equal(ds.splits["test"]["vision_lengths"], lengths)
    assert ds.aligned and ds.inputs()["aligned"]


def test_aligned_lengths_without_tokens_end_at_the_last_row_of_text(put):
    data = content(aligned=True)
    for raw in data.values():
        del raw["text_bert"]
    data["test"]["text"][0, 3:] = 0
    data["test"]["text"][1] = 0
    ds = put(data, features="aligned", file="MOSI/Processed/aligned_50.pkl")
    assert ds.splits["test"]["audio_lengths"].tolist() == [3, 1, 5, 5]
    with pytest.raises(DataError, match="no text_bert"):
        Resident(ds, tokens=True)


def test_missing_lengths_are_full_and_wild_ones_are_clipped(put):
    data = content()
    for raw in data.values():
        del raw["audio_lengths"]
    data["valid"]["vision_lengths"] = [0, 12, 4]
    ds = put(data)
    assert ds.splits["valid"]["audio_lengths"].tolist() == [7, 7, 7]
    assert ds.splits["valid"]["vision_lengths"].tolist() == [1, 9, 4]
    assert "vision_lengths: 2 values outside 1..9 clipped" in ds.warnings


def test_minus_infinity_in_audio_is_zeroed_before_the_mean(put):
    data = content()
    data["train"]["audio"][2, 1:3, 0] = -np.inf
    data["test"]["audio"][0, 0, 1] = -np.inf
    ds = put(data)
    assert "audio: 3 values of -inf set to 0" in ds.warnings
    assert ds.splits["train"]["audio"][2, 1:3, 0].tolist() == [0, 0]
    expected = data["train"]["audio"][2, :, 0].copy()
    expected[1:3] = 0
    np.testing.assert_allclose(ds.splits["train"]["audio_mean"][2, 0, 0], expected.mean(), rtol=1e-6)


def test_nan_is_zeroed_after_the_mean_and_refused_on_the_sequence_path(put):
    data = content()
    data["valid"]["vision"][1, 4, 0] = np.nan
    ds = put(data)
    other_feature = data["valid"]["vision"][1, :, 1].mean()
    assert ds.splits["valid"]["vision_mean"][1, 0].tolist() == [0.0, pytest.approx(other_feature, abs=1e-6)]
    assert Resident(ds, time_mean=True).size("valid") == 3
    line = r"valid/vision has 1 value in 1 sample \(first 'valid\$_\$1'\) of NaN; only models that average over time"
    for reader in (lambda: ds.inputs(), lambda: Resident(ds)):
        with pytest.raises(DataError, match=line):
            reader()


def _without(split, key):
    return lambda d: d[split].pop(key)


def _with(split, key, change):
    return lambda d: d[split].__setitem__(key, change(d[split][key]))


def _poke(split, key, index, value):
    return lambda d: d[split][key].__setitem__(index, value)


@pytest.mark.parametrize(
    ("damage", "line"),
    [
        (lambda d: d.pop("valid"), "no split 'valid'; found 'train', 'test'"),
        (_without("test", "audio"), "test has no 'audio'"),
        (_without("train", "id"), "train has no 'id'"),
        (lambda d: d.update(valid={k: v[:0] for k, v in d["valid"].items()}), "valid is empty"),
        (_with("train", "vision", lambda a: a[:, 0]), r"train/vision has shape \[6, 2\]; expected 3 axes"),
        (_with("train", "text", lambda a: a[:5]), "train/text has 5 samples for 6 ids"),
        (_with("train", "regression_labels", lambda a: a[:2]), "train/regression_labels has 2 samples for 6 ids"),
        (_with("test", "audio", lambda a: a[:, :, :2]), r"test/audio has samples of shape \[7, 2\]; in train: \[7, 3"),
        (_with("test", "vision", lambda a: a.astype(str)), r"test/vision has no numbers \(dtype <U"),
        (
            _with("test", "vision", lambda a: [r[:, : i + 1] for i, r in enumerate(a)]),
            r"test/vision has samples of different shapes: the first is \[9, 1\], number 2 is \[9, 2\]",
        ),
        (_with("train", "text_bert", lambda a: a[:, :2]), r"train/text_bert has shape \[6, 2, 5\]"),
        (_poke("train", "text_bert", (3, 0, 0), 0.5), r"train/text_bert has 1 .* \(first 'train\$_\$3'\) beyond what token ids can be"),
        (_poke("test", "text", (2, 1, 3), np.nan), r"test/text has 1 value in 1 sample \(first 'test\$_\$2"),
        (_poke("test", "audio", (2, 1, slice(2)), np.inf), r"test/audio has 2 values in 1 sample .* of inf"),
        (_poke("test", "vision", (2, 1, 1), -np.inf), r"test/vision has 1 value .* of inf"),
        (_poke("valid", "regression_labels", 2, 3.5), r"valid/regression_labels has 1 .*\$2'\) outside \[-3, 3\]"),
        (_poke("valid", "regression_labels", 2, np.nan), r"valid/regression_labels has 1 .* of NaN or infinity"),
    ],
)  # fmt: skip
def test_damage_is_named_in_one_line(put, tmp_path, damage, line):
    data = content()
    damage(data)
    with pytest.raises(DataError, match=line) as caught:
        put(data)
    assert "\n" not in str(caught.value) and "unaligned_50.pkl: " in str(caught.value)
    assert not [p for p in (tmp_path / "cache").iterdir() if p.is_dir() and p.name not in (".sha256", ".refused")]
    with pytest.raises(DataError, match=line):
        put(data)  # remembered, and said in the same words


def test_a_file_of_another_layout(put):
    with pytest.raises(DataError, match="not an M-SENA file: expected a dict of splits, found list"):
        put([1, 2])
    with pytest.raises(DataError, match="test/audio|train/audio has 7 steps and text 5: not an aligned file"):
        put(content(), features="aligned", file="MOSI/Processed/aligned_50.pkl")


def test_ids_that_occur_twice_are_counted_and_shared_ones_need_a_word(put, monkeypatch):
    data = content()
    data["train"]["id"][1] = data["train"]["id"][0]
    assert "train: 1 id occurs more than once, first 'train$_$0'" in put(data).warnings
    data["test"]["id"][0] = data["train"]["id"][5]
    with pytest.raises(DataError, match=r"1 id of test occurs in train too, first 'train\$_\$5'; mend .* --allow-leak"):
        put(data)
    monkeypatch.setenv(dataset.ALLOW_LEAK, "1")
    assert "allowed to leak: 1 id of test occurs in train too, first 'train$_$5'" in put(data).warnings


def test_unimodal_labels_and_label_columns(put):
    data = content()
    for raw in data.values():
        n = len(raw["id"])
        raw["regression_labels"] = raw["regression_labels"][:, None] / 3  # [N, 1]
        raw |= {f"regression_labels_{m}": np.full(n, v) for m, v in (("T", 0.2), ("A", -0.4), ("V", 1.0))}
    ds = put(data, name="sims", file="sims_unaligned_39.pkl")
    assert ds.has_unimodal and ds.label_bound == 1 and ds.splits["test"]["label"].shape == (4,)
    batch = Resident(ds, unimodal=True).batch("test", torch.tensor([3]))
    assert [round(batch[f"label_{m}"].item(), 4) for m in ("text", "audio", "vision")] == [0.2, -0.4, 1.0]


# ---------------------------------------------------------------- finding, provenance, cache


@pytest.mark.parametrize(
    "file",
    [
        "MOSI/Processed/unaligned_50.pkl",
        "mosi/unaligned_50.pkl",
        "mosi_unaligned_50.pkl",
        "Mosi/processed/Unaligned_50.PKL",
    ],
)
def test_usual_places_are_found_in_any_case(tmp_path, file):
    (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / file).touch()
    assert locate("mosi", "unaligned", tmp_path) == tmp_path / file
    assert locate("mosei", "unaligned", tmp_path) is None
    assert locate("mosi", "aligned", tmp_path) is None


def test_what_cannot_be_found_is_named(tmp_path):
    with pytest.raises(DataError, match="no unaligned features of mosi; looked for MOSI/Processed/unaligned_50.pkl, "):
        load("mosi", "unaligned", tmp_path, tmp_path)
    with pytest.raises(DataError, match="no such folder"):
        load("mosi", "unaligned", tmp_path / "absent", tmp_path)
    with pytest.raises(DataError, match="no data folder given for 'mosi'"):
        load("mosi", "unaligned", None, tmp_path)
    with pytest.raises(DataError, match="sims has no 'aligned' features; known: unaligned"):
        load("sims", "aligned", tmp_path, tmp_path)
    with pytest.raises(BenchError, match="unknown dataset 'mosy'"):
        load("synthetic-mosy", "unaligned", tmp_path, tmp_path)


def test_official_means_the_published_hash_and_nothing_less(put, monkeypatch):
    ds = put(content())
    assert ds.provenance == "custom"
    spec = registry.load("datasets", "mosi").SPEC
    files = {"unaligned": replace(spec.features["unaligned"], sha256=ds.sha256)}
    monkeypatch.setattr(registry.load("datasets", "mosi"), "SPEC", replace(spec, features=files))
    assert put(content()).provenance == "official"
    other = content()
    other["test"]["regression_labels"][0] *= 0.5
    assert put(other).provenance == "custom"


def test_synthetic_data_stay_synthetic_under_a_real_name(tmp_path):
    tools.write_synthetic(tmp_path / "data", ["mosi"])
    ds = load("mosi", "unaligned", tmp_path / "data", tmp_path / "cache")
    assert ds.provenance == "synthetic"
    generated = load("synthetic-mosi", "unaligned", None, tmp_path / "cache")
    assert (generated.splits["test"]["text"] == ds.splits["test"]["text"]).all()
    assert generated.sha256 != ds.sha256  # the file's hash depends on the numpy that wrote it, the arrays' does not
    with pytest.raises(DataError, match="exists already"):
        tools.write_synthetic(tmp_path / "data", ["mosi"])


def test_a_changed_file_is_read_anew_and_an_unchanged_one_is_not(put, monkeypatch):
    first = put(content())
    changed = content()
    changed["test"]["audio"][0, 0, 0] = 42
    second = put(changed)
    assert second.sha256 != first.sha256 and second.splits["test"]["audio"][0, 0, 0] == 42
    monkeypatch.setattr(dataset, "load_pickle", lambda path: pytest.fail("read again"))
    monkeypatch.setattr(cache.hashlib, "sha256", _only_short_input(cache.hashlib.sha256))
    assert load("mosi", "unaligned", second.path.parents[2], second.folder.parent).sha256 == second.sha256


def _only_short_input(sha256):
    """A sha256 that takes paths but no files."""

    def guarded(data=None):
        return sha256(data) if data is not None else pytest.fail("hashed again")

    return guarded


def test_a_damaged_cache_is_made_again(put):
    ds = put(content())
    file = ds.folder / "test-audio.npy"
    file.chmod(0o644)
    file.write_bytes(file.read_bytes()[:-8])
    again = put(content())
    np.testing.assert_array_equal(again.splits["test"]["audio"], content()["test"]["audio"])


def test_two_processes_converting_at_once(tmp_path, put):
    put(content())  # writes the file
    script = (
        "from bench.data.dataset import load; "
        f"ds = load('mosi', 'unaligned', {str(tmp_path / 'data')!r}, {str(tmp_path / 'other')!r}); "
        "print(ds.splits['train']['text'].tobytes().hex())"
    )
    both = [subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, cwd=ROOT) for _ in "ab"]
    outputs = [process.communicate()[0].strip() for process in both]
    assert outputs == [content()["train"]["text"].tobytes().hex()] * 2
    assert len([p for p in (tmp_path / "other").iterdir() if p.name.startswith("mosi")]) == 1


def test_two_writers_without_locks(tmp_path, monkeypatch):
    monkeypatch.setattr(cache, "fcntl", None)
    both_inside, found = threading.Barrier(2), []

    def write(folder):
        both_inside.wait(10)
        (folder / "a.txt").write_text("content")
        return {"value": 7}

    threads = [threading.Thread(target=lambda: found.append(cache.folder(tmp_path, "key", write))) for _ in range(2)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    assert [meta["value"] for _, meta in found] == [7, 7]
    assert sorted(p.name for p in tmp_path.iterdir()) == [".key-c2.lock", "key-c2"]
    assert (tmp_path / "key-c2" / "a.txt").read_text() == "content"


def test_a_full_disk_ends_in_one_line_and_leaves_nothing(tmp_path, put):
    put(content(sizes={"train": 900, "valid": 3, "test": 4}))
    script = f"""
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
from bench.data.dataset import load
from bench.errors import DataError
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    load("mosi", "unaligned", {str(tmp_path / "data")!r}, {str(tmp_path / "full")!r})
except DataError as error:
    print(error)
"""
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, check=True)
    assert run.stdout.startswith("cannot write the cache folder") and run.stdout.count("\n") == 1, run.stdout
    assert "free some space or set BENCH_CACHE" in run.stdout
    assert not [p for p in (tmp_path / "full").iterdir() if "mosi" in p.name and not p.name.endswith(".lock")]


def test_the_cache_folder_comes_from_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "here"))
    assert load("synthetic-mosi", "aligned").folder.parent == tmp_path / "here"
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="cannot make the cache folder .*set BENCH_CACHE"):
        cache.root(tmp_path / "file" / "below")


def test_reading_data_never_imports_torch(tmp_path):
    script = (
        "import sys; from bench.data import tools; from bench.data.dataset import load; "
        f"load('synthetic-mosi', 'unaligned', None, {str(tmp_path)!r}); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True)


# ---------------------------------------------------------------- check


def test_check_reports_every_file_or_why_not(tmp_path, put):
    put(content())
    bad = tmp_path / "data" / "MOSEI" / "aligned_50.pkl"
    bad.parent.mkdir()
    bad.write_bytes(b"version https://git-lfs.github.com/spec/v1")
    rows = {(r.dataset, r.features): r for r in tools.check(tmp_path / "data", tmp_path / "cache")}
    row = rows.pop(("mosi", "unaligned"))
    assert (row.state, row.provenance, row.sizes, row.shapes) == ("ok", "custom", "6 / 3 / 4", "5x8 / 7x3 / 9x2")
    assert "train: 6 samples, the official split has 1284" in row.notes
    row = rows.pop(("mosei", "aligned"))
    assert (row.state, row.file) == ("unusable", str(bad)) and "not a pickle" in row.notes[0]
    assert {r.state for r in rows.values()} == {"missing"}
    assert "looked for SIMS/Processed/unaligned_39.pkl" in rows["sims", "unaligned"].notes[0]


# ---------------------------------------------------------------- tensors


def test_batches_are_rows_of_the_arrays(put):
    data = content()
    res = Resident(put(data))
    index = torch.tensor([4, 0, 4])
    batch = res.batch("train", index)
    assert sorted(batch) == ["audio", "audio_lengths", "index", "label", "text", "vision", "vision_lengths"]
    for name in ("text", "audio", "vision"):
        np.testing.assert_array_equal(batch[name].numpy(), data["train"][name][[4, 0, 4]])
    assert batch["audio_lengths"].dtype == torch.int64 and batch["index"] is index
    assert res.size("test") == 4


def test_only_the_arrays_that_a_model_needs(put):
    data = content()
    ds = put(data)
    batch = Resident(ds, time_mean=True, tokens=True).batch("valid", torch.arange(3))
    assert "text" not in batch
    assert batch["text_bert"].dtype == torch.int64 and batch["text_bert"].shape == (3, 3, 5)
    assert batch["audio"].shape == (3, 1, 3) and batch["vision_lengths"].tolist() == [1, 1, 1]
    np.testing.assert_array_equal(batch["vision"].numpy(), ds.splits["valid"]["vision_mean"])
    with pytest.raises(DataError, match="no labels of single modalities"):
        Resident(ds, unimodal=True)


def test_cpu_tensors_share_the_mapped_pages_and_cannot_reach_the_file(put):
    ds = put(content())
    res = Resident(ds)
    text = res.tensors["train"]["text"]
    assert text.data_ptr() == ds.splits["train"]["text"].ctypes.data
    before = (ds.folder / "train-text.npy").read_bytes()
    text[0] = 99
    assert (ds.folder / "train-text.npy").read_bytes() == before
    reversed_text = replace(ds, splits={**ds.splits, "test": {k: a[::-1] for k, a in ds.splits["test"].items()}})
    np.testing.assert_array_equal(
        Resident(reversed_text).tensors["test"]["text"].numpy(), content()["test"]["text"][::-1]
    )


def test_a_subset_of_the_training_split(put):
    data = content()
    res = Resident(put(data), train_index=np.array([1, 3, 5]))
    assert (res.size("train"), res.size("valid")) == (3, 3)
    np.testing.assert_array_equal(
        res.batch("train", torch.tensor([2]))["text"][0].numpy(), data["train"]["text"][5]
    )


def test_train_subset_is_uniform_sorted_and_seeded():
    rows = train_subset(1284, 0.1, np.random.default_rng(5))
    assert len(rows) == 128 and (np.diff(rows) > 0).all()
    np.testing.assert_array_equal(rows, train_subset(1284, 0.1, np.random.default_rng(5)))
    rng = np.random.default_rng(0)
    counts = sum(np.bincount(train_subset(20, 0.25, rng), minlength=20) for _ in range(2000))
    assert counts.sum() == 10000 and abs(counts - 500).max() < 90  # 4.5 standard deviations
    np.testing.assert_array_equal(train_subset(7, 1.0, rng), np.arange(7))
    with pytest.raises(ValueError, match="lies in"):
        train_subset(7, 0.0, rng)


# ---------------------------------------------------------------- real features


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs the real MOSI pack in ../shared/data")
def test_real_mosi(tmp_path):
    subprocess.run([sys.executable, SHARED / "make_msena.py", tmp_path], check=True, capture_output=True)
    aligned = load("mosi", "aligned", tmp_path, tmp_path / "cache")
    assert aligned.splits["test"]["audio_lengths"].max() <= 50
    ds = load("mosi", "unaligned", tmp_path, tmp_path / "cache")
    assert (ds.provenance, ds.warnings, dict(ds.nan)) == ("custom", (), {})
    assert [ds.size(s) for s in ("train", "valid", "test")] == [1284, 229, 686]
    assert ds.inputs()["audio"] == (1, 73)
    assert json.dumps(ds.inputs())  # plain numbers
    from sklearn.linear_model import RidgeCV

    def pooled(split):
        text = ds.splits[split]["text"]
        return text.sum(1) / np.maximum(text.any(-1).sum(-1, keepdims=True), 1)

    label = ds.splits["test"]["label"]
    probe = RidgeCV(alphas=10.0 ** np.arange(-3, 4)).fit(pooled("train"), ds.splits["train"]["label"])
    predicted = probe.predict(pooled("test"))
    acc2 = ((predicted > 0) == (label > 0))[label != 0].mean()
    assert 0.78 < acc2 < 0.82  # text alone: 80 %
    assert 0.9 < np.abs(predicted - label).mean() < 1.0
