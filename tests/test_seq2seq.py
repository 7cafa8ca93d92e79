"""UniMSE inside T5 and MO-Sarcation inside BART: what they leave of the transformer, what they train, what they need."""

import types

import numpy as np
import pytest
import torch
from torch import nn

from bench import encoders
from bench.errors import BenchError
from bench.models import mo_sarcation, unimse
from bench.models.base import Inputs
from bench.models.parts import t5_adapters

transformers = pytest.importorskip("transformers")

INPUTS = Inputs((6, 0), (9, 5), (8, 7))
PIECES = ["negative", "neutral", "positive", "good", "bad", "movie", "sst2", "sentence", ":", "-", ".", *map(str, range(10))]
SIZES = {
    "t5": lambda n: transformers.T5Config(
        vocab_size=n, d_model=16, d_kv=8, d_ff=24, num_layers=5, num_decoder_layers=4, num_heads=2, decoder_start_token_id=0,
    ),
    "bart": lambda n: transformers.BartConfig(
        vocab_size=n, d_model=16, encoder_layers=3, decoder_layers=2, encoder_attention_heads=2, decoder_attention_heads=2,
        encoder_ffn_dim=24, decoder_ffn_dim=24, max_position_embeddings=32, pad_token_id=0, eos_token_id=1, bos_token_id=2,
        decoder_start_token_id=1,
    ),
}


def write(folder, family: str) -> str:
    """An encoder folder of a few random weights, with a tokenizer of whole words, digits and signs."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers, processors

    vocabulary = {w: i for i, w in enumerate(["<pad>", "</s>", "<s>", "<unk>", *PIECES])}
    torch.manual_seed(4)
    cls = transformers.T5ForConditionalGeneration if family == "t5" else transformers.BartModel
    with encoders.loading(family):
        cls(SIZES[family](len(vocabulary))).save_pretrained(folder)
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Split(Regex(r"[0-9.:-]"), "isolated"),
    ])
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", unk_token="<unk>", eos_token="</s>").save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def local(tmp_path_factory) -> dict[str, str]:
    return {family: write(tmp_path_factory.mktemp("weights") / family, family) for family in SIZES}


def batch(name: str, n: int = 4) -> dict[str, torch.Tensor]:
    g = torch.Generator().manual_seed(5)
    texts = ["good movie", "bad", "bad bad movie", "good good good good good good"][:n]
    return {
        "text_bert": torch.from_numpy(encoders.tokenise(texts, name, INPUTS.text[0])),
        "audio": torch.randn((n, *INPUTS.audio), generator=g), "vision": torch.randn((n, *INPUTS.vision), generator=g),
        "audio_lengths": torch.tensor([9, 4, 1, 6])[:n], "vision_lengths": torch.tensor([2, 8, 8, 3])[:n],
        "label": torch.tensor([2.4, -3.0, 0.0, -0.8])[:n], "index": torch.arange(n),
    }


class Through(nn.Module):
    """In an adapter's place: what went in."""

    def forward(self, states, after=None, **_):
        return states if after is None else after


def bypass(model: nn.Module) -> None:
    from bench.models.parts.seq2seq import Inside

    for module in model.modules():
        if isinstance(module, Inside):
            module._mine = (Through(), *module._mine[1:])


# --- what is missing --------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("name, module", [("t5-base", unimse), ("bart-base", mo_sarcation)])
def test_without_its_weights_it_says_in_one_line_how_to_get_them(monkeypatch, tmp_path, name, module):
    monkeypatch.setenv("BENCH_ENCODERS", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    assert module.Params().encoder == name
    with pytest.raises(BenchError) as error:
        module.Model(module.Params(), INPUTS)
    line = str(error.value)
    assert line == encoders.available(name)[1] and "\n" not in line  # which `bench doctor` prints
    assert f"$BENCH_ENCODERS/{name}" in line and f"{name}'" in line and "hf download" in line


def test_another_kind_of_encoder_is_refused(local):
    with pytest.raises(BenchError, match="unimse: needs a T5, and encoder '.*' is of type 'bart'"):
        unimse.Model(unimse.Params(encoder=local["bart"]), INPUTS)
    with pytest.raises(BenchError, match="mo_sarcation: its modules sit inside BART"):
        mo_sarcation.Model(mo_sarcation.Params(encoder="none"), INPUTS)


# --- UniMSE -----------------------------------------------------------------------------------------------------------

def t5(local, **params) -> unimse.Model:
    torch.manual_seed(0)
    return unimse.Model(unimse.Params(encoder=local["t5"], **params), INPUTS)


def test_without_its_adapters_it_is_the_t5_of_its_folder(local):
    model, b = t5(local).eval(), batch(local["t5"])
    bypass(model)
    other = transformers.T5ForConditionalGeneration.from_pretrained(local["t5"]).eval()
    ids, mask, _ = b["text_bert"].unbind(1)
    front = torch.tensor(encoders.tokenizer(local["t5"])("sst2 sentence:", add_special_tokens=False)["input_ids"])
    ids, mask = torch.cat([front.expand(4, -1), ids], 1), torch.cat([torch.ones(4, len(front), dtype=torch.long), mask], 1)
    written = model.strings[[0, 5, 30, 60]][:, :-1]
    written = torch.cat([torch.zeros(4, 1, dtype=torch.long), written], 1)
    wanted = other(input_ids=ids, attention_mask=mask, decoder_input_ids=written).logits
    torch.testing.assert_close(model.logits(model.encode(b).latents, written), wanted)


def test_the_last_blocks_are_adapted_and_the_last_two_trained(local):
    model = t5(local)
    assert set(model.adapters) == {"encoder_2", "encoder_3", "encoder_4", "decoder_1", "decoder_2", "decoder_3"}
    trained = {n.split(".")[1] + n.split(".")[3] for n, p in model.t5.named_parameters(prefix="t5") if p.requires_grad}
    assert trained == {"encoder3", "encoder4", "decoder2", "decoder3"}
    losses = model.losses(batch(local["t5"]))
    losses["words"].backward()
    own = {id(p) for g in model.groups() for p in g.params}
    for name, p in model.named_parameters():
        assert (id(p) in own) == p.requires_grad == (p.grad is not None), name


def test_a_label_is_spelled_and_the_loss_is_the_cross_entropy_of_its_pieces(local):
    model, b = t5(local).eval(), batch(local["t5"])
    tokenizer = encoders.tokenizer(local["t5"])
    row = {unimse.spelled(s): k for k, s in enumerate(model.scores.tolist())}
    assert len(row) == 61 and [*row][:2] == ["negative -3.0", "negative -2.9"] and "neutral 0.0" in row and "positive 2.4" in row
    wanted = ["positive 2.4", "negative -3.0", "neutral 0.0", "negative -0.8"]
    encoded, total, pieces = model.encode(b), 0.0, 0
    for k, text in enumerate(wanted):
        ids = tokenizer(text)["input_ids"]  # ends in </s>
        assert model.strings[row[text]].tolist() == ids + [0] * (model.strings.shape[1] - len(ids))
        one = {key: x[k : k + 1] for key, x in encoded.latents.items()}
        logits = model.logits(one, torch.tensor([[0, *ids[:-1]]]))
        total, pieces = total + nn.functional.cross_entropy(logits[0], torch.tensor(ids), reduction="sum"), pieces + len(ids)
    torch.testing.assert_close(model.losses(b)["words"], total / pieces)


def test_what_is_written_is_the_likeliest_piece_by_piece_of_the_strings_that_remain(local):
    model, b = t5(local).eval(), batch(local["t5"])
    tokenizer, encoded = encoders.tokenizer(local["t5"]), model.encode(b)
    output = model.fuse(encoded.latents)
    for k in range(4):
        remaining = [[i for i in s if i] for s in model.strings.tolist()]
        ids: list[int] = []
        one = {key: x[k : k + 1] for key, x in encoded.latents.items()}
        while not ids or ids[-1] != 1:
            logits = model.logits(one, torch.tensor([[0, *ids]])).detach()[0, -1]
            ids.append(max({s[len(ids)] for s in remaining}, key=lambda i: float(logits[i])))
            remaining = [s for s in remaining if s[: len(ids)] == ids]
        assert [i for i in output.features["written"][k].tolist() if i] == ids
        text = tokenizer.decode(ids, skip_special_tokens=True).replace(" . ", ".").replace("- ", "-")
        assert text == unimse.spelled(float(output.prediction[k]))


@pytest.mark.parametrize("adapter", ["ffn", "parallel", "cross"])
def test_audio_and_vision_reach_both_sides_through_every_adapter(local, adapter):
    model, b = t5(local, adapter=adapter, contrast=True).eval(), batch(local["t5"])
    encoded = model.encode(b)
    written = torch.zeros(4, 1, dtype=torch.long)
    logits = model.logits(encoded.latents, written)
    for m in ("audio", "vision"):
        other = model.encode(b | {m: b[m].flip(0)})
        assert not torch.allclose(other.latents["text"], encoded.latents["text"], atol=1e-5)
        only = {**encoded.latents, m: other.latents[m]}
        assert not torch.allclose(model.logits(only, written), logits, atol=1e-6)
    losses = model.losses(b)
    assert set(losses) == {"words", "contrast_vision", "contrast_audio"}
    sum(losses.values()).backward()
    assert all(p.grad is not None for p in model.contrast.parameters())


def test_the_release_exchanges_the_rows_of_unsorted_batches_alone():
    x = torch.arange(4.0)[:, None, None]
    assert t5_adapters.permuted(x, torch.tensor([9, 7, 7, 2])).flatten().tolist() == [0, 1, 2, 3]
    assert t5_adapters.permuted(x, torch.tensor([1, 4, 2, 9])).flatten().tolist() == [3, 1, 2, 0]


# --- MO-Sarcation -----------------------------------------------------------------------------------------------------

def bart(local) -> mo_sarcation.Model:
    torch.manual_seed(0)
    return mo_sarcation.Model(mo_sarcation.Params(encoder=local["bart"]), INPUTS)


def test_without_its_modules_it_is_the_bart_of_its_folder_read_at_the_last_end(local):
    model, b = bart(local), batch(local["bart"])
    bypass(model)
    other = transformers.BartModel.from_pretrained(local["bart"]).eval()
    ids, mask, _ = b["text_bert"].unbind(1)
    states = other(input_ids=ids, attention_mask=mask).last_hidden_state  # BART shifts the pieces itself
    ends = [int(np.flatnonzero(row == 1)[-1]) for row in ids.numpy()]
    torch.testing.assert_close(model.encode(b).latents["fusion"], states[torch.arange(4), ends])


def test_audio_is_read_before_the_last_layer_but_one_and_vision_before_the_last(local):
    from bench.models.parts.seq2seq import Inside

    model = bart(local).eval()
    layers = model.bart.encoder.layers
    assert [isinstance(layer, Inside) for layer in layers] == [False, True, True]
    assert [layers[k]._mine[0].modality for k in (1, 2)] == ["audio", "vision"] and layers[1].before and layers[2].before
    b = batch(local["bart"])
    before = model(b).prediction
    for m in ("audio", "vision"):
        assert not torch.allclose(model(b | {m: b[m].flip(0)}).prediction, before, atol=1e-6)


def test_bart_is_frozen_and_stays_in_evaluation_mode(local):
    model = bart(local).train()
    assert model.training and not any(m.training for m in model.bart.modules() if type(m).__name__ == "BartEncoderLayer")
    (group,) = model.groups()
    named = dict(model.named_parameters())
    trained = {n for n, p in named.items() if any(p is q for q in group.params)}
    assert trained == {n for n in named if n.startswith(("fusions.", "head."))}
    model(batch(local["bart"])).prediction.sum().backward()
    assert all(named[n].grad is not None for n in trained) and all(p.grad is None for n, p in named.items() if n not in trained)


def test_it_trains_as_many_parameters_as_the_release_says():
    shapes = types.SimpleNamespace(text=(500, 768), audio=(1000, 768), vision=(480, 2048))
    parts = [mo_sarcation.ContextFusion(*shapes.text, *getattr(shapes, m), 0.2) for m in mo_sarcation.ORDER]
    count = sum(p.numel() for m in (*parts, mo_sarcation.Head(768)) for p in m.parameters())
    assert round(count / 1e6, 2) == 12.75
