"""Honest files as people of the field have them: each is read with the right numbers, or refused with the remedy."""

import copy
import json
import pickle

import numpy as np
import pytest

from bench.data import variants
from bench.data.dataset import load
from bench.errors import DataError
from tests.formats import put, word_content
from tests.test_data import content

PLACE = "data/MOSI/Processed/unaligned_50.pkl"


@pytest.fixture
def read(tmp_path):
    """Writes an M-SENA file and loads it."""
    def loaded(data, features="unaligned", name="mosi", place=None):
        put(tmp_path / (place or f"data/{name.upper()}/Processed/{features}_{39 if name == 'sims' else 50}.pkl"), data)
        return load(name, features, tmp_path / "data", tmp_path / "cache")

    return loaded


def changed(change) -> dict:
    """The content of an M-SENA file with each split changed."""
    data = content()
    for part in data.values():
        change(part)
    return data


def same(ds, other, keys=("text", "audio", "vision", "label")) -> bool:
    return all(np.array_equal(ds.splits[s][k], other.splits[s][k]) for s in ds.splits for k in keys)


def set_(**values):
    return lambda part: part.update({k: v(part) if callable(v) else v for k, v in values.items()})


@pytest.mark.parametrize(
    "change",
    [
        lambda p: p.update({k: p[k].astype(np.float64) for k in ("text", "audio", "vision", "text_bert")}),
        lambda p: p.update({k: p[k].tolist() for k in ("text", "audio", "vision", "regression_labels")}),
        lambda p: p.update({k: list(p[k]) for k in ("text", "audio", "vision")}),  # lists of arrays
        lambda p: p.update(id=np.array(p["id"], object), raw_text=np.array(p["raw_text"], object)),
        lambda p: p.update(regression_labels=p["regression_labels"][:, None, None]),
        lambda p: p.update(regression_labels=p["regression_labels"].astype(str)),
        lambda p: p.update(regression_labels=p["regression_labels"].astype(object)),
        lambda p: p.update(regression_labels_T=np.zeros(len(p["id"]))),
        lambda p: p.update(labels=p.pop("regression_labels")[:, None, None], annotations=None),
        lambda p: p.update(id=[[i, "0.0", "1.5"] for i in p["id"]]),  # MulT: video, start, end
    ],
    ids=["float64", "lists", "lists of arrays", "objects", "[N, 1, 1]", "strings", "object labels", "_T alone", "MulT", "ids"],
)  # fmt: skip
def test_what_means_the_same_is_read_the_same(read, tmp_path, change):
    plain = read(content())
    data = changed(change) | {"config": {"audio": {"tool": "librosa"}}}
    ds = load("mosi", "unaligned", put(tmp_path / "b" / PLACE, data).parents[2], tmp_path / "cache")
    assert same(ds, plain)


def test_lengths_are_clipped_and_counted(read):
    n = lambda p: len(p["id"])
    ds = read(changed(set_(audio_lengths=lambda p: np.full((n(p), 1), 99.0), vision_lengths=lambda p: [0] * n(p))))
    assert "audio_lengths: 13 values outside 1..7 clipped" in ds.warnings
    assert "vision_lengths: 13 values outside 1..9 clipped" in ds.warnings
    assert (ds.splits["test"]["audio_lengths"] == 7).all() and (ds.splits["test"]["vision_lengths"] == 1).all()
    with pytest.raises(DataError, match="train/audio_lengths has 6 values .* NaN"):
        read(changed(set_(audio_lengths=lambda p: [np.nan] * n(p))))


def test_doubles_beyond_single_precision_go_where_the_cast_of_the_fields_loader_leads(read):
    """M-SENA casts to float32 and sets -inf in audio to 0; what becomes +inf there makes every loss NaN."""
    def set_first(key, value):
        def change(part):
            part[key] = part[key].astype(np.float64)
            part[key][0, 0, 0] = value
        return change

    ds = read(changed(set_first("audio", -1e300)))
    assert "audio: 3 values below -3.4e+38 set to 0, as -inf is" in ds.warnings
    assert ds.splits["train"]["audio"][0, 0, 0] == 0
    for key, value in (("audio", 1e300), ("vision", 1e300), ("vision", -1e300)):
        with pytest.raises(DataError, match=rf"train/{key} has 1 value .* of {value:g} or so, beyond".replace("+", r"\+")):
            read(changed(set_first(key, value)))


def shifted(part, keys=("text", "audio", "vision")):
    """Every sample's data at the end of its steps: two steps of padding come first."""
    for key in keys:
        array = part[key]
        part[key] = np.concatenate([np.zeros_like(array[:, :2]), array], 1)


def test_what_is_padded_at_the_start_is_moved_to_the_front(read, tmp_path):
    def at_end(part):
        part.pop("audio_lengths"), part.pop("vision_lengths")
        for key in ("text", "audio", "vision"):
            part[key] = np.concatenate([part[key], np.zeros_like(part[key][:, :2])], 1)
        part["text_bert"] = np.concatenate([part["text_bert"], np.zeros_like(part["text_bert"][:, :, :2])], 2)

    def at_start(part):
        part.pop("audio_lengths"), part.pop("vision_lengths")
        shifted(part)
        tokens = part["text_bert"]
        used = tokens[:, 1].sum(-1).astype(int)
        made = np.zeros((*tokens.shape[:2], tokens.shape[2] + 2), tokens.dtype)
        for row, old, n in zip(made, tokens, used):
            row[:, made.shape[2] - n :] = old[:, :n]
        part["text_bert"] = made
        for i, n in enumerate(used):  # the text's own rows follow its tokens
            part["text"][i] = 0
            part["text"][i, made.shape[2] - n :] = 1 + np.arange(n)[:, None]

    ds = read(changed(at_start))
    assert any("padded at the start; they are moved to the front" in w for w in ds.warnings)
    plain = load("mosi", "unaligned", put(tmp_path / "b" / PLACE, changed(at_end)).parents[2], tmp_path / "cache")
    for key in ("audio", "vision", "text_bert"):
        np.testing.assert_array_equal(ds.splits["train"][key], plain.splits["train"][key])
    used = ds.splits["train"]["text_bert"][:, 1].sum(-1)
    for row, n in zip(ds.splits["train"]["text"], used):
        assert (row[:n, 0] == 1 + np.arange(n)).all() and not row[n:].any()


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (lambda p: p.update(text_bert=p["text_bert"].transpose(0, 2, 1)), "expected .N, 3, L.; its last two axes are swapped"),
        (lambda p: p.update(text_bert=p["text_bert"][:, :, :3]), "has 3 tokens per sample and text 5 steps: it is shorter"),
        (lambda p: p["text_bert"].__setitem__((2, 1), 0), "has no token at all in 1 sample .first 'train._.2'"),
        (lambda p: p["text_bert"].__setitem__((2, 0, 0), 30522), "beyond bert-base-uncased's vocabulary of 30,522"),
        (lambda p: p.update(text=p["text_bert"].copy()), "holds token ids .whole numbers up to"),
        (lambda p: p.update(text=p["text_bert"][:, 0].copy()), "holds token ids"),
        (lambda p: p.update(raw_text="one string"), "has a single string in place of a list of transcripts"),
        (lambda p: p.update(regression_labels=np.eye(4)[[0] * len(p["id"])]), "several numbers per sample .a class per column"),
    ],
)
def test_what_cannot_be_meant_is_refused_by_sample(read, change, line):
    def with_large_ids(part):
        part["text_bert"][:, 0] = np.where(part["text_bert"][:, 1] > 0, 2000, 0)
        change(part)

    with pytest.raises(DataError, match=line):
        read(changed(with_large_ids))


def test_transcripts_that_are_not_there_are_never_the_word_nan(read):
    ds = read(changed(lambda p: p.update(raw_text=[np.nan, None, "nan", *["good"] * (len(p["id"]) - 3)])))
    assert ds.raw_text("valid") == ["", "", ""] and ds.raw_text("test")[3] == "good"
    assert "raw_text: 9 transcripts are None or NaN; they are read as empty" in ds.warnings


@pytest.mark.parametrize(("key", "rest"), [("audio", "text and vision"), ("vision", "text and audio"), ("text", "audio and vision")])
def test_a_modality_that_is_zero_or_absent_is_named_with_what_follows(read, key, rest):
    ds = read(changed(lambda p: p.update({key: np.zeros_like(p[key])})))
    assert f"train/{key} is zero everywhere: models run as {rest} only; with --modalities {rest.replace(' and ', ',')} reports say so" in ds.warnings
    ds = read(changed(lambda p: p.pop(key)))
    assert f"train: no {key}; zeros stand for it: models run as {rest} only; with --modalities {rest.replace(' and ', ',')} reports say so" in ds.warnings
    assert ds.splits["train"][key].shape[2] == 1 and not ds.splits["train"][key].any()


def test_a_list_per_split_under_msenas_name_is_a_word_level_file(read):
    with pytest.raises(DataError, match=r"this is a word-level file \(MAG-BERT, MISA\); put it into the data folder as mosi"):
        read(word_content())


def test_a_split_per_file_and_named_parts(tmp_path):
    from bench.data.convert import convert_file
    from bench.data.recognise import recognise

    data = word_content()
    for split, samples in data.items():
        named = [({"words": w, "facet": v, "covarep": a}, y, i) for (w, v, a), y, i in samples]
        put(tmp_path / f"misa/{split}.pkl", named if split == "dev" else samples)
    assert recognise(tmp_path / "misa/train.pkl")[0] == "one split of a word-level pickle (MAG-BERT, ITHP)"
    convert_file(tmp_path / "misa", tmp_path / "a/mosi.pkl")
    put(tmp_path / "b/mosi.pkl", data)
    one, other = (load("mosi", "word", tmp_path / f, tmp_path / "cache") for f in "ab")
    assert same(one, other, ("word_audio", "word_vision", "label")) and one.ids("valid") == other.ids("valid")
    (tmp_path / "misa/dev.pkl").unlink()
    with pytest.raises(DataError, match="dev.pkl: no such file"):
        convert_file(tmp_path / "misa", tmp_path / "c.pkl")


def test_labels_of_seven_columns_give_their_first(tmp_path):
    def file(columns):
        data = word_content()
        for split, samples in data.items():
            data[split] = [(inner, np.array([[0.1 * i, *columns]]), name) for i, (inner, _, name) in enumerate(samples)]
        put(tmp_path / "data/mosei.pkl", data)
        return load("mosei", "word", tmp_path / "data", tmp_path / "cache")

    ds = file([0, 1, 2, 3, 0, 0.5])
    assert ds.splits["train"]["label"].tolist() == pytest.approx([0, 0.1, 0.2])
    assert "label: 7 samples have 7 labels; the first, the sentiment, is read and six emotions are not" in ds.warnings
    with pytest.raises(DataError, match="7 numbers per sample, which are not sentiment and six emotions"):
        file([-1, 0, 0, 0, 0, 0])


def test_videos_and_copies_in_two_splits_are_counted(read):
    data = content()
    data["test"]["id"] = np.array([f"train$_${10 + i}" for i in range(4)])
    for key in ("text", "audio", "vision"):
        data["test"][key][0] = data["train"][key][5]
    warnings = " | ".join(read(data).warnings)
    assert "1 of 1 video of test occurs in train too, first 'train'" in warnings
    assert "1 sample of test has the features of samples of train under another id, first 'train$_$10' = 'train$_$5'" in warnings


def test_a_bad_file_replaced_by_a_good_one_runs(read, tmp_path):
    path = put(tmp_path / PLACE, content())
    good = path.read_bytes()
    path.write_bytes(good[: len(good) // 2])
    with pytest.raises(DataError, match="download it again"):
        load("mosi", "unaligned", tmp_path / "data", tmp_path / "cache")
    path.write_bytes(good)
    assert load("mosi", "unaligned", tmp_path / "data", tmp_path / "cache").size("train") == 6


@pytest.mark.parametrize(
    ("place", "folder", "line"),
    [
        ("MOSI/Processed/unaligned_50 (1).pkl", ".", r"found .*unaligned_50 \(1\).pkl: move or rename it"),
        ("MOSI/Processed/feature.pkl", ".", "found .*feature.pkl: move or rename it"),
        ("all/MOSI/Processed/unaligned_50.pkl", ".", "found .*all/MOSI/Processed/unaligned_50.pkl: move or rename it"),
        ("MOSI/Processed/unaligned_50.pkl", "MOSI", "found .*unaligned_50.pkl: (give --data|move or rename)"),
    ],
)
def test_a_file_in_the_wrong_place_is_found(tmp_path, place, folder, line):
    put(tmp_path / "data" / place, content())
    with pytest.raises(DataError, match=line):
        load("mosi", "unaligned", tmp_path / "data" / folder, tmp_path / "cache")


def test_sims_v2_is_a_dataset_of_its_own(tmp_path):
    from bench.experiments.common import settings

    data = content()
    for part in data.values():
        part["regression_labels"] = part["regression_labels"] / 3
        part |= {f"regression_labels_{m}": part["regression_labels"] for m in "TAV"}
    put(tmp_path / "SIMSv2/Processed/unaligned.pkl", data)
    ds = load("simsv2", "unaligned", tmp_path, tmp_path / "cache")
    assert ds.spec.metrics == "sims" and ds.has_unimodal and ds.vocabulary == "bert-base-chinese"
    assert settings("msmix", "lmf", "simsv2") == settings("msmix", "lmf", "sims")  # nobody has tuned on it


def test_variants_are_told_apart_by_what_is_in_them(read):
    ds = read(content())
    assert variants.variant(ds) is None
    assert "train has 6 clips, not 1,284" in variants.differences(ds)
    sizes = {"train": 1283, "valid": 214, "test": 686}
    fake = copy.copy(ds)
    object.__setattr__(fake, "splits", {s: {"label": np.zeros(n), "audio": np.zeros((1, 7, 5))} for s, n in sizes.items()})
    assert variants.variant(fake)["title"].startswith("the CMU SDK's older division of MOSI (2,183 clips)")
    assert variants.title(variants.variant(fake)).endswith("; no source was found for how the 2,183 are divided")
    for entry in variants.table():
        assert "no source was found for" in variants.title(entry) or not entry.get("unconfirmed")
        assert sum(entry.get("sizes", [])) in (0, 2199, 2183, 22856, 22777, 2281, 4403, 9588) and entry["source"]


def test_data_check_is_a_page(tmp_path, capsys):
    from bench.cli import main
    from bench.data.tools import write_synthetic

    write_synthetic(tmp_path / "data", ["mosi"], formats=["msena", "word"])
    old = pickle.loads((tmp_path / "data/mosi.pkl").read_bytes())
    put(tmp_path / "data/MOSEI.old/other.pkl", old)
    (tmp_path / "data/half.pkl").write_bytes(b"<html>")
    assert main(["data", "check", str(tmp_path / "data"), "--json", "--html", str(tmp_path / "page.html")]) == 0
    found = json.loads(capsys.readouterr().out)
    rows = {(r["dataset"], r["features"]): r for r in found["files"]}
    scores = rows["mosi", "unaligned"]["baselines"]
    assert scores["ridge on text"]["non0_acc2"] > 0.7 > scores["majority"]["non0_acc2"]
    assert scores["majority"]["corr"] is None
    facts = rows["mosi", "word"]["facts"]
    assert sum(facts["labels"]["train"]["counts"]) == 240 and facts["streams"]["word_vision"]["shape"] == [47]
    assert rows["sims", "unaligned"]["state"] == "missing"
    whats = {o["file"].rsplit("/", 1)[1]: o["what"] for o in found["others"]}
    assert whats == {"other.pkl": "a word-level pickle (MAG-BERT, ITHP)", "half.pkl": "unusable"}
    page = (tmp_path / "page.html").read_text()
    assert page.count("<svg") == 9 and "ridge on text" in page and "src=" not in page and "href=" not in page
    assert main(["data", "check", str(tmp_path / "data"), "--quick"]) == 0
    assert "a web page, saved in place of the file" in " ".join(capsys.readouterr().out.split())


def test_plans_and_doctor_tell_what_a_file_is(tmp_path, capsys):
    from bench.cli import main
    from bench.data.tools import write_synthetic

    write_synthetic(tmp_path / "data", ["mosi"], formats=["msena"])
    put(tmp_path / "data/mosi.pkl", word_content())
    (tmp_path / "data/MOSEI").mkdir()
    (tmp_path / "data/MOSEI/aligned_50.pkl").write_bytes(b"<!DOCTYPE html>")
    put(tmp_path / "data/SIMS/unaligned_39 (1).pkl", content())
    assert main(["doctor", "--data", str(tmp_path / "data")]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "+ mosi/unaligned: synthetic" in said and "+ mosi/word: custom" in said
    assert "aligned_50.pkl: not a pickle (it starts with b'<!DOCTYPE html>'): a web page" in said
    assert "unaligned_39 (1).pkl: move or rename it" in said
