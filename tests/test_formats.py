"""Word-level (MAG) and HKT pickles: reading, sub-words, context and punchline, tokens of the right vocabulary."""

import pickle
from collections import defaultdict
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from bench import encoders
from bench.data import prepare, subwords, tools
from bench.data.dataset import load
from bench.data.hkt import context_words, punchline_words
from bench.data.resident import Resident
from bench.errors import BenchError, DataError
from bench.models.base import Inputs
from tests.formats import encoder_folder, hkt_content, hkt_rows, put, word_content

pytest.importorskip("transformers")
CLS, SEP, UN, BELIEV, ABLE, GOOD, MOVIE, A, DOT, BAD, SO = 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12


@pytest.fixture
def word(tmp_path):
    """Writes a word-level file and loads it."""
    def loaded(data, file="mosi.pkl"):
        put(tmp_path / "data" / file, data)
        return load("mosi", "word", tmp_path / "data", tmp_path / "cache")

    return loaded


@pytest.fixture
def hkt(tmp_path):
    def loaded(data, name="mustard"):
        put(tmp_path / "data" / f"{name}.pkl", data)
        return load(name, "hkt", tmp_path / "data", tmp_path / "cache")

    return loaded


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    return encoder_folder(tmp_path_factory.mktemp("encoders") / "bert")


# ---------------------------------------------------------------- word


@pytest.mark.parametrize("file", ["mosi.pkl", "MOSI/word.pkl", "mosi/MOSI.pkl"])
def test_a_word_file_is_read_as_it_is(word, file):
    data = word_content()
    ds = word(data, file)
    assert (ds.provenance, ds.format, ds.ids("valid"), ds.aligned) == ("custom", "word", ["dev[0]", "dev[1]"], True)
    assert ds.strings("train")["words"] == [s[0][0] for s in data["train"]]
    assert ds.raw_text("train")[1] == "a good movie"
    arrays = ds.splits["train"]
    assert arrays["word_start"].tolist() == [0, 2, 5, 6] and arrays["label"].tolist() == [-1, -0.5, 0]
    np.testing.assert_array_equal(arrays["word_vision"], np.concatenate([s[0][1] for s in data["train"]]))
    np.testing.assert_array_equal(arrays["word_audio"], np.concatenate([s[0][2] for s in data["train"]]))
    with pytest.raises(DataError, match="words have no shape before an encoder is chosen"):
        ds.inputs()


def test_numbered_words_and_a_word_table_beside_them(word, monkeypatch):
    """The layout of MISA's files, and the defaultdict with the writing script's own factory."""
    import __main__

    data = word_content()
    for split, samples in data.items():
        data[split] = [((np.arange(len(w)), v, a, w), label, name) for (w, v, a), label, name in samples]
    monkeypatch.setattr(__main__, "return_unk", return_unk, raising=False)
    monkeypatch.setattr(return_unk, "__module__", "__main__")
    data["word2id"] = defaultdict(return_unk, {"good": 1})
    assert word(data).strings("train")["words"][0] == ["so", "unbelievable"]


def return_unk():
    return 0


def test_every_piece_of_a_word_gets_the_words_row(word, bert):
    data = word_content()
    ds = prepare.with_pieces(word(data), bert, max_len=7)
    first = ds.splits["train"]
    assert first["text_bert"][0].tolist() == [[CLS, SO, UN, BELIEV, ABLE, SEP, 0], [1] * 6 + [0], [0] * 7]
    (_, vision, audio), *_ = data["train"][0]
    expected = np.zeros((7, 5), np.float32)
    expected[1:5] = vision[[0, 1, 1, 1]]
    np.testing.assert_array_equal(first["vision"][0], expected)
    np.testing.assert_array_equal(first["audio"][0, 1:5], audio[[0, 1, 1, 1]])
    assert not first["audio"][0, [0, 5, 6]].any()
    assert first["lengths"].tolist() == first["audio_lengths"].tolist() == [6, 5, 3]
    cut = prepare.with_pieces(word(data), bert, max_len=5).splits["train"]
    assert cut["text_bert"][0, 0].tolist() == [CLS, SO, UN, BELIEV, SEP]  # the tail is cut, SEP stays
    np.testing.assert_array_equal(cut["vision"][0], expected[:5] * [[1], [1], [1], [1], [0]])
    assert Inputs(**ds.inputs()) == Inputs((7, 0), (7, 4), (7, 5), 3.0, 3, True)


def test_where_cls_stands_last_padding_stands_on_the_left(word, tmp_path):
    data = word_content()
    ds = prepare.with_pieces(word(data), encoder_folder(tmp_path / "xlnet", "xlnet"), max_len=6)
    first = ds.splits["train"]
    assert first["text_bert"][1].tolist() == [[0, A, GOOD, MOVIE, SEP, CLS], [0, 1, 1, 1, 1, 1], [3, 0, 0, 0, 0, 2]]
    np.testing.assert_array_equal(first["audio"][1, 1:4], data["train"][1][0][2])
    assert not first["audio"][1, [0, 4, 5]].any() and first["lengths"][1] == 5


def test_byte_level_pieces_keep_the_blank_before_a_word(tmp_path):
    pieces = subwords.arrange([["so", "good", "so"]], np.array([0]), encoder_folder(tmp_path / "bytes", "bytes"), 6)
    assert pieces.tokens[0, 0].tolist() == [CLS, 4, 7, 5, SEP, 0]  # so, Ġgood, Ġso


def test_shouted_words_are_lowered_but_for_the_first_letter():
    tiny = partial(subwords.arrange, start=np.array([0]), name="tiny", max_len=4)
    assert (tiny([["VERY", "GOOD"]]).tokens == tiny([["Very", "good"]]).tokens).all()
    assert encoders.sentence_case("I LOVE IT") == "I love it" and encoders.sentence_case("I love IT") == "I love IT"


def test_word_pieces_are_made_once_per_encoder_and_length(word, bert, monkeypatch):
    ds, calls = word(word_content()), []
    arrange = subwords.arrange
    monkeypatch.setattr(subwords, "arrange", lambda *a, **k: calls.append(a[2:4]) or arrange(*a, **k))
    for length in (7, 7, 6, 7):
        prepare.with_pieces(ds, bert, length)
    prepare.with_pieces(ds, "tiny", 7)
    assert calls == [(bert, 7)] * 3 + [(bert, 6)] * 3 + [("tiny", 7)] * 3  # three splits each
    assert not prepare.with_pieces(ds, bert, 7).splits["train"]["audio"].flags.writeable


def test_nan_and_minus_infinity_become_zero_and_are_counted(word, bert):
    data = word_content()
    data["test"][0][0][1][1, 2] = np.nan
    data["dev"][0][0][2][0, :2] = -np.inf
    ds = word(data)
    assert "visual: 1 value of NaN set to 0" in ds.warnings and "acoustic: 2 values of -inf set to 0" in ds.warnings
    assert prepare.with_pieces(ds, bert, 7).splits["test"]["vision"][0, 2:5, 2].tolist() == [0, 0, 0]


def _sample(split, change):
    return lambda d: d.__setitem__(split, [change(d[split][0]), *d[split][1:]])


def _inner(split, change):
    return _sample(split, lambda s: (change(*s[0]), *s[1:]))


@pytest.mark.parametrize(
    ("damage", "line"),
    [
        (lambda d: d.pop("dev"), "not a word-level file: no split 'dev'; found 'train', 'test'"),
        (lambda d: d.update(test=[]), "test is empty"),
        (lambda d: d.update(test={"id": 1}), "'test' is no list"),
        (_sample("train", lambda s: s[0]), r"train sample 0 is not \(\(words, visual, acoustic\), label, segment\)"),
        (_sample("dev", lambda s: ((s[0][0],), *s[1:])), "valid sample 0 is not"),
        (_inner("train", lambda w, v, a: ([], v[:0], a[:0])), r"train sample 0 \('train\[0\]'\) has no words"),
        (_inner("test", lambda w, v, a: (w, v[:1], a)), r"test/visual of 'test\[0\]' has 1 row for 2 words"),
        (_inner("test", lambda w, v, a: (w, v, a[:, :3])), r"test/acoustic has samples of shape \[3\]; in train: \[4"),
        (_inner("train", lambda w, v, a: (w, v, a[:, 0])), "train/acoustic of .* is no table of numbers"),
        (_inner("train", lambda w, v, a: (w, v + np.inf, a)), r"train/visual has 10 .*\(first 'train\[0\]'\) of inf"),
        (_sample("train", lambda s: (s[0], np.array([[3.5]]), s[2])), r"train/label has 1 .* outside \[-3, 3\]"),
        (_sample("train", lambda s: (s[0], np.zeros(2), s[2])), r"train/label has samples of different shapes: the first is \[2\]"),
    ],
)  # fmt: skip
def test_a_damaged_word_file_is_named_in_one_line(word, damage, line):
    data = word_content()
    damage(data)
    with pytest.raises(DataError, match=line) as caught:
        word(data)
    assert "\n" not in str(caught.value) and "mosi.pkl: " in str(caught.value)


def test_files_of_another_format_are_refused(word, hkt, clean):
    with pytest.raises(DataError, match="is not .*words, visual, acoustic"):
        word(hkt_content())
    with pytest.raises(DataError, match="is not .*punchline"):
        hkt(word_content())
    with pytest.raises(DataError, match="not a word-level file: 'train' is no list"):
        word(pickle.loads((clean / "MOSI/Processed/aligned_50.pkl").read_bytes()))
    with pytest.raises(DataError, match="mustard.pkl: not an HKT file: expected a dict of splits, found list"):
        hkt([1])


# ---------------------------------------------------------------- context and punchline


def test_full_stops_stick_to_the_words_before_them():
    assert context_words(["I see", "", "you do"]) == ["I", "see.", "you", "do"]  # ". ".join puts none after the last
    assert punchline_words("so what") == ["so", "what."] and context_words([]) == []


def test_context_and_punchline(hkt, bert):
    ds = hkt(hkt_content())
    assert not any("official" in w for w in ds.warnings)  # MUStARD's division is not published
    assert any("2 samples of valid have the features of samples of train under another id" in w for w in ds.warnings)
    ds = prepare.with_pieces(ds, bert)
    arrays, L = ds.splits["train"], 77
    ids = [CLS, A, GOOD, MOVIE, DOT, SO, BAD, SEP, UN, BELIEV, ABLE, A, DOT, SEP]
    assert arrays["text_bert"][0, 0].tolist() == ids + [0] * (L - 14)
    assert arrays["text_bert"][0, 2].tolist() == [0] * 8 + [1] * 6 + [0] * (L - 14)
    own = [None, 1, 2, 3, 3, 4, 5, None, 100, 100, 100, 101, 101, None]  # first entry of each piece's row
    for name, columns in (("vision", np.arange(55, 91)), ("audio", np.arange(60)), ("hcf", np.arange(4))):
        expected = np.zeros((L, len(columns)))
        for i, row in enumerate(own):
            expected[i] = 0 if row is None else row + columns / 100
        np.testing.assert_allclose(arrays[name][0], expected, rtol=1e-6)
    i = Inputs(**ds.inputs())
    assert (i.text, i.audio, i.vision, i.hcf, i.task) == ((77, 0), (77, 60), (77, 36), (77, 4), "binary")


@pytest.mark.parametrize(
    ("length", "ids"),
    [
        (12, [CLS, MOVIE, DOT, SO, BAD, SEP, UN, BELIEV, ABLE, A, DOT, SEP]),  # the context's front goes first
        (8, [CLS, SEP, UN, BELIEV, ABLE, A, DOT, SEP]),
        (6, [CLS, SEP, UN, BELIEV, ABLE, SEP]),  # then the punchline's end
    ],
)
def test_the_contexts_front_is_cut_before_the_punchlines_end(hkt, bert, length, ids):
    ds = hkt(hkt_content())
    file = replace(ds.spec.features["hkt"], text=(length, 0))
    ds = replace(ds, spec=replace(ds.spec, features={"hkt": file}))
    arrays = prepare.with_pieces(ds, bert).splits["train"]
    assert arrays["text_bert"][0, 0].tolist() == ids
    row_of = {UN: 100, BELIEV: 100, ABLE: 100, A: 101, MOVIE: 3, SO: 4, BAD: 5}
    for i, piece in enumerate(ids):
        if piece in row_of:
            assert arrays["hcf"][0, i, 0] == row_of[piece]


def test_a_sample_without_context(hkt, bert):
    data = hkt_content()
    (punchline, _, name, label) = data["train"][0]
    data["train"][0] = (punchline, ([], *(np.zeros((0,)) for _ in range(3))), name, label)
    arrays = prepare.with_pieces(hkt(data), bert).splits["train"]
    assert arrays["text_bert"][0, 0, :8].tolist() == [CLS, SEP, UN, BELIEV, ABLE, A, DOT, SEP]
    assert arrays["hcf"][0, :8, 0].tolist() == [0, 0, 100, 100, 100, 101, 101, 0]


@pytest.mark.parametrize(
    ("damage", "line"),
    [
        (_sample("train", lambda s: s[:3]), r"train sample 0 is not \(\(punchline, visual"),
        (_sample("train", lambda s: (s[0], ("a text", *s[1][1:]), *s[2:])), "train sample 0 is not"),
        (_sample("train", lambda s: ((" ", *s[0][1:]), *s[1:])), r"train sample 0 \('id0'\) has no words"),
        (_sample("dev", lambda s: (s[0], (["one more than rows it has"], *s[1][1:]), *s[2:])), "'id3' has 5 rows"),
        (_inner("test", lambda w, v, a, h: (w, v, a[:, :80], h)), r"samples of shape \[80\]; in train: \[81"),
        (_sample("test", lambda s: (*s[:3], 2)), r"test/label has 1 value .*'id5'\) other than 0 and 1"),
    ],
)  # fmt: skip
def test_a_damaged_hkt_file_is_named_in_one_line(hkt, damage, line):
    data = hkt_content()
    damage(data)
    with pytest.raises(DataError, match=line) as caught:
        hkt(data)
    assert "\n" not in str(caught.value) and "mustard.pkl: " in str(caught.value)


def test_rows_without_words_are_cut_and_counted(hkt, bert):
    data = hkt_content()
    data["train"][0] = (("unbelievable a", *hkt_rows(4, 100)), *data["train"][0][1:])
    ds = hkt(data)
    assert "hcf: 1 sample has more rows than words; the last ones are not read" in ds.warnings
    assert prepare.with_pieces(ds, bert).splits["train"]["hcf"][1, 8, 0] == 100


# ---------------------------------------------------------------- tokens of M-SENA files


@pytest.fixture(scope="module")
def clean(tmp_path_factory):
    return tools.write_synthetic(tmp_path_factory.mktemp("clean"), ["mosi", "sims"], formats=["msena"])[0].parents[2]


@pytest.fixture
def msena(tmp_path, clean):
    """A generated file with changes, under a real name."""
    def loaded(name="mosi", change=lambda data: None):
        file = {"mosi": "MOSI/Processed/aligned_50.pkl", "sims": "SIMS/Processed/unaligned_39.pkl"}[name]
        data = pickle.loads((clean / file).read_bytes())
        change(data)
        put(tmp_path / "data" / file, data)
        return load(name, "aligned" if name == "mosi" else "unaligned", tmp_path / "data", tmp_path / "cache")

    return loaded


def test_only_an_encoder_of_the_files_vocabulary_gets_its_ids(msena, bert, monkeypatch):
    monkeypatch.setitem(encoders.SPECS, "english", encoders.EncoderSpec("english", vocabulary="bert-base-uncased"))
    monkeypatch.setitem(encoders.SPECS, "chinese", encoders.EncoderSpec("chinese", vocabulary="bert-base-chinese"))
    mosi, sims = msena("mosi"), msena("sims")
    assert (mosi.vocabulary, sims.vocabulary) == ("bert-base-uncased", "bert-base-chinese")
    assert prepare.with_pieces(mosi, "english") is mosi and prepare.with_pieces(sims, "chinese") is sims
    for ds, other in ((mosi, bert), (sims, bert)):
        own = prepare.with_pieces(ds, other).splits["test"]["text_bert"]
        assert own.shape == ds.splits["test"]["text_bert"].shape
        np.testing.assert_array_equal(own, encoders.tokenise(ds.raw_text("test"), other, own.shape[2]))
        assert own[:, 0].max() < 20 < ds.splits["test"]["text_bert"][:, 0].max()  # no id of the file's vocabulary
    for ds, other in ((mosi, "chinese"), (sims, "english")):
        with pytest.raises(BenchError, match=f"text encoder '{other}' is not on this machine"):
            prepare.with_pieces(ds, other)


def test_an_encoded_copy_has_its_encoders_vocabulary(msena, bert):
    ds = msena("mosi", lambda data: data.update(text_encoder={"name": "roberta-base", "sha256": "0"}))
    assert (ds.text_encoder, ds.vocabulary) == ("roberta-base", "roberta-base")
    ds = msena("sims", lambda data: data.update(text_encoder={"name": "minilm", "sha256": "0"}))
    assert ds.vocabulary == "bert-base-uncased"
    assert prepare.with_pieces(ds, "tiny") is ds


def test_tokens_are_made_of_transcripts_where_the_file_has_none(msena, bert):
    def without(*keys):
        return lambda data: [data[s].pop(k) for s in ("train", "valid", "test") for k in keys]

    made = prepare.with_pieces(msena("mosi", without("text_bert")), bert)
    assert Resident(made, tokens=True).batch("test", torch.tensor([0]))["text_bert"].shape == (1, 3, 16)
    with pytest.raises(DataError, match="tokens .its text_bert is of bert-base-uncased. and there is no raw_text"):
        prepare.with_pieces(msena("mosi", without("raw_text")), bert)


# ---------------------------------------------------------------- generated files


@pytest.mark.parametrize(("name", "features", "widths"), [
    ("mosi", "word", (74, 47)), ("mosei", "word", (74, 35)),
    ("ur_funny", "hkt", (60, 36)), ("mustard", "hkt", (60, 36)),
])  # fmt: skip
def test_generated_words_have_a_row_exactly_where_a_piece_stands_for_a_word(name, features, widths):
    ds = load(f"synthetic-{name}", features)
    assert ds.provenance == "synthetic" and ds.warnings == () and ds.spec.name == name
    own = prepare.with_pieces(ds, "tiny")
    for split in ("train", "test"):
        arrays = own.splits[split]
        ids, mask = arrays["text_bert"][:, 0], arrays["text_bert"][:, 1].astype(bool)
        of_word = mask & (ids != 101) & (ids != 102)
        np.testing.assert_array_equal(arrays["lengths"], mask.sum(1))
        for stream, width in zip(("audio", "vision"), widths):
            assert arrays[stream].shape[2] == width
            np.testing.assert_array_equal(arrays[stream].any(-1), of_word)
    if ds.spec.binary:
        label, train = ds.splits["train"]["label"], ds.splits["train"]
        assert 0.45 < label.mean() < 0.55 and set(np.unique(label)) == {0, 1}
        per_clip = np.add.reduceat(train["word_hcf"].mean(1), train["word_start"][:-1])
        assert np.corrcoef(per_clip, label)[0, 1] > 0.3  # human-centric features say something


def test_generated_word_files_hold_the_clips_of_the_generated_msena_file():
    words, msena = load("synthetic-mosi", "word"), load("synthetic-mosi", "aligned")
    for split in ("train", "valid", "test"):
        assert words.ids(split) == msena.ids(split) and words.raw_text(split) == msena.raw_text(split)
        np.testing.assert_array_equal(words.splits[split]["label"], msena.splits[split]["label"])


def test_generated_numbers_change_only_with_the_generators_version():
    from bench.data import synthetic_words

    assert synthetic_words.GENERATOR == 1
    keys = (("mosi", "word", "word_audio"), ("ur_funny", "hkt", "word_vision"), ("mustard", "hkt", "word_hcf"))
    sums = [float(np.abs(load(f"synthetic-{n}", f).splits["train"][k]).sum(dtype=np.float64)) for n, f, k in keys]
    assert sums == pytest.approx([287718.03922, 271668.72681, 16145.66264], rel=1e-6)
