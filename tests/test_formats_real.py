"""Real words, contexts and labels: MOSI's words, MUStARD's dialogues, CH-SIMS' labels of single modalities."""

import json
import pickle

import numpy as np
import pytest
import torch

from bench import encoders
from bench.data import convert, prepare, tools
from bench.data.dataset import load
from bench.data.resident import Resident
from bench.data.unpickle import load_pickle
from bench.errors import DataError
from tests.formats import hkt_rows, put

MINILM = encoders.available("minilm")
needs_minilm = pytest.mark.skipif(not MINILM[0], reason=MINILM[1])


@pytest.fixture(scope="module")
def mosi(shared, tmp_path_factory):
    """MOSI's words as a word-level file: the clip's acoustic vector beside every word, timing in the vision slot."""
    folder = tmp_path_factory.mktemp("mosi")
    assert convert.main([str(shared / "data" / "mosi_words.npz"), str(folder / "mosi.pkl")]) == 0
    return load("mosi", "word", folder, folder / "cache"), np.load(shared / "data" / "mosi_words.npz")


def test_mosi_words_keep_split_labels_words_and_rows(mosi):
    ds, pack = mosi
    assert [ds.size(s) for s in ("train", "valid", "test")] == [1284, 229, 686]
    assert (ds.provenance, ds.warnings) == ("unlisted", ())
    for split in ("train", "valid", "test"):
        np.testing.assert_allclose(ds.splits[split]["label"], pack[f"{split}_label"], atol=1e-6)
        np.testing.assert_array_equal(ds.splits[split]["word_start"], pack[f"{split}_offsets"])
        assert [t.upper() for t in ds.raw_text(split)] == pack[f"{split}_words"].tolist()
        assert ds.ids(split)[0].replace("$_$", "_") == pack[f"{split}_id"][0]
    audio, timing = ds.splits["train"]["word_audio"], ds.splits["train"]["word_vision"]
    np.testing.assert_allclose(timing.mean(0), 0, atol=1e-4)
    assert np.isclose(audio.std(0), 1, atol=1e-3).mean() > 0.9  # standardised over the training words
    start = ds.splits["train"]["word_start"]
    assert (audio[start[3] : start[4]] == audio[start[3]]).all()  # one vector per clip
    per_word = pack["train_timing"].astype(np.float64)
    for column in range(5):
        assert np.corrcoef(timing[:, column], per_word[:, column])[0, 1] == pytest.approx(1, abs=1e-3)


@needs_minilm
def test_mosi_words_become_the_word_pieces_of_whole_transcripts(mosi):
    """Cutting each word by itself gives the pieces of the transcript as a whole, and rows follow their words."""
    ds, pack = mosi
    own = prepare.with_pieces(ds, "minilm", 50)
    for split in ("train", "valid", "test"):
        np.testing.assert_array_equal(own.splits[split]["text_bert"], pack[f"{split}_text_bert"])
    tokenizer, arrays = encoders.tokenizer("minilm"), own.splits["test"]
    start, rows = ds.splits["test"]["word_start"], ds.splits["test"]["word_vision"]
    for i in (0, 17, 300):
        pieces = tokenizer.convert_ids_to_tokens(arrays["text_bert"][i, 0])
        words = ds.strings("test")["words"][i]
        n = 0
        for place, piece in enumerate(pieces[1 : arrays["lengths"][i] - 1], start=1):
            np.testing.assert_array_equal(arrays["vision"][i, place], rows[start[i] + n])
            words[n] = words[n].removeprefix(piece.removeprefix("##"))
            n += not words[n]
        assert n == len(words)


@needs_minilm
def test_mustard_contexts_and_punchlines(shared, tmp_path):
    """Real dialogues: the punchline is read whole behind as much of its context as there is room for."""
    dialogues = json.loads((shared / "data" / "mustard_text.json").read_text(encoding="utf-8"))
    count = lambda sentences: sum(len(s.split()) for s in sentences)
    samples = []
    for i, d in dialogues.items():
        punchline = (d["utterance"], *hkt_rows(count([d["utterance"]]), 1000))
        samples.append((punchline, (d["context"], *hkt_rows(count(d["context"]), 1)), i, int(d["sarcasm"])))
    put(tmp_path / "mustard.pkl", {"train": samples[:554], "dev": samples[554:622], "test": samples[622:]})
    ds = load("mustard", "hkt", tmp_path, tmp_path / "cache")
    own = prepare.with_pieces(ds, "minilm")
    tokenizer = encoders.tokenizer("minilm")
    lengths, whole = [], 0
    for i, arrays, k in ((i, own.splits[s], k) for s in ("train", "test") for k, i in enumerate(ds.ids(s))):
        ids, mask, segments = arrays["text_bert"][k]
        n, hcf = int(mask.sum()), arrays["hcf"][k, :, 0]
        first, second = np.flatnonzero(ids == 102)
        assert second == n - 1 and (segments[: first + 1] == 0).all() and (segments[first + 1 : n] == 1).all()
        punchline = tokenizer(dialogues[i]["utterance"] + ".", add_special_tokens=False)["input_ids"]
        assert ids[first + 1 : second].tolist() == punchline[: 77 - 3]
        context = tokenizer(". ".join(dialogues[i]["context"]), add_special_tokens=False)["input_ids"]
        assert ids[1:first].tolist() == context[max(len(context) + len(punchline) - 74, 0) :]
        whole += first - 1 == len(context)
        assert hcf[first + 1] == 1000 and (hcf[1:first] < 1000).all() and (np.diff(hcf[1:first]) >= 0).all()
        if first > 1 and second > first + 1:
            assert hcf[first - 1] == count(dialogues[i]["context"])
            assert hcf[second - 1] == 999 + count([dialogues[i]["utterance"]])
        lengths.append(n)
    assert max(lengths) == 77 and 0.5 < whole / 622 < 1
    assert Resident(own, tokens=True).inputs()["task"] == "binary"
    assert np.concatenate([ds.splits[s]["label"] for s in ("train", "valid", "test")]).sum() == 345


@pytest.mark.parametrize(("column", "first"), [("chinese", "我不想嫁给李茶"), ("english", None)])
def test_sims_labels_and_transcripts_in_either_language(shared, tmp_path, column, first):
    source = shared / "data" / "sims_labels_text.csv"
    convert.convert_file(source, tmp_path / "SIMS" / "label.csv", column)
    ds = load("sims", "audio", tmp_path, tmp_path / "cache")
    assert [ds.size(s) for s in ("train", "valid", "test")] == [1368, 456, 457]
    assert [w.split(",")[0] for w in ds.warnings] == [  # CH-SIMS is split by clip
        "59 of 59 videos of valid occur in train too", "59 of 59 videos of test occur in train too",
        "58 of 59 videos of test occur in valid too",
    ]  # fmt: skip
    assert first is None or ds.raw_text("train")[0] == first
    every = lambda key: np.concatenate([ds.splits[s][key] for s in ("train", "valid", "test")])
    assert np.unique(np.sign(every("label")), return_counts=True)[1].tolist() == [1238, 345, 698]
    assert 0.1 < (every("label_text") * every("label_audio") < 0).mean() < 0.5  # voices contradict words
    data = Resident(prepare.with_sound(prepare.with_pieces(ds, "tiny"), None, True), tokens=True)
    assert data.inputs()["audio_kind"] == "none"
    assert data.batch("test", torch.tensor([0]))["label_audio"] == ds.splits["test"]["label_audio"][0]


@needs_minilm
def test_sims_features_computed_before(shared, tmp_path):
    """Labels, English text and a file of features: all that a model of text and sound needs."""
    convert.convert_file(shared / "data" / "sims_labels_text.csv", tmp_path / "SIMS" / "label.csv", "english")
    ids = [i for s in ("train", "valid", "test") for i in load("sims", "audio", tmp_path, tmp_path / "cache").ids(s)]
    rng = np.random.default_rng(0)
    lengths, values = rng.integers(2, 13, len(ids)), rng.standard_normal((len(ids), 12, 8)).astype("f2")
    np.savez(tmp_path / "SIMS" / "audio_features.npz", id=ids, features=values, lengths=lengths)
    ds = prepare.with_pieces(load("sims", "audio", tmp_path, tmp_path / "cache"), "minilm")
    batch = Resident(prepare.with_sound(ds, False, True), tokens=True).batch("train", torch.tensor([5]))
    assert batch["audio"].shape == (1, 12, 8) and batch["audio_lengths"].item() == lengths[5]
    words = encoders.tokenizer("minilm")(ds.raw_text("train")[5])["input_ids"][:64]
    assert batch["text_bert"][0, 0, : len(words)].tolist() == words


# ---------------------------------------------------------------- converting what is not real


def test_an_aligned_msena_file_becomes_a_word_file(tmp_path):
    """Generated rows stand between [CLS] and [SEP]; what was generated stays so."""
    tools.write_synthetic(tmp_path / "in", ["mosi"], formats=["msena"])
    source = tmp_path / "in/MOSI/Processed/aligned_50.pkl"
    data = convert.convert_file(source, tmp_path / "out/mosi.pkl")
    ds, raw = load("mosi", "word", tmp_path / "out", tmp_path / "cache"), load_pickle(source)["test"]
    assert data.name == "mosi.pkl" and ds.provenance == "synthetic"
    n = len(raw["raw_text"][3].split())
    rows = ds.splits["test"]["word_audio"][ds.splits["test"]["word_start"][3] :][:n].astype(np.float64)
    for column in range(rows.shape[1]):
        given = raw["audio"][3, 1 : n + 1, column]
        assert np.corrcoef(rows[:, column], given)[0, 1] == pytest.approx(1, abs=1e-4)


def test_what_cannot_be_converted_is_one_line(tmp_path, capsys):
    tools.write_synthetic(tmp_path / "in", ["mosi"], formats=["msena"])
    unaligned = tmp_path / "in/MOSI/Processed/unaligned_50.pkl"
    assert convert.main([str(unaligned), str(tmp_path / "x.pkl")]) == 2
    assert capsys.readouterr().err.endswith("train is not aligned: text, audio and vision have 16, 24 and 20 steps\n")
    data = pickle.loads(unaligned.with_name("aligned_50.pkl").read_bytes())
    data["train"]["raw_text"] = np.array([f"{t} and more words" for t in data["train"]["raw_text"]])
    put(tmp_path / "more.pkl", data)
    with pytest.raises(DataError, match="words and . rows of text; expected a row per word"):
        convert.convert_file(tmp_path / "more.pkl", tmp_path / "x.pkl")
    (tmp_path / "a.npz").write_bytes(b"PK")
    (tmp_path / "a.csv").write_text("id,label\n1,2\n")
    lines = {
        "a.npz": "cannot be read", "a.csv": "no column 'split'; found id, label",
        "a.txt": "cannot be converted; known: .pkl, .npz, .csv",
    }  # fmt: skip
    for name, line in lines.items():
        with pytest.raises(DataError, match=line):
            convert.convert_file(tmp_path / name, tmp_path / "x.pkl")
    assert not (tmp_path / "x.pkl").exists()
