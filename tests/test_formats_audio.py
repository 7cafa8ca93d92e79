"""Raw sound: tables, wav files, features computed before, context, labels of single modalities."""

import numpy as np
import pytest
import torch
from scipy.io import wavfile

from bench import encoders
from bench.data import prepare
from bench.data.dataset import load, locate
from bench.data.ragged import Ragged, normalised
from bench.data.resident import Resident
from bench.data.waves import SAMPLES, read_wave
from bench.errors import DataError
from bench.models.base import Inputs
from tests.formats import put, table, write_wav

# video, clip, text, label, label_T, label_A, label_V, annotation, mode; not in the order of the clips
ROWS = [
    ("v1", 10, "TENTH", 1, "", "", "", "", "train"), ("v1", 2, "SECOND ONE", -1, "", "", "", "", "train"),
    ("v1", 9, "ninth", 0.5, "", "", "", "", "train"), ("v1", 1, "FIRST", 3, "", "", "", "", "train"),
    ("v1", 3, "a stray", 0, "", "", "", "", "test"), ("v2", 1, "else", -3, "", "", "", "", "train"),
    ("v3", 1, "dev", 2, "", "", "", "", "valid"),
]  # fmt: skip
ORDER = ["v1$_$1", "v1$_$2", "v1$_$9", "v1$_$10", "v2$_$1"]  # of the training split


def tone(i: int, n: int) -> np.ndarray:
    """A clip that can be told from others: i at every sample but for its own index at the first."""
    wave = np.full(n, 100 * (i + 1), np.int16)
    wave[0] = i
    return wave


@pytest.fixture
def corpus(tmp_path):
    """Writes a table and sound beside it and loads it; sound: samples of each row's wav, or None."""
    def loaded(rows=ROWS, sound=lambda i: 4000, name="mosi", head=None):
        folder = tmp_path / "data" / name.upper()
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "label.csv").write_text(table(rows, *(() if head is None else (head,))))
        for i, row in enumerate(rows):
            if sound(i):
                write_wav(folder / "wav" / row[0] / f"{row[1]}.wav", tone(i, sound(i)))
        return load(name, "audio", tmp_path / "data", tmp_path / "cache")

    loaded.folder = tmp_path / "data"
    return loaded


def resident(ds, wave=None, context=True, **more) -> Resident:
    return Resident(prepare.with_sound(prepare.with_pieces(ds, "tiny"), wave, context), tokens=True, **more)


# ---------------------------------------------------------------- waves


def test_sixteen_bit_files_are_read_exactly_and_cut(tmp_path):
    samples = np.random.default_rng(0).integers(-32768, 32768, SAMPLES + 7)
    write_wav(tmp_path / "a.wav", samples)
    found = read_wave(tmp_path / "a.wav")
    assert found.dtype == np.int16 and len(found) == 96_000 and (found == samples[:96_000]).all()


@pytest.mark.parametrize(
    ("rate", "kind", "channels"), [(48_000, "<i2", 1), (44_100, "<f4", 2), (8_000, "u1", 1), (22_050, "<i4", 2)]
)
def test_other_rates_and_depths_become_sixteen_kilohertz_mono(tmp_path, rate, kind, channels):
    t = np.arange(rate // 2) / rate
    wave = 0.5 * np.sin(2 * np.pi * 440 * t)
    scaled = {"<f4": wave, "u1": 128 + 127 * wave, "<i2": 32767 * wave, "<i4": 2147483647 * wave}[kind].astype(kind)
    wavfile.write(tmp_path / "a.wav", rate, np.stack([scaled] * channels, 1) if channels > 1 else scaled)
    found = read_wave(tmp_path / "a.wav")
    assert abs(len(found) - 8_000) <= 1
    assert np.abs(np.fft.rfft(found.astype(float), 16_000)).argmax() == 440
    inner = found[1000:7000].astype(float)
    assert np.abs(inner).max() == pytest.approx(16384, rel=0.03)


def test_normalisation_is_that_of_the_feature_extractor():
    transformers = pytest.importorskip("transformers")
    rng = np.random.default_rng(0)
    clips = [rng.integers(-9000, 9000, n).astype(np.int16) + shift for n, shift in ((300, 500), (500, 0), (700, -900))]
    extractor = transformers.Wav2Vec2FeatureExtractor(do_normalize=True, return_attention_mask=True)
    expected = extractor(
        [c.astype(np.float32) / 32768 for c in clips], sampling_rate=16_000, padding="max_length", truncation=True,
        max_length=500, return_tensors="np",
    )
    length = torch.tensor([len(c) for c in clips])
    flat = Ragged(torch.from_numpy(np.concatenate(clips)), length.cumsum(0) - length, length, 500)
    x, mask = normalised(*flat.gather(torch.arange(3)))
    np.testing.assert_allclose(x, expected["input_values"], atol=2e-6)
    np.testing.assert_array_equal(mask, expected["attention_mask"])


def test_a_wave_without_samples_stays_zero():
    x, mask = normalised(torch.zeros(1, 9, dtype=torch.int16), torch.tensor([0]))
    assert not x.any() and not mask.any()


# ---------------------------------------------------------------- rows, context, labels


def test_rows_are_sorted_and_waves_padded(corpus):
    ds = corpus(sound=lambda i: 3000 + i)
    assert ds.ids("train") == ORDER and ds.raw_text("train")[:2] == ["FIRST", "SECOND ONE"]
    data = resident(ds, True)
    batch = data.batch("train", torch.tensor([3, 0]))
    assert batch["audio"].shape == (2, 96_000) and batch["audio"].dtype == torch.float32
    assert batch["audio_mask"].sum(1).tolist() == [3000, 3003] and batch["label"].tolist() == [1, 3]
    assert Inputs(**data.inputs()) == Inputs((96, 0), (96_000, 1), (0, 0), 3.0, 5, audio_kind="wave", context=True)
    assert batch["text_bert"][1, 0, 1] == encoders.hashed_word("first") and data.nbytes > 0


def test_context_is_the_two_clips_before_in_the_same_video_and_split(corpus):
    ds = corpus(sound=lambda i: 3000 + i)
    assert ds.strings("train")["context"] == [[], ["FIRST"], ["FIRST", "SECOND ONE"], ["SECOND ONE", "ninth"], []]
    assert ds.strings("test")["context"] == [[]]  # the clips before it are in another split
    arrays = ds.splits["train"]
    joined = [
        arrays["wave"][s : s + n] for s, n in zip(arrays["wave_context_start"], arrays["wave_context_length"])
    ]
    rows = {"first": 3, "second": 1, "ninth": 2}
    before = [[], ["first"], ["first", "second"], ["second", "ninth"], []]
    for found, names in zip(joined, before):
        expected = [tone(rows[n], 3000 + rows[n]) for n in names]
        np.testing.assert_array_equal(found, np.concatenate([np.zeros(0, np.int16), *expected]))
    batch = resident(ds).batch("train", torch.arange(5))
    assert batch["context_audio_mask"].sum(1).tolist() == [0, 3003, 6004, 6003, 0]
    two = batch["context_text_bert"][2, 0, :6].tolist()
    words = [encoders.hashed_word(w) for w in ("first", "[SEP]", "second", "one")]
    assert two == [101, *words, 102] and batch["context_text_bert"][0, 0, :3].tolist() == [101, 102, 0]
    assert not any("context" in k for k in resident(ds, context=False).batch("train", torch.arange(2)))


def test_a_long_context_is_cut_from_the_start_so_that_the_nearest_clip_is_lost(corpus):
    ds = corpus(sound=lambda i: 70_000)
    batch = resident(ds).batch("train", torch.tensor([2]))
    assert batch["context_audio_mask"].sum().item() == SAMPLES
    arrays = ds.splits["train"]
    start, n = int(arrays["wave_context_start"][2]), int(arrays["wave_context_length"][2])
    expected = np.concatenate([tone(3, 70_000), tone(1, 26_000)])
    np.testing.assert_array_equal(arrays["wave"][start : start + n], expected)


def test_a_part_of_the_training_split_keeps_the_context_of_what_was_left_out(corpus):
    ds = corpus(sound=lambda i: 3000 + i)
    whole, part = resident(ds), resident(ds, train_index=np.array([2, 4]))
    a, b = whole.batch("train", torch.tensor([2, 4])), part.batch("train", torch.tensor([0, 1]))
    assert all(torch.equal(a[k], b[k]) for k in a if k != "index") and part.inputs()["train_size"] == 2


def test_labels_of_single_modalities_or_the_clips_own(corpus):
    batch = resident(corpus()).batch("train", torch.tensor([0, 1]))
    assert batch["label_text"].tolist() == batch["label_audio"].tolist() == batch["label"].tolist() == [3, -1]
    rows = [(v, f"{c:04d}", t, y / 3, y / 6, -y / 3, 0, "", m) for v, c, t, y, *_, m in ROWS]
    ds = corpus(rows, name="sims")
    assert not any("labels of single" in w for w in ds.warnings) and "context" not in ds.strings("train")
    batch = resident(ds).batch("train", torch.tensor([0]))
    assert [round(batch[f"label_{m}"].item(), 4) for m in ("text", "audio", "vision")] == [0.5, -1, 0]
    assert resident(ds).inputs()["text"] == (64, 0)
    rows[0] = (*rows[0][:5], "", *rows[0][6:])
    warnings = corpus(rows, name="sims").warnings
    assert "train: no labels of single modalities; the clip's label stands for them" in warnings


def test_ids_of_four_digits_and_clips_known_to_be_broken(corpus):
    rows = [(v, c, t, y / 3, y / 3, y / 3, y / 3, "", m) for v, c, t, y, *_, m in ROWS]
    for row in rows:
        write_wav(corpus.folder / "SIMS/wav" / row[0] / f"{row[1]:04d}.wav", tone(0, 50))
    assert corpus(rows, sound=lambda i: None, name="sims").splits["train"]["wave_length"].tolist() == [50] * 5
    broken = ("94ULum9MYX0", 2, "no sound", 0, "", "", "", "", "train")
    ds = corpus([*ROWS, broken], sound=lambda i: 50 if i < len(ROWS) else None, name="mosei")
    assert ds.size("train") == 5
    assert "1 clip whose sound track is known to be broken is left out" in ds.warnings


# ---------------------------------------------------------------- features, and no sound at all


def features(ids, T=6, d=3) -> dict:
    n, rng = len(ids), np.random.default_rng(0)
    values = rng.standard_normal((n, T, d)).astype(np.float16)
    return {"id": np.array(ids), "features": values, "lengths": 1 + np.arange(n) % T}


@pytest.mark.parametrize("suffix", ["npz", "pkl"])
def test_features_computed_before(corpus, suffix):
    given = features([f"{r[0]}$_${r[1]}" for r in ROWS])  # lengths 1..6, 1 in the order of ROWS
    folder = corpus.folder / "MOSI"
    folder.mkdir(parents=True)
    np.savez(folder / "audio_features.npz", **given) if suffix == "npz" else put(folder / "audio_features.pkl", given)
    ds = corpus(sound=lambda i: None)
    data = resident(ds, False)
    assert Inputs(**data.inputs()) == Inputs((96, 0), (6, 3), (0, 0), 3.0, 5, audio_kind="features", context=True)
    batch = data.batch("train", torch.arange(5))
    assert batch["audio"].shape == (5, 6, 3) and batch["audio"].dtype == torch.float32 and "audio_mask" not in batch
    assert batch["audio_lengths"].tolist() == [4, 2, 3, 1, 6]  # rows 3, 1, 2, 0, 5
    np.testing.assert_array_equal(batch["audio"][0, :4], given["features"][3, :4])
    assert not batch["audio"][0, 4:].any()
    assert batch["context_audio_lengths"].tolist() == [0, 4, 6, 5, 0]
    expected = np.concatenate([given["features"][1, :2], given["features"][2, :3]])
    np.testing.assert_array_equal(batch["context_audio"][3, :5], expected)
    with pytest.raises(DataError, match="label.csv: no folder 'wav' beside it; a model with an audio encoder"):
        resident(ds, True)


def test_waves_and_features_side_by_side_are_the_models_choice(corpus):
    folder = corpus.folder / "MOSI"
    folder.mkdir(parents=True)
    np.savez(folder / "audio_features.npz", **features([f"{r[0]}$_${r[1]}" for r in ROWS]))
    ds = corpus()
    assert resident(ds, False).inputs()["audio"] == (6, 3) and resident(ds, True).inputs()["audio"] == (96_000, 1)
    assert resident(ds, None).inputs()["audio_kind"] == "wave"


def test_transcripts_and_labels_without_sound(corpus):
    data = resident(corpus(sound=lambda i: None))
    assert data.inputs()["audio_kind"] == "none" and data.inputs()["audio"] == (0, 0)
    assert set(data.batch("train", torch.tensor([0]))) == {
        "text_bert", "context_text_bert", "label", "label_text", "label_audio", "label_vision", "index"
    }  # fmt: skip


# ---------------------------------------------------------------- damage, provenance


def test_every_file_counts_for_the_hash(corpus):
    first = corpus(sound=lambda i: 60)
    write_wav(corpus.folder / "MOSI/wav/v2/1.wav", tone(6, 60))
    second = load("mosi", "audio", corpus.folder, first.folder.parent)
    assert first.sha256 != second.sha256 and second.splits["train"]["wave"][-60] == 6
    assert load("mosi", "audio", corpus.folder, first.folder.parent).sha256 == second.sha256
    assert first.provenance == "custom" and locate("mosi", "audio", corpus.folder).name == "label.csv"


@pytest.mark.parametrize(
    ("rows", "line"),
    [
        ([(*ROWS[0][:3], "x", *ROWS[0][4:]), *ROWS[1:]], "train/label holds what is no number .could not convert"),
        ([(*ROWS[0][:3], 4, *ROWS[0][4:]), *ROWS[1:]], r"train/label has 1 value .*v1\$_\$10.* outside \[-3, 3\]"),
        ([(*ROWS[0][:-1], "held out"), *ROWS[1:]], "line 2 has mode 'held out'; expected train, valid or test"),
        ([ROWS[0][:-1], *ROWS[1:]], "line 2 has not as many cells as the head has columns"),
        (ROWS[:-1], "valid is empty"),
        ([*ROWS, ("v9", 1, "no wav", 0, "", "", "", "", "test")], r"v9/1.wav: no such file; 1 of 2 clips have no wav"),
    ],
)
def test_a_damaged_table_is_named_in_one_line(corpus, rows, line):
    with pytest.raises(DataError, match=line) as caught:
        corpus(rows, sound=lambda i: 50 if i < len(ROWS) else None)
    assert "\n" not in str(caught.value)


def test_other_damage_is_named_in_one_line(corpus, tmp_path):
    with pytest.raises(DataError, match="label.csv: no column 'mode'; expected video_id, clip_id, text, label, mode"):
        corpus(head="video_id,clip_id,text,label,a,b,c,d,e")
    (corpus.folder / "MOSI/label.csv").write_bytes(b"video_id,clip_id,text,label,mode\n\xff\xfe,1,a,0,train\n")
    with pytest.raises(DataError, match="label.csv: not a table in UTF-8"):
        load("mosi", "audio", corpus.folder, tmp_path)
    for content, line in ((b"RIFF", "v1/1.wav: not a wav file"), (b"<html>", "v1/1.wav: not a wav file")):
        corpus.folder.joinpath("MOSI/wav/v1/1.wav").write_bytes(content)
        with pytest.raises(DataError, match=line):
            corpus(sound=lambda i: None)


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (lambda f: f.pop("id"), r"no audio features: expected id \[N\], features"),
        (lambda f: f.update(lengths=f["lengths"][:3]), r"7 ids, features \[7, 6, 3\] float16, lengths \[3\] do"),
        (lambda f: f.update(lengths=f["lengths"] * 9), "lengths are not whole numbers within 1..6"),
        (lambda f: f["features"].__setitem__((0, 0, 0), np.nan), r"features has 1 value in 1 sample \(first 'v1\$_\$10'\) of NaN"),
        (lambda f: f.update(id=np.array(["x"] * 7)), "6 ids occur more than once, first 'x'"),
        (lambda f: f.update(id=np.array([f"x{i}" for i in range(7)])), r"audio features lack 5 of 5 clips \(first 'v1\$_\$1'\)"),
    ],
)
def test_damaged_features_are_named_in_one_line(corpus, change, line):
    given = features([f"{r[0]}$_${r[1]}" for r in ROWS])
    change(given)
    (corpus.folder / "MOSI").mkdir(parents=True)
    np.savez(corpus.folder / "MOSI/audio_features.npz", **given)
    with pytest.raises(DataError, match=line) as caught:
        corpus(sound=lambda i: None)
    assert "\n" not in str(caught.value)


def test_a_truncated_feature_file(corpus):
    (corpus.folder / "MOSI").mkdir(parents=True)
    path = corpus.folder / "MOSI/audio_features.npz"
    np.savez(path, **features(["a"]))
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(DataError, match="audio_features.npz: truncated or damaged"):
        corpus(sound=lambda i: None)


# ---------------------------------------------------------------- generated, encoders


@pytest.mark.parametrize("name", ["mosi", "sims"])
def test_generated_sound(name):
    ds, msena = load(f"synthetic-{name}", "audio"), load(f"synthetic-{name}", "unaligned")
    assert (ds.provenance, ds.warnings) == ("synthetic", ()) and sorted(ds.ids("test")) == sorted(msena.ids("test"))
    order = [msena.ids("test").index(i) for i in ds.ids("test")]
    np.testing.assert_allclose(ds.splits["test"]["label"], msena.splits["test"]["label"][order], atol=1e-6)
    assert [msena.raw_text("test")[i] for i in order] == ds.raw_text("test")
    if name == "sims":
        own, other = (d.splits["test"]["label_audio"] for d in (ds, msena))
        np.testing.assert_allclose(own, other[order], atol=1e-6)
    batch = resident(ds).batch("train", torch.arange(8))
    assert batch["audio"].shape == (8, 8_000) and ("context_audio" in batch) == (name == "mosi")
    again = resident(load(f"synthetic-{name}", "audio")).batch("train", torch.arange(8))
    assert torch.equal(batch["audio"], again["audio"])


def test_audio_encoders_need_no_tokenizer(monkeypatch, tmp_path):
    monkeypatch.setenv("BENCH_ENCODERS", str(tmp_path))
    present, why = encoders.available("data2vec-audio-base")
    if not present:
        assert why.startswith("audio encoder 'data2vec-audio-base' is not on this machine; ")
        assert "hf download facebook/" in why
    folder = tmp_path / "chinese-hubert-base"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    why = encoders.available("chinese-hubert-base")[1]
    assert why.startswith(f"audio encoder 'chinese-hubert-base': {folder} lacks weights;")
    (folder / "pytorch_model.bin").touch()
    assert encoders.available("chinese-hubert-base") == (True, str(folder))
    assert encoders.available("tiny-audio")[0] and encoders.spec("tiny-audio").test_only
